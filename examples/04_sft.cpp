// Supervised fine-tuning: a model that writes long stories learns to answer with one sentence.
//
// Shows: demonstrations (a prompt and the completion to imitate), sft_train, whose loss counts the
// completion's tokens only, and the effect on prompts it has not seen. Not: alignment; the model
// copies, and nobody said which of two answers is better.
//
// Prints:
//   before, on 60 held-out prompts:
//     Once upon a time, there was a little cat named Tom. | Tom liked to walk home with his frien…
//   At the university, there was a glass. There liked to use a pil
//     Once upon a time, there was a little girl named Lily. | She lived in a tall island with a b…
//     0 % ended by themselves; 80.0 tokens on average
//   update  1 of 114  loss 1.669 nats per completion token
//   update 26 of 114  loss 1.243 nats per completion token
//   update 51 of 114  loss 0.970 nats per completion token
//   update 76 of 114  loss 0.881 nats per completion token
//   update 101 of 114  loss 1.030 nats per completion token
//   update 114 of 114  loss 0.965 nats per completion token
//   after:
//     Once upon a time, there was a little cat named Tom. | Tom liked to hop all day long.
//     Once upon a time, there was a little girl named Lily. | She had a toy truck on her boat.
//     100 % ended by themselves; 18.7 tokens on average
#include "stories.hpp"

#include <cstdio>

using namespace plumb;

// Of each story that has both, and both short: its first sentence as the prompt, its second and the
// token that separates stories as the completion.
static std::vector<Example> demonstrations(const Tokenizer& tokenizer, const std::string& file) {
  std::vector<Example> examples;
  for (const std::string& story : split_stories(read_text(kData + file))) {
    const std::string first = opening(story);
    const std::string second = opening(std::string_view(story).substr(first.size()));
    const Tokens prompt = encode(tokenizer, first);
    Tokens both = encode(tokenizer, first + second);
    if (second.size() < 2 || prompt.size() > 40 || both.size() > 80 ||
        !std::equal(prompt.begin(), prompt.end(), both.begin()))
      continue;
    both.push_back(SentencePieceTokenizer::kBos);
    examples.push_back({prompt, Tokens(both.begin() + std::ssize(prompt), both.end())});
  }
  return examples;
}

struct Habits {
  double ended = 0;   // share of responses that ended by themselves
  double length = 0;  // tokens
};

static Habits habits(const Model<Cpu>& model, const Tokenizer& tokenizer,
                     const std::vector<Tokens>& prompts) {
  SampleOptions options;
  options.max_new_tokens = 80;
  options.stops = tokenizer.stops();
  options.seed = 5;
  Habits result;
  const auto responses = sample(model, prompts, options);
  for (const Response& response : responses) {
    result.ended += response.finished ? 1 : 0;
    result.length += static_cast<double>(response.tokens.size());
  }
  const auto n = static_cast<double>(responses.size());
  for (std::size_t i = 0; i < 2; ++i)
    std::printf("  %s |%s\n", tokenizer.decode(prompts[i]).c_str(),
                decode(tokenizer, prompts[i], responses[i].tokens).c_str());
  std::printf("  %.0f %% ended by themselves; %.1f tokens on average\n", 100 * result.ended / n,
              result.length / n);
  return {result.ended / n, result.length / n};
}

int main() {
  Model<Cpu> model = load_model(kData + "stories260K.bin");
  const SentencePieceTokenizer tokenizer(kData + "tok512.bin", model.config().vocab);

  auto train = demonstrations(tokenizer, "tinystories_train.txt");
  train.resize(600);
  std::vector<Tokens> prompts;
  for (const Example& example : demonstrations(tokenizer, "tinystories_heldout.txt"))
    if (prompts.size() < 60) prompts.push_back(example.prompt);

  std::printf("before, on %d held-out prompts:\n", static_cast<int>(prompts.size()));
  const Habits before = habits(model, tokenizer, prompts);

  const SftConfig config{.epochs = 3, .batch = 16, .optimizer = {.lr = 5e-4F}, .seed = 1};
  sft_train(model, train, config, [](Index update, Index total, float loss) {
    if (update % 25 == 0 || update + 1 == total)
      std::printf("update %2d of %d  loss %.3f nats per completion token\n",
                  static_cast<int>(update + 1), static_cast<int>(total), static_cast<double>(loss));
  });

  std::printf("after:\n");
  const Habits after = habits(model, tokenizer, prompts);
  return after.ended > 0.9 && after.length < before.length / 2 ? 0 : 1;
}
