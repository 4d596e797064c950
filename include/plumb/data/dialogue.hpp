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
#include <vector>

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
/// transcript. Blanks around a turn are not its own; what one side says twice in a row, which
/// hh-rlhf has, is one turn.
inline Turns turns_of_transcript(std::string_view text) {
  if (!text.starts_with(kHumanMark) || !text.ends_with(kAssistantMark)) return {};
  constexpr std::string_view kBlanks = " \t\r\n";
  Turns turns;
  for (std::size_t at = 0; at < text.size();) {
    const bool human = text.substr(at).starts_with(kHumanMark);
    at += human ? kHumanMark.size() : kAssistantMark.size();
    std::size_t end = text.find("\n\n", at);
    while (end < text.size() && !text.substr(end).starts_with(kHumanMark) &&
           !text.substr(end).starts_with(kAssistantMark))
      end = text.find("\n\n", end + 1);
    end = std::min(end, text.size());
    std::string_view said = text.substr(at, end - at);
    said.remove_prefix(std::min(said.find_first_not_of(kBlanks), said.size()));
    said = said.substr(0, said.find_last_not_of(kBlanks) + 1);
    at = end;
    if (at == text.size()) break;  // where the assistant is to speak
    const char* role = human ? "user" : "assistant";
    if (turns.empty() || turns.back().role != role)
      turns.push_back({role, std::string(said)});
    else if (!said.empty())
      turns.back().text.append(turns.back().text.empty() ? "" : "\n\n").append(said);
  }
  if (turns.empty() || turns.back().role != "user") return {};
  return turns;
}

/// Where each exchange begins: what the user says, and the answer to it.
inline std::vector<std::size_t> exchanges_of(std::span<const Turn> turns) {
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < turns.size(); ++i)
    if (turns[i].role == "user") out.push_back(i);
  return out;
}

/// What the system says, and all from the turn `first` on.
inline Turns turns_from(std::span<const Turn> turns, std::size_t first) {
  Turns out;
  for (std::size_t i = 0; i < turns.size(); ++i)
    if (i >= first || turns[i].role == "system") out.push_back(turns[i]);
  return out;
}

}}  // namespace plumb::v0_1
