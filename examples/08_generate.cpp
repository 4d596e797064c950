// Step 1: several responses to each prompt, written as candidates for someone to rank.
//
// Shows: sample() with a temperature, stop tokens and stop texts; candidates as JSON Lines, with
// the tokens that were sampled, since a text may be cut into tokens in other ways; and that a
// response depends on its seed and its place alone, not on what else is sampled beside it. Not:
// ranking (09_rank.cpp). `plumb generate` does the same with flags.
//
// Prints:
//   Once upon a time, there was a little cat named Tom.
//     1 ended   Tom had many friends.
//     2 ended   Tom lived in a big house with his mom.
//     3 ended   Tom loved to play in the cave.
//   Once upon a time, there was a little girl named Lily.
//     1 cut     She loved to play with her dolls and roll many things
//     2 cut     She liked to play outside and make her mom feel
//     3 ended   She loved to play outside and play.
//   Once upon a time, there was a little girl called Lucy.
//     1 cut     She wanted to explore the fields and put on
//     2 cut     She was sad because she loved to run around in
//     3 cut     She had a lovely man with a big hat and a little pret
//   candidates read back as they were written: yes
//   the first three sampled alone, one by one, have the same bits: yes
//   9 of 9 responses are said once, 4 ended by themselves
#include "stories.hpp"

#include <plumb/data/jsonl.hpp>

#include <cstdio>
#include <filesystem>

using namespace plumb;

// One record a prompt: its responses as text and as tokens, and how they were sampled.
static std::vector<Candidates> as_candidates(const LanguageModel<Cpu>& stories,
                                             const std::vector<std::string>& texts,
                                             const std::vector<Tokens>& prompts,
                                             const std::vector<Response>& responses) {
  std::vector<Candidates> all;
  for (std::size_t p = 0; p < prompts.size(); ++p)
    all.push_back({.id = str("story-", p + 1),
                   .prompt = texts[p],
                   .responses = {},
                   .finished = {},
                   .model = fingerprint(*stories.model),
                   .sampling = R"({"temperature": 0.8, "seed": 1})",
                   .tokens = {}});
  for (const Response& response : responses) {
    const auto p = static_cast<std::size_t>(response.prompt);
    all[p].responses.push_back(response_text(stories, prompts[p], response.tokens));
    all[p].finished.push_back(response.finished);
    all[p].tokens.push_back(response.tokens);
  }
  return all;
}

static bool same(const std::vector<Candidates>& a, const std::vector<Candidates>& b) {
  return std::equal(
      a.begin(), a.end(), b.begin(), b.end(),
      [](const Candidates& x, const Candidates& y) { return to_json(x) == to_json(y); });
}

int main() {
  const LanguageModel<Cpu> stories = open_stories();
  const auto texts = openings("tinystories_heldout.txt", 3);

  SampleOptions options;
  options.responses = 3;
  options.sampling.temperature = 0.8F;
  options.max_new_tokens = 20;
  options.stops = stories.stops;                                // the model ends its story,
  options.stop_when = stop_at_texts(stories, {".", "!", "?"});  // or its sentence
  options.seed = 1;
  const auto prompts = encoded(stories, texts, options.max_new_tokens);
  const auto responses = sample(*stories.model, prompts, options);
  const auto candidates = as_candidates(stories, texts, prompts, responses);
  for (const Candidates& c : candidates) {
    std::printf("%s\n", c.prompt.c_str());
    for (std::size_t k = 0; k < c.responses.size(); ++k)
      std::printf("  %d %s %s\n", static_cast<int>(k + 1), c.finished[k] ? "ended " : "cut   ",
                  one_line(c.responses[k]).c_str());
  }

  // Written whole or not at all, and read back.
  std::string folder = (std::filesystem::temp_directory_path() / "plumb-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) return 1;
  const std::string file = folder + "/candidates.jsonl";
  write_jsonl(file, candidates);
  const bool kept = same(read_candidates(file).records, candidates);
  std::filesystem::remove_all(folder);
  std::printf("candidates read back as they were written: %s\n", kept ? "yes" : "no");

  // The first prompt alone, one response at a time: no batch around it changes a bit of it.
  SampleOptions alone = options;
  alone.slots = 1;
  const auto again = sample(*stories.model, {prompts[0]}, alone);
  bool equal = true;
  for (std::size_t k = 0; k < again.size(); ++k)
    equal = equal && again[k].tokens == responses[k].tokens &&
            again[k].logprobs == responses[k].logprobs;
  std::printf("the first three sampled alone, one by one, have the same bits: %s\n",
              equal ? "yes" : "no");

  double distinct = 0, ended = 0;
  for (const Candidates& c : candidates)
    for (std::size_t k = 0; k < c.responses.size(); ++k) {
      distinct += std::count(c.responses.begin(), c.responses.end(), c.responses[k]) == 1 ? 1 : 0;
      ended += c.finished[k] ? 1 : 0;
    }
  std::printf("%.0f of 9 responses are said once, %.0f ended by themselves\n", distinct, ended);
  return kept && equal && distinct > 6 && ended > 0 ? 0 : 1;
}
