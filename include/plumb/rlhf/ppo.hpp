// Step 4 of RLHF: PPO (Schulman et al. 2017) with a penalty on the divergence from a reference
// policy (Ziegler et al. 2019), and by the same loop the methods without a critic (rlhf/group.hpp).
// An iteration:
//   1. collect     sample responses; their log-probs are those of training, bitwise
//   2. evaluate    scores, reference log-probs, values; every kl_every-th time the exact KL
//   3. shape       r_t = −β·kl_t, plus the score at the end; advantages; whitening
//   4. update      epochs × minibatches of the clipped losses (this file, policy_loss.hpp; 1 to 3:
//                  rollout.hpp)
// Variants and their sources are named at the settings. Denominators are whole minibatches', so
// splitting one into micro-batches changes memory and never the loss. Not here: padding, dropout.
#pragma once

#include <plumb/math/loss.hpp>
#include <plumb/nn/model.hpp>
#include <plumb/ops/arithmetic.hpp>
#include <plumb/optim/schedule.hpp>
#include <plumb/rlhf/off_policy.hpp>
#include <plumb/rlhf/policy_loss.hpp>
#include <plumb/rlhf/rollout.hpp>
#include <plumb/rlhf/update.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// Trains a policy of any kind; P is the transformer's unless another is named.
template <class D, Policy P = Model<D>>
class PpoTrainer {
 public:
  /// `policy` has a value head (shared trunk), or `value_model` is given, or config.advantage needs
  /// no critic: then none is computed, and none trained. All outlive the trainer. DataError where
  /// settings make no sense.
  PpoTrainer(P& policy, const P& reference, ScoreFunction score, const PpoConfig& config,
             P* value_model = nullptr, Where where = Where::here())
      : policy_(policy),
        reference_(reference),
        score_(std::move(score)),
        value_model_(value_model),
        config_(checked(config, where)),
        controller_(config.beta, config.kl_target, config.kl_horizon),
        micro_tokens_(update_tokens(policy, config.micro_tokens, value_model)),
        optimizer_(policy.parameters(), config.optimizer) {
    if (!config_.advantage.compute) config_.advantage = gae_advantages(config.gamma, config.lambda);
    check<DataError>(config_.ratio == RatioOf::Token || !config_.advantage.critic,
                     "[ppo] a ratio of whole sequences needs one advantage a response: a method "
                     "without a critic",
                     where);
    if (config_.sampling.responses < config_.advantage.least_group)
      fail<DataError>(
          str("[ppo] this method compares responses to one prompt and needs at least ",
              config_.advantage.least_group, "; responses is ", config_.sampling.responses),
          where);
    if (!config_.advantage.critic) {
      check<DataError>(value_model == nullptr,
                       "[ppo] these advantages need no critic, but a value model was given", where);
      return;
    }
    check(has_scalar_head(value_model != nullptr ? *value_model : policy),
          "[ppo] neither the policy nor a value model has a scalar head", where);
    critic_ = value_model != nullptr ? Critic::Separate : Critic::Shared;
    if (value_model != nullptr)
      value_optimizer_.emplace(value_model->parameters(), config.optimizer);
  }

  /// What samples in place of the policy from here on: weights in fewer bits, or of an earlier
  /// iteration. It outlives the trainer. DataError unless the settings permit it.
  void sample_from(const P& sampler, Where where = Where::here()) {
    check<DataError>(config_.off_policy(),
                     "[ppo] what another model samples is off-policy. HINT: name a correction, or "
                     "set allow_off_policy",
                     where);
    sampler_ = &sampler;
  }

  /// One iteration on a list of prompts. Returns its metrics; those named time/ are seconds.
  Metrics step(const std::vector<Tokens>& prompts, Where where = Where::here()) {
    check<DataError>(!prompts.empty(), "[ppo] there are no prompts", where);
    metrics_.clear();
    auto episodes =
        timed("time/sample", [&] { return collect(*sampler_, prompts, config_, iteration_); });
    try {
      timed("time/score", [&] { set_scores(episodes, score_, config_); });
      if (critic_ == Critic::None || config_.drop_agreeing || config_.keep_groups > 0) {
        const Metrics groups = choose_groups(episodes, config_);
        metrics_.insert(metrics_.end(), groups.begin(), groups.end());
      }
      const auto evaluation = [&] {
        frozen_ = frozen_states(policy_, {&reference_, value_model_}, episodes);
        first_episode_ = episodes.data();
        evaluate(episodes, policy_, reference_, critic_, value_model_,
                 config_.sampling.sampling.temperature, frozen_,
                 config_.kl_every > 0 && iteration_ % config_.kl_every == 0, config_.off_policy());
      };
      timed("time/evaluate", evaluation);
      require_finite(episodes, evaluation);
    } catch (const NumericError& error) {
      throw NumericError(str("[ppo] iteration ", iteration_, ", ", error.what()));
    }
    if (config_.off_policy()) {
      const Metrics mismatch = correct_mismatch(episodes, config_);
      metrics_.insert(metrics_.end(), mismatch.begin(), mismatch.end());
    }
    const Metrics objective = shape_rewards(episodes, config_, controller_.beta());
    metrics_.insert(metrics_.end(), objective.begin(), objective.end());
    timed("time/update", [&] { update(episodes); });
    frozen_ = {};
    controller_.update(static_cast<float>(objective.front().second),
                       static_cast<Index>(episodes.size()));
    episodes_ += static_cast<Index>(episodes.size());
    ++iteration_;
    metrics_.emplace_back("episode", static_cast<double>(episodes_));
    double tokens = 0, seconds = 0;
    for (const Episode& e : episodes) tokens += static_cast<double>(e.response.size());
    for (const auto& [name, value] : metrics_)
      if (name.starts_with("time/")) seconds += value;
    metrics_.emplace_back("time/tokens_per_second", tokens / seconds);
    last_episodes_ = std::move(episodes);
    return metrics_;
  }

  /// What the last iteration saw.
  const std::vector<Episode>& episodes() const { return last_episodes_; }

  // The state that a checkpoint keeps beside the models' weights.
  struct State {
    Index iteration, episodes, optimizer_steps;
    float beta;
  };
  State state() const { return {iteration_, episodes_, optimizer_.steps(), controller_.beta()}; }
  void restore(const State& state) {
    iteration_ = state.iteration;
    episodes_ = state.episodes;
    optimizer_.set_steps(state.optimizer_steps);
    if (value_optimizer_) value_optimizer_->set_steps(state.optimizer_steps);
    controller_.set_beta(state.beta);
  }
  const AdamW<D>& optimizer() const { return optimizer_; }
  const AdamW<D>* value_optimizer() const {
    return value_optimizer_ ? &*value_optimizer_ : nullptr;
  }
  Index iteration() const { return iteration_; }

 private:
  struct Totals {
    PolicyStats policy;
    ValueStats value;
    double policy_loss = 0, value_loss = 0, divergence = 0, entropy = 0, grad_norm = 0, steps = 0;
  };

  /// What a micro-batch says of itself.
  struct Part {
    PolicyStats policy;
    ValueStats value;
    float loss = 0, policy_loss = 0, value_loss = 0, divergence = 0, entropy = 0;
  };

  static bool has_scalar_head(const P& model) { return model.head_kind() != ScalarHead::None; }

  static PpoConfig checked(PpoConfig config, Where where) {
    check_ppo(config, where);
    return config;
  }

  // 4. Clipped losses, epochs × minibatches.
  void update(const std::vector<Episode>& episodes) {
    const float fraction =
        config_.linear_lr ? linear_schedule(1.0F, iteration_, config_.iterations) : 1.0F;
    const std::vector<std::size_t> items = minibatch_items(episodes);
    const auto count = static_cast<Index>(items.size()) - 1;
    std::vector<Trained<D>> models{
        {&policy_.parameters(), &optimizer_, config_.optimizer.lr * fraction}};
    if (value_optimizer_)
      models.push_back(
          {&value_model_->parameters(), &*value_optimizer_, config_.value_lr * fraction});
    const Minibatches minibatches{
        count, config_.epochs, std::min(config_.minibatches, count), 0, [&](Index epoch) {
          return Rng(config_.sampling.seed, Stage::Shuffle, static_cast<std::uint32_t>(iteration_),
                     static_cast<std::uint32_t>(epoch));
        }};
    Totals all, first, this_epoch;
    Index epochs = 0;
    Updates<D> updates;
    const auto minibatch = [&](Index epoch, Index part, const std::vector<std::size_t>& places) {
      if (part == 0) this_epoch = {};
      std::vector<const Episode*> members;
      for (const std::size_t place : places)
        for (std::size_t e = items[place]; e < items[place + 1]; ++e)
          members.push_back(&episodes[e]);
      this_epoch.grad_norm += updates.step(
          models, [&] { add_gradients(members, updates.reads()); },
          [&] { add_parts(members, this_epoch); },
          [&] {
            return str("[ppo] iteration ", iteration_, ", epoch ", epoch, ", minibatch ", part);
          },
          config_.before_step);
      this_epoch.steps += 1;
      if (epoch == 0 && part == 0) first = this_epoch;
    };
    minibatches.run(minibatch, [&](Index) {
      const double approx_kl = this_epoch.policy.approx_kl / this_epoch.steps;
      merge(all, this_epoch);
      ++epochs;
      return !(config_.target_kl > 0 && approx_kl > config_.target_kl);
    });
    updates.finish();
    report(all, first, epochs, config_.optimizer.lr * fraction);
  }

  // Where each item of the shuffles begins, and the end: the episodes of a prompt together, so that
  // the prompt is computed once for them, if there is a prompt at least for each minibatch.
  std::vector<std::size_t> minibatch_items(const std::vector<Episode>& episodes) const {
    std::vector<std::size_t> prompts, each;
    for (std::size_t e = 0; e < episodes.size(); ++e) {
      each.push_back(e);
      if (e == 0 || episodes[e].group != episodes[e - 1].group) prompts.push_back(e);
    }
    auto& items = static_cast<Index>(prompts.size()) >= config_.minibatches ? prompts : each;
    items.push_back(episodes.size());
    return items;
  }

  // The gradient of a minibatch, a micro-batch at a time; weights are shares of the minibatch. What
  // it says of itself comes into parts_ with `reads`.
  void add_gradients(const std::vector<const Episode*>& members, HostReads<D>& reads) {
    const auto minibatch = MinibatchSize::of(members);
    parts_.clear();
    for_episode_runs(partial_batches<P>, members, micro_tokens_,
                     [&](const PackedBatch& packed, std::span<const Episode* const> part) {
                       micro_batch(packed, part, minibatch, reads);
                     });
  }

  void micro_batch(const PackedBatch& packed, std::span<const Episode* const> part,
                   const MinibatchSize& minibatch, HostReads<D>& reads) {
    auto batch = EpisodeBatch<D>::from(packed, part);
    frozen_.attach(batch.batch, packed, places_of(part, first_episode_));
    const PolicyLoss<D> of_policy(part, config_, minibatch, controller_.beta());
    Part& t = parts_.emplace_back();
    backpropagate(reads, &t.loss, [&] {
      const auto hidden = policy_.hidden(batch.batch);
      const auto out = head_logprob(embedding(hidden, batch.rows), policy_.head(), batch.targets,
                                    config_.sampling.sampling.temperature, true, of_policy.slope());
      const auto policy_loss = of_policy.clipped(out.logprob, reads.room(&t.policy));
      auto loss = policy_loss;
      if (critic_ != Critic::None) {
        const auto step_weight =
            device_vector<D>(std::vector<float>(static_cast<std::size_t>(batch.value_rows.size()),
                                                static_cast<float>(1.0 / minibatch.steps)));
        const auto value_loss = ppo_value_loss(batch_values(policy_, value_model_, hidden, batch),
                                               gathered<D>(part, &Episode::values),
                                               gathered<D>(part, &Episode::returns), step_weight,
                                               config_.value_clip, reads.room(&t.value));
        loss = add(loss, scale(value_loss, config_.value_coef));
        reads.later(&t.value_loss, value_loss.data());
      }
      if (const auto divergence = of_policy.divergence(out.logprob)) {
        loss = add(loss, divergence);
        reads.later(&t.divergence, divergence.data());
      }
      const auto entropy = weighted_sum(out.entropy, of_policy.weight());
      if (config_.entropy_coef != 0) loss = add(loss, scale(entropy, -config_.entropy_coef));
      reads.later(&t.policy_loss, policy_loss.data());
      reads.later(&t.entropy, entropy.data());
      return loss;
    });
  }

  // Adds up what a minibatch's micro-batches said, once it is there. NumericError naming the op if
  // one's loss is not finite: all run again.
  void add_parts(const std::vector<const Episode*>& members, Totals& t) {
    for (const Part& part : parts_) {
      if (!std::isfinite(part.loss)) {
        const CheckFinite name_the_op;
        HostReads<D> unread;
        add_gradients(members, unread);
        fail<NumericError>("the loss is not finite");
      }
      add_stats(t.policy, part.policy);
      add_stats(t.value, part.value);
      t.policy_loss += part.policy_loss;
      t.value_loss += part.value_loss;
      t.divergence += part.divergence;
      t.entropy += part.entropy;
    }
  }

  static void merge(Totals& a, const Totals& b) {
    add_stats(a.policy, b.policy);
    add_stats(a.value, b.value);
    a.policy_loss += b.policy_loss;
    a.value_loss += b.value_loss;
    a.divergence += b.divergence;
    a.entropy += b.entropy;
    a.grad_norm += b.grad_norm;
    a.steps += b.steps;
  }

  // TRL's names; means over minibatches of means over their tokens (TRL averages pads in, too).
  void report(const Totals& all, const Totals& first, Index epochs, float lr) {
    const double n = all.steps;
    const PolicyStats& p = all.policy;
    const double ratio = p.ratio / p.weight;  // exactly 1 if every ratio is
    metrics_.insert(metrics_.end(), {{"policy/approxkl_avg", p.approx_kl / n},
                                     {"policy/approxkl_k3_avg", p.approx_kl_k3 / n},
                                     {"policy/clipfrac_avg", p.clipfrac / n},
                                     {"policy/entropy_avg", all.entropy / n},
                                     {"loss/policy_avg", all.policy_loss / n}});
    if (config_.kl_place == KlPlace::Loss)
      metrics_.emplace_back("loss/divergence_avg", all.divergence / n);
    if (critic_ != Critic::None) {
      const double mean = all.value.returns_mean / n;
      const double variance = all.value.returns_squared / n - mean * mean;
      metrics_.insert(metrics_.end(), {{"loss/value_avg", all.value_loss / n},
                                       {"val/clipfrac_avg", all.value.clipfrac / n},
                                       {"val/explained_variance",
                                        variance > 0 ? 1.0 - all.value.error / n / variance : 0.0},
                                       {"val/mean", all.value.mean / n}});
    }
    metrics_.insert(metrics_.end(),
                    {{"val/ratio", ratio},
                     {"val/ratio_var", std::max(p.ratio_squared / p.weight - ratio * ratio, 0.0)},
                     {"val/ratio_first_minibatch", first.policy.ratio / first.policy.weight},
                     {"val/ratio_first_minibatch_max_deviation", first.policy.ratio_max_deviation},
                     {"grad_norm", all.grad_norm / n},
                     {"epochs", static_cast<double>(epochs)},
                     {"lr", lr}});
  }

  template <class Work>
  auto timed(const char* name, Work work) {
    const auto start = std::chrono::steady_clock::now();
    struct Stop {
      Metrics& metrics;
      const char* name;
      std::chrono::steady_clock::time_point start;
      ~Stop() {
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        metrics.emplace_back(name, seconds.count());
      }
    } stop{metrics_, name, start};
    return work();
  }

  P& policy_;
  const P* sampler_ = &policy_;
  const P& reference_;
  ScoreFunction score_;
  P* value_model_;
  Critic critic_ = Critic::None;
  PpoConfig config_;
  KlController controller_;
  Index micro_tokens_;  // of one forward in an update
  AdamW<D> optimizer_;
  std::optional<AdamW<D>> value_optimizer_;
  Index iteration_ = 0, episodes_ = 0;
  FrozenStates<D> frozen_;  // of the iteration's episodes, which begin here:
  const Episode* first_episode_ = nullptr;
  std::deque<Part> parts_;  // of a minibatch: their places stay
  Metrics metrics_;
  std::vector<Episode> last_episodes_;
};

}}  // namespace plumb::v0_1
