// What the examples that start from a trained model share: stories260K (llama2.c's smallest, which
// writes children's stories), its tokenizer, and the way from text to tokens and back.
#pragma once

#include <plumb/data/text.hpp>
#include <plumb/io/llama.hpp>
#include <plumb/plumb.hpp>
#include <plumb/text/sentencepiece.hpp>

#include <algorithm>
#include <string>
#include <vector>

inline const std::string kData = PLUMB_SOURCE_DIR "/examples/data/";

/// Reads a llama2.c file into a model: the sizes become its configuration, the arrays its weights.
inline plumb::Model<plumb::Cpu> load_model(const std::string& path) {
  const plumb::LlamaFile file = plumb::read_llama(path);
  plumb::Model<plumb::Cpu> model({.vocab = file.vocab,
                                  .context = file.context,
                                  .channels = file.channels,
                                  .layers = file.layers,
                                  .heads = file.heads,
                                  .kv_heads = file.kv_heads,
                                  .hidden = file.hidden,
                                  .tied_head = file.tied},
                                 0);
  for (const plumb::OwnedArray& array : file.arrays)
    std::copy(array.data.begin(), array.data.end(), model.parameters()[array.name].data());
  return model;
}

/// Text as the model's tokens, with the token in front that begins every sequence.
inline plumb::Tokens encode(const plumb::Tokenizer& tokenizer, const std::string& text) {
  plumb::Tokens tokens = tokenizer.encode(text);
  tokens.insert(tokens.begin(), tokenizer.bos());
  return tokens;
}

/// What a response says after its prompt, without the token that ended it.
inline std::string decode(const plumb::Tokenizer& tokenizer, const plumb::Tokens& prompt,
                          plumb::Tokens response) {
  const plumb::Tokens stops = tokenizer.stops();
  if (!response.empty() && std::find(stops.begin(), stops.end(), response.back()) != stops.end())
    response.pop_back();
  plumb::Tokens all = prompt;
  all.insert(all.end(), response.begin(), response.end());
  return tokenizer.decode(all).substr(tokenizer.decode(prompt).size());
}

/// The first sentences of `count` stories of a file, as prompts of at most 24 tokens.
inline std::vector<plumb::Tokens> openings(const plumb::Tokenizer& tokenizer,
                                           const std::string& file, std::size_t count) {
  std::vector<plumb::Tokens> prompts;
  for (const std::string& story : plumb::split_stories(plumb::read_text(kData + file))) {
    if (prompts.size() == count) break;
    plumb::Tokens prompt = encode(tokenizer, plumb::opening(story));
    if (prompt.size() <= 24) prompts.push_back(std::move(prompt));
  }
  return prompts;
}
