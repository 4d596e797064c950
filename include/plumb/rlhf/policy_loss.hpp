// The policy's loss of a batch of episodes: clipped ratios of tokens or of whole responses,
// averaged as the settings say, and the divergence from the reference where it stands in the loss.
// Which choices make which method: rlhf/group.hpp. Denominators are the whole minibatch's, so that
// parts of it add up to its loss. Not here: advantages, the value loss.
#pragma once

#include <plumb/math/loss.hpp>
#include <plumb/rlhf/ppo_config.hpp>

#include <cstdint>
#include <span>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// What a minibatch holds: the denominators of its means.
struct MinibatchSize {
  double responses = 0, tokens = 0, steps = 0;

  static MinibatchSize of(std::span<const Episode* const> episodes) {
    MinibatchSize size;
    for (const Episode* e : episodes) {
      size.responses += 1;
      size.tokens += static_cast<double>(e->response.size());
      size.steps += static_cast<double>(e->steps);
    }
    return size;
  }
  /// What a token of a response weighs in the policy's loss.
  float token_share(const Episode& e, const PpoConfig& config) const {
    switch (config.reduction) {
      case Reduction::Sequence:
        return static_cast<float>(1.0 / (responses * static_cast<double>(e.response.size())));
      case Reduction::Constant:
        return static_cast<float>(
            1.0 / (responses * static_cast<double>(config.sampling.max_new_tokens)));
      default: return static_cast<float>(1.0 / tokens);
    }
  }
};

/// One field of each episode's tokens or steps, episode after episode.
template <class D>
Tensor<D> gathered(std::span<const Episode* const> episodes, std::vector<float> Episode::*field) {
  std::vector<float> all;
  for (const Episode* e : episodes) all.insert(all.end(), (e->*field).begin(), (e->*field).end());
  return device_vector<D>(all);
}

template <class D>
class PolicyLoss {
 public:
  /// Of some episodes of a minibatch; `beta`: of a divergence in the loss.
  PolicyLoss(std::span<const Episode* const> episodes, const PpoConfig& config,
             const MinibatchSize& minibatch, float beta)
      : config_(config),
        beta_(config.kl_place == KlPlace::Loss ? beta : 0.0F),
        old_logprob_(gathered<D>(episodes, &Episode::logprobs)),
        advantage_(gathered<D>(episodes, &Episode::advantages)) {
    std::vector<float> weights;
    for (const Episode* e : episodes)
      weights.insert(weights.end(), e->response.size(), minibatch.token_share(*e, config));
    weight_ = device_vector<D>(weights);
    if (beta_ != 0) ref_logprob_ = gathered<D>(episodes, &Episode::ref_logprobs);
    if (config.ratio != RatioOf::Token) take_responses(episodes, minibatch);
  }

  /// Of each token, (ΣR).
  const Tensor<D>& weight() const { return weight_; }

  /// The clipped loss, logprob (ΣR) -> (); `stats`, on the device, are of tokens, or of responses.
  Tensor<D> clipped(const Tensor<D>& logprob, PolicyStats* stats) const {
    if (config_.ratio == RatioOf::Token)
      return ppo_policy_loss(logprob, old_logprob_, advantage_, weight_, config_.clip, stats);
    return ppo_policy_loss(segment_sum(logprob, within_, offsets_),
                           segment_sum(old_logprob_, within_, offsets_), response_advantage_,
                           response_weight_, config_.clip, stats);
  }

  /// β · the divergence from the reference, (); none where it is not in the loss.
  Tensor<D> divergence(const Tensor<D>& logprob) const {
    if (beta_ == 0) return {};
    return scale(kl_loss(logprob, ref_logprob_, weight_, config_.kl), beta_);
  }

  /// What both, and an entropy bonus, make of each token, for the head. None for ratios of whole
  /// responses, which are known only when all their tokens are.
  HeadSlope<D> slope() const {
    if (config_.ratio != RatioOf::Token) return {};
    return [this](Index i, Index n, const LogProbs<D>& out, float* dlogprob, float* dentropy) {
      const auto unused = Tensor<D>::empty({});
      ppo_policy_loss(D{}, unused.data(), dlogprob, nullptr, out.logprob.data() + i,
                      old_logprob_.data() + i, advantage_.data() + i, weight_.data() + i, n,
                      config_.clip);
      scale_forward(D{}, dentropy, weight_.data() + i, -config_.entropy_coef, n);
      if (beta_ == 0) return;
      const auto charge = Tensor<D>::empty({n});
      kl_loss(D{}, unused.data(), charge.data(), out.logprob.data() + i, ref_logprob_.data() + i,
              weight_.data() + i, n, config_.kl);
      accumulate(D{}, dlogprob, charge.data(), beta_, n);
    };
  }

 private:
  void take_responses(std::span<const Episode* const> episodes, const MinibatchSize& minibatch) {
    std::vector<std::int32_t> offsets{0};
    std::vector<float> within, advantages;
    for (const Episode* e : episodes) {
      const std::size_t length = e->response.size();
      const bool mean = config_.ratio == RatioOf::SequenceMean;
      offsets.push_back(offsets.back() + static_cast<std::int32_t>(length));
      within.insert(within.end(), length, mean ? 1.0F / static_cast<float>(length) : 1.0F);
      advantages.push_back(e->advantages.at(0));
    }
    offsets_ = device_vector<D>(offsets);
    within_ = device_vector<D>(within);
    response_advantage_ = device_vector<D>(advantages);
    response_weight_ = device_vector<D>(
        std::vector<float>(episodes.size(), static_cast<float>(1.0 / minibatch.responses)));
  }

  const PpoConfig& config_;
  float beta_;
  Tensor<D> old_logprob_, advantage_, weight_, ref_logprob_;  // (ΣR)
  // Of whole responses:
  Tensor<D, std::int32_t> offsets_;
  Tensor<D> within_;  // (ΣR), what a token is of its response's log ratio
  Tensor<D> response_advantage_, response_weight_;
};

}}  // namespace plumb::v0_1
