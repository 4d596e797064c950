// A reward model learns what people preferred.
//
// Shows: rankings read from JSON Lines (votes of three people on pairs of replies, PandaLM), a split by
// prompt, reward_train, and accuracy on held-out prompts with its interval, beside two baselines:
// "the longer reply wins" and a model fitted to shuffled labels. Not: a good judge. stories260K knows
// children's stories and 512 word pieces; that little carries over to instructions is the point of
// printing the baselines.
//
// Prints:
#include "stories.hpp"

#include <plumb/data/jsonl.hpp>
#include <plumb/run/statistics.hpp>

#include <cstdio>

using namespace plumb;

// Prompt and replies as the model reads them: the end of the prompt and the beginning of the reply, as
// much as leaves room, and the end token, at which the score is read.
static RankedPrompt ranked(const Tokenizer& tokenizer, const Ranking& ranking) {
  const std::size_t prompt_room = 64, reply_room = 128;
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
                                     const std::vector<RankedPrompt>& test, bool say) {
  Model<Cpu> model = base.clone(ScalarHead::Reward, 1);  // same trunk, a fresh scalar head
  const RewardConfig config{.epochs = 1, .batch = 16, .optimizer = {.lr = 1e-3F}, .seed = 1};
  reward_train(model, train, config, [&](Index update, Index total, float loss) {
    if (say && update % 10 == 0)
      std::printf("update %2d of %d  loss %.3f\n", static_cast<int>(update + 1),
                  static_cast<int>(total), static_cast<double>(loss));
  });
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

  // One fold in four is held out. A fold is a property of the prompt, so no prompt is on both sides.
  std::vector<RankedPrompt> train, test;
  for (const Ranking& ranking : read_rankings(kData + "pandalm_votes_train.jsonl").records)
    (fold_of(ranking.group, 4, 1) == 0 ? test : train).push_back(ranked(tokenizer, ranking));
  std::printf("%d rankings to learn from, %d held out\n", static_cast<int>(train.size()),
              static_cast<int>(test.size()));

  const RewardEvaluation fitted = fit_and_test(base, train, test, true);
  const RewardEvaluation control = fit_and_test(base, shuffle_labels(train, 1), test, false);
  std::printf("held-out pairs that the people decided: %.0f\n", fitted.pairs);
  print("reward model", fitted.correct, fitted.pairs);
  print("longer reply wins", fitted.length_correct, fitted.pairs);
  print("fitted to shuffled labels", control.correct, control.pairs);
  std::printf("calibration error of the model: %.3f\n", fitted.ece);
  return fitted.accuracy() > 0.5 && fitted.accuracy() > control.accuracy() ? 0 : 1;
}
