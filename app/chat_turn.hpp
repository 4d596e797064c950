// A turn of a conversation with one model or two, and how probable each token was: one function for
// the terminal (`plumb chat --beside --probabilities`) and the page (`plumb studio --chat`).
//
// Both models draw with the same random keys, so that equal models give equal responses. A
// probability is that of the whole distribution at temperature 1, softmax(logits), whatever
// temperature and filters the token was drawn with: what the model says, and not what the settings
// made of it. Of two models with the same tokenizer each also reads the other's response, after the
// prompt in its own chat form. What this is not: a dialogue; each turn stands for itself.
#pragma once

#include "models.hpp"
#include "settings.hpp"

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// A token that a model might have said, and how probable it found that.
struct LikelyToken {
  std::int32_t id = 0;
  std::string text;  ///< as visible_text() shows it
  double logprob = 0;
};

/// A token of a response. Log-probabilities are in nats.
struct ChatToken {
  std::int32_t id = 0;
  std::string text;    ///< as visible_text() shows it; of one that ends a response, "<end>"
  double logprob = 0;  ///< under the model that said it
  std::optional<double> beside;     ///< under the other model, if there is one that can be compared
  std::vector<LikelyToken> likely;  ///< what its model found likeliest here, likeliest first
  std::vector<LikelyToken> likely_beside;  ///< and what the other one did

  /// Whether one of the models finds it at least twice as probable as the other.
  bool differs() const;
};

/// Tokens that are shown as one: their bytes together are whole UTF-8 characters. Bytes that become
/// none are shown as visible_text() shows them.
struct ChatPiece {
  std::size_t begin = 0;  ///< which token of the response is its first
  std::string text;       ///< empty for a token that says nothing
  std::vector<ChatToken> tokens;

  bool differs() const;
};

struct ChatResponse {
  std::string model;      ///< the path that it was opened by
  std::string text;       ///< without the token that ends it; its bytes, which may be no UTF-8
  bool finished = false;  ///< ended by itself or by a stop text
  bool stopped = false;   ///< somebody did not want to hear the rest, or any of it
  std::vector<ChatPiece> pieces;

  std::size_t tokens() const;
};

struct ChatTurn {
  std::vector<ChatResponse> responses;  ///< one a model, in their order
  bool compared = false;                ///< two models, with the same tokenizer
  /// Of two that are compared, the first token at which the responses differ (or one has ended);
  /// none: they are the same.
  std::optional<std::size_t> first_difference;
};

/// How many of the likeliest tokens are kept at each place.
inline constexpr std::size_t kLikelyTokens = 3;

/// What can be shown of bytes: characters, line breaks and tabs as they are; those that command a
/// terminal (screen.hpp) or change the direction of text by their number, \u202E; other bytes and
/// controls as \x1B.
std::string visible_text(std::string_view bytes);

/// Text without the bytes at its end with which a character has begun that is not whole yet.
std::string_view whole_characters(std::string_view text);

/// Called after each token of a response, of model `side`, with its text so far; true: enough.
using ChatListener = std::function<bool(std::size_t side, std::string_view text)>;

/// The one or two models' responses to `prompt`, one after the other, each of their tokens with its
/// probability. `settings.sampling` says how they are drawn, but for stops, which are the models';
/// of `responses` one is drawn, as long as every model that reads it has room for. `step` is part
/// of the random key. DataError for settings or a prompt that do not fit; NumericError where a
/// logit is NaN.
ChatTurn chat_turn(std::span<const Loaded* const> models, std::string_view prompt,
                   const GenerateSettings& settings, std::uint32_t step,
                   const ChatListener& listener = {});

/// Whether two models' tokens are the same, so that each can read the other's.
bool comparable(const Loaded& a, const Loaded& b);

/// In words, where the two responses begin to differ, and how many tokens one model finds at least
/// twice as probable as the other; of models that cannot be compared, why. Empty for one model.
std::string difference_in_words(const ChatTurn& turn);

/// "responses": of each "model", "text", "finished", "stopped" and "pieces", each with its "begin",
/// "text", "differs" and "tokens": "id", "text", "differs", "probability", "beside" and, likeliest
/// first, "likely" and "likely_beside", pairs of a text and a probability. Besides "compared",
/// "first_difference" (a token, or null) and difference_in_words() as "difference".
Json turn_json(const ChatTurn& turn);

}}  // namespace plumb::v0_1
