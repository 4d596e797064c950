// The losses as ops: the language-model head fused with log-softmax and gather, and the RLHF
// losses. Each loss takes weights that carry the denominator of the whole batch; see weighted_sum.
#pragma once

#include <plumb/core/host_reads.hpp>
#include <plumb/math/head.hpp>
#include <plumb/math/loss.hpp>
#include <plumb/ops/basic.hpp>

#include <algorithm>
#include <functional>
#include <type_traits>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// What the head says of the tokens that came.
template <class D, class T = float>
struct LogProbs {
  Tensor<D, T> logprob;  ///< (N), nats
  Tensor<D, T> entropy;  ///< (N), nats, of the whole distribution; none unless asked for
};

/// Writes a loss's derivative by the logprob and the entropy (or null) of `rows` rows from `first`
/// on, which are in `out`.
template <class D, class T = float>
using HeadSlope = std::function<void(Index first, Index rows, const LogProbs<D, T>& out,
                                     T* dlogprob, T* dentropy)>;

namespace detail {
// A part of the rows at a time: both passes of the head, with the loss's derivative between them.
template <class D, class T>
void head_by_slope(const LogProbs<D, T>& y, const Tensor<D, T>& lse, const Tensor<D, T>& x,
                   const Tensor<D, T>& weight, const Tensor<D, std::int32_t>& targets, T inverse,
                   const HeadSlope<D, T>& slope) {
  const Index n = x.dim(0), c = x.dim(1), v = weight.dim(0), most = std::min(n, head_rows(v));
  const auto logits = Tensor<D, T>::empty({most, v}), dlogprob = Tensor<D, T>::empty({n});
  const auto dx = x.requires_grad() ? Tensor<D, T>::zeros({n, c}) : Tensor<D, T>{};
  const auto dentropy = y.entropy ? Tensor<D, T>::empty({n}) : Tensor<D, T>{};
  const auto from = [](const Tensor<D, T>& tensor, Index at) {
    return tensor ? tensor.data() + at : nullptr;
  };
  for (Index i = 0; i < n; i += most) {
    const Index rows = std::min(most, n - i);
    head_logprob_forward(D{}, y.logprob.data() + i, from(y.entropy, i), lse.data() + i,
                         x.data() + i * c, weight.data(), targets.data() + i, rows, c, v, inverse,
                         logits.data());
    slope(i, rows, y, dlogprob.data() + i, from(dentropy, i));
    head_logprob_backward(D{}, from(dx, i * c), weight.requires_grad() ? weight.grad() : nullptr,
                          dlogprob.data() + i, from(dentropy, i), x.data() + i * c, weight.data(),
                          targets.data() + i, lse.data() + i, from(y.entropy, i), rows, c, v,
                          inverse, logits.data());
  }
  if (y.entropy) y.entropy.set_requires_grad(true);
  record(y.logprob, [x, dx] {
    if (dx) accumulate(D{}, x.grad(), dx.data(), T{1}, dx.size());
  });
}
}  // namespace detail

/// log softmax(x·Wᵀ / temperature) at the targets. Logits are kept for the backward pass where they
/// are few; otherwise both passes hold a part of them at a time (cpu/head.hpp), and compute it
/// twice, unless `slope` says what the loss, whose own gradient is 1, makes of each row by itself.
/// Then its gradients are formed while the logits are there, the weight's is added at once, and
/// what ops on the result say of theirs is not asked. The bits are the same.
/// x (N, C), weight (V, C), targets (N) -> logprob (N), entropy (N).
template <class D, class T>
LogProbs<D, T> head_logprob(const Tensor<D, T>& x, const Tensor<D, T>& weight,
                            const Tensor<D, std::int32_t>& targets,
                            std::type_identity_t<T> temperature = 1, bool with_entropy = false,
                            const HeadSlope<D, T>& slope = {}, Where where = Where::here()) {
  detail::require_backend<D>();
  if (x.shape().rank() != 2 || weight.shape().rank() != 2 || x.dim(1) != weight.dim(1) ||
      targets.size() != x.dim(0))
    fail(str("[head_logprob] x ", x.shape(), ", weight ", weight.shape(), " and targets ",
             targets.shape(), " do not fit"),
         where);
  check(temperature > 0, "[head_logprob] the temperature must be positive", where);
  const Index n = x.dim(0), c = x.dim(1), v = weight.dim(0);
  const T inverse = 1 / temperature;
  LogProbs<D, T> y{Tensor<D, T>::empty({n}), {}};
  if (with_entropy) y.entropy = Tensor<D, T>::empty({n});
  auto lse = Tensor<D, T>::empty({n});
  T* entropy = with_entropy ? y.entropy.data() : nullptr;
  if (slope && recording(x, weight) && !head_keeps_logits(D{}, n, v)) {
    detail::head_by_slope(y, lse, x, weight, targets, inverse, slope);
    detail::checked("head_logprob", y.logprob);
    return y;
  }
  Tensor<D, T> logits;
  if (recording(x, weight) && head_keeps_logits(D{}, n, v)) logits = Tensor<D, T>::empty({n, v});
  head_logprob_forward(D{}, y.logprob.data(), entropy, lse.data(), x.data(), weight.data(),
                       targets.data(), n, c, v, inverse, logits ? logits.data() : nullptr);
  if (recording(x, weight)) {
    if (with_entropy) y.entropy.set_requires_grad(true);
    record(y.logprob, [y, x, weight, targets, lse, logits, n, c, v, inverse] {
      const bool entropy_used = y.entropy.has_grad();
      head_logprob_backward(D{}, x.requires_grad() ? x.grad() : nullptr,
                            weight.requires_grad() ? weight.grad() : nullptr, y.logprob.grad(),
                            entropy_used ? y.entropy.grad() : nullptr, x.data(), weight.data(),
                            targets.data(), lse.data(), entropy_used ? y.entropy.data() : nullptr,
                            n, c, v, inverse, logits ? logits.data() : nullptr);
    });
  }
  detail::checked("head_logprob", y.logprob);
  return y;
}

namespace detail {
// A loss whose forward kernel has already computed its derivative: backward scales and adds it.
template <class D, class T>
void record_saved_derivative(const Tensor<D, T>& loss, const Tensor<D, T>& x,
                             const Tensor<D, T>& dx) {
  if (recording(x))
    record(loss, [loss, x, dx] { accumulate_by(D{}, x.grad(), dx.data(), loss.grad(), x.size()); });
}
}  // namespace detail

/// Mean negative log-likelihood of classes or tokens, every row weighted alike.
/// x (N, C), weight (V, C), targets (N) -> (). The head is part of the op.
template <class D, class T>
Tensor<D, T> cross_entropy(const Tensor<D, T>& x, const Tensor<D, T>& weight,
                           const Tensor<D, std::int32_t>& targets, Where where = Where::here()) {
  const auto out = head_logprob(x, weight, targets, T{1}, false, {}, where);
  const Index n = targets.size();
  const std::vector<T> share(static_cast<std::size_t>(n), T{-1} / static_cast<T>(n));
  return weighted_sum(out.logprob, Tensor<D, T>::from(share, {n}), where);
}

/// Clipped policy loss of PPO (Schulman et al. 2017), Σ w · max(-Aρ, -A·clip(ρ)), optionally with
/// asymmetric and dual clip. All (N) -> (); `stats`, on the device (core/host_reads.hpp), or null,
/// receives the weighted sums.
template <class D, class T>
Tensor<D, T> ppo_policy_loss(const Tensor<D, T>& logprob, const Tensor<D, T>& old_logprob,
                             const Tensor<D, T>& advantage, const Tensor<D, T>& weight,
                             const PpoClip& clip, PolicyStats* stats, Where where = Where::here()) {
  detail::require_backend<D>();
  const Index n = logprob.size();
  if (old_logprob.size() != n || advantage.size() != n || weight.size() != n)
    fail(str("[ppo_policy_loss] sizes differ: logprob ", n, ", old_logprob ", old_logprob.size(),
             ", advantage ", advantage.size(), ", weight ", weight.size()),
         where);
  auto loss = Tensor<D, T>::empty({});
  auto derivative = Tensor<D, T>::empty({n});
  ppo_policy_loss(D{}, loss.data(), derivative.data(), stats, logprob.data(), old_logprob.data(),
                  advantage.data(), weight.data(), n, clip);
  detail::record_saved_derivative(loss, logprob, derivative);
  return detail::checked("ppo_policy_loss", loss);
}

/// A divergence from the reference in the loss, Σ w · k1, k2 or k3 (math/kl.hpp). All (N) -> ().
template <class D, class T>
Tensor<D, T> kl_loss(const Tensor<D, T>& logprob, const Tensor<D, T>& ref_logprob,
                     const Tensor<D, T>& weight, KlEstimator kind, Where where = Where::here()) {
  detail::require_backend<D>();
  const Index n = logprob.size();
  if (ref_logprob.size() != n || weight.size() != n)
    fail(str("[kl_loss] sizes differ: logprob ", n, ", ref_logprob ", ref_logprob.size(),
             ", weight ", weight.size()),
         where);
  auto loss = Tensor<D, T>::empty({});
  auto derivative = Tensor<D, T>::empty({n});
  kl_loss(D{}, loss.data(), derivative.data(), logprob.data(), ref_logprob.data(), weight.data(), n,
          kind);
  detail::record_saved_derivative(loss, logprob, derivative);
  return detail::checked("kl_loss", loss);
}

/// Σ w · x within each segment: the log-prob of a sequence (w = 1), or its mean a token (w = 1/R).
/// x, weight (N), offsets (S+1) -> (S); segment s is x[offsets[s]] … x[offsets[s+1] - 1].
template <class D, class T>
Tensor<D, T> segment_sum(const Tensor<D, T>& x, const Tensor<D, T>& weight,
                         const Tensor<D, std::int32_t>& offsets, Where where = Where::here()) {
  detail::require_backend<D>();
  if (weight.size() != x.size() || offsets.size() == 0)
    fail(str("[segment_sum] x ", x.shape(), ", weight ", weight.shape(), " and offsets ",
             offsets.shape(), " do not fit"),
         where);
  const Index segments = offsets.size() - 1;
  auto y = Tensor<D, T>::empty({segments});
  segment_sum(D{}, y.data(), x.data(), weight.data(), offsets.data(), segments);
  if (recording(x))
    record(y, [x, y, weight, offsets, segments] {
      segment_spread(D{}, x.grad(), y.grad(), weight.data(), offsets.data(), segments);
    });
  return detail::checked("segment_sum", y);
}

/// Clipped value loss of PPO, Σ w · ½ max((v - R)², (clip(v, v_old ± clip) - R)²). All (N) -> ().
template <class D, class T>
Tensor<D, T> ppo_value_loss(const Tensor<D, T>& value, const Tensor<D, T>& old_value,
                            const Tensor<D, T>& returns, const Tensor<D, T>& weight,
                            std::type_identity_t<T> clip, ValueStats* stats,
                            Where where = Where::here()) {
  detail::require_backend<D>();
  const Index n = value.size();
  if (old_value.size() != n || returns.size() != n || weight.size() != n)
    fail(str("[ppo_value_loss] sizes differ: value ", n, ", old_value ", old_value.size(),
             ", returns ", returns.size(), ", weight ", weight.size()),
         where);
  auto loss = Tensor<D, T>::empty({});
  auto derivative = Tensor<D, T>::empty({n});
  ppo_value_loss(D{}, loss.data(), derivative.data(), stats, value.data(), old_value.data(),
                 returns.data(), weight.data(), n, clip);
  detail::record_saved_derivative(loss, value, derivative);
  return detail::checked("ppo_value_loss", loss);
}

/// KTO's loss of single responses (Ethayarajh et al. 2024), Σ w · (1 − σ(sign · (score −
/// reference))). score, sign (±1: wanted or not), weight (N) -> ().
template <class D, class T>
Tensor<D, T> kto_loss(const Tensor<D, T>& score, const Tensor<D, T>& sign,
                      const Tensor<D, T>& weight, std::type_identity_t<T> reference,
                      Where where = Where::here()) {
  detail::require_backend<D>();
  const Index n = score.size();
  if (sign.size() != n || weight.size() != n)
    fail(str("[kto_loss] sizes differ: score ", n, ", sign ", sign.size(), ", weight ",
             weight.size()),
         where);
  auto loss = Tensor<D, T>::empty({});
  auto derivative = Tensor<D, T>::empty({n});
  kto_loss(D{}, loss.data(), derivative.data(), score.data(), sign.data(), weight.data(), n,
           reference);
  detail::record_saved_derivative(loss, score, derivative);
  return detail::checked("kto_loss", loss);
}

/// log(p / (1 − p)) with p = e^x, x the mean log-prob of a response (ORPO, Hong et al. 2024).
/// (N) -> (N).
template <class D, class T>
Tensor<D, T> log_odds(const Tensor<D, T>& x) {
  detail::require_backend<D>();
  auto y = Tensor<D, T>::empty(x.shape());
  log_odds_forward(D{}, y.data(), x.data(), x.size());
  if (recording(x))
    record(y, [x, y] { log_odds_backward(D{}, x.grad(), y.grad(), x.data(), x.size()); });
  return detail::checked("log_odds", y);
}

/// Loss of scores against rankings, Σ over prompts of w · (pairwise Bradley–Terry or K-wise
/// Plackett–Luce): see cpu/loss.hpp. score (n), rank (n), level (n) or none, offsets (P+1),
/// weight (P) -> ().
template <class D, class T>
Tensor<D, T> ranking_loss(const Tensor<D, T>& score, const Tensor<D, std::int32_t>& rank,
                          const Tensor<D, T>& level, const Tensor<D, std::int32_t>& offsets,
                          const Tensor<D, T>& weight, const RankingLoss& settings,
                          RankingStats* stats, Where where = Where::here()) {
  detail::require_backend<D>();
  if (rank.size() != score.size() || (level && level.size() != score.size()) ||
      offsets.size() != weight.size() + 1)
    fail(str("[ranking_loss] score ", score.shape(), ", rank ", rank.shape(), ", ",
             level ? str("level ", level.shape(), ", ") : std::string(), "offsets ",
             offsets.shape(), " and weight ", weight.shape(), " do not fit"),
         where);
  auto loss = Tensor<D, T>::empty({});
  auto derivative = Tensor<D, T>::empty({score.size()});
  ranking_loss(D{}, loss.data(), derivative.data(), stats, score.data(), rank.data(),
               level ? level.data() : nullptr, offsets.data(), weight.data(), weight.size(),
               settings);
  detail::record_saved_derivative(loss, score, derivative);
  return detail::checked("ranking_loss", loss);
}

/// Computes a loss under a tape, adds its gradients, and returns it. If it is not finite, nothing
/// is added, but by a HeadSlope: the forward pass runs again and NumericError names the first op
/// whose result is not.
template <class Forward>
float backpropagate(Forward forward) {
  {
    Tape tape;
    const auto loss = forward();
    const float value = loss.item();
    if (std::isfinite(value)) {
      tape.backward(loss);
      return value;
    }
  }
  const CheckFinite name_the_op;
  forward();
  fail<NumericError>("the loss is not finite");
}

/// The same without a wait: *loss comes with `reads`, and the gradients are added whatever it is,
/// which is the caller's to look at.
template <class D, class Forward>
void backpropagate(HostReads<D>& reads, float* loss, Forward forward) {
  Tape tape;
  const auto value = forward();
  reads.later(loss, value.data());
  tape.backward(value);
}

}}  // namespace plumb::v0_1
