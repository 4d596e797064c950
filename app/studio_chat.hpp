// What the page shows of a chat with one model or two (chat_turn.hpp). The models speak in a thread
// of their own, one turn at a time; the page begins a turn, and asks for what is there so far.
//
// Actions, each a POST with a JSON body:
//   open   what there is: "models", each with its "name" and whether it "continues" a text or
//          answers; "compared", whether they have the same tokenizer; "settings", those of the
//          program's flags; "longest", what max-new-tokens may be
//   say    begins "turn", a word of the page's own, with "text" and, where they are others, its
//          "settings": temperature, top-p, max-new-tokens, seed
//   hear   how it stands with "turn"
//   stop   the same, and the models say no more in it
// But for "open" each replies with the turn's "state": "waits", with the number of turns "ahead";
// "speaks", with the "texts" so far; "done", with the turn as turn_json() has it as "said";
// "stopped", before it began; "failed", with the "error" in words. Who does not know a turn's word
// can neither read nor stop it. What is said twice, as a page does whose connection broke, is said
// once. What this is not: a record; a page's turns are gone with it.
#pragma once

#include "chat_turn.hpp"
#include "studio/server.hpp"

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// Turns that may wait; who comes then is told to come again.
inline constexpr std::size_t kChatWaiting = 8;
/// Turns whose end is remembered.
inline constexpr std::size_t kChatRemembered = 64;
inline constexpr std::size_t kLongestChatText = 20000;  ///< bytes
inline constexpr Index kLongestChatResponse = 1024;     ///< tokens

/// Thread-safe.
class ChatStudio {
 public:
  /// One model or two. DataError for settings that are out of range.
  ChatStudio(std::vector<Loaded> models, const GenerateSettings& settings);
  ~ChatStudio();
  ChatStudio(const ChatStudio&) = delete;
  ChatStudio& operator=(const ChatStudio&) = delete;

  /// Does an action on its body. Never throws: 400 says what does not fit, 404 which action or turn
  /// is not known, 503 that too many turns wait, each with "error" in words.
  StudioReply handle(const std::string& action, const std::string& body);

 private:
  enum class State { Waits, Speaks, Done, Stopped, Failed };
  struct Turn {
    std::string word, text;
    GenerateSettings settings;
    State state = State::Waits;
    bool stop = false;
    std::vector<std::string> texts{};  // so far
    std::string end{};                 // the JSON of what was said, or the words of an error
  };

  StudioReply act(const std::string& action, const Json& body);
  Json opened() const;
  GenerateSettings settings_of(const Json& body) const;
  std::shared_ptr<Turn> find(std::string_view word) const;
  StudioReply state_of(const Turn& turn) const;
  void work();
  void speak(Turn& turn);

  const std::vector<Loaded> models_;
  const GenerateSettings settings_;
  mutable std::mutex mutex_;  // of all below
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Turn>> turns_;  // the oldest first
  bool ending_ = false;
  std::thread thread_;
};

}}  // namespace plumb::v0_1
