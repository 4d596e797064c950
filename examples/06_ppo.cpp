// PPO: a policy learns to score, and pays for every step it takes away from where it began.
//
// Shows: PpoTrainer with a score given by a rule (friendly words), the penalty on the KL divergence
// from the reference, and the numbers to watch. The ratio of the first minibatch is exactly 1: the
// log-probabilities recorded while sampling are, bit for bit, those of the training forward. Not:
// RLHF; the rule is known, so no reward model stands between it and the policy (see 07_rlhf.cpp).
//
// Prints:
//   before:
//     Once upon a time, there was a little cat named Tom. | Tom loved to play with his toy cars…
//     Once upon a time, there was a little girl called Lucy. | She loved to sing like a pretty …
//   iteration  0  score 0.84  KL  0.00 nats  entropy 1.33  clipped 0.345
//   iteration  3  score 1.31  KL 11.56 nats  entropy 1.38  clipped 0.204
//   iteration  6  score 1.69  KL 19.13 nats  entropy 1.25  clipped 0.152
//   iteration  9  score 2.25  KL 22.49 nats  entropy 1.27  clipped 0.128
//   iteration 12  score 2.16  KL 23.92 nats  entropy 1.26  clipped 0.066
//   iteration 15  score 2.53  KL 22.96 nats  entropy 1.16  clipped 0.012
//   after:
//     Once upon a time, there was a little cat named Tom. | Tom loved to play with his towers. …
//     Once upon a time, there was a little girl called Lucy. | She loved to send time of all th…
//   mean score on held-out prompts: 0.85 before, 2.55 after
//   ratio of every first minibatch exactly 1: yes
#include "stories.hpp"

#include <cstdio>

using namespace plumb;

static double mean_score(const Language& language, const Model<Cpu>& model,
                         const std::vector<Tokens>& prompts, const SampleOptions& options) {
  double total = 0;
  const auto responses = sample(model, prompts, options);
  for (std::size_t i = 0; i < responses.size(); ++i) {
    const std::string text = response_text(language, prompts[i], responses[i].tokens);
    total += static_cast<double>(friendly(text));
    const std::string prompt = language.tokenizer->decode(prompts[i]);
    if (i < 2) std::printf("  %s\n", one_line(prompt + " |" + text).c_str());
  }
  return total / static_cast<double>(responses.size());
}

static double value_of(const Metrics& metrics, std::string_view name) {
  for (const auto& [key, value] : metrics)
    if (key == name) return value;
  fail(str("no metric is named ", name));
}

int main() {
  const LanguageModel<Cpu> stories = open_stories();
  const Model<Cpu>& reference = *stories.model;
  Model<Cpu> policy = reference.clone(ScalarHead::Value);  // the value function shares the trunk

  SampleOptions options;
  options.max_new_tokens = 48;
  options.stops = stories.stops;
  options.seed = 3;
  const auto texts = openings("tinystories_train.txt", 512);
  const auto prompts = encoded(stories, texts, options.max_new_tokens);
  const auto held_out =
      encoded(stories, openings("tinystories_heldout.txt", 100, texts), options.max_new_tokens);

  std::printf("before:\n");
  const double before = mean_score(stories, policy, held_out, options);

  PpoConfig config;
  config.iterations = 16;
  config.minibatches = 2;
  config.sampling = options;
  config.beta = 0.1F;
  config.optimizer.lr = 5e-4F;
  const ScoreFunction score = [&](const std::vector<Episode>& episodes) {
    std::vector<float> scores;
    for (const Episode& e : episodes)
      scores.push_back(friendly(response_text(stories, e.prompt, e.response)));
    return scores;
  };
  PpoTrainer<Cpu> trainer(policy, reference, score, config);
  bool on_policy = true;
  for (Index i = 0; i < config.iterations; ++i) {
    const auto first = prompts.begin() + i * 32 % 480;
    const Metrics m = trainer.step({first, first + 32});
    on_policy = on_policy && value_of(m, "val/ratio_first_minibatch_max_deviation") == 0;
    if (i % 3 == 0)
      std::printf("iteration %2d  score %.2f  KL %5.2f nats  entropy %.2f  clipped %.3f\n",
                  static_cast<int>(i), value_of(m, "objective/scores"),
                  value_of(m, "objective/kl_exact"), value_of(m, "policy/entropy_avg"),
                  value_of(m, "policy/clipfrac_avg"));
  }

  std::printf("after:\n");
  const double after = mean_score(stories, policy, held_out, options);
  std::printf("mean score on held-out prompts: %.2f before, %.2f after\n", before, after);
  std::printf("ratio of every first minibatch exactly 1: %s\n", on_policy ? "yes" : "no");
  return on_policy && after > 1.5 * before ? 0 : 1;
}
