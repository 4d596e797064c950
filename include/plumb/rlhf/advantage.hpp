// From rewards to advantages: how much better a token was than expected. A method is a function of
// the episodes of an iteration, all at once, so that it may compare those of a group; whether it
// needs a critic is part of it. GAE (rlhf/gae.hpp) does; a baseline made of a group's other scores
// does not.
#pragma once

#include <plumb/rlhf/episode.hpp>
#include <plumb/rlhf/gae.hpp>

#include <functional>
#include <span>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// Fills every episode's advantages (R), and its returns (steps) if it uses a critic, from its
/// rewards
/// (steps) and, with a critic, its values (steps).
struct AdvantageMethod {
  bool critic = true;  ///< whether values are needed: without, none is computed and none trained
  std::function<void(std::span<Episode>)> compute;
  Index least_group = 1;  ///< responses to a prompt that it needs
};

/// Generalised advantage estimation within each episode.
inline AdvantageMethod gae_advantages(float gamma, float lambda) {
  return {true, [gamma, lambda](std::span<Episode> episodes) {
            for (Episode& e : episodes) {
              auto result = gae(e.rewards, e.values, gamma, lambda);
              e.advantages = std::move(result.advantages);
              e.returns = std::move(result.returns);
              e.advantages.resize(e.response.size());  // nothing was chosen after the end
            }
          }};
}

}}  // namespace plumb::v0_1
