// What tests of ops, models and trainers share: tiny models, tokens, and gradients by differences.
#pragma once

#include "support.hpp"

#include <plumb/plumb.hpp>

#include <functional>
#include <string>
#include <vector>

namespace test {

using plumb::Cpu;
using plumb::CpuBf16;
using plumb::Tensor;
using plumb::Tokens;

/// Grouped heads, an untied head, odd sizes where the architecture allows.
inline plumb::TransformerConfig tiny_llama() {
  return {.family = plumb::Family::Llama,
          .vocab = 19,
          .context = 80,
          .channels = 24,
          .layers = 2,
          .heads = 4,
          .kv_heads = 2,
          .hidden = 37,
          .tied_head = false};
}

inline plumb::TransformerConfig tiny_gpt2() {
  return {.family = plumb::Family::Gpt2,
          .vocab = 23,
          .context = 80,
          .channels = 21,
          .layers = 2,
          .heads = 3,
          .kv_heads = 3,
          .hidden = 41,
          .tied_head = true};
}

/// A model whose every weight is away from its initial value: biases, norms and heads too, and
/// matrices large enough for a distribution that is far from uniform.
template <class D = Cpu>
plumb::Model<D> tiny_model(const plumb::TransformerConfig& config, std::uint64_t seed = 7,
                           plumb::ScalarHead head = plumb::ScalarHead::None, float spread = 0.25F) {
  plumb::Model<D> model(config, seed, head);
  for (const auto& entry : model.parameters().entries()) {
    const auto noise = random_vector(entry.tensor.size(), seed * 1000 + entry.name.size(), spread);
    for (std::size_t i = 0; i < noise.size(); ++i) entry.tensor.data()[i] += noise[i];
  }
  return model;
}

inline Tokens random_tokens(Index n, Index vocab, std::uint64_t seed) {
  plumb::Rng rng(seed);
  Tokens tokens(static_cast<std::size_t>(n));
  for (auto& token : tokens)
    token = static_cast<std::int32_t>(rng.below(static_cast<std::uint32_t>(vocab)));
  return tokens;
}

inline Tensor<Cpu, std::int32_t> ids(const Tokens& values) {
  return Tensor<Cpu, std::int32_t>::from(values, {static_cast<Index>(values.size())});
}

inline Tensor<Cpu> random_tensor(const plumb::Shape& shape, std::uint64_t seed,
                                 float scale = 1.0F) {
  return Tensor<Cpu>::from(random_vector(shape.size(), seed, scale), shape);
}

inline std::vector<float> grad_of(const Tensor<Cpu>& x) { return x.grad_tensor().to_vector(); }

/// f'(*x) by central differences at two steps, extrapolated: the error is of order step⁴, plus
/// rounding noise of about 3e-7 · |f| / step.
inline double slope(float* x, const std::function<double()>& f, float step) {
  const float at = *x;
  const auto difference = [&](float h) {
    *x = at + h;
    const double above = f(), high = *x;
    *x = at - h;
    const double below = f(), low = *x;
    *x = at;
    return (above - below) / (high - low);
  };
  return (4.0 * difference(step / 2) - difference(step)) / 3.0;
}

/// The worst |gradient − slope| over elements of `x` (all, or `most` drawn at random), relative to
/// `scale` or, if larger, the largest gradient among x's. `gradient` is laid out like x.
inline double gradient_error(const Tensor<Cpu>& x, const std::vector<float>& gradient,
                             const std::function<double()>& f, float step, Index most,
                             double scale = 0) {
  for (const float g : gradient) scale = std::max(scale, std::abs(static_cast<double>(g)));
  const auto order = plumb::permutation(x.size(), plumb::Rng(99));
  double worst = 0;
  for (Index i = 0; i < std::min(most, x.size()); ++i) {
    const Index at = order[static_cast<std::size_t>(i)];
    const double error =
        std::abs(slope(x.data() + at, f, step) - gradient[static_cast<std::size_t>(at)]);
    if (!(error <= worst)) worst = error;
  }
  return scale > 0 ? worst / scale : worst;
}

/// Calls f with the default pool at `threads`, then restores it.
template <class F>
void with_threads(int threads, F f) {
  const int before = plumb::default_pool().threads();
  plumb::default_pool().set_threads(threads);
  f();
  plumb::default_pool().set_threads(before);
}

/// Prompts of 1 to 9 tokens.
inline std::vector<Tokens> some_prompts(Index n, Index vocab) {
  std::vector<Tokens> prompts;
  for (Index i = 0; i < n; ++i)
    prompts.push_back(random_tokens(1 + i * 5 % 9, vocab, static_cast<std::uint64_t>(100 + i)));
  return prompts;
}

/// A rule of some variety: what share of a response's tokens is even, less something for length.
inline std::vector<float> even_share(const std::vector<plumb::Episode>& episodes) {
  std::vector<float> scores;
  for (const plumb::Episode& e : episodes) {
    float even = 0;
    for (const std::int32_t token : e.response) even += token % 2 == 0 ? 1.0F : 0.0F;
    const auto n = static_cast<float>(e.response.size());
    scores.push_back(3 * even / n - 0.05F * n);
  }
  return scores;
}

}  // namespace test
