// Step 3 of steps.hpp: reward models, fitted and tested.
#include "bag_of_words.hpp"
#include "format.hpp"
#include "progress.hpp"
#include "screen.hpp"
#include "steps.hpp"

#include <plumb/data/folds.hpp>
#include <plumb/models/feature_cache.hpp>
#include <plumb/rlhf/active.hpp>

#include <algorithm>
#include <cstdio>
#include <map>
#include <numeric>
#include <optional>

namespace plumb { inline namespace v0_1 {

namespace {

// A report in the making: counts of one or several folds.
struct Tally {
  RewardEvaluation held_out, training, shuffled, without_length;
  std::map<std::string, ClusterSum> clusters;  // by prompt
  std::vector<DrawnOutcome> drawn;             // of rankings whose probability is known
  std::map<std::string, std::size_t> numbers;  // of their prompts
  bool all_drawn = true;
  EnsembleEvaluation heads;
  double word_pairs = 0, word_correct = 0;
  std::string fit;

  void add(const RewardEvaluation& e, const std::vector<Ranking>& rankings) {
    held_out = merged(held_out, e);
    for (std::size_t i = 0; i < rankings.size(); ++i) {
      ClusterSum& sum = clusters[rankings[i].group];
      sum.sum += e.prompt_correct[i];
      sum.count += e.prompt_pairs[i];
      const double probability = rankings[i].probability;
      all_drawn = all_drawn && probability > 0.0;
      if (!(probability > 0.0)) continue;
      const std::size_t number =
          numbers.try_emplace(rankings[i].group, numbers.size()).first->second;
      drawn.push_back({e.prompt_correct[i], probability, number, e.prompt_pairs[i]});
    }
  }

  void add(const EnsembleEvaluation& e) {
    heads.responses += e.responses;
    heads.disagreement += e.disagreement;
    heads.agreed += e.agreed;
    heads.agreed_correct += e.agreed_correct;
    heads.disputed += e.disputed;
    heads.disputed_correct += e.disputed_correct;
  }

  RewardReport report(const EncodingCount& count) const {
    RewardReport r;
    r.pairs = held_out.pairs;
    r.prompts = static_cast<double>(clusters.size());
    r.accuracy = held_out.accuracy();
    std::vector<ClusterSum> sums;
    for (const auto& [group, sum] : clusters) sums.push_back(sum);
    r.interval = clustered_share_interval(sums);
    if (all_drawn && !drawn.empty()) {
      const PropensityMean of_all = propensity_mean(drawn, r.pairs);
      r.of_all = of_all.ratio;
      r.of_all_interval = of_all.interval;
    }
    r.longer = held_out.length_accuracy();
    r.words = word_correct / word_pairs;
    r.shuffled = shuffled.accuracy();
    r.training = training.accuracy();
    r.without_length = without_length.accuracy();
    r.nll = held_out.nll;
    r.brier = held_out.brier;
    r.ece = held_out.ece;
    r.mean_margin = held_out.mean_margin;
    r.disagreement = heads.disagreement / heads.responses;
    r.agreed = heads.agreed / (heads.agreed + heads.disputed);
    r.agreed_accuracy = heads.agreed_correct / heads.agreed;
    r.disputed_accuracy = heads.disputed_correct / heads.disputed;
    r.sequences = static_cast<double>(count.sequences);
    r.cut = static_cast<double>(count.cut);
    r.identical = static_cast<double>(count.identical);
    r.fit = fit;
    return r;
  }
};

template <class T>
std::vector<T> at_places(const std::vector<T>& all, const std::vector<std::size_t>& places) {
  std::vector<T> out;
  for (const std::size_t i : places) out.push_back(all[i]);
  return out;
}

std::vector<int> folds_of(const std::vector<Ranking>& rankings, int folds, std::uint64_t seed) {
  std::vector<std::string> groups;
  for (const Ranking& ranking : rankings) groups.push_back(ranking.group);
  return deal_folds(groups, folds, seed);
}

struct Split {
  std::vector<std::size_t> train, held_out;
};

Split split_fold(const RankedData& data, int folds, int fold, std::uint64_t seed) {
  const std::vector<int> dealt = folds_of(data.rankings, folds, seed);
  Split split;
  for (std::size_t i = 0; i < dealt.size(); ++i)
    (dealt[i] == fold ? split.held_out : split.train).push_back(i);
  return split;
}

// The control. A linear head is fitted in a second, and to shuffled labels is little more than a
// length, of either sign: so it is fitted to several shuffles.
void test_shuffled(const RewardFitter& fitter, const RewardFitter::Fitted& fitted,
                   const Split& split, std::uint64_t seed, Tally& tally, const std::string& label) {
  std::vector<RankedPrompt> prompts = fitter.data().prompts;
  for (std::uint64_t round = 0; round < (fitter.linear() ? 10 : 1); ++round) {
    const auto shuffled =
        shuffle_labels(at_places(fitter.data().prompts, split.train), seed + round);
    for (std::size_t i = 0; i < shuffled.size(); ++i) prompts[split.train[i]] = shuffled[i];
    const auto nothing =
        fitter.linear() ? fitter.again(fitted, split.train, prompts, fitter.sees_length())
                        : fitter.fit(split.train, prompts, label + ", control: shuffled labels");
    tally.shuffled = merged(tally.shuffled, fitter.evaluate(nothing, split.held_out));
  }
}

// Fits to one part and tests on the other.
RewardFitter::Fitted fit_and_test(const RewardFitter& fitter, const Split& split,
                                  std::uint64_t seed, bool control, Tally& tally,
                                  const std::string& label) {
  const RankedData& data = fitter.data();
  auto fitted = fitter.fit(split.train, data.prompts, label);
  const auto held_out = at_places(data.rankings, split.held_out);
  tally.add(fitter.evaluate(fitted, split.held_out), held_out);
  tally.add(fitter.evaluate_heads(fitted, split.held_out, split.train));
  tally.training = merged(tally.training, fitter.evaluate(fitted, split.train));
  tally.fit += (tally.fit.empty() ? "" : "; ") + fitted.text;
  BagOfWords(at_places(data.rankings, split.train))
      .count(held_out, tally.word_pairs, tally.word_correct);
  if (fitter.sees_length())
    tally.without_length = merged(
        tally.without_length,
        fitter.evaluate(fitter.again(fitted, split.train, data.prompts, false), split.held_out));
  if (control) test_shuffled(fitter, fitted, split, seed, tally, label);
  return fitted;
}

void print_line(const char* what, double share) {
  if (!std::isnan(share)) std::printf("  %-27s %6s\n", what, percent(share).c_str());
}

std::shared_ptr<DeviceModel> train_trunk(const Loaded& base, const std::vector<RankedPrompt>& train,
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

ResponseFeatures features_of(const Loaded& base, const std::vector<Answered>& sequences,
                             const HeadConfig& config, const std::string& path) {
  std::optional<Progress> progress;
  // Weights kept in fewer bits make other features.
  return cached_features(
      *base.model, str(trunk_fingerprint(base), " ", choice_name(base.lora.frozen)), sequences,
      head_layers(base.model->layers(), config), path, note, [&](Index done, Index total) {
        if (!progress) progress.emplace("features of the frozen trunk", total, "sequence");
        progress->update(done);
        stop_if_interrupted("Reading the responses");
      });
}

std::size_t place_of_layer(const ResponseFeatures& features, Index layer) {
  const auto found = std::find(features.layers.begin(), features.layers.end(), layer);
  return static_cast<std::size_t>(found - features.layers.begin());
}

}  // namespace

RankedData::RankedData(const Language& language, std::vector<Ranking> all)
    : rankings(std::move(all)) {
  for (const Ranking& ranking : rankings)
    prompts.push_back(encode_ranking(language, ranking, count));
}

std::vector<std::size_t> RankedData::places() const {
  std::vector<std::size_t> all(prompts.size());
  std::iota(all.begin(), all.end(), std::size_t{0});
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
  visit("reward_accuracy_without_length", r.without_length);
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

// Those of an ensemble of heads, which no other report says.
template <class Report, class Visit>
void for_ensemble_numbers(Report& r, Visit visit) {
  visit("reward_disagreement", r.disagreement);
  visit("reward_heads_agree", r.agreed);
  visit("reward_accuracy_heads_agree", r.agreed_accuracy);
  visit("reward_accuracy_heads_differ", r.disputed_accuracy);
}

// Those of rankings that were drawn with a known probability.
template <class Report, class Visit>
void for_numbers_of_all(Report& r, Visit visit) {
  visit("reward_accuracy_of_all", r.of_all);
  visit("reward_accuracy_of_all_low", r.of_all_interval.low);
  visit("reward_accuracy_of_all_high", r.of_all_interval.high);
}

}  // namespace

Json RewardReport::json() const {
  Json json = Json::object();
  const auto say = [&](const char* key, double value) { json[key] = value; };
  for_numbers(*this, say);
  if (!std::isnan(disagreement)) for_ensemble_numbers(*this, say);
  if (!std::isnan(of_all)) for_numbers_of_all(*this, say);
  json["reward_fit"] = fit;
  return json;
}

RewardReport RewardReport::from(const Json& json, const std::string& source) {
  RewardReport r;
  const auto read = [&](const char* key, double& value) {
    const auto found = json.find(key);
    if (!json.is_object() || found == json.end() || !(found->is_number() || found->is_null()))
      fail<DataError>(
          str("[reward] ", shown(source), " says no number '", key,
              "'. HINT: delete reward.safetensors beside it; the same command makes both"));
    value = found->is_null() ? std::nan("") : found->get<double>();
  };
  for_numbers(r, read);
  if (json.contains("reward_disagreement")) for_ensemble_numbers(r, read);
  if (json.contains("reward_accuracy_of_all")) for_numbers_of_all(r, read);
  r.fit = json.value("reward_fit", "");
  return r;
}

void RewardReport::print() const {
  std::printf("reward model on %s held-out prompts, %s pairs:\n", fixed(prompts, 0).c_str(),
              fixed(pairs, 0).c_str());
  std::printf("  %-27s %6s  (95 %% interval %s to %s, clustered by prompt)\n", "accuracy",
              percent(accuracy).c_str(), fixed(100 * interval.low, 1).c_str(),
              fixed(100 * interval.high, 1).c_str());
  if (!std::isnan(of_all))
    std::printf("  %-27s %6s  (95 %% interval %s to %s), each ranking by 1/its probability\n",
                "of all they are drawn from", percent(of_all).c_str(),
                fixed(100 * of_all_interval.low, 1).c_str(),
                fixed(100 * of_all_interval.high, 1).c_str());
  print_line("longer response wins", longer);
  print_line("bag of words", words);
  print_line("fitted to shuffled labels", shuffled);
  print_line("on what it was fitted to", training);
  print_line("without the length", without_length);
  std::printf("  NLL %s nats, Brier %s, calibration error (ECE) %s\n", fixed(nll, 3).c_str(),
              fixed(brier, 3).c_str(), fixed(ece, 3).c_str());
  if (!std::isnan(disagreement)) {
    std::printf("  heads differ by %s deviations of the score; %s of the pairs all order alike\n",
                fixed(disagreement, 3).c_str(), percent(agreed).c_str());
    print_line("where the heads agree", agreed_accuracy);
    print_line("where they do not", disputed_accuracy);
  }
  if (!fit.empty()) std::printf("  %s\n", harmless(fit).c_str());
}

bool is_linear(const RewardSettings& settings, const Loaded& base) {
  if (settings.head != RewardHead::Auto) return settings.head == RewardHead::Linear;
  return matrix_weights(base.model->config()) > kFullTrunk;
}

RewardFitter::RewardFitter(const Loaded& base, const RankedData& data,
                           const RewardSettings& settings, const std::string& features)
    : base_(base), data_(data), settings_(settings) {
  const EnsembleConfig& ensemble = settings.ensemble;
  check<DataError>(ensemble.heads == 1 || is_linear(settings, base),
                   "[reward] heads are of a frozen trunk, and here the trunk learns, too. HINT: "
                   "head linear, or heads 1");
  check<DataError>(ensemble.heads > 1 || ensemble.pessimism == 0,
                   "[reward] pessimism is of heads that disagree, and there is one. HINT: heads 8, "
                   "or pessimism 0");
  if (is_linear(settings, base))
    features_ = features_of(base, answered(data.prompts), settings.linear, features);
}

RewardFitter::Fitted RewardFitter::fit(const std::vector<std::size_t>& places,
                                       const std::vector<RankedPrompt>& prompts,
                                       const std::string& label) const {
  const RewardConfig& config = settings_.full;
  Fitted fitted{{base_, {}}, 0, {}};
  if (!features_) {
    fitted.reward.loaded.model = train_trunk(base_, at_places(prompts, places), config, label);
    return fitted;
  }
  stop_if_interrupted("Reward model training");
  // Folds of the training set alone, dealt by another seed than those that hold out.
  const std::vector<Ranking> rankings = at_places(data_.rankings, places);
  std::map<std::string, std::size_t> groups;  // numbered
  std::vector<std::size_t> group;
  for (const Ranking& ranking : rankings)
    group.push_back(groups.try_emplace(ranking.group, groups.size()).first->second);
  const auto folds =
      folds_of(rankings, std::min(5, static_cast<int>(groups.size())), config.seed + 1);
  const FittedHead found =
      choose_head(prompts, *features_, places, folds, settings_.linear, config.loss);
  fitted.reward.head = HeadEnsemble{{found.head}, 0};
  fitted.penalty = found.penalty;
  fitted.text = str("layer ", found.head.layer, ", penalty ", found.penalty);
  const auto [heads, pessimism] = settings_.ensemble;
  if (heads == 1) return fitted;
  fitted.text += str(", ", heads, " heads");
  const std::size_t layer = place_of_layer(*features_, found.head.layer);
  fitted.reward.head =
      HeadEnsemble{fit_heads(prompts, *features_, places, group, layer, settings_.linear,
                             config.loss, found.penalty, heads, config.seed),
                   pessimism};
  return fitted;
}

RewardFitter::Fitted RewardFitter::again(const Fitted& fitted,
                                         const std::vector<std::size_t>& places,
                                         const std::vector<RankedPrompt>& prompts,
                                         bool length) const {
  HeadConfig config = settings_.linear;
  config.length = length;
  const std::size_t layer = place_of_layer(*features_, fitted.reward.head->heads[0].layer);
  Fitted other = fitted;
  other.reward.head = HeadEnsemble{
      {fit_head(prompts, *features_, places, layer, config, settings_.full.loss, fitted.penalty)},
      0};
  return other;
}

std::vector<float> RewardFitter::scores(const Fitted& fitted,
                                        const std::vector<std::size_t>& places) const {
  if (!features_) return fitted.reward.scores(answered(at_places(data_.prompts, places)));
  return at(head_scores_of_ensemble(*fitted.reward.head, *features_).score, places);
}

std::vector<float> RewardFitter::at(const std::vector<float>& all,
                                    const std::vector<std::size_t>& places) const {
  std::vector<std::size_t> first{0};
  for (const RankedPrompt& prompt : data_.prompts)
    first.push_back(first.back() + prompt.rank.size());
  std::vector<float> out;
  for (const std::size_t p : places)
    for (std::size_t i = first[p]; i < first[p + 1]; ++i) out.push_back(all[i]);
  return out;
}

RewardEvaluation RewardFitter::evaluate(const Fitted& fitted,
                                        const std::vector<std::size_t>& places) const {
  return evaluate_scores(at_places(data_.prompts, places), scores(fitted, places));
}

EnsembleEvaluation RewardFitter::evaluate_heads(const Fitted& fitted,
                                                const std::vector<std::size_t>& places,
                                                const std::vector<std::size_t>& normal) const {
  if (!fitted.reward.ensemble()) return {};
  std::vector<std::vector<float>> by_head = scores_by_head(*fitted.reward.head, *features_);
  for (std::vector<float>& scores : by_head) scores = at(scores, places);
  EnsembleEvaluation result =
      evaluate_ensemble(at_places(data_.prompts, places), by_head, fitted.reward.head->pessimism);
  result.disagreement *= normal_scale(scores(fitted, normal)).gain;
  return result;
}

void RewardFitter::normalise(Fitted& fitted, const std::vector<std::size_t>& places) const {
  const ScoreScale scale = normal_scale(scores(fitted, places));
  if (fitted.reward.head) return fitted.reward.head->rescale(scale.gain, scale.shift);
  fitted.reward.loaded.model->rescale_scalar(static_cast<float>(scale.gain),
                                             static_cast<float>(scale.shift));
}

RewardReport test_reward(const Reward& reward, const RankedData& data,
                         const std::vector<Ranking>* words_fitted_to) {
  Tally tally;
  if (reward.ensemble()) {
    const auto features = response_features(*reward.loaded.model, answered(data.prompts),
                                            {reward.head->heads[0].layer});
    const auto by_head = scores_by_head(*reward.head, features);
    const float pessimism = reward.head->pessimism;
    tally.add(evaluate_scores(data.prompts, together(by_head, pessimism).score), data.rankings);
    tally.add(evaluate_ensemble(data.prompts, by_head, pessimism));
  } else {
    tally.add(evaluate_scores(data.prompts, reward.scores(answered(data.prompts))), data.rankings);
  }
  if (words_fitted_to != nullptr)
    BagOfWords(*words_fitted_to).count(data.rankings, tally.word_pairs, tally.word_correct);
  return tally.report(data.count);
}

RewardReport cross_validate(const RewardFitter& fitter, int folds, std::uint64_t seed,
                            bool control) {
  Tally tally;
  for (int fold = 0; fold < folds; ++fold)
    fit_and_test(fitter, split_fold(fitter.data(), folds, fold, seed), seed, control, tally,
                 str("fold ", fold + 1, "/", folds));
  return tally.report(fitter.data().count);
}

Reward train_and_test(const RewardFitter& fitter, std::uint64_t seed, bool control,
                      RewardReport& report, const std::string& label) {
  Tally tally;
  const Split split = split_fold(fitter.data(), 5, 0, seed);
  auto fitted = fit_and_test(fitter, split, seed, control, tally, label);
  report = tally.report(fitter.data().count);
  fitter.normalise(fitted, split.train);
  return fitted.reward;
}

ScoreFunction reward_function(Reward reward) {
  return [reward = std::move(reward)](const std::vector<Episode>& episodes) {
    return reward.scores(answered(episodes));
  };
}

namespace {

std::vector<Answered> sequences_of(const Reward& reward,
                                   const std::vector<Candidates>& candidates) {
  std::vector<Answered> sequences;
  for (const Candidates& c : candidates)
    for (std::size_t k = 0; k < c.responses.size(); ++k) {
      const Encoded e =
          encode_pair(reward.loaded, {c.prompt, c.turns}, c.responses[k], c.finished[k],
                      c.tokens.empty() ? std::span<const std::int32_t>{} : std::span(c.tokens[k]));
      sequences.push_back({e.sequence(), static_cast<Index>(e.prompt.size())});
    }
  return sequences;
}

}  // namespace

std::vector<std::vector<float>> judge_by_heads(const Reward& reward,
                                               const std::vector<Candidates>& candidates) {
  check<DataError>(reward.ensemble(),
                   "[next] a reward model of one head is never in two minds. HINT: plumb reward "
                   "--head linear --heads 32");
  return scores_by_head(*reward.head,
                        response_features(*reward.loaded.model, sequences_of(reward, candidates),
                                          {reward.head->heads[0].layer}));
}

JudgedResponses judge_candidates(const Reward& reward, const std::vector<Candidates>& candidates) {
  const std::vector<Answered> sequences = sequences_of(reward, candidates);
  if (!reward.ensemble()) {
    const auto scores = reward.scores(sequences);
    return {{scores.begin(), scores.end()}, {}};
  }
  const EnsembleScores said =
      head_scores_of_ensemble(*reward.head, *reward.loaded.model, sequences);
  return {{said.score.begin(), said.score.end()},
          {said.disagreement.begin(), said.disagreement.end()}};
}

ScoreCandidates candidate_scores(Reward reward) {
  return [reward = std::move(reward)](const std::vector<Candidates>& candidates) {
    return judge_candidates(reward, candidates).scores;
  };
}

}}  // namespace plumb::v0_1
