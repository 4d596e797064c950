// Dialogues as text and as turns. The text is a transcript in the form of hh-rlhf: what the user
// says after "\n\nHuman:", what the assistant says after "\n\nAssistant:", with which it ends where
// the assistant is to speak; a system's turn is the text before.
//
// A transcript is read as turns where it begins with "\n\nHuman:" and ends with "\n\nAssistant:"
// and nowhere else, so a text that only mentions these words stays one text. Source:
// anthropics/hh-rlhf.
#pragma once

#include <plumb/data/records.hpp>

#include <algorithm>
#include <span>
#include <string>
#include <string_view>

namespace plumb { inline namespace v0_1 {

inline constexpr std::string_view kHumanMark = "\n\nHuman:";
inline constexpr std::string_view kAssistantMark = "\n\nAssistant:";

/// These turns as a transcript that ends where the assistant is to speak.
inline std::string marked_transcript(std::span<const Turn> turns) {
  std::string out;
  for (const Turn& turn : turns) {
    if (turn.role != "system") out.append(turn.role == "user" ? kHumanMark : kAssistantMark) += ' ';
    out += turn.text;
  }
  return out.append(kAssistantMark);
}

/// The text of a prompt of these turns: the user's own where it is one turn, else the transcript.
inline std::string transcript(const Turns& turns) {
  return turns.size() == 1 && turns[0].role == "user" ? turns[0].text : marked_transcript(turns);
}

/// The turns of a transcript at whose end the assistant is to speak; none if the text is no such
/// transcript. Blanks around a turn are not its own.
inline Turns turns_of_transcript(std::string_view text) {
  if (!text.starts_with(kHumanMark) || !text.ends_with(kAssistantMark)) return {};
  constexpr std::string_view kBlanks = " \t\r\n";
  Turns turns;
  for (std::size_t at = 0; at < text.size();) {
    const bool human = text.substr(at).starts_with(kHumanMark);
    at += human ? kHumanMark.size() : kAssistantMark.size();
    const std::size_t end =
        std::min({text.find(kHumanMark, at), text.find(kAssistantMark, at), text.size()});
    std::string_view said = text.substr(at, end - at);
    said.remove_prefix(std::min(said.find_first_not_of(kBlanks), said.size()));
    said = said.substr(0, said.find_last_not_of(kBlanks) + 1);
    at = end;
    if (at == text.size()) break;  // where the assistant is to speak
    turns.push_back({human ? "user" : "assistant", std::string(said)});
  }
  if (turns.empty() || turns.back().role != "user") return {};
  return turns;
}

/// Without the oldest exchange: what the user says first, and the answers to it. False if only the
/// last words of the user, and what the system says, are left.
inline bool drop_oldest_exchange(Turns& turns) {
  const auto is_user = [](const Turn& turn) { return turn.role == "user"; };
  const auto first = std::find_if(turns.begin(), turns.end(), is_user);
  if (first == turns.end()) return false;
  const auto next = std::find_if(first + 1, turns.end(), is_user);
  if (next == turns.end()) return false;
  turns.erase(std::find_if(turns.begin(), turns.end(),
                           [](const Turn& turn) { return turn.role != "system"; }),
              next);
  return true;
}

}}  // namespace plumb::v0_1
