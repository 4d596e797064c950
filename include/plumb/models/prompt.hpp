// A prompt on its way to tokens: what stands around it, and how the turns of a dialogue stand in
// that.
//
// A chat form is text in which special tokens are written out; the letters beside a turn are
// encoded together with it, as the form's authors did. A dialogue that is too long loses its oldest
// exchanges, never a part of the form. In a form that is none, and in the transcript's own
// (human-assistant), a dialogue stands as its transcript. Names of forms: models/chat.hpp.
#pragma once

#include <plumb/data/dialogue.hpp>
#include <plumb/data/packing.hpp>
#include <plumb/data/records.hpp>
#include <plumb/text/tokenizer.hpp>

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// What stands around a prompt before a model answers it; nothing, where a model continues text.
struct ChatForm {
  std::string before = {}, after = {};
  std::vector<std::string> stops = {};  ///< special tokens that end a response
  float temperature = 1.0F;             ///< what its authors sample at
  std::string next =
      {};  ///< in a dialogue, between an answer and the next prompt; empty: it has none
  std::string system = {}, after_system = {};  ///< instead of `before`, around a system's turn
  bool operator==(const ChatForm&) const = default;
  /// Whether a dialogue stands in it as its transcript (data/dialogue.hpp).
  bool is_transcript() const { return (before.empty() && after.empty()) || next == "\n\nHuman: "; }
};

/// A prompt: text, and its turns where it is a dialogue (Prompt::turns). A view: what it shows
/// lives elsewhere.
struct PromptView {
  std::string_view text;
  std::span<const Turn> turns{};
  PromptView(std::string_view t) : text(t) {}                    // NOLINT: text is a prompt
  PromptView(const std::string& t) : text(t) {}                  // NOLINT
  PromptView(const char* t) : text(t) {}                         // NOLINT
  PromptView(const Prompt& p) : text(p.text), turns(p.turns) {}  // NOLINT
  PromptView(std::string_view t, std::span<const Turn> all) : text(t), turns(all) {}
};

/// How a model's text becomes tokens.
struct Language {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::string tokenizer_file;  ///< where it was read from; empty: bytes
  Tokens stops;                ///< tokens that end a response
  ChatForm chat;
  Index context = 0;  ///< longest sequence, tokens
  /// Of a model whose trunk is frozen: the file of the weights, and fingerprint() of them. What a
  /// file of adapters says of what they stand beside.
  std::string base_file = {}, base_fingerprint = {};
};

namespace detail {

/// Where the letters after the last special token of a form's text begin; 0 if there is none.
inline std::size_t last_special(const Tokenizer& tokenizer, std::string_view text) {
  for (std::size_t at = text.size(); at-- > 0;)
    if (const std::size_t length = tokenizer.special_at(text.substr(at)); length > 0)
      return at + length;
  return 0;
}
/// Where the first begins; the text's end if there is none.
inline std::size_t first_special(const Tokenizer& tokenizer, std::string_view text) {
  std::size_t at = 0;
  while (at < text.size() && tokenizer.special_at(text.substr(at)) == 0) ++at;
  return at;
}

/// Text of a chat form or of a dialogue, in the order in which it stands.
struct FormPiece {
  std::string_view text;
  bool form;  ///< its special tokens are tokens; else they are letters
};

/// What a prompt is made of. DataError if the form has no place for one of its turns.
inline std::vector<FormPiece> form_pieces(const ChatForm& chat, const PromptView& prompt,
                                          Where where = Where::here()) {
  if (prompt.turns.empty()) return {{chat.before, true}, {prompt.text, false}, {chat.after, true}};
  if (chat.is_transcript()) return {{prompt.text, false}};
  const auto refuse = [&](const char* what) {
    fail<DataError>(str("[prompt] the chat form has no place for ", what,
                        " in a dialogue. HINT: name another form with --chat"),
                    where);
  };
  std::vector<FormPiece> pieces;
  std::string_view role;
  for (const Turn& turn : prompt.turns) {
    if (turn.role == "system") {
      if (!role.empty() || chat.after_system.empty()) refuse("a system's turn");
      pieces.push_back({chat.system, true});
    } else if (turn.role == "user") {
      if (role == "user" || (role == "assistant" && chat.next.empty())) refuse("another turn");
      pieces.push_back({role.empty()       ? chat.before
                        : role == "system" ? chat.after_system
                                           : chat.next,
                        true});
    } else {
      if (role != "user") refuse("an answer to nothing");
      pieces.push_back({chat.after, true});
    }
    pieces.push_back({turn.text, false});
    role = turn.role;
  }
  pieces.push_back({chat.after, true});
  return pieces;
}

/// The form's letters next to a text are encoded together with it, as its authors did; what lies
/// between special tokens, and the form's end, apart.
inline Tokens prompt_tokens(const Language& language, const PromptView& prompt) {
  const Tokenizer& tokenizer = *language.tokenizer;
  Tokens tokens;
  const auto append = [&](const Tokens& more) {
    tokens.insert(tokens.end(), more.begin(), more.end());
  };
  if (tokenizer.bos() >= 0) tokens.push_back(tokenizer.bos());
  bool begun = false;  // text that begins is not encoded as text that goes on
  std::string run;
  const auto flush = [&] {
    append(begun ? tokenizer.encode_more(run) : tokenizer.encode(run));
    begun = true;
    run.clear();
  };
  const std::vector<FormPiece> pieces = form_pieces(language.chat, prompt);
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const std::string_view text = pieces[i].text;
    const std::size_t head = pieces[i].form ? last_special(tokenizer, text) : 0;
    const std::size_t tail = pieces[i].form ? first_special(tokenizer, text) : text.size();
    if (tail == text.size()) {
      run += text;
      continue;
    }
    if (i > 0) {
      run += text.substr(0, tail);
      flush();
    }
    begun = true;
    const bool ends = i + 1 == pieces.size();
    const std::size_t from = i > 0 ? tail : 0, to = ends ? text.size() : head;
    append(tokenizer.encode_form(text.substr(from, to - from)));
    run = ends ? "" : text.substr(head);
    if (ends) return tokens;
  }
  flush();
  return tokens;
}

/// The tokens of the form that stands around the last text of a prompt.
inline Tokens form_around(const Language& language, const PromptView& prompt) {
  if (prompt.turns.empty()) return prompt_tokens(language, "");
  Turns turns(prompt.turns.begin(), prompt.turns.end());
  turns.back().text.clear();
  const std::string text = marked_transcript(turns);
  return prompt_tokens(language, {text, turns});
}

/// A prompt of which as much is kept as fits.
struct FittedPrompt {
  PromptView view{std::string_view()};
  Tokens tokens{};
  Index cut = 0;  ///< tokens of the exchanges that were left out
  Turns turns{};  ///< what the view shows, once something was
  std::string text{};
};

/// Leaves out the oldest exchanges of a dialogue until `room` more tokens fit the context or only
/// one is left; and what the system says where there is no room even for the form around it.
inline void fit_prompt(const Language& language, const PromptView& prompt, Index room,
                       FittedPrompt& to) {
  const auto size = [&] { return static_cast<Index>(to.tokens.size()); };
  to.view = prompt;
  to.tokens = prompt_tokens(language, prompt);
  const Index whole = size();
  if (prompt.turns.empty() || whole + room <= language.context) return;
  const std::vector<std::size_t> exchanges = exchanges_of(prompt.turns);
  if (exchanges.empty()) return;
  const auto renew = [&] {
    to.text = marked_transcript(to.turns);
    to.view = {to.text, to.turns};
    to.tokens = prompt_tokens(language, to.view);
  };
  const auto begin_with = [&](std::size_t exchange) {
    to.turns = turns_from(prompt.turns, exchanges[exchange]);
    renew();
    return size() + room <= language.context;
  };
  // The first from which on all fits, or else the last.
  std::size_t first = 1, last = exchanges.size() - 1;
  while (first < last) {
    const std::size_t middle = (first + last) / 2;
    if (begin_with(middle))
      last = middle;
    else
      first = middle + 1;
  }
  begin_with(std::min(first, exchanges.size() - 1));
  if (size() + room > language.context &&
      static_cast<Index>(form_around(language, to.view).size()) + room > language.context &&
      std::erase_if(to.turns, [](const Turn& turn) { return turn.role == "system"; }) > 0)
    renew();
  to.cut = whole - size();
}

}  // namespace detail

}}  // namespace plumb::v0_1
