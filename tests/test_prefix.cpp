// Beginnings that sequences of a batch share are computed once, and nothing shows it: rows have the
// bits of whole sequences, gradients their sum.
#include <doctest/doctest.h>

#include "tiny.hpp"

using namespace plumb;
using namespace test;

namespace {

/// Answers to prompts, and a dialogue that goes on: sequences of a batch in an order that mixes
/// them. Lengths on both sides of the blocks of keys.
std::vector<Tokens> related_sequences(Index vocab) {
  std::vector<Tokens> all;
  std::uint64_t seed = 1;
  const auto continued = [&](const Tokens& prompt, Index more) {
    Tokens sequence = prompt;
    const Tokens rest = random_tokens(more, vocab, 50 + seed++);
    sequence.insert(sequence.end(), rest.begin(), rest.end());
    all.push_back(sequence);
    return sequence;
  };
  for (const Index length : {1, 31, 33, 64}) {
    const Tokens prompt = random_tokens(length, vocab, 10 + static_cast<std::uint64_t>(length));
    for (const Index answer : {9, 1, 1, 16}) continued(prompt, answer);
  }
  const Tokens first = continued(random_tokens(20, vocab, 3), 12);
  const Tokens second = continued(first, 15);
  continued(second, 30);
  continued(second, 1);
  all.push_back(second);  // all of it is there
  all.push_back(Tokens(first.begin(), first.begin() + 5));
  std::swap(all[1], all[6]);
  return all;
}

PackedBatch packed_of(const std::vector<Tokens>& sequences, bool share) {
  PackedBatch packed(share);
  for (const Tokens& sequence : sequences) packed.add(sequence);
  return packed;
}

double largest(const std::vector<float>& values) {
  double most = 0;
  for (const float x : values) most = std::max(most, std::abs(static_cast<double>(x)));
  return most;
}

std::vector<TransformerConfig> models() { return {tiny_llama(), tiny_gpt2()}; }

/// What is computed of each sequence, token by token.
template <class D>
std::vector<float> rows_of(const Tensor<D>& hidden, const PackedBatch& packed, Index b) {
  std::vector<float> all;
  for (Index t = 0; t < packed.length(b); ++t) {
    const auto row = hidden.rows(packed.row(b, t), packed.row(b, t) + 1).to_vector();
    all.insert(all.end(), row.begin(), row.end());
  }
  return all;
}

}  // namespace

TEST_CASE_TEMPLATE(
    "prefixes: hidden states have the bits of whole sequences, on every instruction set", D, Cpu,
    CpuBf16) {
  for (const TransformerConfig& config : models()) {
    const auto model = tiny_model<D>(config);
    const auto sequences = related_sequences(config.vocab);
    const auto shared = packed_of(sequences, true);
    CHECK(2 * shared.size() < packed_of(sequences, false).size());
    std::vector<std::vector<float>> alone;
    for (const Tokens& sequence : sequences)
      alone.push_back(model.hidden(Batch<D>::from(packed_of({sequence}, false))).to_vector());
    for (const int threads : {1, 3})
      with_threads(threads, [&] {
        for_each_isa<D>([&](Isa isa) {
          CAPTURE(name(isa));
          const auto hidden = model.hidden(Batch<D>::from(shared));
          for (std::size_t b = 0; b < sequences.size(); ++b)
            CHECK(same_bits(rows_of(hidden, shared, static_cast<Index>(b)), alone[b]));
        });
      });
  }
}

TEST_CASE_TEMPLATE("prefixes: past a chunk of keys, and a long prompt of many answers", D, Cpu,
                   CpuBf16) {
  TransformerConfig config = tiny_llama();
  config.context = 600;
  const auto model = tiny_model<D>(config);
  std::vector<Tokens> sequences;
  for (const Index answer : {1, 40, 3}) {
    sequences.push_back(random_tokens(530, config.vocab, 5));
    const Tokens rest =
        random_tokens(answer, config.vocab, 60 + static_cast<std::uint64_t>(answer));
    sequences.back().insert(sequences.back().end(), rest.begin(), rest.end());
  }
  const auto shared = packed_of(sequences, true);
  CHECK(shared.size() <= 530 + 44);
  const auto hidden = model.hidden(Batch<D>::from(shared));
  for (std::size_t b = 0; b < sequences.size(); ++b)
    CHECK(same_bits(rows_of(hidden, shared, static_cast<Index>(b)),
                    model.hidden(Batch<D>::from(packed_of({sequences[b]}, false))).to_vector()));
}

TEST_CASE("prefixes: keys' gradients are the sequences', added in their order") {
  const AttentionShape shape{4, 2, 8, 0.35F};
  const auto sequences = related_sequences(19);
  const auto shared = packed_of(sequences, true);
  const auto keys = shared.keys();
  const Index n = shared.size();
  const auto q = random_tensor({n, 32}, 1), k = random_tensor({n, 16}, 2),
             v = random_tensor({n, 16}, 3), weight = random_tensor({n * 32}, 4);
  for (const auto& x : {q, k, v}) x.set_requires_grad(true);
  const auto run = [&] {
    for (const auto& x : {q, k, v}) x.zero_grad();
    backpropagate([&] {
      const auto y =
          attention(q, k, v, ids(shared.offsets), shape, {ids(keys.offsets), ids(keys.rows)});
      return weighted_sum(y.reshape({n * 32}), weight);
    });
    return std::vector<std::vector<float>>{grad_of(q), grad_of(k), grad_of(v)};
  };
  const auto all = run();

  // Sequence by sequence: its own queries against what it sees.
  std::vector<float> dk(static_cast<std::size_t>(n * 16)), dv(dk.size());
  for (Index b = 0; b < shared.sequences(); ++b) {
    const auto i = static_cast<std::size_t>(b);
    const Index length = shared.length(b), first = keys.offsets[i];
    const Index own = shared.offsets[i + 1] - shared.offsets[i];
    const auto rows = ids(Tokens(keys.rows.begin() + first, keys.rows.begin() + first + length));
    const auto seen_k = embedding(k, rows), seen_v = embedding(v, rows);
    const auto own_q = q.rows(shared.offsets[i], shared.offsets[i + 1]);
    const Tokens at{0, static_cast<std::int32_t>(own)}, of{0, static_cast<std::int32_t>(length)};
    auto y = Tensor<Cpu>::empty({own, 32}), lse = Tensor<Cpu>::empty({own, 4});
    auto dq = Tensor<Cpu>::zeros({own, 32});
    auto one_dk = Tensor<Cpu>::zeros({length, 16}), one_dv = Tensor<Cpu>::zeros({length, 16});
    kernels::attention_forward(Cpu{}, y.data(), lse.data(), own_q.data(), seen_k.data(),
                               seen_v.data(), at.data(), of.data(), 1, own, length, shape);
    kernels::attention_backward(Cpu{}, dq.data(), one_dk.data(), one_dv.data(),
                                weight.data() + shared.offsets[i] * 32, y.data(), lse.data(),
                                own_q.data(), seen_k.data(), seen_v.data(), at.data(), of.data(), 1,
                                own, length, shape);
    for (Index t = 0; t < length; ++t)
      for (Index d = 0; d < 16; ++d) {
        const auto to = static_cast<std::size_t>(shared.row(b, t) * 16 + d);
        dk[to] += one_dk.data()[t * 16 + d];
        dv[to] += one_dv.data()[t * 16 + d];
      }
  }
  CHECK(same_bits(all[1], dk));
  CHECK(same_bits(all[2], dv));
  for (const int threads : {1, 3})
    with_threads(threads, [&] {
      for_each_isa([&](Isa) {
        const auto again = run();
        for (std::size_t i = 0; i < 3; ++i) CHECK(same_bits(again[i], all[i]));
      });
    });
}

TEST_CASE("prefixes: the gradient of every weight is that of whole sequences") {
  for (const TransformerConfig& config : models()) {
    const auto sequences = related_sequences(config.vocab);
    std::vector<float> weights;
    for (std::size_t b = 0; b < sequences.size(); ++b)
      weights.push_back(0.3F * static_cast<float>(b % 5) - 0.4F);
    const auto gradient = [&](bool share) {
      const auto model = tiny_model(config, 7, ScalarHead::Reward);
      model.parameters().flat().zero_grad();
      const auto packed = packed_of(sequences, share);
      backpropagate([&] {
        return weighted_sum(detail::score_packed(model, packed), device_vector<Cpu>(weights));
      });
      return grad_of(model.parameters().flat());
    };
    const auto whole = gradient(false), shared = gradient(true);
    CHECK(max_error(shared, std::vector<double>(whole.begin(), whole.end()), largest(whole)) <
          2e-6);
    for (const int threads : {1, 3})
      with_threads(threads,
                   [&] { for_each_isa([&](Isa) { CHECK(same_bits(gradient(true), shared)); }); });
  }
}

TEST_CASE("rows: what is read has the bits and the gradient that it has among all rows") {
  for (const TransformerConfig& config : models()) {
    const auto model = tiny_model(config, 7, ScalarHead::Reward);
    const auto sequences = related_sequences(config.vocab);
    const auto packed = packed_of(sequences, true);
    Tokens all, some;  // sequence 2 is not read at all, sequence 3 as a whole
    for (Index b = 0; b < packed.sequences(); ++b)
      for (Index t = packed.length(b) - 1; b != 2 && t >= 0; t -= b == 3 ? 1 : 9 + b) {
        all.push_back(packed.row(b, t));
        if (t < packed.length(b) / 2 && b != 3) break;
      }
    some = all;
    const ReadRows read = read_rows(packed, {&some});
    REQUIRE(!read.rows.empty());
    for (std::size_t i = 0; i < all.size(); ++i)
      REQUIRE(read.rows[static_cast<std::size_t>(some[i])] == all[i]);
    const auto weights = random_vector(static_cast<Index>(all.size()), 5);
    const auto gradient = [&](const Batch<Cpu>& batch, const Tokens& rows) {
      model.parameters().flat().zero_grad();
      backpropagate([&] {
        const auto score = model.scalar(embedding(model.hidden(batch), device_vector<Cpu>(rows)));
        return weighted_sum(score, device_vector<Cpu>(weights));
      });
      return grad_of(model.parameters().flat());
    };
    const auto whole = gradient(Batch<Cpu>::from(packed), all);
    const auto part = gradient(Batch<Cpu>::from(packed, read), some);
    CHECK(max_error(part, std::vector<double>(whole.begin(), whole.end()), largest(whole)) < 2e-6);
    const auto expected =
        embedding(model.hidden(Batch<Cpu>::from(packed)), device_vector<Cpu>(all)).to_vector();
    for (const int threads : {1, 3})
      with_threads(threads, [&] {
        for_each_isa([&](Isa) {
          const auto hidden = model.hidden(Batch<Cpu>::from(packed, read));
          CHECK(hidden.dim(0) == static_cast<Index>(read.rows.size()));
          CHECK(same_bits(embedding(hidden, device_vector<Cpu>(some)).to_vector(), expected));
          CHECK(same_bits(gradient(Batch<Cpu>::from(packed, read), some), part));
        });
      });
  }
}

TEST_CASE(
    "rows: where nearly all are read, all are computed; and for a policy that knows no better") {
  const std::vector<Tokens> sequences{Tokens(16, 1), Tokens(16, 2)};
  Tokens rows{1, 20, 31};
  CHECK(read_rows(packed_of(sequences, true), {&rows}).rows.size() == 27);
  CHECK(rows == Tokens{0, 15, 26});  // 15 of the first sequence, 12 of the second
  rows = {1, 17};
  CHECK(read_rows(packed_of(sequences, true), {&rows}).rows.empty());
  CHECK(rows == Tokens{1, 17});
  rows = {31};
  CHECK(read_rows(packed_of(sequences, false), {&rows}).rows.empty());
}

TEST_CASE_TEMPLATE("prefixes: scores, features and likelihoods have the bits of sequences alone", D,
                   Cpu, CpuBf16) {
  const TransformerConfig config = tiny_llama();
  const auto model = tiny_model<D>(config, 7, ScalarHead::Reward);
  const auto sequences = related_sequences(config.vocab);
  const auto scores = reward_scores(model, sequences);
  std::vector<Answered> answered;
  for (const Tokens& sequence : sequences)
    answered.push_back({sequence, static_cast<Index>(sequence.size()) / 3});
  const auto features = response_features(model, answered, {0, 1, 2});
  double nll = 0, tokens = 0;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    CHECK(same_bits(reward_scores(model, {sequences[i]}), std::span(scores).subspan(i, 1)));
    const auto one = response_features(model, {answered[i]}, {0, 1, 2});
    CHECK(same_bits(one.values, std::span(features.values)
                                    .subspan(i * static_cast<std::size_t>(features.width()),
                                             static_cast<std::size_t>(features.width()))));
    if (sequences[i].size() < 2) continue;
    const auto predicted = static_cast<double>(sequences[i].size() - 1);
    nll += mean_nll(model, {sequences[i]}) * predicted;
    tokens += predicted;
  }
  CHECK(mean_nll(model, sequences) == doctest::Approx(nll / tokens).epsilon(1e-12));
}

TEST_CASE_TEMPLATE(
    "prefixes: a prompt's responses are evaluated as each alone, and learned from together", D, Cpu,
    CpuBf16) {
  const TransformerConfig config = tiny_llama();
  auto policy = tiny_model<D>(config, 7, ScalarHead::Value);
  const auto reference = tiny_model<D>(config, 8);
  PpoConfig settings;
  settings.sampling.max_new_tokens = 12;
  settings.sampling.responses = 3;
  settings.epochs = settings.minibatches = 2;
  std::vector<Tokens> prompts;
  for (const Index n : {33, 40, 20, 31}) prompts.push_back(random_tokens(n, config.vocab, 70));
  const auto score = [](const std::vector<Episode>& episodes) {
    std::vector<float> all;
    for (const Episode& e : episodes) all.push_back(static_cast<float>(e.response[0] % 5));
    return all;
  };
  PpoTrainer<D> ppo(policy, reference, score, settings);
  auto sampled = collect(policy, prompts, settings, 0);
  evaluate<Model<D>, Model<D>>(sampled, policy, reference, Critic::Shared, nullptr, 1.0F);
  for (const Episode& together : sampled) {
    std::vector<Episode> one{together};
    evaluate<Model<D>, Model<D>>(one, policy, reference, Critic::Shared, nullptr, 1.0F);
    CHECK(same_bits(one[0].ref_logprobs, together.ref_logprobs));
    CHECK(same_bits(one[0].values, together.values));
    CHECK(same_bits(one[0].kl_exact, together.kl_exact));
  }
  const Metrics metrics = ppo.step(prompts);
  for (const auto& [name, value] : metrics)
    if (name == "val/ratio_first_minibatch" || name == "val/ratio_first_minibatch_max_deviation")
      CHECK(value == (name.ends_with("deviation") ? 0.0 : 1.0));
}
