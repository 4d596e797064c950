// Supervised fine-tuning: a model that writes long stories learns to answer with one sentence.
//
// Shows: demonstrations (a prompt and the completion to imitate), sft_train, whose loss counts the
// completion's tokens only, and the effect on prompts it has not seen. Not: alignment; the model
// copies, and nobody said which of two answers is better.
//
// Prints:
//   before, on 60 prompts that are not in training:
//     Once upon a time, there was a little cat named Tom. | Tom liked to walk home with his fri…
//     Once upon a time, there was a little girl called Lucy. | She was very brilliant because s…
//     0 % ended by themselves; 80.0 tokens on average
//   update   1 of 114  loss 1.689 nats per completion token
//   update  26 of 114  loss 1.132 nats per completion token
//   update  51 of 114  loss 1.294 nats per completion token
//   update  76 of 114  loss 1.004 nats per completion token
//   update 101 of 114  loss 0.826 nats per completion token
//   update 114 of 114  loss 0.928 nats per completion token
//   after:
//     Once upon a time, there was a little cat named Tom. | Tom liked to walk in the park.
//     Once upon a time, there was a little girl called Lucy. | She was very luirtfed but even w…
//     100 % ended by themselves; 18.5 tokens on average
#include "stories.hpp"

#include <cstdio>

using namespace plumb;

// Of each story that has both, and both short: its first sentence as the prompt, its second as the
// completion. No prompt is among those of `but`.
static std::vector<Demonstration> demonstrations(const std::string& file, std::size_t count,
                                                 const std::vector<Demonstration>& but = {}) {
  std::vector<Demonstration> out;
  for (const std::string& story : split_stories(read_text(kData + file))) {
    const std::string first = opening(story);
    const std::string second = opening(std::string_view(story).substr(first.size()));
    const bool known = std::any_of(but.begin(), but.end(),
                                   [&](const Demonstration& d) { return d.prompt == first; });
    if (out.size() < count && !known && first.size() <= 80 && second.size() > 1 &&
        second.size() <= 80)
      out.push_back({first, second});
  }
  return out;
}

struct Habits {
  double ended = 0;   // share of responses that ended by themselves
  double length = 0;  // tokens
};

static Habits habits(const LanguageModel<Cpu>& stories, const std::vector<Tokens>& prompts) {
  SampleOptions options;
  options.max_new_tokens = 80;
  options.stops = stories.stops;
  options.seed = 5;
  Habits result;
  const auto responses = sample(*stories.model, prompts, options);
  for (const Response& response : responses) {
    result.ended += response.finished ? 1 : 0;
    result.length += static_cast<double>(response.tokens.size());
  }
  const auto n = static_cast<double>(responses.size());
  for (std::size_t i = 0; i < 2; ++i) {
    const std::string text = response_text(stories, prompts[i], responses[i].tokens);
    const std::string prompt = stories.tokenizer->decode(prompts[i]);
    std::printf("  %s\n", one_line(prompt + " |" + text).c_str());
  }
  std::printf("  %.0f %% ended by themselves; %.1f tokens on average\n", 100 * result.ended / n,
              result.length / n);
  return {result.ended / n, result.length / n};
}

int main() {
  const LanguageModel<Cpu> stories = open_stories();
  const auto train = demonstrations("tinystories_train.txt", 600);
  std::vector<std::string> held_out;
  for (const Demonstration& d : demonstrations("tinystories_heldout.txt", 60, train))
    held_out.push_back(d.prompt);
  const auto prompts = encoded(stories, held_out, 80);

  std::printf("before, on %d prompts that are not in training:\n",
              static_cast<int>(prompts.size()));
  const Habits before = habits(stories, prompts);

  // A completion ends with the token that this model has always met between two stories.
  // encode_example would put the tokenizer's EOS, which it never saw and learns less well
  // (docs/experiment-log.md).
  std::vector<Example> examples;
  for (const Demonstration& d : train) {
    Encoded pair = encode_pair(stories, d.prompt, d.completion, false);
    pair.response.push_back(stories.tokenizer->bos());
    examples.push_back({pair.prompt, pair.response});
  }
  const SftConfig config{.epochs = 3, .batch = 16, .optimizer = {.lr = 5e-4F}, .seed = 1};
  sft_train(*stories.model, examples, config, [](Index update, Index total, float loss) {
    if (update % 25 == 0 || update + 1 == total)
      std::printf("update %3d of %d  loss %.3f nats per completion token\n",
                  static_cast<int>(update + 1), static_cast<int>(total), static_cast<double>(loss));
  });

  std::printf("after:\n");
  const Habits after = habits(stories, prompts);
  return after.ended > 0.9 && after.length < before.length / 2 ? 0 : 1;
}
