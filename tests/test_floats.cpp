// The caller's floating-point environment changes no kernel's result: flushing small numbers to
// zero, reading them as zero, rounding in another direction.
#include <plumb/plumb.hpp>

#include "support.hpp"

#include <doctest/doctest.h>

#include <vector>

#if defined(__x86_64__) || defined(__aarch64__)
#include <cstdint>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

using namespace plumb;

namespace {

std::vector<float> numbers(Index n, std::uint64_t seed, float scale = 1.0F) {
  const DefaultFloats floats;  // the inputs are the same in any case
  return test::random_vector(n, seed, scale);
}

#if defined(__x86_64__)
std::uint64_t environment() { return _mm_getcsr(); }
void set_environment(std::uint64_t to) { _mm_setcsr(static_cast<unsigned>(to)); }
// Flush to zero, read as zero, both; downwards, upwards, towards zero.
constexpr std::uint64_t kModes[] = {0x8000, 0x0040, 0x8040, 0x2000, 0x4000, 0x6000};
#else
std::uint64_t environment() {
  std::uint64_t fpcr = 0;
  asm volatile("mrs %0, fpcr" : "=r"(fpcr));
  return fpcr;
}
void set_environment(std::uint64_t to) { asm volatile("msr fpcr, %0" : : "r"(to) : "memory"); }
// Flush to zero, of what is read, too; upwards, downwards, towards zero; any NaN the default one.
constexpr std::uint64_t kModes[] = {1U << 24, 1U << 22, 2U << 22, 3U << 22, 1U << 25};
#endif

// What the engine computes from numbers around the smallest normal one, all in one row.
std::vector<float> results(Index rows) {
  const Index c = 64, v = 40;
  const auto x = Tensor<Cpu>::from(numbers(rows * c, 1, 1e-20F), {rows, c});
  const auto w = Tensor<Cpu>::from(numbers(v * c, 2, 1e-19F), {v, c});
  const auto weight = Tensor<Cpu>::from(numbers(c, 3, 1e-19F), {c});
  std::vector<float> all;
  const auto keep = [&](const Tensor<Cpu>& y) {
    const auto values = y.to_vector();
    all.insert(all.end(), values.begin(), values.end());
  };
  w.set_requires_grad(true);
  weight.set_requires_grad(true);
  Tape tape;
  const auto y = linear(x, w);
  keep(y);
  keep(add(y, y));
  keep(scale(y, 0.37F));
  keep(rms_norm(x, weight, 1e-5F));
  keep(plumb::tanh(y));
  std::vector<float> ones(static_cast<std::size_t>(rows * v), 1e-3F);
  const auto loss = weighted_sum(y.reshape({rows * v}), Tensor<Cpu>::from(ones, Shape{rows * v}));
  keep(loss);
  tape.backward(loss);
  keep(w.grad_tensor());

  std::vector<float> m(64), moment(64), p = numbers(64, 4);
  const auto grad = numbers(64, 5, 1e-19F);
  for (Index step = 1; step <= 2; ++step)
    kernels::adamw_update(Cpu{}, p.data(), grad.data(), m.data(), moment.data(), 64,
                          {1e-3F, 0.9F, 0.95F, 1e-8F, 0.01F, 1.0F, step, false});
  for (const auto* values : {&m, &moment, &p})
    all.insert(all.end(), values->begin(), values->end());
  all.push_back(static_cast<float>(kernels::sum_of_squares(Cpu{}, grad.data(), 64)));

  std::vector<std::int32_t> token(static_cast<std::size_t>(rows));
  std::vector<float> logprob(static_cast<std::size_t>(rows));
  const std::vector<SampleKey> keys(static_cast<std::size_t>(rows), SampleKey{1, 2, 3, 4});
  const auto logits = numbers(rows * v, 6, 30.0F);
  kernels::sample_rows(Cpu{}, token.data(), logprob.data(), logits.data(), rows, v,
                       {.temperature = 0.7F}, keys.data());
  all.insert(all.end(), logprob.begin(), logprob.end());

  float sum = 0;
  std::vector<float> dlogprob(64);
  PolicyStats stats;
  const auto now = numbers(64, 7), old = numbers(64, 8), advantage = numbers(64, 9, 1e-30F),
             weights = numbers(64, 10, 1e-10F);
  kernels::ppo_policy_loss(Cpu{}, &sum, dlogprob.data(), &stats, now.data(), old.data(),
                           advantage.data(), weights.data(), 64, {});
  all.push_back(sum);
  all.insert(all.end(), dlogprob.begin(), dlogprob.end());
  return all;
}

}  // namespace

TEST_CASE("no kernel's result depends on the caller's floating-point environment") {
  const std::uint64_t normal = environment();
  for (const Index rows : {1, 7, 600})  // on the caller's thread alone, and on all
    test::for_each_isa([&](Isa) {
      const auto expected = results(rows);
      Index small = 0;
      for (const float value : expected) small += value != 0 && std::abs(value) < 1e-38F;
      CHECK(small > 0);  // else nothing here could have been flushed
      for (const std::uint64_t mode : kModes) {
        set_environment(normal | mode);
        const auto got = results(rows);
        const std::uint64_t after = environment();
        set_environment(normal);
        CHECK((after & mode) == mode);
        CAPTURE(rows);
        CAPTURE(mode);
        CHECK(test::same_bits(got, expected));
      }
    });
}
#endif
