// Step 4 of steps.hpp: PPO, with checkpoints and metrics.
#include "alarms.hpp"
#include "episodes.hpp"
#include "format.hpp"
#include "progress.hpp"
#include "steps.hpp"

#include <plumb/run/interrupt.hpp>

#include <cmath>
#include <memory>
#include <optional>
#include <utility>

namespace plumb { inline namespace v0_1 {

namespace {

void restore_flat(const CheckpointView& file, const std::string& name, const Tensor<Device>& to) {
  const ArrayView* array = file.find(name);
  if (array == nullptr || array->shape != to.shape())
    fail<DataError>(str("[ppo] the checkpoint has no fitting array '", name,
                        "'. HINT: was the run begun with another model or other settings?"));
  copy_array({array}, to);
}

// Everything that the next iteration depends on.
void save_ppo(const std::string& path, const PpoTask& task, const PpoTrainer<Device>& trainer,
              Previous previous) {
  std::vector<HostValues<Device>> values;
  SaveExtras extras;
  const auto keep = [&](const std::string& name, const Tensor<Device>& tensor) {
    values.emplace_back(tensor);
    extras.arrays.push_back({name, tensor.shape(), values.back().view});
  };
  keep("adamw.m", trainer.optimizer().m());
  keep("adamw.v", trainer.optimizer().v());
  if (task.value != nullptr) {
    task.value->parameters().require_finite("[ppo] the value model is not saved");
    for (const auto& entry : task.value->parameters().entries())
      keep("value_model." + entry.name, entry.tensor);
    keep("value_adamw.m", trainer.value_optimizer()->m());
    keep("value_adamw.v", trainer.value_optimizer()->v());
  }
  const auto state = trainer.state();
  extras.metadata["ppo"] = Json{
      {"iteration", state.iteration},
      {"episodes", state.episodes},
      {"optimizer_steps", state.optimizer_steps},
      {"beta", state.beta}}.dump();
  extras.previous = previous;
  save_model(path, task.policy, task.language, extras);
}

void restore_ppo(const std::string& path, const PpoTask& task, PpoTrainer<Device>& trainer) {
  const CheckpointView file(path);
  const auto metadata = file.metadata();
  const auto found = metadata.find("ppo");
  if (found == metadata.end()) fail<DataError>(str("[ppo] ", shown(path), " holds no PPO state"));
  const Json state = parse_json(found->second, path + ": its PPO state");
  for (const char* key : {"iteration", "episodes", "optimizer_steps", "beta"})
    if (!state.is_object() || !state.contains(key) || !state[key].is_number())
      fail<DataError>(str("[ppo] ", shown(path), ": its PPO state says no number '", key, "'"));
  copy_parameters(file, task.policy, "");
  restore_flat(file, "adamw.m", trainer.optimizer().m());
  restore_flat(file, "adamw.v", trainer.optimizer().v());
  if (task.value != nullptr) {
    copy_parameters(file, *task.value, "value_model.");
    restore_flat(file, "value_adamw.m", trainer.value_optimizer()->m());
    restore_flat(file, "value_adamw.v", trainer.value_optimizer()->v());
  }
  trainer.restore(
      {state.at("iteration"), state.at("episodes"), state.at("optimizer_steps"), state.at("beta")});
}

// Iteration i's prompts, in an order that depends on the seed and on which pass over them this is.
std::vector<Tokens> prompts_of_iteration(const std::vector<Tokens>& tokens, Index i,
                                         const PpoSettings& s) {
  std::vector<Tokens> batch;
  const auto count = static_cast<Index>(tokens.size());
  for (Index j = i * s.prompts; j < (i + 1) * s.prompts; ++j) {
    const auto order = permutation(
        count, Rng(s.config.sampling.seed, Stage::Order, static_cast<std::uint32_t>(j / count)));
    batch.push_back(tokens[static_cast<std::size_t>(order[static_cast<std::size_t>(j % count)])]);
  }
  return batch;
}

// Iteration i's policy, as it was before its update: kept until the next checkpoint, which is
// written after it, so that a resumed run has the best of all rows up to its checkpoint.
struct BestPolicy {
  const PpoTask& task;
  const PpoSettings& s;
  std::string path;
  std::optional<Best> best;
  std::unique_ptr<DeviceModel> before, unsaved;

  void before_step(Index i) {
    if (s.kl_budget > 0 && i % s.config.kl_every == 0)
      before = std::make_unique<DeviceModel>(task.policy.clone(ScalarHead::None));
  }
  void after_step(Index i, const Metrics& row) {
    if (!before) return;
    auto one = best_within({{i, row}}, i, i + 1, s.kl_budget);
    if (one && (!best || one->score > best->score)) {
      one->iteration = i;
      best = one;
      unsaved = std::move(before);
    }
    before.reset();
  }
  void save() {
    if (!unsaved) return;
    SaveExtras extras;
    extras.metadata["best"] = best_json(best, s.kl_budget).dump();
    save_model(path, *unsaved, task.language, extras);
    unsaved.reset();
  }
};

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
    std::vector<double> totals;
    for (const Episode& e : episodes) {
      const NamedNumbers parts = rule_parts(loaded, rule, e);
      if (means.empty())
        for (const auto& part : parts) means.emplace_back("judge/" + part.first, 0.0);
      for (std::size_t p = 0; p < parts.size(); ++p)
        means[p].second += parts[p].second / static_cast<double>(episodes.size());
      totals.push_back(parts.back().second);
    }
    row.insert(row.end(), means.begin(), means.end());
    return totals;
  };
}

std::optional<Best> best_within(const std::vector<MetricRow>& rows, Index begin, Index end,
                                double budget) {
  std::optional<Best> best;
  for (const MetricRow& row : rows) {
    if (row.step < begin || row.step >= end) continue;
    const double judge = metric(row.values, "judge/total");
    const double score = std::isnan(judge) ? metric(row.values, "objective/scores") : judge;
    const double kl = metric(row.values, "objective/kl_exact");
    if (kl <= budget && std::isfinite(score) && (!best || score > best->score))
      best = {row.step - begin, score, kl};
  }
  return best;
}

std::string best_path(const std::string& path) {
  return path.substr(0, path.rfind('.')) + "-best" + path.substr(path.rfind('.'));
}

Json best_json(const std::optional<Best>& best, double budget) {
  if (budget == 0) return Json::object();
  if (!best) return {{"best_iteration", nullptr}, {"best_score", nullptr}, {"best_kl", nullptr}};
  return {{"best_iteration", best->iteration}, {"best_score", best->score}, {"best_kl", best->kl}};
}

std::string best_in_words(const std::optional<Best>& best, double budget) {
  if (budget == 0) return {};
  const std::string within = str("within ", general(budget, 4), " nats of the reference");
  if (!best) return "no iteration's policy was " + within;
  return str("the best policy ", within, " is that before iteration ", best->iteration,
             "'s update: score ", fixed(best->score, 3), ", KL ", fixed(best->kl, 2));
}

void note_memory(const DeviceModel& policy, const DeviceModel* value, const PpoSettings& s) {
  const Index micro_tokens = s.config.micro_tokens;
  double trained = 0, update = 0;
  for (const DeviceModel* model : {&policy, value})
    if (model != nullptr) {
      trained += 4 * static_cast<double>(model->parameters().size());
      update += static_cast<double>(token_bytes(*model, true) * micro_tokens);
    }
  const auto megabytes = [](double bytes) { return fixed(bytes / (1 << 20), 0) + " MB"; };
  const double used = static_cast<double>(memory_counters().used_bytes);
  note(str(megabytes(used), " of weights, ", megabytes(3 * trained),
           " of gradients and moments, updates of ", micro_tokens, " tokens at a time in ",
           megabytes(update), "; checkpoints of ", megabytes(3 * trained), ", ", s.checkpoints,
           " kept"));
}

void run_ppo(const PpoTask& task, const PpoSettings& s, const std::string& path,
             MetricsWriter& metrics, Index metrics_offset, const std::string& label) {
  check<DataError>(!task.prompts.empty(), "[ppo] there are no prompts");
  PpoConfig config = s.config;
  config.advantage = advantages_of(s.method, config);
  config.sampling.stops = task.language.stops;
  std::vector<Tokens> tokens;
  for (const Prompt& prompt : task.prompts)
    tokens.push_back(encode_prompt(task.language, prompt, config.sampling.max_new_tokens));
  PpoTrainer<Device> trainer(task.policy, task.reference, task.score, config, task.value);
  if (detail::file_exists(path) || detail::file_exists(previous_checkpoint(path)))
    restore_ppo(path, task, trainer);
  const Previous previous = s.checkpoints > 1 ? Previous::Keep : Previous::Drop;
  if (trainer.iteration() >= config.iterations) {  // later rows belong to later rounds
    if (!detail::file_exists(path)) save_ppo(path, task, trainer, previous);
    return;
  }
  metrics.truncate_after(metrics_offset + trainer.iteration() - 1);
  std::optional<EpisodeRecords> records;
  if (s.episodes_kept > 0) {
    records.emplace(episodes_path(path));
    records->truncate_after(metrics_offset + trainer.iteration() - 1);
  }

  std::unique_ptr<DeviceModel> sampler;  // the policy in fewer bits, anew in every iteration
  Progress progress(label, config.iterations, "iteration", {.start = trainer.iteration()});
  Alarms alarms;
  for (const MetricRow& row : metrics.rows())  // of before a resumption
    if (row.step >= metrics_offset) alarms.watch(row.step - metrics_offset, row.values);
  BestPolicy best{task, s, best_path(path), {}, {}, {}};
  best.best = best_within(metrics.rows(), metrics_offset, metrics_offset + trainer.iteration(),
                          s.kl_budget);
  while (trainer.iteration() < config.iterations) {
    const Index i = trainer.iteration();
    if (s.sampler != Storage::Float) {
      sampler = std::make_unique<DeviceModel>(task.policy.frozen(s.sampler));
      trainer.sample_from(*sampler);
    }
    best.before_step(i);
    Metrics row = trainer.step(prompts_of_iteration(tokens, i, s));
    std::vector<double> judged;
    if (task.observe) judged = task.observe(trainer.episodes(), row);
    best.after_step(i, row);
    if (records) {  // before the row that says that they are there
      const std::span<const Episode> all = trainer.episodes();
      const auto kept = std::min(all.size(), static_cast<std::size_t>(s.episodes_kept));
      records->write(episodes_line(task.language, metrics_offset + i,
                                   metric(row, "objective/kl_coef"), all.first(kept), judged));
    }
    metrics.write(metrics_offset + i, row);
    const double exact = metric(row, "objective/kl_exact");
    const double apart = metric(row, "sampling/sampling_logp_difference/mean");
    progress.update(i + 1, str("score ", fixed(metric(row, "objective/scores"), 2), " kl ",
                               fixed(std::isnan(exact) ? metric(row, "objective/kl") : exact, 2),
                               std::isnan(apart) ? "" : " mismatch " + fixed(apart, 3)));
    for (const std::string& alarm : alarms.watch(i, row)) progress.message(str("warning: ", alarm));
    const bool last = trainer.iteration() == config.iterations;
    if (last || trainer.iteration() % s.checkpoint_every == 0 || interrupted()) {
      metrics.sync();
      if (records) records->sync();
      best.save();
      save_ppo(path, task, trainer, previous);
    }
    if (!last) stop_if_interrupted("PPO");
  }
}

}}  // namespace plumb::v0_1
