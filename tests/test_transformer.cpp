// The transformer, both families: gradients of the whole model, one arithmetic for packed and
// cached forwards, and stories260K against an independent computation in double precision.
#include "tiny.hpp"

#include <plumb/io/llama.hpp>
#include <plumb/text/sentencepiece.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <fstream>
#include <numeric>

using namespace plumb;
using namespace test;

namespace {

PackedBatch packed_of(const std::vector<Tokens>& sequences) {
  PackedBatch packed;
  for (const Tokens& sequence : sequences) packed.add(sequence);
  return packed;
}

std::vector<Tokens> some_sequences(Index vocab, std::initializer_list<Index> lengths) {
  std::vector<Tokens> sequences;
  for (const Index n : lengths)
    sequences.push_back(random_tokens(n, vocab, 40 + static_cast<std::uint64_t>(n)));
  return sequences;
}

/// Hidden states of each sequence alone.
std::vector<float> hidden_of(const Model<Cpu>& model, const std::vector<Tokens>& sequences) {
  return model.transformer()(Batch<Cpu>::from(packed_of(sequences))).to_vector();
}

/// Hidden states of sequences that enter the cache `chunk` tokens at a time, in turn, each in the
/// slot named for it.
std::vector<std::vector<float>> cached_hidden(const Model<Cpu>& model,
                                              const std::vector<Tokens>& sequences,
                                              const Tokens& slot_of, std::size_t chunk) {
  const auto c = static_cast<std::size_t>(model.config().channels);
  auto cache = model.transformer().make_cache(static_cast<Index>(sequences.size()) + 2,
                                              model.config().context);
  std::vector<std::vector<float>> result(sequences.size());
  for (std::size_t begin = 0;; begin += chunk) {
    Tokens tokens, positions, slots;
    std::vector<std::size_t> owner;
    for (std::size_t s = 0; s < sequences.size(); ++s)
      for (std::size_t t = begin; t < std::min(begin + chunk, sequences[s].size()); ++t) {
        tokens.push_back(sequences[s][t]);
        positions.push_back(static_cast<std::int32_t>(t));
        slots.push_back(slot_of[s]);
        owner.push_back(s);
      }
    if (tokens.empty()) return result;
    const auto h =
        model.transformer()({ids(tokens), ids(positions), ids(slots)}, cache).to_vector();
    for (std::size_t row = 0; row < owner.size(); ++row)
      result[owner[row]].insert(result[owner[row]].end(),
                                h.begin() + static_cast<std::ptrdiff_t>(row * c),
                                h.begin() + static_cast<std::ptrdiff_t>((row + 1) * c));
  }
}

Model<Cpu> stories260k() {
  const LlamaFile file = read_llama(PLUMB_SOURCE_DIR "/examples/data/stories260K.bin");
  Model<Cpu> model({.vocab = file.vocab,
                    .context = file.context,
                    .channels = file.channels,
                    .layers = file.layers,
                    .heads = file.heads,
                    .kv_heads = file.kv_heads,
                    .hidden = file.hidden,
                    .tied_head = file.tied},
                   0);
  REQUIRE(file.arrays.size() == model.parameters().entries().size());
  for (const OwnedArray& array : file.arrays) {
    const auto& tensor = model.parameters()[array.name];
    REQUIRE(tensor.shape() == array.shape);
    std::copy(array.data.begin(), array.data.end(), tensor.data());
  }
  return model;
}

nlohmann::json golden() {
  std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/stories260k.json");
  return nlohmann::json::parse(file);
}

}  // namespace

TEST_CASE("gradient of a whole model's likelihood, every tensor, both families") {
  for (auto config : {tiny_llama(), tiny_gpt2()}) {
    CAPTURE(config.family.gated);
    const auto model = tiny_model(config);
    const auto packed = packed_of(some_sequences(config.vocab, {1, 6, 35}));
    const auto batch = Batch<Cpu>::from(packed);
    const auto targets = ids(random_tokens(packed.size(), config.vocab, 3));
    const auto logprobs = [&] {
      return head_logprob(model.transformer()(batch), model.transformer().head(), targets).logprob;
    };
    {
      Tape tape;
      const std::vector<float> ones(static_cast<std::size_t>(packed.size()), -1.0F);
      tape.backward(weighted_sum(logprobs(), Tensor<Cpu>::from(ones, {packed.size()})));
    }
    const auto loss = [&] {
      double sum = 0;
      for (const float logprob : logprobs().to_vector()) sum -= logprob;
      return sum;
    };
    for (const auto& entry : model.parameters().entries()) {
      CAPTURE(entry.name);
      // A key's bias shifts all scores of a query alike: its gradient is zero but for rounding.
      const double scale = contains(entry.name, "key_bias") ? 1.0 : 0.0;
      CHECK(gradient_error(entry.tensor, grad_of(entry.tensor), loss, 1e-2F, sanitized() ? 2 : 10,
                           scale) < 3e-3);
    }
  }
}

TEST_CASE("the cached forward has the bits of the packed one, however tokens arrive") {
  for (const auto& config : {tiny_llama(), tiny_gpt2()}) {
    const auto model = tiny_model(config);
    const auto sequences = some_sequences(config.vocab, {1, 5, 31, 32, 33, 80});
    for (const std::size_t chunk : {1U, 3U, 32U, 80U}) {
      CAPTURE(chunk);
      const auto cached = cached_hidden(model, sequences, {3, 0, 5, 1, 6, 2}, chunk);
      for (std::size_t s = 0; s < sequences.size(); ++s)
        CHECK(same_bits(cached[s], hidden_of(model, {sequences[s]})));
    }
  }
}

TEST_CASE("a sequence's hidden states do not depend on the batch around it") {
  for (const auto& config : {tiny_llama(), tiny_gpt2()}) {
    const auto model = tiny_model(config);
    const auto sequences = some_sequences(config.vocab, {7, 64, 1, 33, 80, 2});
    const auto together = hidden_of(model, sequences);
    std::vector<float> alone;
    for (const Tokens& sequence : sequences) {
      const auto h = hidden_of(model, {sequence});
      alone.insert(alone.end(), h.begin(), h.end());
    }
    CHECK(same_bits(together, alone));
  }
}

TEST_CASE("forward and gradient have the same bits for every instruction set and thread count") {
  for (const auto& config : {tiny_llama(), tiny_gpt2()}) {
    const auto model = tiny_model(config);
    const auto packed = packed_of(some_sequences(config.vocab, {7, 64, 1, 80, 79, 78, 2}));
    const auto targets = ids(random_tokens(packed.size(), config.vocab, 3));
    std::vector<float> values, gradient;
    const auto compare = [&] {
      model.parameters().flat().zero_grad();
      Tape tape;
      const auto h = model.transformer()(Batch<Cpu>::from(packed));
      tape.backward(cross_entropy(h, model.transformer().head(), targets));
      if (values.empty()) {
        values = h.to_vector();
        gradient = grad_of(model.parameters().flat());
      }
      CHECK(same_bits(values, h.to_vector()));
      CHECK(same_bits(gradient, grad_of(model.parameters().flat())));
    };
    for_each_isa([&](Isa isa) {
      CAPTURE(name(isa));
      for (const int threads : {1, 2, 3}) with_threads(threads, compare);
    });
  }
}

TEST_CASE("causal: a token changes nothing before it") {
  const auto model = tiny_model(tiny_llama());
  auto sequence = random_tokens(40, 19, 1);
  const auto before = hidden_of(model, {sequence});
  sequence[20] = (sequence[20] + 1) % 19;
  const auto after = hidden_of(model, {sequence});
  const std::size_t c = 24;
  CHECK(same_bits(std::span(before).first(20 * c), std::span(after).first(20 * c)));
  for (std::size_t row = 20; row < 40; ++row)
    CHECK_FALSE(
        same_bits(std::span(before).subspan(row * c, c), std::span(after).subspan(row * c, c)));
}

TEST_CASE("stories260K: logits and log-probabilities as computed independently") {
  const auto model = stories260k();
  const auto expected = golden();
  REQUIRE(expected["prompts"].size() == 3);
  for (const auto& prompt : expected["prompts"]) {
    const auto tokens = prompt["ids"].get<Tokens>();
    const auto n = static_cast<Index>(tokens.size());
    const auto h = model.transformer()(Batch<Cpu>::from(packed_of({tokens})));
    const auto z = linear(h.rows(n - 1, n), model.transformer().head());
    // Logits lie within ±20; 12 matrix products deep in float.
    CHECK(max_error(z.to_vector(), prompt["logits"].get<std::vector<double>>()) < 1e-4);

    const auto text = prompt["text_ids"].get<Tokens>();
    const double count = static_cast<double>(text.size() - 1);
    CHECK(-mean_nll(model, {text}) * count ==
          doctest::Approx(prompt["text_logprob"].get<double>()).epsilon(1e-5));
  }
}

TEST_CASE("stories260K: 64 tokens of greedy text, exactly") {
  const auto model = stories260k();
  const auto j = golden();
  std::vector<Tokens> prompts;
  for (const auto& prompt : j["prompts"]) prompts.push_back(prompt["ids"].get<Tokens>());
  SampleOptions options;
  options.sampling.temperature = 0;
  options.max_new_tokens = 64;
  const auto responses = sample(model, prompts, options);
  REQUIRE(responses.size() == prompts.size());
  for (std::size_t i = 0; i < responses.size(); ++i)
    CHECK(responses[i].tokens == j["prompts"][i]["greedy"].get<Tokens>());
}

TEST_CASE("stories260K: negative log-likelihood of stories held out") {
  const auto model = stories260k();
  const SentencePieceTokenizer tokenizer(PLUMB_SOURCE_DIR "/examples/data/tok512.bin", 512);
  const auto heldout = golden()["heldout"];
  std::vector<Tokens> stories;
  for (std::size_t i = 0; i < heldout["texts"].size(); ++i) {
    Tokens tokens = tokenizer.encode(heldout["texts"][i].get<std::string>());
    tokens.insert(tokens.begin(), tokenizer.bos());
    REQUIRE(tokens.size() - 1 == heldout["tokens"][i].get<std::size_t>());
    CHECK(mean_nll(model, {tokens}) ==
          doctest::Approx(heldout["nll"][i].get<double>()).epsilon(1e-5));
    stories.push_back(std::move(tokens));
  }
  CHECK(mean_nll(model, stories) ==
        doctest::Approx(heldout["mean_nll"].get<double>()).epsilon(1e-5));
}

TEST_CASE("mean_nll refuses what the model cannot read, by number") {
  const auto model = tiny_model(tiny_llama());
  CHECK(contains(message_of<DataError>([&] {
                   mean_nll(model, {{1, 2}, {3, 19}});
                 }),
                 "sequence 1 has token 19, outside the vocabulary of 19"));
  CHECK(contains(message_of<DataError>([&] { mean_nll(model, {{1, -1}}); }), "token -1"));
  CHECK(contains(message_of<DataError>([&] { mean_nll(model, {random_tokens(81, 19, 1)}); }),
                 "81 tokens; the context holds 80"));
  CHECK(contains(message_of<DataError>([&] { mean_nll(model, {{1}, {2}}); }), "two tokens"));
}

TEST_CASE("a configuration that cannot be built is refused with the reason") {
  const auto error = [](auto change) {
    TransformerConfig config = tiny_llama();
    change(config);
    return message_of<DataError>([&] { Model<Cpu>(config, 0); });
  };
  CHECK(contains(error([](auto& c) { c.layers = 0; }), "layers must be from 1"));
  CHECK(contains(error([](auto& c) { c.channels = 25; }), "25 channels do not split into 4 heads"));
  CHECK(contains(error([](auto& c) { c.kv_heads = 3; }), "4 heads do not share 3"));
  CHECK(contains(error([](auto& c) { c.channels = 20; }), "even head size, not 5"));
  CHECK(contains(error([](auto& c) { c.context = 1'000'000'000; }), "context must be from 1"));
  CHECK(contains(error([](auto& c) { c.norm_eps = -1; }), "norm_eps must be above 0"));
  CHECK(contains(error([](auto& c) { c.norm_eps = NAN; }), "norm_eps must be a finite number"));
  CHECK(contains(error([](auto& c) { c.rope_base = 0; }), "rope_base must be above 0; it is 0"));
  CHECK(contains(error([](auto& c) { c.family.activation = Activation::Gelu; }), "SwiGLU"));
  CHECK(contains(error([](auto& c) { c.channels = 4 * 258; }), "258 channels; at most 256"));
}
