// Forms of data: which there are, and what one pair or ranking of each says. Which form a record
// has is told by its keys; nothing is guessed, and what is known but no use is refused by its name.
//
//   Plumb            {"id","prompt","responses":[…],"ranking":[[2],[0],[1,3]],…} (data/jsonl.hpp);
//                    without "ranking" candidates
//   TRL              {"prompt","completion"}; {"messages":[{"role","content"},…]}; {"prompt",
//                    "chosen","rejected"}, or without "prompt", which then is what both begin with;
//                    any of them text or messages; a number "margin" is the pair's.
//                    {"prompt","completion","label"}: its liked ones
//   hh-rlhf          {"chosen","rejected"}, two transcripts of one dialogue
//   OpenAssistant    {"message_tree_id","prompt":{"text","replies":[{"text","rank",…},…]}}: one
//                    ranking for each message with ranked replies; {"tree","prompt","ranked":[best
//                    first]}
//   summarize-from-feedback  {"info":{"post","title",…},"summaries":[{"text"},…],"choice"}
//   UltraFeedback    {"instruction","completions":[{"response","overall_score","model",…},…]}: by
//                    score, equal ones tie, those without one are unranked; its pairs, with scores
//   PandaLM          {"prompt","response1","response2","votes":[0 tie, 1, 2, …]}
//   Argilla, Label Studio  what people ranked there: data/argilla.hpp,
//                    data/label_studio.hpp
//
// Scores, and a pair's margin, are kept as levels: for reward models whose margins the data say.
//
// What a form does not say: all responses finished, the labeller a person, the group the prompt,
// the id the line's number. The records are made in data/form_records.hpp. Sources: the data sets'
// own cards; TRL's "Dataset formats and types".
#pragma once

#include <plumb/data/dialogue.hpp>
#include <plumb/data/json_record.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// The forms that are known; the last few are refused.
enum class DataForm {
  Prompt,
  Candidates,
  Ranking,
  Demonstration,
  Messages,
  Pair,
  PairWithoutPrompt,
  Transcripts,
  Tree,
  Ranked,
  Summaries,
  Scores,
  Votes,
  Argilla,
  ArgillaFlat,
  LabelStudio,
  LabelStudioMin,
  Liked,
  FlatMessages,
  SummaryAxes,
  Steps,
  Text,
  Unknown,
};

/// What a form is called where it is said.
inline const char* form_name(DataForm form) {
  switch (form) {
    case DataForm::Prompt: return "prompts (prompt)";
    case DataForm::Candidates: return "candidates (prompt, responses)";
    case DataForm::Ranking: return "rankings (prompt, responses, ranking)";
    case DataForm::Demonstration: return "demonstrations (prompt, completion)";
    case DataForm::Messages: return "dialogues (messages)";
    case DataForm::Pair: return "pairs (prompt, chosen, rejected)";
    case DataForm::PairWithoutPrompt:
      return "pairs without a prompt of their own (chosen, rejected)";
    case DataForm::Transcripts: return "pairs of hh-rlhf's transcripts (chosen, rejected)";
    case DataForm::Tree: return "OpenAssistant's message trees (message_tree_id, prompt, replies)";
    case DataForm::Ranked: return "OpenAssistant rankings (tree, prompt, ranked)";
    case DataForm::Summaries: return "summarize-from-feedback's pairs (info, summaries, choice)";
    case DataForm::Scores: return "UltraFeedback's scores (prompt or instruction, completions)";
    case DataForm::Votes: return "PandaLM's votes (prompt, response1, response2, votes)";
    case DataForm::Argilla: return "Argilla's records (fields, responses)";
    case DataForm::ArgillaFlat: return "Argilla's records, flattened (QUESTION.responses)";
    case DataForm::LabelStudio: return "Label Studio's tasks (data, annotations)";
    case DataForm::LabelStudioMin: return "Label Studio's JSON-MIN (annotation_id, annotator)";
    case DataForm::Liked: return "liked and disliked completions (prompt, completion, label)";
    case DataForm::FlatMessages: return "OpenAssistant's messages, one a record";
    case DataForm::SummaryAxes: return "summarize-from-feedback's axes (info, summary)";
    case DataForm::Steps: return "labelled steps (prompt, completions, labels)";
    case DataForm::Text: return "text without a prompt (text)";
    case DataForm::Unknown: break;
  }
  return "an unknown form";
}

namespace detail {

/// What ends the name of a column of answers, in Argilla's flattened records.
inline constexpr std::string_view kArgillaColumn = ".responses";

/// Which form a record has.
inline DataForm form_of(const JsonRecord& r) {
  if (r.at("fields").is_object() && r.has("responses")) return DataForm::Argilla;
  if (r.at("data").is_object() && r.has("annotations")) return DataForm::LabelStudio;
  if (r.has("annotation_id") && r.has("annotator")) return DataForm::LabelStudioMin;
  for (const auto& [key, value] : r.json.items())
    if (key.ends_with(kArgillaColumn)) return DataForm::ArgillaFlat;
  if (r.has("message_tree_id") && r.at("prompt").is_object()) return DataForm::Tree;
  if (r.has("message_id") && r.has("parent_id")) return DataForm::FlatMessages;
  if (r.has("summaries")) return DataForm::Summaries;
  if (r.has("info") && r.has("summary")) return DataForm::SummaryAxes;
  if (r.has("ranking")) return DataForm::Ranking;
  if (r.has("ranked")) return DataForm::Ranked;
  if (r.has("votes")) return DataForm::Votes;
  if (r.has("completions"))
    return r.has("labels") && !r.has("instruction") ? DataForm::Steps : DataForm::Scores;
  if (r.has("chosen") || r.has("rejected")) {
    if (r.has("prompt")) return DataForm::Pair;
    const bool transcript = r.has_text("chosen") &&
                            r.at("chosen").get_ref<const std::string&>().starts_with(kHumanMark);
    return transcript ? DataForm::Transcripts : DataForm::PairWithoutPrompt;
  }
  if (r.has("completion")) return r.has("label") ? DataForm::Liked : DataForm::Demonstration;
  if (r.has("messages")) return DataForm::Messages;
  if (r.has("responses")) return DataForm::Candidates;
  if (r.has("prompt")) return DataForm::Prompt;
  return r.has("text") ? DataForm::Text : DataForm::Unknown;
}

/// Complains about a form that nothing here can be made of.
inline void refuse_form(DataForm form, Where where) {
  const char* hint =
      form == DataForm::FlatMessages  ? "; take the trees, the file named …trees.jsonl"
      : form == DataForm::SummaryAxes ? ": marks of single summaries; take the comparisons"
      : form == DataForm::Steps       ? ": marks of the steps of one response"
      : form == DataForm::Text        ? ": nothing says where a response begins"
                                      : nullptr;
  if (hint != nullptr) bad_record(str("these are ", form_name(form), hint), where);
}

/// Turns as the prompt of a record: text and, where that is not all, the turns.
template <class Record>
void set_prompt(Record& to, std::string Record::*text, Turns turns, Where where) {
  const auto last = turns.empty() ? std::string() : turns.back().role;
  if (last != "user")
    bad_record(str("a prompt ends with the user's turn; this one ",
                   last.empty() ? "has no turns" : "with the " + last + "'s"),
               where);
  for (std::size_t i = 0; i < turns.size(); ++i) {
    const std::string &role = turns[i].role, before = i > 0 ? turns[i - 1].role : "system";
    if (role == "system" ? i > 0 : (role == "user") != (before != "user"))
      bad_record(str("in a dialogue the user and the assistant speak in turn, the user first; in "
                     "this one the ",
                     role, " speaks", i > 0 ? " after the " + before : " first"),
                 where);
  }
  to.*text = transcript(turns);
  if (turns.size() > 1) to.turns = std::move(turns);
}

/// The prompt under `key`: text, a transcript, or messages.
template <class Record>
void read_prompt(const JsonRecord& r, const char* key, Record& to, std::string Record::*text) {
  if (r.has_list(key)) return set_prompt(to, text, r.messages(key), r.where);
  to.*text = r.text(key);
  to.turns = turns_of_transcript(to.*text);
}

/// Without its last message, which is the assistant's and is returned.
inline std::string take_answer(Turns& turns, const char* key, Where where) {
  if (turns.empty() || turns.back().role != "assistant")
    bad_record(str("\"", key, "\" does not end with a message of the assistant"), where);
  std::string answer = std::move(turns.back().text);
  turns.pop_back();
  return answer;
}

/// One response: text, or one message of the assistant, before which the prompt's may stand again.
inline std::string read_answer(const JsonRecord& r, const char* key, const Turns& prompt) {
  if (!r.has_list(key)) return r.text(key);
  Turns turns = r.messages(key);
  std::string answer = take_answer(turns, key, r.where);
  if (!turns.empty() && turns != prompt)
    bad_record(str("\"", key,
                   "\" is more than one message of the assistant, and what stands "
                   "before the last is not the prompt"),
               r.where);
  return answer;
}

inline Turns turns_of(const std::string& text, const Turns& turns) {
  return turns.empty() ? Turns{{"user", text}} : turns;
}

inline void read_ranking_groups(const JsonRecord& r, Ranking& out) {
  const std::size_t k = out.responses.size();
  std::vector<std::vector<int>> groups;
  for (const Json& group : r.list("ranking")) {
    if (!group.is_array()) bad_record("expected \"ranking\" as a list of lists", r.where);
    groups.push_back(r.integers(group, "ranking"));
  }
  out.unusable = r.some_responses("unusable", k);
  if (groups.empty() && out.unusable.empty()) bad_record("\"ranking\" ranks nothing", r.where);
  out.rank = ranks_from_groups(groups, k, r.where);
  for (const int i : out.unusable)
    if (out.rank[static_cast<std::size_t>(i)] >= 0)
      bad_record(str("response ", i, " is ranked, and is \"unusable\""), r.where);
  out.strength = r.whole("strength", 3);
  out.comment = r.text_or("comment", "");
  out.repeat = r.whole("repeat", 1);
  if (!r.has("shown")) return;
  out.shown = r.integers(r.list("shown"), "shown");
  if (out.shown.empty()) return;
  std::vector<bool> seen(k, false);
  for (const int i : out.shown) {
    if (i < 0 || static_cast<std::size_t>(i) >= k || seen[static_cast<std::size_t>(i)])
      bad_record(str("\"shown\" is not an order of ", k, " responses: ", i), r.where);
    seen[static_cast<std::size_t>(i)] = true;
  }
  if (out.shown.size() != k)
    bad_record(str("\"shown\" has ", out.shown.size(), " entries for ", k, " responses"), r.where);
}

/// Ranks of two responses from votes: 0 is a tie, 1 and 2 are for either; balanced is a tie.
inline std::vector<int> ranks_from_votes(const JsonRecord& r) {
  int balance = 0;
  const std::vector<int> votes = r.integers(r.list("votes"), "votes");
  if (votes.empty()) bad_record("\"votes\" is empty", r.where);
  for (const int vote : votes) {
    if (vote < 0 || vote > 2) bad_record(str("a vote is 0, 1 or 2; not ", vote), r.where);
    balance += vote == 1 ? 1 : vote == 2 ? -1 : 0;
  }
  return {balance < 0 ? 1 : 0, balance > 0 ? 1 : 0};
}

/// Text of the first "Human:" turn of a dialogue, by which hh-rlhf's pairs belong together.
inline std::string first_human_turn(const std::string& prompt) {
  constexpr std::string_view kHuman = "Human:";
  const std::size_t begin = prompt.find(kHuman);
  if (begin == std::string::npos) return prompt;
  const std::string_view rest = std::string_view(prompt).substr(begin + kHuman.size());
  const std::string_view first = rest.substr(0, rest.find(kAssistantMark));
  const std::size_t from = std::min(first.find_first_not_of(" \t\r\n"), first.size());
  return std::string(first.substr(from, first.find_last_not_of(" \t\r\n") + 1 - from));
}

/// Two texts, of which the prompt is what both begin with. In hh-rlhf's own files they are
/// transcripts of a dialogue, and the prompt ends with the assistant's last turn in common. (Where
/// they part earlier than in the last turn, what comes after belongs to the responses.) Else it
/// ends before the word in which they part.
inline void split_texts(const JsonRecord& r, Ranking& out) {
  std::string &a = out.responses[0], &b = out.responses[1];
  const auto shared = std::string_view(a).substr(
      0, static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first -
                                  a.begin()));
  std::size_t end;
  if (a.starts_with(kHumanMark)) {
    end = shared.rfind(kAssistantMark);
    if (end != shared.npos) end += kAssistantMark.size();
  } else {
    end = shared.find_last_of(" \n\t");
    if (a == b)
      bad_record("\"chosen\" and \"rejected\" are equal: where does the prompt end?", r.where);
  }
  if (end == shared.npos || end == 0)
    bad_record(
        "expected text \"prompt\", or \"chosen\" and \"rejected\" that begin with the same "
        "dialogue, up to \"\\n\\nAssistant:\", or with the same words",
        r.where);
  out.prompt = a.substr(0, end);
  a.erase(0, end);
  b.erase(0, end);
  out.turns = turns_of_transcript(out.prompt);
}

/// Two lists of messages, of which the prompt is what both begin with; or `prompt` is.
inline void read_messages_of_pair(const JsonRecord& r, bool has_prompt, Ranking& out) {
  Turns a = r.messages("chosen"), b = r.messages("rejected");
  out.responses = {take_answer(a, "chosen", r.where), take_answer(b, "rejected", r.where)};
  if (a != b)
    bad_record(
        "\"chosen\" and \"rejected\" part before their last message: these are two dialogues, not "
        "two "
        "responses to one prompt",
        r.where);
  if (!has_prompt) return set_prompt(out, &Ranking::prompt, std::move(a), r.where);
  const Turns prompt = turns_of(out.prompt, out.turns);
  if (a.empty() || a == prompt) return;
  // The prompt may be the user's text alone, of a dialogue that is whole in the messages.
  if (prompt.size() != 1 || a.back() != prompt[0])
    bad_record("\"chosen\" does not begin with the prompt", r.where);
  set_prompt(out, &Ranking::prompt, std::move(a), r.where);
}

/// A pair in any of its forms. Equal responses, which the data sets have, are a tie: nothing is
/// decided; so are equal scores.
inline void read_pair(const JsonRecord& r, DataForm form, Ranking& out) {
  if (form == DataForm::Pair) read_prompt(r, "prompt", out, &Ranking::prompt);
  if (r.has_list("chosen") && r.has_list("rejected")) {
    read_messages_of_pair(r, form == DataForm::Pair, out);
  } else {
    out.responses = {r.text("chosen"), r.text("rejected")};
    if (form != DataForm::Pair) split_texts(r, out);
  }
  out.rank = {0, out.responses[0] == out.responses[1] ? 0 : 1};
  const Json &good = r.at("score_chosen"), &bad = r.at("score_rejected");
  if (good.is_number() && bad.is_number()) {
    if (good.get<double>() < bad.get<double>())
      bad_record("\"score_chosen\" is less than \"score_rejected\"", r.where);
    if (good.get<double>() == bad.get<double>()) out.rank = {0, 0};
    if (r.is_level(good) && r.is_level(bad)) out.level = {good.get<double>(), bad.get<double>()};
  }
  if (r.is_level(r.at("margin"))) out.level = {r.at("margin").get<double>(), 0.0};
  out.group = first_human_turn(out.prompt);
}

/// Each response is compared with each other one, so their number is bounded.
inline void require_few(std::size_t responses, Where where) {
  if (responses > 1000)
    bad_record(str("a ranking of ", responses, " responses; 1000 are the most"), where);
}

/// Ranks from scores, the highest first: equal ones tie, NaN is unranked.
inline std::vector<int> ranks_from_scores(const std::vector<double>& scores) {
  std::vector<int> rank;
  for (const double score : scores)
    rank.push_back(std::isnan(score)
                       ? -1
                       : static_cast<int>(std::count_if(scores.begin(), scores.end(),
                                                        [&](double s) { return s > score; })));
  return rank;
}

}  // namespace detail

}}  // namespace plumb::v0_1
