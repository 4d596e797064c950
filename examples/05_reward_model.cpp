// A reward model learns what people preferred, and its baselines say how little that is here.
//
// Shows: rankings read from JSON Lines (PandaLM: three people's votes on pairs of replies), folds by
// prompt, reward_train, and accuracy on prompts held out, beside two baselines: "the longer reply
// wins" and a model fitted to shuffled labels. Not: a good judge. stories260K knows children's
// stories and reads the first 96 tokens of a reply: it beats shuffled labels and loses to length.
// Accuracy moves by over ten points from fold to fold, so one split alone would show whatever one
// likes. Several pairs share a prompt, so the intervals, which count pairs, are too narrow.
//
// Prints:
//   fold 0: 288 rankings held out, accuracy 70.6 %, longer reply 76.9 %
//   fold 1: 267 rankings held out, accuracy 59.3 %, longer reply 56.6 %
//   fold 2: 279 rankings held out, accuracy 53.1 %, longer reply 68.8 %
//   all 756 pairs that the people decided:
//   reward model                61.2 %  (95 % interval 57.7 to 64.6)
//   longer reply wins           67.8 %  (95 % interval 64.4 to 71.0)
//   fitted to shuffled labels   47.7 %  (95 % interval 44.1 to 51.2)
#include "stories.hpp"

#include <plumb/data/folds.hpp>
#include <plumb/data/jsonl.hpp>
#include <plumb/run/statistics.hpp>

#include <cstdio>

using namespace plumb;

// Prompt and replies as the model reads them: the end of the prompt, the beginning of the reply, and
// the end token, at which the score is read.
static RankedPrompt ranked(const Tokenizer& tokenizer, const Ranking& ranking) {
  const std::size_t prompt_room = 32, reply_room = 96;
  RankedPrompt result;
  Tokens prompt = tokenizer.encode(ranking.prompt);
  if (prompt.size() > prompt_room) prompt.erase(prompt.begin(), prompt.end() - prompt_room);
  for (std::size_t i = 0; i < ranking.responses.size(); ++i) {
    Tokens reply = tokenizer.encode(ranking.responses[i]);
    if (reply.size() > reply_room) reply.resize(reply_room);
    Tokens sequence{tokenizer.bos()};
    sequence.insert(sequence.end(), prompt.begin(), prompt.end());
    sequence.insert(sequence.end(), reply.begin(), reply.end());
    sequence.push_back(SentencePieceTokenizer::kEos);
    result.sequences.push_back(std::move(sequence));
    result.rank.push_back(ranking.rank[i]);
    result.lengths.push_back(static_cast<Index>(ranking.responses[i].size()));
  }
  return result;
}

static RewardEvaluation fit_and_test(const Model<Cpu>& base, const std::vector<RankedPrompt>& train,
                                     const std::vector<RankedPrompt>& test) {
  Model<Cpu> model = base.clone(ScalarHead::Reward, 1);  // same trunk, a fresh scalar head
  const RewardConfig config{.epochs = 1, .batch = 16, .optimizer = {.lr = 1e-3F}, .seed = 1};
  reward_train(model, train, config);
  return reward_evaluate(model, test);
}

static void print(const char* name, double correct, double pairs) {
  const Interval interval = wilson_interval(correct, pairs);
  std::printf("%-26s %5.1f %%  (95 %% interval %.1f to %.1f)\n", name, 100 * correct / pairs,
              100 * interval.low, 100 * interval.high);
}

int main() {
  const Model<Cpu> base = load_model(kData + "stories260K.bin");
  const SentencePieceTokenizer tokenizer(kData + "tok512.bin", base.config().vocab);
  const auto rankings = read_rankings(kData + "pandalm_votes_train.jsonl").records;

  // Each fold is held out once. A fold is a property of the prompt, so no prompt is on both sides.
  const int folds = 3;
  std::vector<std::string> groups;
  for (const Ranking& ranking : rankings) groups.push_back(ranking.group);
  const std::vector<int> fold_of = deal_folds(groups, folds, 1);
  double pairs = 0, correct = 0, longer = 0, shuffled = 0;
  for (int fold = 0; fold < folds; ++fold) {
    std::vector<RankedPrompt> train, test;
    for (std::size_t i = 0; i < rankings.size(); ++i)
      (fold_of[i] == fold ? test : train).push_back(ranked(tokenizer, rankings[i]));
    const RewardEvaluation fitted = fit_and_test(base, train, test);
    const RewardEvaluation control = fit_and_test(base, shuffle_labels(train, 1), test);
    std::printf("fold %d: %3d rankings held out, accuracy %.1f %%, longer reply %.1f %%\n", fold,
                static_cast<int>(test.size()), 100 * fitted.accuracy(),
                100 * fitted.length_accuracy());
    pairs += fitted.pairs;
    correct += fitted.correct;
    longer += fitted.length_correct;
    shuffled += control.correct;
  }
  std::printf("all %.0f pairs that the people decided:\n", pairs);
  print("reward model", correct, pairs);
  print("longer reply wins", longer, pairs);
  print("fitted to shuffled labels", shuffled, pairs);
  return correct > shuffled ? 0 : 1;
}
