// Step 4 of RLHF: PPO (Schulman et al. 2017) with a penalty on the divergence from a reference policy
// (Ziegler et al. 2019). An iteration:
//   1. collect     sample responses; their log-probs are those of training, bitwise
//   2. evaluate    reference log-probs, exact KL, values, scores
//   3. shape       r_t = −β·kl_t, plus the score at the end; GAE; whitening
//   4. update      epochs × minibatches of the clipped losses (this file; 1 to 3: rollout.hpp)
// Variants and their sources are named at the settings. Denominators are whole minibatches', so
// splitting one into micro-batches changes memory and never the loss. Not here: padding, dropout.
#pragma once

#include <plumb/optim/schedule.hpp>
#include <plumb/rlhf/rollout.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

template <class D>
class PpoTrainer {
 public:
  /// `policy` has a value head (shared trunk), or `value_model` is given. All outlive the trainer.
  PpoTrainer(Model<D>& policy, const Model<D>& reference, ScoreFunction score,
             const PpoConfig& config, Model<D>* value_model = nullptr)
      : policy_(policy),
        reference_(reference),
        score_(std::move(score)),
        value_model_(value_model),
        config_(config),
        controller_(config.beta, config.kl_target, config.kl_horizon),
        optimizer_(policy.parameters(), config.optimizer) {
    if (value_model != nullptr)
      value_optimizer_.emplace(value_model->parameters(), config.optimizer);
    check((value_model != nullptr ? *value_model : policy).head_kind() != ScalarHead::None,
          "[ppo] neither the policy nor a value model has a scalar head");
    if (config.sampling.sampling.filters() && !config.allow_filters)
      fail<DataError>(
          "[ppo] top-k, top-p and greedy rollouts draw from another distribution than the update "
          "trains: ratios are wrong and the KL can be negative. HINT: sample with temperature "
          "alone, "
          "or set allow_filters");
    check<DataError>(
        !config.sampling.bf16_weights,
        "[ppo] with bf16 weights the sampled log-probs are another model's than the one "
        "trained: the first ratio would not be 1. HINT: leave bf16_weights off");
    check(config.epochs >= 1 && config.minibatches >= 1,
          "[ppo] epochs and minibatches must be ≥ 1");
  }

  /// One iteration on a list of prompts. Returns its metrics; those named time/ are seconds.
  Metrics step(const std::vector<Tokens>& prompts) {
    check<DataError>(!prompts.empty(), "[ppo] there are no prompts");
    metrics_.clear();
    auto episodes =
        timed("time/sample", [&] { return collect(policy_, prompts, config_, iteration_); });
    try {
      const auto evaluation = [&] {
        evaluate(episodes, policy_, reference_, value_model_,
                 config_.sampling.sampling.temperature);
      };
      timed("time/evaluate", evaluation);
      require_finite(episodes, evaluation);
      timed("time/score", [&] { set_scores(episodes, score_, config_); });
    } catch (const NumericError& error) {
      throw NumericError(str("[ppo] iteration ", iteration_, ", ", error.what()));
    }
    const Metrics objective = shape_rewards(episodes, config_, controller_.beta());
    metrics_.insert(metrics_.end(), objective.begin(), objective.end());
    timed("time/update", [&] { update(episodes); });
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
  // 4. Clipped losses, epochs × minibatches.
  struct Totals {
    PolicyStats policy;
    ValueStats value;
    double policy_loss = 0, value_loss = 0, entropy = 0, grad_norm = 0, steps = 0;
  };

  void update(const std::vector<Episode>& episodes) {
    const float fraction =
        config_.linear_lr ? linear_schedule(1.0F, iteration_, config_.iterations) : 1.0F;
    const auto count = static_cast<Index>(episodes.size());
    Totals all, first;
    Index epoch = 0;
    for (bool stop = false; epoch < config_.epochs && !stop; ++epoch) {
      const auto order = permutation(
          count, Rng(config_.sampling.seed, Stage::Shuffle, static_cast<std::uint32_t>(iteration_),
                     static_cast<std::uint32_t>(epoch)));
      Totals this_epoch;
      const Index parts = std::min(config_.minibatches, count);
      for (Index m = 0; m < parts; ++m) {
        std::vector<const Episode*> members;
        for (Index i = m * count / parts; i < (m + 1) * count / parts; ++i)
          members.push_back(
              &episodes[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])]);
        try {
          minibatch(members, fraction, this_epoch);
        } catch (const NumericError& error) {
          throw NumericError(str("[ppo] iteration ", iteration_, ", epoch ", epoch, ", minibatch ",
                                 m, ": ", error.what()));
        }
        if (epoch == 0 && m == 0) first = this_epoch;
      }
      const double approx_kl = this_epoch.policy.approx_kl / this_epoch.steps;
      stop = config_.target_kl > 0 && approx_kl > config_.target_kl;
      merge(all, this_epoch);
    }
    report(all, first, epoch, config_.optimizer.lr * fraction);
  }

  // One optimizer step. Gradients come a micro-batch at a time; weights are shares of the minibatch.
  void minibatch(const std::vector<const Episode*>& members, float lr_fraction, Totals& t) {
    double tokens = 0, steps = 0;
    for (const Episode* e : members) {
      tokens += static_cast<double>(e->response.size());
      steps += static_cast<double>(e->values.size());
    }
    const auto micro = config_.micro_sequences > 0
                           ? static_cast<std::size_t>(config_.micro_sequences)
                           : members.size();
    for (std::size_t i = 0; i < members.size(); i += micro)
      micro_batch(std::span(members.data() + i, std::min(micro, members.size() - i)),
                  static_cast<float>(1.0 / tokens), static_cast<float>(1.0 / steps), t);
    if (value_optimizer_) value_optimizer_->gradient_norm();  // both models step, or neither
    t.grad_norm += optimizer_.step(config_.optimizer.lr * lr_fraction);
    if (value_optimizer_) value_optimizer_->step(config_.value_lr * lr_fraction);
    t.steps += 1;
  }

  void micro_batch(std::span<const Episode* const> part, float token_share, float step_share,
                   Totals& t) {
    const auto gather = [&](std::vector<float> Episode::*field) {
      std::vector<float> all;
      for (const Episode* e : part) all.insert(all.end(), (e->*field).begin(), (e->*field).end());
      return detail::device_vector<D>(all);
    };
    const auto batch = EpisodeBatch<D>::from(part);
    const auto old_logprob = gather(&Episode::logprobs), advantage = gather(&Episode::advantages);
    const auto old_value = gather(&Episode::values), returns = gather(&Episode::returns);
    const auto share = [](Index n, float w) {
      return detail::device_vector<D>(std::vector<float>(static_cast<std::size_t>(n), w));
    };
    const auto token_weight = share(batch.targets.size(), token_share);
    const auto step_weight = share(batch.value_rows.size(), step_share);

    backpropagate([&] {
      const auto hidden = policy_.transformer()(batch.batch);
      const auto out = head_logprob(embedding(hidden, batch.rows), policy_.transformer().head(),
                                    batch.targets, config_.sampling.sampling.temperature, true);
      PolicyStats policy_stats;
      ValueStats value_stats;
      const auto policy_loss = ppo_policy_loss(out.logprob, old_logprob, advantage, token_weight,
                                               config_.clip, &policy_stats);
      const auto value_loss =
          ppo_value_loss(batch_values(policy_, value_model_, hidden, batch), old_value, returns,
                         step_weight, config_.value_clip, &value_stats);
      const auto entropy = weighted_sum(out.entropy, token_weight);
      auto loss = add(policy_loss, scale(value_loss, config_.value_coef));
      if (config_.entropy_coef != 0) loss = add(loss, scale(entropy, -config_.entropy_coef));
      add_stats(t.policy, policy_stats);
      add_stats(t.value, value_stats);
      t.policy_loss += policy_loss.item();
      t.value_loss += value_loss.item();
      t.entropy += entropy.item();
      return loss;
    });
  }

  static void merge(Totals& a, const Totals& b) {
    add_stats(a.policy, b.policy);
    add_stats(a.value, b.value);
    a.policy_loss += b.policy_loss;
    a.value_loss += b.value_loss;
    a.entropy += b.entropy;
    a.grad_norm += b.grad_norm;
    a.steps += b.steps;
  }

  // TRL's names; means over minibatches of means over their tokens (TRL averages pads in, too).
  void report(const Totals& all, const Totals& first, Index epochs, float lr) {
    const double n = all.steps;
    const PolicyStats& p = all.policy;
    const double ratio = p.ratio / p.weight;  // exactly 1 if every ratio is
    const double returns_var =
        all.value.returns_squared / n - all.value.returns_mean / n * (all.value.returns_mean / n);
    metrics_.insert(metrics_.end(),
                    {{"policy/approxkl_avg", p.approx_kl / n},
                     {"policy/approxkl_k3_avg", p.approx_kl_k3 / n},
                     {"policy/clipfrac_avg", p.clipfrac / n},
                     {"policy/entropy_avg", all.entropy / n},
                     {"loss/policy_avg", all.policy_loss / n},
                     {"loss/value_avg", all.value_loss / n},
                     {"val/clipfrac_avg", all.value.clipfrac / n},
                     {"val/explained_variance",
                      returns_var > 0 ? 1.0 - all.value.error / n / returns_var : 0.0},
                     {"val/mean", all.value.mean / n},
                     {"val/ratio", ratio},
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

  Model<D>& policy_;
  const Model<D>& reference_;
  ScoreFunction score_;
  const Model<D>* value_model_;
  PpoConfig config_;
  KlController controller_;
  AdamW<D> optimizer_;
  std::optional<AdamW<D>> value_optimizer_;
  Index iteration_ = 0, episodes_ = 0;
  Metrics metrics_;
  std::vector<Episode> last_episodes_;
};

}}  // namespace plumb::v0_1
