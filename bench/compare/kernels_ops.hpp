// Plumb's differentiable ops, timed as a training step uses them: the forward pass under a tape,
// then the backward pass, from inputs that have no gradient yet to weights that gather theirs. The
// same cases in PyTorch: torch_kernels.py.
#pragma once

#include <functional>

#include "../end_to_end_support.hpp"

namespace compare {

using namespace plumb;
using end_to_end::Named;
using end_to_end::Result;

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// A case: its name, what it works on, and one call of it, which adds to the seconds of its passes.
struct OpCase {
  std::string name;
  Named work;
  bool backward;  ///< whether there is a backward pass, reported together with the forward pass
  std::function<void(double& forward, double& backward)> call;
};

inline Tensor<Cpu> random_tensor(const Shape& shape, std::uint32_t seed = 1) {
  auto tensor = Tensor<Cpu>::empty(shape);
  std::uint64_t state = seed;
  for (Index i = 0; i < tensor.size(); ++i) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    tensor.data()[i] = 0x1p-31F * static_cast<float>(static_cast<std::int32_t>(state >> 32));
  }
  return tensor;
}

inline Tensor<Cpu> trained(Tensor<Cpu> tensor) {
  tensor.set_requires_grad(true);
  return tensor;
}

/// One call of `op` on copies of the inputs. The gradient of its result comes from `dy`, by a copy
/// outside the clock: PyTorch is handed it without one.
template <class Op>
void time_op(const std::vector<Tensor<Cpu>>& inputs, const Tensor<Cpu>& dy, Op op, double& forward,
             double& backward) {
  std::vector<Tensor<Cpu>> fresh;
  for (const auto& input : inputs) fresh.push_back(trained(input.clone()));
  Tape tape;
  auto start = Clock::now();
  const auto y = op(fresh);
  forward += seconds_since(start);
  if (!dy) return;
  const auto target = y.grad_target();
  copy(Cpu{}, target.data, dy.data(), dy.bytes());
  start = Clock::now();
  tape.replay();
  backward += seconds_since(start);
}

inline OpCase attention_case(Index b, Index heads, Index t, Index size) {
  const Shape shape{b * t, heads * size};
  const std::vector<Tensor<Cpu>> qkv{random_tensor(shape, 1), random_tensor(shape, 2),
                                     random_tensor(shape, 3)};
  const auto dy = random_tensor(shape, 4);
  Tokens starts;
  for (Index i = 0; i <= b; ++i) starts.push_back(static_cast<std::int32_t>(i * t));
  const auto offsets = Tensor<Cpu, std::int32_t>::from(starts, {b + 1});
  const AttentionShape form{heads, heads, size, 1.0F / std::sqrt(static_cast<float>(size))};
  return {str("attention/b", b, "h", heads, "t", t, "d", size),
          {{"b", static_cast<double>(b)},
           {"h", static_cast<double>(heads)},
           {"t", static_cast<double>(t)},
           {"d", static_cast<double>(size)}},
          true,
          [=](double& forward, double& backward) {
            time_op(
                qkv, dy, [&](const auto& x) { return attention(x[0], x[1], x[2], offsets, form); },
                forward, backward);
          }};
}

inline Named rows_by_channels(Index n, Index c) {
  return {{"n", static_cast<double>(n)}, {"c", static_cast<double>(c)}};
}

inline OpCase norm_case(bool layer, Index n, Index c) {
  const auto x = random_tensor({n, c}), dy = random_tensor({n, c}, 2);
  const auto weight = trained(random_tensor({c}, 3)), bias = trained(random_tensor({c}, 4));
  return {str(layer ? "layer_norm/" : "rms_norm/", n, "x", c), rows_by_channels(n, c), true,
          [=](double& forward, double& backward) {
            time_op(
                {x}, dy,
                [&](const auto& in) {
                  return layer ? layer_norm(in[0], weight, bias, 1e-5F)
                               : rms_norm(in[0], weight, 1e-5F);
                },
                forward, backward);
          }};
}

inline OpCase gelu_case(Index n, Index c) {
  const auto x = random_tensor({n, c}), dy = random_tensor({n, c}, 2);
  return {str("gelu/", n, "x", c), rows_by_channels(n, c), true,
          [=](double& forward, double& backward) {
            time_op(
                {x}, dy, [](const auto& in) { return gelu(in[0]); }, forward, backward);
          }};
}

inline OpCase add_case(Index n, Index c) {
  const auto a = random_tensor({n, c}), b = random_tensor({n, c}, 2);
  return {str("add/", n, "x", c), rows_by_channels(n, c), false,
          [=](double& forward, double& backward) {
            time_op(
                {}, {}, [&](const auto&) { return add(a, b); }, forward, backward);
          }};
}

/// Head and cross-entropy together, which in Plumb are one op: n rows of c channels, v tokens.
inline OpCase head_case(Index n, Index c, Index v) {
  const auto x = random_tensor({n, c}), dy = Tensor<Cpu>::from({1.0F}, {});
  const auto weight = trained(random_tensor({v, c}, 2));
  const auto targets = Tensor<Cpu, std::int32_t>::from(end_to_end::random_tokens(n, v, 1), {n});
  return {
      str("head_cross_entropy/", n, "x", c, "x", v),
      {{"n", static_cast<double>(n)}, {"c", static_cast<double>(c)}, {"v", static_cast<double>(v)}},
      true,
      [=](double& forward, double& backward) {
        time_op(
            {x}, dy, [&](const auto& in) { return cross_entropy(in[0], weight, targets); }, forward,
            backward);
      }};
}

/// Log-probs of targets from logits that are there already; forward alone.
inline OpCase logprob_case(Index n, Index v) {
  const auto logits = random_tensor({n, v});
  const auto targets = Tensor<Cpu, std::int32_t>::from(end_to_end::random_tokens(n, v, 1), {n});
  return {str("cross_entropy/", n, "x", v), rows_by_channels(n, v), false,
          [=](double& forward, double&) {
            const auto start = Clock::now();
            const auto logprob = Tensor<Cpu>::empty({n}), lse = Tensor<Cpu>::empty({n});
            logprob_rows(Cpu{}, logprob.data(), nullptr, lse.data(), logits.data(), targets.data(),
                         n, v, 1.0F);
            forward += seconds_since(start);
          }};
}

inline OpCase embedding_case(Index n, Index c, Index v) {
  const auto table = trained(random_tensor({v, c})), dy = random_tensor({n, c}, 2);
  table.zero_grad();
  const auto ids = Tensor<Cpu, std::int32_t>::from(end_to_end::random_tokens(n, v, 1), {n});
  return {
      str("embedding/", n, "x", c, "x", v),
      {{"n", static_cast<double>(n)}, {"c", static_cast<double>(c)}, {"v", static_cast<double>(v)}},
      true,
      [=](double& forward, double& backward) {
        time_op(
            {}, dy, [&](const auto&) { return embedding(table, ids); }, forward, backward);
      }};
}

/// The norm of a model's gradient, or clipping, AdamW and clearing the gradient.
inline OpCase optimizer_case(const end_to_end::Size& size, bool step) {
  const auto model = std::make_shared<Model<Cpu>>(size.config(), 1);
  const auto adamw = std::make_shared<AdamW<Cpu>>(model->parameters(),
                                                  AdamWConfig{.lr = 1e-4F, .weight_decay = 0.01F});
  model->parameters().flat().grad();
  return {str(step ? "clip_adamw_clear/" : "gradient_norm/", size.name),
          {{"parameters", static_cast<double>(model->parameters().count())}},
          false,
          [=](double& forward, double&) {
            const auto start = Clock::now();
            if (step)
              adamw->step();
            else
              adamw->gradient_norm();
            forward += seconds_since(start);
          }};
}

/// The cases, each made only when its turn comes.
inline std::vector<std::function<OpCase()>> op_cases() {
  return {[] { return attention_case(8, 8, 256, 32); },
          [] { return attention_case(8, 8, 1024, 32); },
          [] { return attention_case(4, 12, 256, 64); },
          [] { return attention_case(4, 12, 1024, 64); },
          [] { return norm_case(false, 4096, 256); },
          [] { return norm_case(false, 1024, 768); },
          [] { return norm_case(true, 4096, 256); },
          [] { return norm_case(true, 1024, 768); },
          [] { return gelu_case(4096, 1024); },
          [] { return gelu_case(1024, 3072); },
          [] { return add_case(3072, 768); },
          [] { return logprob_case(1024, 50257); },
          [] { return logprob_case(3072, 4096); },
          [] { return head_case(4096, 256, 512); },
          [] { return head_case(3072, 384, 4096); },
          [] { return head_case(1024, 768, 50257); },
          [] { return embedding_case(1024, 768, 50257); },
          [] { return optimizer_case(end_to_end::kSizes[0], false); },
          [] { return optimizer_case(end_to_end::kSizes[0], true); },
          [] { return optimizer_case(end_to_end::kSizes[2], false); },
          [] { return optimizer_case(end_to_end::kSizes[2], true); }};
}

/// Seconds per call, a sample for each round of at least 50 ms: of the forward pass, and of both
/// passes.
inline std::vector<Result> time_case(const OpCase& op, int rounds) {
  Result forward{.name = op.name + "/forward", .unit = "s"};
  Result both{.name = op.name + "/forward+backward", .unit = "s"};
  forward.work = both.work = op.work;
  for (int round = -1; round < rounds; ++round) {  // the first one warms up
    double f = 0, b = 0;
    int calls = 0;
    for (; calls < 3 || f + b < 0.05; ++calls) op.call(f, b);
    if (round < 0) continue;
    forward.samples.push_back(f / calls);
    both.samples.push_back((f + b) / calls);
  }
  if (!op.backward) {
    forward.name = op.name;
    return {forward};
  }
  return {forward, both};
}

}  // namespace compare
