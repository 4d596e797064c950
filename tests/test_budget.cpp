// Memory: what a token takes is what it is said to take, a limit is kept where it can be, and
// splitting changes no result.
#include "tiny.hpp"

#include <plumb/run/machine.hpp>

#include <doctest/doctest.h>

using namespace plumb;
using namespace test;

namespace {

struct LimitFor {  // a scope with another limit
  explicit LimitFor(std::size_t bytes) { set_memory_limit(bytes); }
  ~LimitFor() { set_memory_limit(0); }
};

/// A larger model, so that activations outweigh everything that does not grow with tokens.
TransformerConfig wide(const TransformerConfig& like) {
  TransformerConfig c = like;
  c.context = 400;
  c.channels = like.family.gated ? 96 : 84;
  c.hidden = 220;
  c.layers = 4;
  return c;
}

/// Bytes in use at most, above those at first, while `work` runs.
template <class Work>
double peak_of(Work work) {
  reset_peak_memory();
  const auto before = memory_counters().used_bytes;
  work();
  return static_cast<double>(memory_counters().peak_bytes - before);
}

}  // namespace

TEST_CASE("what a token is said to take is what it takes, with gradient and without") {
  for (const auto& like : {tiny_llama(), tiny_gpt2()}) {
    const auto full = tiny_model(wide(like));
    const auto frozen = full.frozen();
    for (const Model<Cpu>* model : {&full, &frozen}) {
      const auto adapted = frozen.adapted({.rank = 4, .top_layers = 2}, ScalarHead::None, 1);
      const Model<Cpu>& trained = model == &full ? full : adapted;
      const auto peak = [&](Index tokens, bool update) {
        PackedBatch packed;
        for (Index n = 0; n < tokens; n += 400) packed.add(random_tokens(400, full.vocab(), 5));
        const auto batch = Batch<Cpu>::from(packed);
        trained.parameters().flat().grad();
        return peak_of([&] {
          if (!update) {
            trained.hidden(batch);
            return;
          }
          Tape tape;
          const auto out = head_logprob(trained.hidden(batch), trained.head(), batch.tokens);
          const std::vector<float> ones(static_cast<std::size_t>(packed.size()), 1.0F);
          tape.backward(weighted_sum(out.logprob, device_vector<Cpu>(ones)));
        });
      };
      for (const bool update : {false, true}) {
        const double each = (peak(4000, update) - peak(1200, update)) / 2800.0;
        const double said = static_cast<double>(token_bytes(trained, update));
        CAPTURE(update);
        CAPTURE(each);
        CAPTURE(said);
        // Blocks come in size classes, up to a quarter larger than what is asked.
        CHECK(each < 1.25 * said);
        CHECK(each > 0.7 * said);
      }
    }
  }
}

TEST_CASE("an update's tokens follow from the limit; what is said is taken") {
  const auto model = tiny_model(tiny_llama());
  CHECK(update_tokens(model, 77) == 77);
  CHECK(update_tokens(model, 0) == kMostTokens);
  {
    const LimitFor limit(memory_counters().used_bytes + (std::size_t{4} << 20));
    const Index fits = update_tokens(model, 0);
    CHECK(fits < kMostTokens);
    CHECK(fits * token_bytes(model, true) < (4 << 20));
    CHECK(fits >= 16);
    CHECK(update_tokens(model, 0, &model) < fits);
  }
  const LimitFor limit(1);
  CHECK(update_tokens(model, 0) == 16);
  CHECK(cache_slots(model, 64, 100) == 1);
}

TEST_CASE("what nobody uses is given back before the limit is passed") {
  release_cached_memory();
  const std::size_t before = memory_counters().system_bytes;
  const std::size_t block = std::size_t{8} << 20;
  const LimitFor limit(before + 3 * block);
  for (const std::size_t size : {block, 2 * block, block / 2, 2 * block, block}) {
    kernels::release(Cpu{}, kernels::allocate(Cpu{}, size), size);
    CHECK(memory_counters().system_bytes <= before + 3 * block);
  }
  // What must be there at once is taken all the same.
  void* const large = kernels::allocate(Cpu{}, 4 * block);
  CHECK(memory_counters().system_bytes >= before + 4 * block);
  kernels::release(Cpu{}, large, 4 * block);
}

TEST_CASE("fewer slots for want of memory: the same responses") {
  const auto model = tiny_model(tiny_llama());
  SampleOptions options;
  options.responses = 4;
  options.max_new_tokens = 30;
  const auto prompts = some_prompts(6, model.vocab());
  const auto roomy = sample(model, prompts, options);
  const LimitFor limit(memory_counters().used_bytes + 150000);
  CHECK(cache_slots(model, 24, 39) < 12);
  const auto tight = sample(model, prompts, options);
  REQUIRE(roomy.size() == tight.size());
  for (std::size_t i = 0; i < roomy.size(); ++i) {
    CHECK(roomy[i].tokens == tight[i].tokens);
    CHECK(same_bits(roomy[i].logprobs, tight[i].logprobs));
  }
}

TEST_CASE("amounts of memory") {
  CHECK(parse_bytes("4GB") == 4294967296.0);
  CHECK(parse_bytes("1.5 GiB") == 1610612736.0);
  CHECK(parse_bytes("800M") == 838860800.0);
  CHECK(parse_bytes("512k") == 524288.0);
  CHECK(parse_bytes("1000") == 1000.0);
  for (const char* bad : {"", "GB", "4XB", "-1GB", "0", "4GBs", "inf", "nan", "1e999"}) {
    CAPTURE(bad);
    CHECK(contains(message_of<DataError>([&] { parse_bytes(bad); }), "is no amount of memory"));
  }
  CHECK(available_memory() > 0);
}
