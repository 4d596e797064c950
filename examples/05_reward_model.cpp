// A reward model learns what people preferred, and its baselines say how little that is here.
//
// Shows: rankings read from JSON Lines (PandaLM: three people's votes on pairs of replies), folds
// by prompt, reward_train, and accuracy on prompts held out, beside two baselines: "the longer
// reply wins" and a model fitted to shuffled labels. Intervals draw prompts, since pairs of one
// prompt are right or wrong together. Not: a good judge. stories260K knows children's stories, and
// sees 128 tokens: a reply and what of its prompt fits before it. It beats shuffled labels, loses
// to length, and its interval does not leave out one half.
//
// Prints:
//   1270 of 1668 replies, with their prompts, were cut to 128 tokens
//   fold 0: 288 rankings held out, accuracy 54.7 %, longer reply 76.9 %
//   fold 1: 267 rankings held out, accuracy 51.7 %, longer reply 56.6 %
//   fold 2: 279 rankings held out, accuracy 55.9 %, longer reply 68.8 %
//   all pairs that the people decided, of 141 prompts:
//   reward model                54.2 %  (95 % interval 48.3 to 59.9)
//   longer reply wins           67.8 %  (95 % interval 61.7 to 73.3)
//   fitted to shuffled labels   44.2 %  (95 % interval 38.5 to 50.1)
#include "stories.hpp"

#include <plumb/data/folds.hpp>
#include <plumb/run/statistics.hpp>

#include <cstdio>
#include <map>

using namespace plumb;

// Pairs judged right, and judged, by prompt.
using ByPrompt = std::map<std::string, ClusterSum>;

static void add(ByPrompt& sums, const RewardEvaluation& evaluation,
                const std::vector<std::string>& prompts) {
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    sums[prompts[i]].sum += evaluation.prompt_correct[i];
    sums[prompts[i]].count += evaluation.prompt_pairs[i];
  }
}

// Prints accuracy with its interval, and returns it.
static double print(const char* name, const ByPrompt& sums) {
  std::vector<ClusterSum> clusters;
  for (const auto& [prompt, sum] : sums) clusters.push_back(sum);
  const double share = clustered_mean(clusters).mean;
  const Interval interval = clustered_share_interval(clusters);
  std::printf("%-26s %5.1f %%  (95 %% interval %.1f to %.1f)\n", name, 100 * share,
              100 * interval.low, 100 * interval.high);
  return share;
}

static RewardEvaluation fit_and_test(const Model<Cpu>& base, const std::vector<RankedPrompt>& train,
                                     const std::vector<RankedPrompt>& test) {
  Model<Cpu> model = base.clone(ScalarHead::Reward, 1);  // same trunk, a fresh scalar head
  const RewardConfig config{.epochs = 1, .batch = 16, .optimizer = {.lr = 1e-3F}, .seed = 1};
  reward_train(model, train, config);
  return reward_evaluate(model, test);
}

// The baseline: a reply's score is its length.
static RewardEvaluation longer_wins(const std::vector<RankedPrompt>& test) {
  std::vector<float> scores;
  for (const RankedPrompt& prompt : test)
    for (const Index length : prompt.lengths) scores.push_back(static_cast<float>(length));
  return evaluate_scores(test, scores);
}

int main() {
  LanguageModel<Cpu> stories = open_stories();
  stories.context = 128;  // encode_ranking cuts to this; the whole context takes longer
  const auto rankings = read_rankings(kData + "pandalm_votes_train.jsonl").records;

  std::vector<RankedPrompt> ranked;
  std::vector<std::string> groups;
  EncodingCount count;
  for (const Ranking& ranking : rankings) {
    ranked.push_back(encode_ranking(stories, ranking, count));
    groups.push_back(ranking.group);
  }
  std::printf("%d of %d replies, with their prompts, were cut to %d tokens\n",
              static_cast<int>(count.cut), static_cast<int>(count.sequences),
              static_cast<int>(stories.context));

  // Each fold is held out once. A fold is a property of the prompt, so no prompt is on both sides.
  const int folds = 3;
  const std::vector<int> fold_of = deal_folds(groups, folds, 1);
  ByPrompt fitted, longer, shuffled;
  for (int fold = 0; fold < folds; ++fold) {
    std::vector<RankedPrompt> train, test;
    std::vector<std::string> tested;
    for (std::size_t i = 0; i < rankings.size(); ++i) {
      (fold_of[i] == fold ? test : train).push_back(ranked[i]);
      if (fold_of[i] == fold) tested.push_back(groups[i]);
    }
    const RewardEvaluation of_model = fit_and_test(*stories.model, train, test);
    const RewardEvaluation of_length = longer_wins(test);
    add(fitted, of_model, tested);
    add(longer, of_length, tested);
    add(shuffled, fit_and_test(*stories.model, shuffle_labels(train, 1), test), tested);
    std::printf("fold %d: %3d rankings held out, accuracy %.1f %%, longer reply %.1f %%\n", fold,
                static_cast<int>(test.size()), 100 * of_model.accuracy(),
                100 * of_length.accuracy());
  }
  std::printf("all pairs that the people decided, of %d prompts:\n",
              static_cast<int>(fitted.size()));
  const double accuracy = print("reward model", fitted);
  print("longer reply wins", longer);
  return accuracy > print("fitted to shuffled labels", shuffled) ? 0 : 1;
}
