// What the examples that begin with a trained model share: stories260K (llama2.c's smallest, which
// writes children's stories), prompts for it, a rule that scores, and texts printed on one line.
#pragma once

#include <plumb/plumb.hpp>

#include <plumb/data/prompts.hpp>
#include <plumb/models/open.hpp>

#include <algorithm>
#include <string>
#include <vector>

inline const std::string kData = PLUMB_SOURCE_DIR "/examples/data/";

/// The model with its tokenizer, its stop tokens and its context.
inline plumb::LanguageModel<plumb::Cpu> open_stories() {
  return plumb::open_model<plumb::Cpu>(kData + "stories260K.bin");
}

/// The first sentences of `count` stories of a file, no two the same and none among `but`.
inline std::vector<std::string> openings(const std::string& file, std::size_t count,
                                         const std::vector<std::string>& but = {}) {
  std::vector<std::string> out;
  for (const plumb::Prompt& prompt : plumb::load_prompts(kData + file))
    if (out.size() < count && prompt.text.size() <= 60 &&
        std::find(but.begin(), but.end(), prompt.text) == but.end())
      out.push_back(prompt.text);
  return out;
}

/// Prompts as the model reads them, with room for `room` tokens of a response.
inline std::vector<plumb::Tokens> encoded(const plumb::Language& language,
                                          const std::vector<std::string>& prompts,
                                          plumb::Index room) {
  std::vector<plumb::Tokens> out;
  for (const std::string& prompt : prompts)
    out.push_back(plumb::encode_prompt(language, prompt, room));
  return out;
}

/// A rule in place of people: how many friendly words a text holds, each counted once.
inline float friendly(const std::string& text) {
  float score = 0;
  for (const char* word : {"happy", "smile", "fun", "friend", "love", "play", "hug", "thank"})
    score += text.find(word) != std::string::npos ? 1.0F : 0.0F;
  return score;
}

/// A text on one line, the first 90 characters of it.
inline std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text.size() <= 90 ? text : text.substr(0, 89) + "…";
}
