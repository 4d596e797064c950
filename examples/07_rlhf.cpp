// One round of RLHF: sample, rank, fit a reward model, optimise the policy against it, compare.
//
// Shows: the four steps in order, and that a policy improves under a judgement that it never sees:
// PPO is given the reward model's scores only. Not: human feedback. Where a person would rank, a stated
// rule does (`judge` below); `plumb rank` puts the person there.
//
// Prints:
//   reward model: 98.3 % of 60 held-out pairs right (the longer one wins: 50.0 %)
//   iteration  0  objective/kl_exact  0.000
//   iteration  0  objective/scores   -0.123
//   iteration  4  objective/kl_exact 10.704
//   iteration  4  objective/scores    0.059
//   …
//   Once upon a time, there was a little girl named Lily.
//     before | She loved to work near her house and twirl again. One day, she went out to buy som…
//     after  | She loved to wribb food some arms while she could fly away all. One day, her broth…
//   after beats before on 86 of 100 prompts (ties count half): 0.77 to 0.91
#include "stories.hpp"

#include <plumb/run/statistics.hpp>

#include <cstdio>

using namespace plumb;

// The rule in the annotator's place: more speech is better. It counts quotation marks.
static int judge(const std::string& text) {
  return static_cast<int>(std::count(text.begin(), text.end(), '"'));
}

static Tokens joined(const Tokens& prompt, const Tokens& response) {
  Tokens all = prompt;
  all.insert(all.end(), response.begin(), response.end());
  return all;
}

int main() {
  const Model<Cpu> reference = load_model(kData + "stories260K.bin");
  const SentencePieceTokenizer tokenizer(kData + "tok512.bin", reference.config().vocab);
  const auto prompts = openings(tokenizer, "tinystories_train.txt", 240);
  const auto held_out = openings(tokenizer, "tinystories_heldout.txt", 100);

  // 1. Sample four responses to each prompt.
  SampleOptions options;
  options.responses = 4;
  options.max_new_tokens = 48;
  options.stops = tokenizer.stops();
  options.seed = 3;
  const auto responses = sample(reference, prompts, options);

  // 2. Rank them: a response's rank is the number of responses that are better; equal ones tie.
  std::vector<RankedPrompt> rankings(prompts.size());
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    std::vector<int> merit;
    for (std::size_t k = 4 * p; k < 4 * p + 4; ++k) {
      merit.push_back(judge(decode(tokenizer, prompts[p], responses[k].tokens)));
      rankings[p].sequences.push_back(joined(prompts[p], responses[k].tokens));
      rankings[p].lengths.push_back(static_cast<Index>(responses[k].tokens.size()));
    }
    for (const int m : merit)
      rankings[p].rank.push_back(static_cast<std::int32_t>(
          std::count_if(merit.begin(), merit.end(), [m](int other) { return other > m; })));
  }

  // 3. Fit a reward model to the rankings of 200 prompts; test it on the other 40.
  const std::vector<RankedPrompt> train(rankings.begin(), rankings.begin() + 200);
  const std::vector<RankedPrompt> test(rankings.begin() + 200, rankings.end());
  Model<Cpu> reward = reference.clone(ScalarHead::Reward, 1);
  reward_train(reward, train, {.epochs = 2, .optimizer = {.lr = 1e-3F}, .seed = 1});
  const RewardEvaluation quality = reward_evaluate(reward, test);
  std::printf("reward model: %.1f %% of %.0f held-out pairs right (the longer one wins: %.1f %%)\n",
              100 * quality.accuracy(), quality.pairs, 100 * quality.length_accuracy());
  std::vector<Tokens> first_policy;  // so that its responses score 0 on average, with deviation 1
  for (const RankedPrompt& r : train)
    first_policy.insert(first_policy.end(), r.sequences.begin(), r.sequences.end());
  normalise_rewards(reward, first_policy);

  // 4. PPO against the reward model's scores.
  Model<Cpu> policy = reference.clone(ScalarHead::Value);
  PpoConfig config;
  config.iterations = 12;
  config.minibatches = 2;
  config.sampling = options;
  config.sampling.responses = 1;
  config.beta = 0.1F;
  config.optimizer.lr = 5e-4F;
  const ScoreFunction score = [&](const std::vector<Episode>& episodes) {
    return score_episodes(reward, episodes);
  };
  PpoTrainer<Cpu> trainer(policy, reference, score, config);
  for (Index i = 0; i < config.iterations; ++i) {
    const auto first = prompts.begin() + i * 40 % 240;
    const Metrics metrics = trainer.step({first, first + 40});
    for (const auto& [name, value] : metrics)
      if (i % 4 == 0 && (name == "objective/scores" || name == "objective/kl_exact"))
        std::printf("iteration %2d  %-18s %6.3f\n", static_cast<int>(i), name.c_str(), value);
  }

  // Compare: the same held-out prompts and random numbers, before and after, under the rule.
  SampleOptions once = options;
  once.responses = 1;
  const auto before = sample(reference, held_out, once), after = sample(policy, held_out, once);
  double wins = 0;
  for (std::size_t i = 0; i < held_out.size(); ++i) {
    const std::string old_text = decode(tokenizer, held_out[i], before[i].tokens);
    const std::string new_text = decode(tokenizer, held_out[i], after[i].tokens);
    const int lead = judge(new_text) - judge(old_text);
    wins += lead > 0 ? 1.0 : lead == 0 ? 0.5 : 0.0;
    if (i < 2)
      std::printf("%s\n  before |%s\n  after  |%s\n", tokenizer.decode(held_out[i]).c_str(),
                  old_text.c_str(), new_text.c_str());
  }
  const auto n = static_cast<double>(held_out.size());
  const Interval interval = wilson_interval(wins, n);
  std::printf("after beats before on %.0f of %.0f prompts (ties count half): %.2f to %.2f\n", wins,
              n, interval.low, interval.high);
  return interval.low > 0.5 ? 0 : 1;
}
