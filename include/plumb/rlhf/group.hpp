// Methods without a critic: what is expected of a response is what the others to its prompt got.
// Each is a choice of four things, and of nothing else; the sampler, the evaluation and the update
// loop are PPO's (rlhf/ppo.hpp), and so are the settings, any of which may be changed afterwards.
//
//   method                 advantage of a response's tokens        ratio     reduction  divergence
//   grpo                   (s − mean) / std of the group           token     sequences  k3, in loss
//   dr-grpo                s − mean                                token     constant   none
//   rloo                   s − mean of the others, s with −β·k1    sequence  sequences  in reward
//   reinforce++            Σ of the rewards to come, whitened      token     tokens     k1, reward
//   reinforce++-baseline   s − mean, whitened over the batch       token     tokens     k2, in loss
//   dapo                   (s − mean) / std                        token     tokens     none
//   gspo                   (s − mean) / std                        sequence  sequences  none
//   cispo                  (s − mean) / std                        a weight  tokens     none
//
// Sources, and what is taken where implementations differ:
//   grpo         Shao et al. 2024, "DeepSeekMath": mean over each response, then over responses.
//                (TRL's default is DAPO's reduction.)
//   dr-grpo      Liu et al. 2025, "Understanding R1-Zero-like training": no division by the group's
//                spread, which favours prompts that are nearly decided, nor by the response's
//                length, which is lenient with long wrong ones; by the longest length instead.
//   rloo         Ahmadian et al. 2024, "Back to basics"; with TRL's ratio of whole sequences,
//                clipped, so that several updates may follow one sampling.
//   reinforce++  Hu 2025; as in OpenRLHF.
//   dapo         Yu et al. 2025: clip 0.2 below and 0.28 above, mean over all tokens, groups that
//                agree left out (drop_agreeing; the paper samples until the batch is full, here
//                give more prompts and say how many groups to keep), a penalty near the longest
//                length (overlong).
//   gspo         Zheng et al. 2025: the ratio of a sequence is e^(mean log ratio of its tokens).
//   cispo        MiniMax 2025, "MiniMax-M1": the ratio is a constant weight, clipped above only.
// Not here: groups over more than one iteration (replay), rewards per step.
#pragma once

#include <plumb/rlhf/ppo_config.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

enum class PolicyMethod {
  Ppo,
  Grpo,
  DrGrpo,
  Rloo,
  ReinforcePlusPlus,
  ReinforcePlusPlusBaseline,
  Dapo,
  Gspo,
  Cispo
};
constexpr std::array<std::pair<const char*, PolicyMethod>, 9> choices(PolicyMethod) {
  return {{{"ppo", PolicyMethod::Ppo},
           {"grpo", PolicyMethod::Grpo},
           {"dr-grpo", PolicyMethod::DrGrpo},
           {"rloo", PolicyMethod::Rloo},
           {"reinforce++", PolicyMethod::ReinforcePlusPlus},
           {"reinforce++-baseline", PolicyMethod::ReinforcePlusPlusBaseline},
           {"dapo", PolicyMethod::Dapo},
           {"gspo", PolicyMethod::Gspo},
           {"cispo", PolicyMethod::Cispo}}};
}

namespace detail {
/// What a response got in all: its score, and what its divergence cost where that is in the reward.
inline double total_reward(const Episode& e) {
  double sum = 0;
  for (const float r : e.rewards) sum += r;
  return sum;
}
}  // namespace detail

/// A response's reward less the mean of its group, over the group's standard deviation + 1e-4 if
/// `scale` names one (TRL's addend; Unbiased: n − 1).
inline AdvantageMethod group_advantages(Whitening scale) {
  return {false,
          [scale](std::span<Episode> episodes) {
            for_groups(episodes, [&](std::span<Episode> group) {
              const auto n = static_cast<double>(group.size());
              double mean = 0, square = 0;
              for (const Episode& e : group) mean += detail::total_reward(e);
              mean /= n;  // of equal rewards their very value, so that advantages are 0
              for (const Episode& e : group) {
                const double apart = detail::total_reward(e) - mean;
                square += apart * apart;
              }
              const double free = scale == Whitening::Unbiased ? n - 1 : n;
              const double spread =
                  scale == Whitening::None ? 1.0 : std::sqrt(square / free) + 1e-4;
              for (Episode& e : group)
                e.advantages.assign(e.response.size(),
                                    static_cast<float>((detail::total_reward(e) - mean) / spread));
            });
          },
          2};
}

/// A response's reward less the mean of the others of its group.
inline AdvantageMethod leave_one_out_advantages() {
  return {false,
          [](std::span<Episode> episodes) {
            for_groups(episodes, [](std::span<Episode> group) {
              double sum = 0;
              for (const Episode& e : group) sum += detail::total_reward(e);
              const auto others = static_cast<double>(group.size()) - 1;
              for (Episode& e : group) {
                const double own = detail::total_reward(e);
                e.advantages.assign(e.response.size(),
                                    static_cast<float>(own - (sum - own) / others));
              }
            });
          },
          2};
}

/// The sum of the rewards from a token on: no baseline but what whitening takes off.
inline AdvantageMethod return_advantages() {
  return {false, [](std::span<Episode> episodes) {
            for (Episode& e : episodes) {
              e.advantages.assign(e.response.size(), 0.0F);
              double sum = 0;
              for (std::size_t t = e.rewards.size(); t-- > 0;) {
                sum += e.rewards[t];
                if (t < e.advantages.size()) e.advantages[t] = static_cast<float>(sum);
              }
            }
          }};
}

/// A method's advantages. Of PPO none is named, which is GAE.
inline AdvantageMethod advantages_of(PolicyMethod method, const PpoConfig& c) {
  switch (method) {
    case PolicyMethod::Ppo: return {};
    case PolicyMethod::Rloo: return leave_one_out_advantages();
    case PolicyMethod::ReinforcePlusPlus: return return_advantages();
    case PolicyMethod::DrGrpo:
    case PolicyMethod::ReinforcePlusPlusBaseline: return group_advantages(Whitening::None);
    default: return group_advantages(c.group_scale);
  }
}

/// Makes a method of settings: those that the table above names; the others stay, and all for PPO.
/// KL coefficients and clips are the papers'.
inline void use_method(PpoConfig& c, PolicyMethod method) {
  if (method == PolicyMethod::Ppo) return;
  c.advantage = advantages_of(method, c);
  c.whiten_advantages = Whitening::None;
  c.ratio = RatioOf::Token;
  c.reduction = Reduction::Token;
  c.kl_place = KlPlace::Loss;
  c.beta = 0;
  c.clip = {};
  switch (method) {
    case PolicyMethod::Ppo: break;
    case PolicyMethod::Grpo:
      c.reduction = Reduction::Sequence;
      c.kl = KlEstimator::K3;
      c.beta = 0.04F;
      break;
    case PolicyMethod::DrGrpo: c.reduction = Reduction::Constant; break;
    case PolicyMethod::Rloo:
      c.ratio = RatioOf::Sequence;
      c.reduction = Reduction::Sequence;
      c.kl_place = KlPlace::Reward;
      c.kl = KlEstimator::K1;
      c.beta = 0.05F;
      break;
    case PolicyMethod::ReinforcePlusPlus:
      c.whiten_advantages = Whitening::Population;
      c.kl_place = KlPlace::Reward;
      c.kl = KlEstimator::K1;
      c.beta = 0.01F;
      break;
    case PolicyMethod::ReinforcePlusPlusBaseline:
      c.whiten_advantages = Whitening::Population;
      c.kl = KlEstimator::K2;
      c.beta = 0.01F;
      break;
    case PolicyMethod::Dapo:
      c.clip = {.low = 0.2F, .high = 0.28F};
      c.drop_agreeing = true;
      break;
    case PolicyMethod::Gspo:
      c.ratio = RatioOf::SequenceMean;
      c.reduction = Reduction::Sequence;
      c.clip = {.low = 3e-4F, .high = 4e-4F};
      break;
    case PolicyMethod::Cispo: c.clip = {.low = 1.0F, .high = 4.0F, .kind = ClipKind::Weight}; break;
  }
}

}}  // namespace plumb::v0_1
