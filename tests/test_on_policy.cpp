// Sampling: log-probs of sampled tokens are those of the training forward bit for bit, and
// responses depend on nothing but model, prompt, settings and key.
#include "tiny.hpp"

#include <doctest/doctest.h>

using namespace plumb;
using namespace test;

namespace {

/// `n` prompts of lengths 1 to 40.
std::vector<Tokens> long_prompts(Index n, Index vocab) {
  std::vector<Tokens> prompts;
  for (Index i = 0; i < n; ++i)
    prompts.push_back(random_tokens(1 + i * 13 % 40, vocab, static_cast<std::uint64_t>(100 + i)));
  return prompts;
}

SampleOptions options_of(float temperature, Index responses, Index slots) {
  SampleOptions options;
  options.sampling.temperature = temperature;
  options.responses = responses;
  options.max_new_tokens = 45;
  options.stops = {2, 5};
  options.seed = 11;
  options.slots = slots;
  return options;
}

/// Log-probs of the responses by the training forward, all in one packed batch.
template <class D>
std::vector<float> trained_logprobs(const Model<D>& model, const std::vector<Tokens>& prompts,
                                    std::span<const Response> responses, float temperature) {
  std::vector<Episode> episodes;
  for (const Response& r : responses) {
    Episode e;
    e.prompt = prompts[static_cast<std::size_t>(r.prompt)];
    e.response = r.tokens;
    e.values.resize(r.tokens.size());
    episodes.push_back(std::move(e));
  }
  std::vector<const Episode*> members;
  for (const Episode& e : episodes) members.push_back(&e);
  const auto batch = EpisodeBatch<D>::from(members);
  Tape tape;
  const auto rows = embedding(model.transformer()(batch.batch), batch.rows);
  const auto out = head_logprob(rows, model.transformer().head(), batch.targets, temperature, true);
  REQUIRE(out.logprob.requires_grad());
  return out.logprob.to_vector();
}

std::vector<float> sampled_logprobs(std::span<const Response> responses) {
  std::vector<float> all;
  for (const Response& r : responses) all.insert(all.end(), r.logprobs.begin(), r.logprobs.end());
  return all;
}

bool equal(const std::vector<Response>& a, const std::vector<Response>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (a[i].prompt != b[i].prompt || a[i].tokens != b[i].tokens ||
        a[i].finished != b[i].finished || !same_bits(a[i].logprobs, b[i].logprobs))
      return false;
  return true;
}

}  // namespace

TEST_CASE_TEMPLATE("sampled log-probs are the training forward's, bit for bit, in any batch", D,
                   Cpu, CpuBf16) {
  for (const auto& config : {tiny_llama(), tiny_gpt2()})
    for (const float temperature : {0.7F, 1.0F}) {
      const auto model = tiny_model<D>(config);
      const auto prompts = long_prompts(sanitized() ? 6 : 22, config.vocab);
      std::vector<Response> first;
      for (const int threads : {1, 2})
        with_threads(threads, [&] {
          for (const Index slots : {1, 2, 7, 64}) {
            CAPTURE(slots);
            CAPTURE(threads);
            const auto responses = sample(model, prompts, options_of(temperature, 3, slots));
            if (first.empty()) first = responses;
            REQUIRE(equal(responses, first));
            // All in one training batch, and in batches of these sizes.
            CHECK(same_bits(sampled_logprobs(responses),
                            trained_logprobs(model, prompts, responses, temperature)));
            for (std::size_t i = 0; i < responses.size(); i += static_cast<std::size_t>(slots)) {
              const auto part = std::span(responses).subspan(
                  i, std::min(static_cast<std::size_t>(slots), responses.size() - i));
              CHECK(same_bits(sampled_logprobs(part),
                              trained_logprobs(model, prompts, part, temperature)));
            }
          }
        });
      // The case is worth its name: lengths differ, some ended and some did not.
      std::size_t shortest = 99, longest = 0, finished = 0;
      for (const Response& r : first) {
        shortest = std::min(shortest, r.tokens.size());
        longest = std::max(longest, r.tokens.size());
        finished += r.finished ? 1 : 0;
      }
      CHECK(shortest < 10);
      CHECK(longest > 12);
      CHECK(finished > 0);
    }
}

TEST_CASE_TEMPLATE("responses are the same for every instruction set and number of threads", D, Cpu,
                   CpuBf16) {
  for (const auto& config : {tiny_llama(), tiny_gpt2()}) {
    const auto model = tiny_model<D>(config);
    const auto prompts = long_prompts(8, config.vocab);
    std::vector<Response> first;
    for_each_isa<D>([&](Isa) {
      for (const int threads : {1, 2, 3})
        with_threads(threads, [&] {
          const auto responses = sample(model, prompts, options_of(1.0F, 2, 5));
          if (first.empty()) first = responses;
          CHECK(equal(responses, first));
        });
    });
  }
}

TEST_CASE_TEMPLATE("filtered draws record the unfiltered log-prob of the training forward", D, Cpu,
                   CpuBf16) {
  const auto model = tiny_model<D>(tiny_llama());
  const auto prompts = long_prompts(5, 19);
  auto options = options_of(0.8F, 2, 4);
  options.sampling.top_k = 5;
  options.sampling.top_p = 0.8F;
  const auto responses = sample(model, prompts, options);
  CHECK(same_bits(sampled_logprobs(responses), trained_logprobs(model, prompts, responses, 0.8F)));
}

TEST_CASE_TEMPLATE("a cache of bf16 samples alike, and nearly the policy's log-probs", D, Cpu,
                   CpuBf16) {
  const auto model = tiny_model<D>(tiny_llama());
  const auto prompts = long_prompts(5, 19);
  auto options = options_of(1.0F, 3, 4);
  options.kv_cache = CacheType::Bf16;
  const auto responses = sample(model, prompts, options);
  options.slots = 9;
  CHECK(equal(sample(model, prompts, options), responses));
  const auto sampled = sampled_logprobs(responses);
  const auto trained = trained_logprobs(model, prompts, responses, 1.0F);
  CHECK_FALSE(same_bits(sampled, trained));
  double error = 0;
  for (std::size_t i = 0; i < sampled.size(); ++i)
    error += std::abs(double{sampled[i]} - double{trained[i]});
  CHECK(error / static_cast<double>(sampled.size()) < 0.01);  // of weights as large as these
}

TEST_CASE("a key's every part changes the draws; the same key repeats them") {
  const auto model = tiny_model(tiny_llama());
  const auto prompts = long_prompts(2, 19);
  auto options = options_of(1.0F, 4, 8);
  options.stops = {};
  const auto base = sample(model, prompts, options);
  CHECK(equal(sample(model, prompts, options), base));
  options.step = 1;
  CHECK_FALSE(equal(sample(model, prompts, options), base));
  options.step = 0;
  options.seed = 12;
  CHECK_FALSE(equal(sample(model, prompts, options), base));
  CHECK(base[0].tokens != base[1].tokens);
}

TEST_CASE("a token's draws follow the model's distribution") {
  const auto model = tiny_model(tiny_llama(), 7, ScalarHead::None, 0.1F);
  const Tokens prompt = {4, 1, 7};
  auto options = options_of(0.7F, 4000, 64);
  options.max_new_tokens = 1;
  const auto responses = sample(model, {prompt}, options);
  std::vector<double> share(19), expected(19);
  for (const Response& r : responses) {
    share[static_cast<std::size_t>(r.tokens[0])] += 1.0 / 4000;
    expected[static_cast<std::size_t>(r.tokens[0])] = std::exp(double{r.logprobs[0]});
  }
  double chi2 = 0;
  for (std::size_t v = 0; v < share.size(); ++v)
    if (expected[v] > 0) chi2 += 4000 * std::pow(share[v] - expected[v], 2) / expected[v];
  CHECK(chi2 < 42.3);  // 18 degrees of freedom: exceeded once in 1000
}

TEST_CASE("responses end at a stop token, a stop rule, the length or the context") {
  const auto model = tiny_model(tiny_llama());
  const auto prompts = long_prompts(12, 19);
  auto options = options_of(1.0F, 2, 4);
  options.stops = {3, 8};
  options.max_new_tokens = 20;
  bool by_stop = false, by_length = false;
  for (const Response& r : sample(model, prompts, options)) {
    const auto stops = [](std::int32_t t) { return t == 3 || t == 8; };
    CHECK(r.logprobs.size() == r.tokens.size());
    CHECK(r.tokens.size() <= 20);
    CHECK(r.finished == stops(r.tokens.back()));
    CHECK(std::count_if(r.tokens.begin(), r.tokens.end(), stops) == (r.finished ? 1 : 0));
    if (!r.finished) CHECK(r.tokens.size() == 20);
    (r.finished ? by_stop : by_length) = true;
  }
  CHECK(by_stop);
  CHECK(by_length);

  options.stops = {};
  options.stop_when = [](std::span<const std::int32_t> tokens) { return tokens.size() == 6; };
  for (const Response& r : sample(model, prompts, options)) {
    CHECK(r.finished);
    CHECK(r.tokens.size() == 6);
  }

  options.stop_when = {};
  options.max_new_tokens = 1;
  for (const Response& r : sample(model, prompts, options)) CHECK(r.tokens.size() == 1);

  // A response fills the context and no more; a prompt may leave room for a single token.
  options.max_new_tokens = 1000;
  options.responses = 1;
  const auto full = sample(model, {random_tokens(70, 19, 1), random_tokens(79, 19, 2)}, options);
  CHECK(full[0].tokens.size() == 10);
  CHECK(full[1].tokens.size() == 1);
  CHECK_FALSE(full[0].finished);
  CHECK(same_bits(
      sampled_logprobs(full),
      trained_logprobs(model, {random_tokens(70, 19, 1), random_tokens(79, 19, 2)}, full, 1.0F)));
}

TEST_CASE("progress counts every response once") {
  const auto model = tiny_model(tiny_llama());
  auto options = options_of(1.0F, 3, 4);
  std::vector<Index> seen;
  options.progress = [&](Index done, Index total) {
    CHECK(total == 15);
    seen.push_back(done);
  };
  sample(model, long_prompts(5, 19), options);
  REQUIRE(seen.size() == 15);
  for (std::size_t i = 0; i < seen.size(); ++i) CHECK(seen[i] == static_cast<Index>(i) + 1);
}

TEST_CASE("prompts that cannot be continued are refused by number and reason") {
  const auto model = tiny_model(tiny_llama());
  const SampleOptions options;
  const auto error = [&](const Tokens& prompt) {
    return message_of<DataError>([&] { sample(model, {{1}, prompt}, options); });
  };
  CHECK(contains(error({}), "[sample] prompt 1 is empty"));
  CHECK(contains(error(random_tokens(80, 19, 1)), "prompt 1 has 80 tokens; the context holds 80"));
  CHECK(contains(error({1, 19}), "prompt 1 has token 19, outside the vocabulary of 19"));
  CHECK(contains(error({-1}), "prompt 1 has token -1"));
  CHECK(sample(model, {}, options).empty());
  const auto setting = [&](auto change) {
    SampleOptions wrong;
    change(wrong);
    return message_of<DataError>([&] { sample(model, {{1}}, wrong); });
  };
  CHECK(contains(setting([](auto& o) { o.responses = 0; }), "at least 1"));
  CHECK(contains(setting([](auto& o) { o.max_new_tokens = 0; }), "at least 1"));
  CHECK(contains(setting([](auto& o) { o.slots = 0; }), "at least 1"));
  CHECK(contains(setting([](auto& o) { o.sampling.temperature = -1; }), "temperature"));
  CHECK(
      contains(setting([](auto& o) { o.sampling.top_p = 0; }), "top-p must be above 0, at most 1"));
  CHECK(contains(setting([](auto& o) { o.sampling.top_p = 1.5F; }), "top-p"));
  CHECK(contains(setting([](auto& o) { o.sampling.temperature = NAN; }),
                 "temperature must be a finite"));
  CHECK(
      contains(setting([](auto& o) { o.sampling.temperature = 1e-40F; }), "inverse is not finite"));
}
