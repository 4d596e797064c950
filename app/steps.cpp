#include "steps.hpp"

#include "format.hpp"
#include "progress.hpp"

#include <plumb/data/folds.hpp>
#include <plumb/run/interrupt.hpp>

#include <sys/stat.h>

#include <cstdio>
#include <limits>
#include <optional>
#include <set>

namespace plumb { inline namespace v0_1 {

namespace {

void stop_if_interrupted(const char* what) {
  if (interrupted())
    throw Interrupted(str(what, " was interrupted. The same command takes it up again."));
}

// A callback for a stop text: decodes the last tokens of a response.
auto stop_texts(const Loaded& loaded, const std::vector<std::string>& texts) {
  return [&loaded, texts](std::span<const std::int32_t> response) {
    const std::string tail = loaded.tokenizer->decode(
        response.subspan(response.size() - std::min<std::size_t>(response.size(), 32)));
    for (const std::string& text : texts)
      if (tail.find(text) != std::string::npos) return true;
    return false;
  };
}

std::vector<RankedPrompt> encode_rankings(const Loaded& base,
                                          const std::vector<Ranking>& rankings) {
  std::vector<RankedPrompt> prompts;
  for (const Ranking& ranking : rankings) prompts.push_back(ranked_prompt(base, ranking));
  return prompts;
}

// Counts of two evaluations together; the means weighted by pairs.
void merge(RewardEvaluation& a, const RewardEvaluation& b) {
  const double pairs = a.pairs + b.pairs;
  if (pairs > 0) {
    a.ece = (a.ece * a.pairs + b.ece * b.pairs) / pairs;
    a.mean_margin = (a.mean_margin * a.pairs + b.mean_margin * b.pairs) / pairs;
  }
  a.pairs = pairs;
  a.correct += b.correct;
  a.length_correct += b.length_correct;
}

struct Split {
  std::vector<RankedPrompt> train, held_out;
  Index held_out_prompts = 0;  // several rankings may be of one prompt
};

Split split_fold(const std::vector<Ranking>& rankings, const std::vector<RankedPrompt>& prompts,
                 int folds, int fold, std::uint64_t seed) {
  Split split;
  std::vector<std::string> all;
  for (const Ranking& ranking : rankings) all.push_back(ranking.group);
  const std::vector<int> dealt = deal_folds(all, folds, seed);
  std::set<std::string> groups;
  for (std::size_t i = 0; i < rankings.size(); ++i) {
    const bool held_out = dealt[i] == fold;
    (held_out ? split.held_out : split.train).push_back(prompts[i]);
    if (held_out) groups.insert(rankings[i].group);
  }
  split.held_out_prompts = static_cast<Index>(groups.size());
  return split;
}

// The value that a name stands for. DataError names the choices.
template <class T>
T choose(const char* setting, const std::string& name,
         std::initializer_list<std::pair<const char*, T>> choices) {
  std::string known;
  for (const auto& [choice, value] : choices) {
    if (name == choice) return value;
    known += (known.empty() ? "" : ", ") + std::string(choice);
  }
  fail<DataError>(str("[", setting, "] '", name, "' is not one of: ", known));
}
Whitening whitening_of(const char* setting, const std::string& name) {
  return choose<Whitening>(setting, name,
                           {{"none", Whitening::None},
                            {"population", Whitening::Population},
                            {"unbiased", Whitening::Unbiased}});
}

OwnedArray flat_array(const std::string& name, const Tensor<Device>& tensor) {
  return {name, tensor.shape(), tensor.to_vector()};
}

void restore_flat(const Checkpoint& checkpoint, const std::string& name, const Tensor<Device>& to) {
  const OwnedArray* array = checkpoint.find(name);
  if (array == nullptr || array->shape != to.shape())
    fail<DataError>(str("[ppo] the checkpoint has no fitting array '", name,
                        "'. HINT: was the run begun with another model or other settings?"));
  copy_from_host(Device{}, to.data(), array->data.data(), to.bytes());
}

// Everything that the next iteration depends on.
void save_ppo(const std::string& path, const Loaded& like, const DeviceModel& policy,
              const DeviceModel* value, const PpoTrainer<Device>& trainer) {
  std::vector<OwnedArray> more{flat_array("adamw.m", trainer.optimizer().m()),
                               flat_array("adamw.v", trainer.optimizer().v())};
  if (value != nullptr) {
    const auto arrays = parameter_arrays(*value, "value_model.");
    more.insert(more.end(), arrays.begin(), arrays.end());
    more.push_back(flat_array("value_adamw.m", trainer.value_optimizer()->m()));
    more.push_back(flat_array("value_adamw.v", trainer.value_optimizer()->v()));
  }
  const auto state = trainer.state();
  save_model(path, policy, like, more,
             {{"ppo", Json{{"iteration", state.iteration},
                           {"episodes", state.episodes},
                           {"optimizer_steps", state.optimizer_steps},
                           {"beta", state.beta}}
                          .dump()}});
}

void restore_ppo(const std::string& path, DeviceModel& policy, DeviceModel* value,
                 PpoTrainer<Device>& trainer) {
  const Checkpoint checkpoint = read_checkpoint(path);
  const auto found = checkpoint.metadata.find("ppo");
  if (found == checkpoint.metadata.end())
    fail<DataError>(str("[ppo] ", path, " holds no PPO state"));
  const Json state = parse_json(found->second, path + ": its PPO state");
  load_parameters(policy, checkpoint);
  restore_flat(checkpoint, "adamw.m", trainer.optimizer().m());
  restore_flat(checkpoint, "adamw.v", trainer.optimizer().v());
  if (value != nullptr) {
    load_parameters(*value, checkpoint, "value_model.");
    restore_flat(checkpoint, "value_adamw.m", trainer.value_optimizer()->m());
    restore_flat(checkpoint, "value_adamw.v", trainer.value_optimizer()->v());
  }
  trainer.restore(
      {state.at("iteration"), state.at("episodes"), state.at("optimizer_steps"), state.at("beta")});
}

double metric(const Metrics& metrics, const std::string& name) {
  for (const auto& [key, value] : metrics)
    if (key == name) return value;
  return std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

PpoConfig ppo_config(const PpoSettings& s, const Loaded& like) {
  PpoConfig c;
  c.iterations = s.iterations;
  c.epochs = s.epochs;
  c.minibatches = s.minibatches;
  c.micro_sequences = s.micro_sequences;
  c.sampling.sampling = {s.temperature, s.top_k, s.top_p};
  c.sampling.responses = s.responses;
  c.sampling.max_new_tokens = s.max_new_tokens;
  c.sampling.stops = like.tokenizer->stops();
  c.sampling.seed = s.seed;
  c.allow_filters = s.allow_filters;
  c.kl = choose<KlEstimator>(
      "kl", s.kl, {{"k1", KlEstimator::K1}, {"k2", KlEstimator::K2}, {"k3", KlEstimator::K3}});
  c.beta = s.beta;
  c.kl_target = s.kl_target;
  c.kl_horizon = s.kl_horizon;
  c.gamma = s.gamma;
  c.lambda = s.lambda;
  c.whiten_rewards = whitening_of("whiten-rewards", s.whiten_rewards);
  c.whiten_advantages = whitening_of("whiten-advantages", s.whiten_advantages);
  c.clip = {s.clip, s.clip_high > 0 ? s.clip_high : s.clip, s.dual_clip, 0.0F};
  c.value_clip = s.value_clip;
  c.value_coef = s.value_coef;
  c.value_lr = s.value_lr;
  c.entropy_coef = s.entropy_coef;
  c.score_clip = s.score_clip;
  c.missing_eos_penalty = s.missing_eos_penalty;
  c.missing_eos = s.missing_eos_replaces ? MissingEos::Replace : MissingEos::Subtract;
  c.score_position = s.score_after_end ? ScorePosition::AfterEnd : ScorePosition::LastToken;
  c.target_kl = s.target_kl;
  c.linear_lr = !s.constant_lr;
  c.optimizer = {s.lr, 0.9F, 0.999F, s.eps, s.weight_decay, s.max_grad_norm, s.tf_eps};
  return c;
}

void train_sft(const Loaded& loaded, const std::vector<Demonstration>& demonstrations,
               const SftSettings& s) {
  std::vector<Example> examples;
  for (const Demonstration& d : demonstrations) {
    Example e{encode_prompt(loaded, d.prompt, 0), {}};
    const Tokens all = encode_pair(loaded, d.prompt, d.completion, true);
    e.prompt.resize(std::min(e.prompt.size(), all.size() - 1));
    e.completion.assign(all.begin() + static_cast<std::ptrdiff_t>(e.prompt.size()), all.end());
    e.prompt.assign(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(e.prompt.size()));
    examples.push_back(std::move(e));
  }
  SftConfig config{.epochs = s.epochs, .batch = s.batch, .seed = s.seed};
  config.optimizer.lr = s.lr;
  config.optimizer.weight_decay = s.weight_decay;
  std::optional<Progress> progress;
  sft_train(*loaded.model, examples, config, [&](Index update, Index total, float loss) {
    if (!progress) progress.emplace("fine-tuning", total, "update");
    progress->update(update + 1, str("loss ", fixed(loss, 3), " nats/token"));
    stop_if_interrupted("Fine-tuning");
  });
}

std::vector<Candidates> generate_candidates(const Loaded& loaded,
                                            const std::vector<std::string>& prompts,
                                            const GenerateSettings& s, std::uint32_t step,
                                            const std::string& label) {
  std::vector<Tokens> tokens;
  for (const std::string& prompt : prompts)
    tokens.push_back(encode_prompt(loaded, prompt, s.max_new_tokens));
  SampleOptions options;
  options.sampling = {s.temperature, s.top_k, s.top_p};
  options.responses = s.responses;
  options.max_new_tokens = s.max_new_tokens;
  options.stops = loaded.tokenizer->stops();
  if (!s.stop.empty()) options.stop_when = stop_texts(loaded, s.stop);
  options.seed = s.seed;
  options.step = step;
  options.slots = s.slots;
  Progress progress(label, static_cast<Index>(prompts.size()) * s.responses, "response");
  options.progress = [&](Index done, Index) {
    progress.update(done);
    stop_if_interrupted("Generation");
  };
  const auto responses = sample(*loaded.model, tokens, options);

  const std::string model = fingerprint(*loaded.model);
  const Json sampling = {{"temperature", s.temperature},
                         {"top_k", s.top_k},
                         {"top_p", s.top_p},
                         {"max_new_tokens", s.max_new_tokens},
                         {"stop", s.stop},
                         {"seed", s.seed},
                         {"step", step}};
  std::vector<Candidates> result(prompts.size());
  for (std::size_t i = 0; i < prompts.size(); ++i)
    result[i] = {str("r", step, "-", i), prompts[i], {}, {}, model, json_text(sampling)};
  for (const Response& response : responses) {
    const auto i = static_cast<std::size_t>(response.prompt);
    result[i].responses.push_back(response_text(loaded, tokens[i], response.tokens));
    result[i].finished.push_back(response.finished);
    result[i].tokens.push_back(response.tokens);
  }
  return result;
}

Json RewardReport::json() const {
  const Interval interval = wilson_interval(held_out.correct, held_out.pairs);
  return {{"reward_accuracy", held_out.accuracy()},
          {"reward_accuracy_low", interval.low},
          {"reward_accuracy_high", interval.high},
          {"reward_accuracy_length_baseline", held_out.length_accuracy()},
          {"reward_accuracy_shuffled_labels", shuffled_accuracy},
          {"reward_ece", held_out.ece},
          {"reward_mean_margin", held_out.mean_margin},
          {"held_out_prompts", prompts},
          {"held_out_pairs", held_out.pairs}};
}

void RewardReport::print() const {
  const Interval i = wilson_interval(held_out.correct, held_out.pairs);
  std::printf(
      "reward model on %lld held-out prompts, %s pairs:\n"
      "  accuracy                  %s  (95 %% interval %s to %s)\n"
      "  longer response wins      %s\n",
      static_cast<long long>(prompts), fixed(held_out.pairs, 0).c_str(),
      percent(held_out.accuracy()).c_str(), fixed(100 * i.low, 1).c_str(),
      fixed(100 * i.high, 1).c_str(), percent(held_out.length_accuracy()).c_str());
  if (!std::isnan(shuffled_accuracy))
    std::printf("  fitted to shuffled labels %s\n", percent(shuffled_accuracy).c_str());
  std::printf(
      "  calibration error (ECE)   %s\n"
      "  (the interval takes pairs as independent; those of one prompt are not quite)\n",
      fixed(held_out.ece, 3).c_str());
}

std::shared_ptr<DeviceModel> train_reward(const Loaded& base,
                                          const std::vector<RankedPrompt>& train,
                                          const RewardSettings& s, const std::string& label) {
  auto model = std::make_shared<DeviceModel>(base.model->clone(ScalarHead::Reward, s.seed));
  RewardConfig config;
  config.epochs = s.epochs;
  config.batch = s.batch;
  config.loss = {choose<RankingLossKind>("loss", s.loss,
                                         {{"bt", RankingLossKind::BradleyTerry},
                                          {"pl", RankingLossKind::PlackettLuce}}),
                 s.margin, s.center};
  config.optimizer.lr = s.lr;
  config.seed = s.seed;
  std::optional<Progress> progress;
  reward_train(*model, train, config, [&](Index update, Index total, float loss) {
    if (!progress) progress.emplace(label, total, "update");
    progress->update(update + 1, "loss " + fixed(loss, 3));
    stop_if_interrupted("Reward model training");
  });
  return model;
}

RewardReport cross_validate(const Loaded& base, const std::vector<Ranking>& rankings, int folds,
                            const RewardSettings& s) {
  const auto prompts = encode_rankings(base, rankings);
  RewardReport report;
  RewardEvaluation control;
  for (int fold = 0; fold < folds; ++fold) {
    const Split split = split_fold(rankings, prompts, folds, fold, s.seed);
    const auto model = train_reward(base, split.train, s, str("fold ", fold + 1, "/", folds));
    merge(report.held_out, reward_evaluate(*model, split.held_out));
    const auto shuffled = train_reward(base, shuffle_labels(split.train, s.seed), s,
                                       str("fold ", fold + 1, "/", folds, ", shuffled labels"));
    merge(control, reward_evaluate(*shuffled, split.held_out));
    report.prompts += split.held_out_prompts;
  }
  report.shuffled_accuracy = control.accuracy();
  return report;
}

std::shared_ptr<DeviceModel> train_and_evaluate(const Loaded& base,
                                                const std::vector<Ranking>& rankings,
                                                const RewardSettings& s, bool control,
                                                RewardReport& report, const std::string& label) {
  const Split split = split_fold(rankings, encode_rankings(base, rankings), 5, 0, s.seed);
  const auto model = train_reward(base, split.train, s, label);
  report.held_out = reward_evaluate(*model, split.held_out);
  report.prompts = split.held_out_prompts;
  if (control) {
    const auto shuffled = train_reward(base, shuffle_labels(split.train, s.seed), s,
                                       label + ", control: shuffled labels");
    report.shuffled_accuracy = reward_evaluate(*shuffled, split.held_out).accuracy();
  }
  std::vector<Tokens> seen;
  for (const RankedPrompt& prompt : split.train)
    seen.insert(seen.end(), prompt.sequences.begin(), prompt.sequences.end());
  normalise_rewards(*model, seen);
  return model;
}

ScoreFunction reward_function(std::shared_ptr<const DeviceModel> reward) {
  return
      [reward](const std::vector<Episode>& episodes) { return score_episodes(*reward, episodes); };
}

namespace {

NamedNumbers rule_parts(const Loaded& loaded, const Rule& rule, const Episode& e) {
  return rule.parts(loaded.tokenizer->decode(e.prompt), response_text(loaded, e.prompt, e.response),
                    e.finished);
}

}  // namespace

ScoreFunction rule_function(const Loaded& loaded, const Rule& rule) {
  return [&loaded, &rule](const std::vector<Episode>& episodes) {
    std::vector<float> scores;
    for (const Episode& e : episodes)
      scores.push_back(static_cast<float>(rule_parts(loaded, rule, e).back().second));
    return scores;
  };
}

EpisodeObserver rule_observer(const Loaded& loaded, const Rule& rule) {
  return [&loaded, &rule](const std::vector<Episode>& episodes, Metrics& row) {
    NamedNumbers means;
    for (const Episode& e : episodes) {
      const NamedNumbers parts = rule_parts(loaded, rule, e);
      if (means.empty())
        for (const auto& part : parts) means.emplace_back("judge/" + part.first, 0.0);
      for (std::size_t p = 0; p < parts.size(); ++p)
        means[p].second += parts[p].second / static_cast<double>(episodes.size());
    }
    row.insert(row.end(), means.begin(), means.end());
  };
}

void run_ppo(const Loaded& like, DeviceModel& policy, const DeviceModel& reference,
             DeviceModel* value, const ScoreFunction& score,
             const std::vector<std::string>& prompts, const PpoSettings& s, const std::string& path,
             MetricsWriter& metrics, Index metrics_offset, const std::string& label,
             const EpisodeObserver& observe) {
  check<DataError>(!prompts.empty(), "[ppo] there are no prompts");
  std::vector<Tokens> tokens;
  for (const std::string& prompt : prompts)
    tokens.push_back(encode_prompt(like, prompt, s.max_new_tokens));
  PpoTrainer<Device> trainer(policy, reference, score, ppo_config(s, like), value);
  struct stat status = {};
  if (::stat(path.c_str(), &status) == 0) restore_ppo(path, policy, value, trainer);
  if (trainer.iteration() >= s.iterations) return;  // later rows belong to later rounds
  metrics.truncate_after(metrics_offset + trainer.iteration() - 1);

  Progress progress(label, s.iterations, "iteration", {.start = trainer.iteration()});
  bool warned = false;
  while (trainer.iteration() < s.iterations) {
    const Index i = trainer.iteration();
    // Prompts in an order that depends on the seed and on which pass over them this is.
    std::vector<Tokens> batch;
    for (Index j = i * s.prompts; j < (i + 1) * s.prompts; ++j) {
      const auto count = static_cast<Index>(tokens.size());
      const auto order =
          permutation(count, Rng(s.seed, Stage::Order, static_cast<std::uint32_t>(j / count)));
      batch.push_back(tokens[static_cast<std::size_t>(order[static_cast<std::size_t>(j % count)])]);
    }
    Metrics row = trainer.step(batch);
    if (observe) observe(trainer.episodes(), row);
    metrics.write(metrics_offset + i, row);
    progress.update(i + 1, str("score ", fixed(metric(row, "objective/scores"), 2), " kl ",
                               fixed(metric(row, "objective/kl_exact"), 2)));
    if (!warned && std::abs(metric(row, "objective/kl_gap_z")) > 4) {
      warned = true;
      progress.message(str("warning: sampled and exact KL differ by ",
                           fixed(metric(row, "objective/kl_gap_z"), 1),
                           " standard errors: responses are not drawn from the policy's own "
                           "distribution"));
    }
    const bool last = trainer.iteration() == s.iterations;
    if (last || trainer.iteration() % s.checkpoint_every == 0 || interrupted()) {
      metrics.sync();
      save_ppo(path, like, policy, value, trainer);
    }
    if (!last) stop_if_interrupted("PPO");
  }
}

double exact_kl(const Loaded& policy, const DeviceModel& reference,
                const std::vector<std::string>& prompts, const GenerateSettings& s) {
  std::vector<Tokens> tokens;
  for (const std::string& prompt : prompts)
    tokens.push_back(encode_prompt(policy, prompt, s.max_new_tokens));
  SampleOptions options;
  options.sampling.temperature = s.temperature;
  options.max_new_tokens = s.max_new_tokens;
  options.stops = policy.tokenizer->stops();
  options.seed = s.seed;
  std::vector<Episode> episodes;
  for (Response& response : sample(*policy.model, tokens, options)) {
    Episode e;
    e.prompt = tokens[static_cast<std::size_t>(response.prompt)];
    e.response = std::move(response.tokens);
    episodes.push_back(std::move(e));
  }
  double total = 0;
  const auto length = [&](std::size_t i) {
    return static_cast<Index>(episodes[i].prompt.size() + episodes[i].response.size());
  };
  detail::for_token_runs(
      episodes.size(), kForwardTokens, length, [&](std::size_t i, std::size_t end) {
        std::vector<const Episode*> members;
        for (; i < end; ++i) members.push_back(&episodes[i]);
        const auto batch = EpisodeBatch<Device>::from(members);
        const auto rows = embedding(policy.model->transformer()(batch.batch), batch.rows);
        const auto ref_rows = embedding(reference.transformer()(batch.batch), batch.rows);
        for (const float kl :
             row_kl(*policy.model, rows, reference, ref_rows, s.temperature).to_vector())
          total += kl;
      });
  return total / static_cast<double>(episodes.size());
}

}}  // namespace plumb::v0_1
