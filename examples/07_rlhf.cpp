// One round of RLHF: sample, rank, fit a reward model, optimise the policy against it, compare.
//
// Shows: the four steps in order, and that a policy improves under a judgement that it never sees:
// PPO is given the reward model's scores only. Not: human feedback. Where a person would rank, a
// stated rule does (`judge` below); 09_rank.cpp and `plumb rank` put the person there.
//
// Prints:
//   reward model: 97.2 % of 36 held-out pairs right (the longer one wins: 31.9 %)
//   iteration  0  objective/kl_exact  0.000
//   iteration  0  objective/scores   -0.077
//   iteration 11  objective/kl_exact 20.876
//   iteration 11  objective/scores    2.032
//   Once upon a time, there was a little cat named Tom.
//     before | Tom loved to play with his toy cars. In the sun. One day, Tom saw a big, round…
//     after  | Tom loved to run and rush in the floor. He was very pretty and just then he re…
//   after beats before on 91.5 of 100 prompts (ties count half): 0.84 to 0.96
#include "stories.hpp"

#include <plumb/run/statistics.hpp>

#include <cstdio>

using namespace plumb;

// The rule in the annotator's place: more speech is better. It counts quotation marks.
static int judge(const std::string& text) {
  return static_cast<int>(std::count(text.begin(), text.end(), '"'));
}

int main() {
  const LanguageModel<Cpu> stories = open_stories();
  const Model<Cpu>& reference = *stories.model;
  SampleOptions options;
  options.responses = 4;
  options.max_new_tokens = 48;
  options.stops = stories.stops;
  options.seed = 3;
  const auto texts = openings("tinystories_train.txt", 240);
  const auto prompts = encoded(stories, texts, options.max_new_tokens);
  const auto held_out =
      encoded(stories, openings("tinystories_heldout.txt", 100, texts), options.max_new_tokens);

  // 1. Sample four responses to each prompt.
  const auto responses = sample(reference, prompts, options);

  // 2. Rank them: a response's rank is the number of responses that are better; equal ones tie.
  EncodingCount count;
  std::vector<RankedPrompt> rankings;
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    Ranking ranking;
    ranking.prompt = texts[p];
    std::vector<int> merit;
    for (std::size_t k = 4 * p; k < 4 * p + 4; ++k) {
      ranking.responses.push_back(response_text(stories, prompts[p], responses[k].tokens));
      ranking.finished.push_back(responses[k].finished);
      ranking.tokens.push_back(responses[k].tokens);
      merit.push_back(judge(ranking.responses.back()));
    }
    for (const int m : merit)
      ranking.rank.push_back(static_cast<int>(
          std::count_if(merit.begin(), merit.end(), [m](int other) { return other > m; })));
    rankings.push_back(encode_ranking(stories, ranking, count));
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
      if (i % 11 == 0 && (name == "objective/scores" || name == "objective/kl_exact"))
        std::printf("iteration %2d  %-18s %6.3f\n", static_cast<int>(i), name.c_str(), value);
  }

  // Compare: the same held-out prompts and random numbers, before and after, under the rule.
  SampleOptions once = options;
  once.responses = 1;
  const auto before = sample(reference, held_out, once), after = sample(policy, held_out, once);
  double wins = 0;
  for (std::size_t i = 0; i < held_out.size(); ++i) {
    const std::string old_text = response_text(stories, held_out[i], before[i].tokens);
    const std::string new_text = response_text(stories, held_out[i], after[i].tokens);
    const int lead = judge(new_text) - judge(old_text);
    wins += lead > 0 ? 1.0 : lead == 0 ? 0.5 : 0.0;
    if (i == 0)
      std::printf("%s\n%s\n%s\n", stories.tokenizer->decode(held_out[i]).c_str(),
                  one_line("  before |" + old_text).c_str(),
                  one_line("  after  |" + new_text).c_str());
  }
  const auto n = static_cast<double>(held_out.size());
  const Interval interval = wilson_interval(wins, n);
  std::printf("after beats before on %.1f of %.0f prompts (ties count half): %.2f to %.2f\n", wins,
              n, interval.low, interval.high);
  return interval.low > 0.5 ? 0 : 1;
}
