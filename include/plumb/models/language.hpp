// Text on its way to tokens, once for everybody: prompts, as models/prompt.hpp frames them, and
// where, in a prompt with its response, the border lies.
//
// Prompt and response are encoded apart, split at the character where the prompt ends, as they are
// when a response is sampled: so the border never moves, whatever the two would have merged into.
// What exceeds the context is cut between the turns of a dialogue, the oldest first and the
// system's never; then from the front of the prompt's last text, then from the end of the response;
// a response that was cut has no end token, because it did not end. The chat form stays whole. Not
// here: files (models/open.hpp).
#pragma once

#include <plumb/data/packing.hpp>
#include <plumb/data/records.hpp>
#include <plumb/io/utf8.hpp>
#include <plumb/models/prompt.hpp>
#include <plumb/rlhf/ranking.hpp>
#include <plumb/rlhf/sft.hpp>
#include <plumb/text/tokenizer.hpp>

#include <algorithm>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// A prompt and a response as tokens.
struct Encoded {
  Tokens prompt;           ///< begins with the BOS token, if there is one
  Tokens response;         ///< its end token included, if it ended
  Index prompt_cut = 0;    ///< tokens dropped from the front of the prompt
  Index response_cut = 0;  ///< and from the end of the response
  bool ended = false;      ///< the response is whole, and ended by itself

  Tokens sequence() const {
    Tokens all = prompt;
    all.insert(all.end(), response.begin(), response.end());
    return all;
  }
};

/// What happened to sequences on their way in, for a sentence to the user.
struct EncodingCount {
  Index sequences = 0, cut = 0;
  Index identical = 0;  ///< responses that became the same tokens as another one to their prompt

  /// "3 of 40 sequences were cut …; 2 …", or nothing worth saying.
  std::string text(Index context) const {
    std::string out;
    if (cut > 0)
      out =
          str(cut, " of ", sequences, " sequences were cut to the context of ", context, " tokens");
    if (identical > 0)
      out += str(out.empty() ? "" : "; ", identical, identical == 1 ? " is" : " are",
                 " the same tokens as another response to the same prompt");
    return out;
  }
};

namespace detail {

inline bool is_stop(const Language& language, std::int32_t token) {
  return std::find(language.stops.begin(), language.stops.end(), token) != language.stops.end();
}

// Drops what exceeds the context, keeping the BOS, the tokens of the chat form and at least one of
// the prompt.
inline void cut_to_context(const Language& language, const PromptView& prompt, Encoded& e) {
  const auto size = [](const Tokens& tokens) { return static_cast<Index>(tokens.size()); };
  Index over = size(e.prompt) + size(e.response) - language.context;
  if (over <= 0) return;
  const bool form =
      !language.chat.before.empty() || !language.chat.after.empty() || !prompt.turns.empty();
  const Tokens around = form ? form_around(language, prompt) : Tokens{};
  // The form is what an empty prompt has at its beginning and its end.
  Index kept = language.tokenizer->bos() >= 0 ? 1 : 0, end = 0;
  if (form) {
    kept = std::mismatch(around.begin(), around.end(), e.prompt.begin(), e.prompt.end()).first -
           around.begin();
    end = std::mismatch(around.rbegin(), around.rend() - kept, e.prompt.rbegin(),
                        e.prompt.rend() - kept)
              .first -
          around.rbegin();
  }
  const Index free = size(e.prompt) - kept - end;
  const Index cut =
      std::clamp<Index>(over, 0, form || kept > 0 ? free : std::max<Index>(0, free - 1));
  const auto first = e.prompt.begin() + kept;
  e.prompt.erase(first, first + cut);
  e.prompt_cut += cut;
  over -= cut;
  if (over <= 0) return;
  e.response_cut = std::min(over, size(e.response));
  e.response.resize(e.response.size() - static_cast<std::size_t>(e.response_cut));
  e.ended = false;
}

/// A response after a dialogue: a transcript has a space before it, a chat form has none.
inline std::string fitted_response(const ChatForm& chat, const PromptView& prompt,
                                   std::string_view response) {
  if (prompt.turns.empty() || response.empty()) return std::string(response);
  const std::size_t begin = std::min(response.find_first_not_of(" \t\r\n"), response.size());
  if (!chat.is_transcript()) return std::string(response.substr(begin));
  return begin > 0 ? std::string(response) : str(' ', response);
}

}  // namespace detail

/// The tokens of a prompt, framed as the model expects. DataError unless `room` more fit the
/// context, with a dialogue's last exchange at least.
inline Tokens encode_prompt(const Language& language, const PromptView& prompt, Index room,
                            Where where = Where::here()) {
  detail::FittedPrompt fitted;
  detail::fit_prompt(language, prompt, room, fitted);
  if (fitted.tokens.empty())
    fail<DataError>("[prompt] the prompt is empty, and this tokenizer has no token to begin with",
                    where);
  if (static_cast<Index>(fitted.tokens.size()) + room > language.context)
    fail<DataError>(
        str("[prompt] \"", repaired_utf8(prompt.text.substr(0, 40)), "…\" has ",
            fitted.tokens.size(), " tokens; with ", room, " new ones it exceeds the context of ",
            language.context, ". HINT: shorten it, or ask for fewer new tokens"),
        where);
  return std::move(fitted.tokens);
}

/// What a response's tokens say after their prompt, without the tokens that end it.
inline std::string response_text(const Language& language, const Tokens& prompt,
                                 std::span<const std::int32_t> response) {
  Tokens all = prompt;
  for (const std::int32_t token : response)
    if (!detail::is_stop(language, token)) all.push_back(token);
  return language.tokenizer->decode(all).substr(language.tokenizer->decode(prompt).size());
}

/// Prompt and response. `sampled`, if given, are the tokens that the response was sampled as: they
/// are taken if they do say `response`, which those of another tokenizer would not.
inline Encoded encode_pair(const Language& language, const PromptView& prompt,
                           std::string_view response, bool finished,
                           std::span<const std::int32_t> sampled = {}) {
  const Tokenizer& tokenizer = *language.tokenizer;
  detail::FittedPrompt fitted;
  detail::fit_prompt(language, prompt, 0, fitted);
  Encoded e;
  const bool known =
      !sampled.empty() && std::all_of(sampled.begin(), sampled.end(), [&](std::int32_t token) {
        return token >= 0 && token < tokenizer.vocab();
      });
  // Text that is not UTF-8 was repaired when it was written.
  if (known &&
      repaired_utf8(response_text(language, fitted.tokens, sampled)) == repaired_utf8(response)) {
    e.response.assign(sampled.begin(), sampled.end());
    e.ended = finished;
  } else {
    const bool begins =
        language.chat.after.empty() && language.chat.before.empty() && prompt.text.empty();
    const std::string text = detail::fitted_response(language.chat, prompt, response);
    e.response = begins ? tokenizer.encode(text) : tokenizer.encode_more(text);
    e.ended = finished && tokenizer.eos() >= 0;
    if (e.ended) e.response.push_back(tokenizer.eos());
  }
  const auto together = static_cast<Index>(fitted.tokens.size() + e.response.size());
  if (!prompt.turns.empty() && together > language.context)
    detail::fit_prompt(language, prompt, static_cast<Index>(e.response.size()), fitted);
  e.prompt = std::move(fitted.tokens);
  e.prompt_cut = fitted.cut;
  detail::cut_to_context(language, fitted.view, e);
  return e;
}

/// A demonstration, to be imitated. DataError if nothing of its completion is left.
inline Example encode_example(const Language& language, const Demonstration& demonstration,
                              EncodingCount& count, Where where = Where::here()) {
  Encoded e = encode_pair(language, {demonstration.prompt, demonstration.turns},
                          demonstration.completion, true);
  ++count.sequences;
  count.cut += e.prompt_cut > 0 || e.response_cut > 0 ? 1 : 0;
  if (e.prompt.empty() || e.response.empty())
    fail<DataError>(
        str("[sft] the demonstration \"", repaired_utf8(demonstration.prompt.substr(0, 40)),
            "…\" has no prompt token or no completion token. HINT: give it both"),
        where);
  return {std::move(e.prompt), std::move(e.response)};
}

/// A ranking as a reward model reads it, its responses as sampled where their tokens are known.
/// Rankings that decide nothing are kept (they decide no pair).
inline RankedPrompt encode_ranking(const Language& language, const Ranking& ranking,
                                   EncodingCount& count) {
  RankedPrompt result;
  const std::vector<double> level = levels_of(ranking);
  for (std::size_t i = 0; i < ranking.responses.size(); ++i) {
    const bool finished = ranking.finished.empty() || ranking.finished[i];
    const std::span<const std::int32_t> sampled =
        ranking.tokens.empty() ? std::span<const std::int32_t>{} : ranking.tokens[i];
    const Encoded e = encode_pair(language, {ranking.prompt, ranking.turns}, ranking.responses[i],
                                  finished, sampled);
    Tokens sequence = e.sequence();
    ++count.sequences;
    count.cut += e.prompt_cut > 0 || e.response_cut > 0 ? 1 : 0;
    const auto same = std::find(result.sequences.begin(), result.sequences.end(), sequence);
    count.identical += same != result.sequences.end() ? 1 : 0;
    result.sequences.push_back(std::move(sequence));
    result.begins.push_back(static_cast<Index>(e.prompt.size()));
    result.lengths.push_back(static_cast<Index>(ranking.responses[i].size()));
    result.rank.push_back(ranking.rank[i]);
    if (!level.empty()) result.level.push_back(static_cast<float>(level[i]));
  }
  return result;
}

/// Texts without a prompt, cut to the context: for perplexity.
inline std::vector<Tokens> encode_texts(const Language& language,
                                        const std::vector<std::string>& texts) {
  Language plain = language;
  plain.chat = {};
  std::vector<Tokens> sequences;
  for (const std::string& text : texts)
    sequences.push_back(encode_pair(plain, "", text, false).sequence());
  return sequences;
}

/// For SampleOptions::stop_when: whether the text of a response holds one of these texts, of any
/// length.
inline std::function<bool(std::span<const std::int32_t>)> stop_at_texts(
    const Language& language, std::vector<std::string> texts) {
  std::size_t longest = 0;
  for (const std::string& text : texts) longest = std::max(longest, text.size());
  return [tokenizer = language.tokenizer, texts = std::move(texts),
          longest](std::span<const std::int32_t> response) {
    // It is asked after each token, so a text that is found ends in the last one: decode from the
    // end until there is as much text before that token as a stop text may need.
    std::size_t tokens = 0;
    std::string tail;
    const std::size_t last = tokenizer->decode(response.last(1)).size();
    do {
      tokens = std::min(response.size(), std::max<std::size_t>(8, 2 * tokens));
      tail = tokenizer->decode(response.last(tokens));
    } while (tokens < response.size() && tail.size() < longest + last);
    return std::any_of(texts.begin(), texts.end(), [&](const std::string& text) {
      return tail.find(text) != std::string::npos;
    });
  };
}

}}  // namespace plumb::v0_1
