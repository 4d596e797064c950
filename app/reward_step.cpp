// Step 3 of steps.hpp: reward models, fitted and tested.
#include "bag_of_words.hpp"
#include "format.hpp"
#include "progress.hpp"
#include "steps.hpp"

#include <plumb/data/folds.hpp>

#include <cstdio>
#include <map>
#include <optional>

namespace plumb { inline namespace v0_1 {

namespace {

// A report in the making: counts of one or several folds.
struct Tally {
  RewardEvaluation held_out, training, shuffled;
  std::map<std::string, ClusterSum> clusters;  // by prompt
  double word_pairs = 0, word_correct = 0;

  void add(const RewardEvaluation& e, const RankedData& data) {
    held_out = merged(held_out, e);
    for (std::size_t i = 0; i < data.rankings.size(); ++i) {
      ClusterSum& sum = clusters[data.rankings[i].group];
      sum.sum += e.prompt_correct[i];
      sum.count += e.prompt_pairs[i];
    }
  }

  RewardReport report(const EncodingCount& count) const {
    RewardReport r;
    r.pairs = held_out.pairs;
    r.prompts = static_cast<double>(clusters.size());
    r.accuracy = held_out.accuracy();
    std::vector<ClusterSum> sums;
    for (const auto& [group, sum] : clusters) sums.push_back(sum);
    r.interval = clustered_share_interval(sums);
    r.longer = held_out.length_accuracy();
    r.words = word_correct / word_pairs;
    r.shuffled = shuffled.accuracy();
    r.training = training.accuracy();
    r.nll = held_out.nll;
    r.brier = held_out.brier;
    r.ece = held_out.ece;
    r.mean_margin = held_out.mean_margin;
    r.sequences = static_cast<double>(count.sequences);
    r.cut = static_cast<double>(count.cut);
    r.identical = static_cast<double>(count.identical);
    return r;
  }
};

struct Split {
  RankedData train, held_out;
};

Split split_fold(const RankedData& data, int folds, int fold, std::uint64_t seed) {
  std::vector<std::string> groups;
  for (const Ranking& ranking : data.rankings) groups.push_back(ranking.group);
  const std::vector<int> dealt = deal_folds(groups, folds, seed);
  std::vector<std::size_t> train, held_out;
  for (std::size_t i = 0; i < dealt.size(); ++i) (dealt[i] == fold ? held_out : train).push_back(i);
  return {data.subset(train), data.subset(held_out)};
}

// Fits to one part and tests on the other.
std::shared_ptr<DeviceModel> fit_and_test(const Loaded& base, const Split& split,
                                          const RewardConfig& config, bool control, Tally& tally,
                                          const std::string& label) {
  auto model = train_reward(base, split.train.prompts, config, label);
  tally.add(reward_evaluate(*model, split.held_out.prompts), split.held_out);
  tally.training = merged(tally.training, reward_evaluate(*model, split.train.prompts));
  BagOfWords(split.train.rankings)
      .count(split.held_out.rankings, tally.word_pairs, tally.word_correct);
  if (control) {
    const auto shuffled = train_reward(base, shuffle_labels(split.train.prompts, config.seed),
                                       config, label + ", control: shuffled labels");
    tally.shuffled = merged(tally.shuffled, reward_evaluate(*shuffled, split.held_out.prompts));
  }
  return model;
}

void print_line(const char* what, double share) {
  if (!std::isnan(share)) std::printf("  %-27s %6s\n", what, percent(share).c_str());
}

}  // namespace

RankedData::RankedData(const Language& language, std::vector<Ranking> all)
    : rankings(std::move(all)) {
  for (const Ranking& ranking : rankings)
    prompts.push_back(encode_ranking(language, ranking, count));
}

RankedData RankedData::subset(const std::vector<std::size_t>& places) const {
  RankedData out;
  for (const std::size_t i : places) {
    out.rankings.push_back(rankings[i]);
    out.prompts.push_back(prompts[i]);
  }
  return out;
}

std::vector<Tokens> RankedData::sequences() const {
  std::vector<Tokens> all;
  for (const RankedPrompt& prompt : prompts)
    all.insert(all.end(), prompt.sequences.begin(), prompt.sequences.end());
  return all;
}

namespace {

// A report's numbers by the names that files give them.
template <class Report, class Visit>
void for_numbers(Report& r, Visit visit) {
  visit("reward_accuracy", r.accuracy);
  visit("reward_accuracy_low", r.interval.low);
  visit("reward_accuracy_high", r.interval.high);
  visit("reward_accuracy_length_baseline", r.longer);
  visit("reward_accuracy_words_baseline", r.words);
  visit("reward_accuracy_shuffled_labels", r.shuffled);
  visit("reward_accuracy_training", r.training);
  visit("reward_nll", r.nll);
  visit("reward_brier", r.brier);
  visit("reward_ece", r.ece);
  visit("reward_mean_margin", r.mean_margin);
  visit("held_out_prompts", r.prompts);
  visit("held_out_pairs", r.pairs);
  visit("sequences", r.sequences);
  visit("sequences_cut", r.cut);
  visit("sequences_identical", r.identical);
}

}  // namespace

Json RewardReport::json() const {
  Json json = Json::object();
  for_numbers(*this, [&](const char* key, double value) { json[key] = value; });
  return json;
}

RewardReport RewardReport::from(const Json& json, const std::string& source) {
  RewardReport r;
  for_numbers(r, [&](const char* key, double& value) {
    const auto found = json.find(key);
    if (!json.is_object() || found == json.end() || !(found->is_number() || found->is_null()))
      fail<DataError>(
          str("[reward] ", shown(source), " says no number '", key,
              "'. HINT: delete reward.safetensors beside it; the same command makes both"));
    value = found->is_null() ? std::nan("") : found->get<double>();
  });
  return r;
}

void RewardReport::print() const {
  std::printf("reward model on %s held-out prompts, %s pairs:\n", fixed(prompts, 0).c_str(),
              fixed(pairs, 0).c_str());
  std::printf("  %-27s %6s  (95 %% interval %s to %s, clustered by prompt)\n", "accuracy",
              percent(accuracy).c_str(), fixed(100 * interval.low, 1).c_str(),
              fixed(100 * interval.high, 1).c_str());
  print_line("longer response wins", longer);
  print_line("bag of words", words);
  print_line("fitted to shuffled labels", shuffled);
  print_line("on what it was fitted to", training);
  std::printf("  NLL %s nats, Brier %s, calibration error (ECE) %s\n", fixed(nll, 3).c_str(),
              fixed(brier, 3).c_str(), fixed(ece, 3).c_str());
}

std::shared_ptr<DeviceModel> train_reward(const Loaded& base,
                                          const std::vector<RankedPrompt>& train,
                                          const RewardConfig& config, const std::string& label) {
  auto model = trainable(base, ScalarHead::Reward, config.seed);
  std::optional<Progress> progress;
  reward_train(*model, train, config, [&](Index update, Index total, float loss) {
    if (!progress) progress.emplace(label, total, "update");
    progress->update(update + 1, "loss " + fixed(loss, 3));
    stop_if_interrupted("Reward model training");
  });
  return model;
}

RewardReport test_reward(const DeviceModel& model, const RankedData& data,
                         const std::vector<Ranking>* words_fitted_to) {
  Tally tally;
  tally.add(reward_evaluate(model, data.prompts), data);
  if (words_fitted_to != nullptr)
    BagOfWords(*words_fitted_to).count(data.rankings, tally.word_pairs, tally.word_correct);
  return tally.report(data.count);
}

RewardReport cross_validate(const Loaded& base, const RankedData& data, int folds,
                            const RewardConfig& config, bool control) {
  Tally tally;
  for (int fold = 0; fold < folds; ++fold)
    fit_and_test(base, split_fold(data, folds, fold, config.seed), config, control, tally,
                 str("fold ", fold + 1, "/", folds));
  return tally.report(data.count);
}

std::shared_ptr<DeviceModel> train_and_test(const Loaded& base, const RankedData& data,
                                            const RewardConfig& config, bool control,
                                            RewardReport& report, const std::string& label) {
  Tally tally;
  const Split split = split_fold(data, 5, 0, config.seed);
  auto model = fit_and_test(base, split, config, control, tally, label);
  report = tally.report(data.count);
  normalise_rewards(*model, split.train.sequences());
  return model;
}

ScoreFunction reward_function(std::shared_ptr<const DeviceModel> reward) {
  return
      [reward](const std::vector<Episode>& episodes) { return score_episodes(*reward, episodes); };
}

ScoreCandidates candidate_scores(Loaded reward) {
  return [reward = std::move(reward)](const std::vector<Candidates>& candidates) {
    std::vector<Tokens> sequences;
    for (const Candidates& c : candidates)
      for (std::size_t k = 0; k < c.responses.size(); ++k)
        sequences.push_back(
            encode_pair(reward, {c.prompt, c.turns}, c.responses[k], c.finished[k],
                        c.tokens.empty() ? std::span<const std::int32_t>{} : std::span(c.tokens[k]))
                .sequence());
    const auto scores = reward_scores(*reward.model, sequences);
    return std::vector<double>(scores.begin(), scores.end());
  };
}

}}  // namespace plumb::v0_1
