// JSON Lines: one record per line, every complaint with file and line.
//
//   candidates  {"id","prompt","responses":[…],"finished":[…],"tokens":[[…],…],"model",
//                "sampling":{…}}
//   rankings    {"id","prompt","group","responses":[…],"finished":[…],"tokens":[[…],…],
//                "ranking":[[2],[0],[1,3]],"annotator","labeller","time","shown":[…]}: 0-based
//                groups, best first
//   rankings of others, told apart line by line: OpenAssistant
//     {"tree","prompt","ranked":[best first]}, PandaLM
//     {"prompt","response1","response2","votes":[0 tie, 1, 2, …]}, pairs {"prompt","chosen",
//     "rejected"}, and hh-rlhf's own {"chosen","rejected"}, two transcripts of one dialogue
//   prompts {"prompt"} · demonstrations {"prompt","completion"}
//
// What this is not: a streaming reader; files are read whole. Text that is not UTF-8, which a byte
// model may sample, is written with U+FFFD in place of what is not; the tokens say what it was.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/data/records.hpp>
#include <plumb/data/text.hpp>
#include <plumb/io/file.hpp>
#include <plumb/io/json.hpp>
#include <plumb/io/lock.hpp>
#include <plumb/io/output.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// What to do with a line that is empty, malformed or inconsistent.
enum class BadLine { Refuse, Skip };

/// What was read, and a message `[jsonl] file:line: …` for each line skipped.
template <class Record>
struct Lines {
  std::vector<Record> records;
  std::vector<std::string> skipped;
};

namespace detail {

[[noreturn]] inline void bad_record(const std::string& what, Where where) {
  fail<DataError>(what, where);
}

/// One line's object; getters complain about what is missing or of another type.
struct JsonRecord {
  const Json& json;
  Index line;
  Where where;

  bool has(const char* key) const { return json.contains(key); }

  std::string text(const char* key) const {
    if (!has(key) || !json[key].is_string()) bad_record(str("expected text \"", key, "\""), where);
    return json[key].get<std::string>();
  }
  std::string text_or(const char* key, std::string otherwise) const {
    return has(key) ? text(key) : otherwise;
  }
  /// Other tools number their records; a record without an id is known by its line.
  std::string id() const {
    if (!has("id")) return str(line);
    return json["id"].is_number_integer() ? json["id"].dump() : text("id");
  }
  std::vector<std::string> texts(const char* key) const {
    std::vector<std::string> out;
    for (const Json& item : list(key)) {
      if (!item.is_string()) bad_record(str("expected only text in \"", key, "\""), where);
      out.push_back(item.get<std::string>());
    }
    if (out.empty()) bad_record(str("\"", key, "\" is empty"), where);
    return out;
  }
  std::vector<int> integers(const Json& items, const char* key) const {
    std::vector<int> out;
    for (const Json& item : items) {
      // Beyond what an int holds, no response or vote has such a number.
      if (!item.is_number_integer() || item < -1'000'000'000 || item > 1'000'000'000)
        bad_record(str("expected only small whole numbers in \"", key, "\""), where);
      out.push_back(item.get<int>());
    }
    return out;
  }
  const Json& list(const char* key) const {
    if (!has(key) || !json[key].is_array()) bad_record(str("expected a list \"", key, "\""), where);
    return json[key];
  }
  /// Absent: unknown.
  ResponseTokens tokens(std::size_t k) const {
    ResponseTokens out;
    if (!has("tokens")) return out;
    for (const Json& response : list("tokens")) {
      if (!response.is_array()) bad_record("expected \"tokens\" as a list of lists", where);
      for (out.emplace_back(); const Json& token : response) {
        if (!token.is_number_unsigned() || token > std::numeric_limits<std::int32_t>::max())
          bad_record("expected only token ids, whole numbers from 0, in \"tokens\"", where);
        out.back().push_back(token.get<std::int32_t>());
      }
    }
    if (out.size() != k)
      bad_record(str("\"tokens\" has ", out.size(), " entries for ", k, " responses"), where);
    return out;
  }
  /// Absent: all true, since texts from elsewhere are taken as whole.
  std::vector<bool> finished(std::size_t k) const {
    if (!has("finished")) return std::vector<bool>(k, true);
    std::vector<bool> out;
    for (const Json& item : list("finished")) {
      if (!item.is_boolean()) bad_record("expected only true and false in \"finished\"", where);
      out.push_back(item.get<bool>());
    }
    if (out.size() != k)
      bad_record(str("\"finished\" has ", out.size(), " entries for ", k, " responses"), where);
    return out;
  }
};

inline Candidates candidates_from(const JsonRecord& r) {
  Candidates out;
  out.id = r.id();
  out.prompt = r.text("prompt");
  out.responses = r.texts("responses");
  out.finished = r.finished(out.responses.size());
  out.tokens = r.tokens(out.responses.size());
  out.model = r.text_or("model", "");
  if (r.has("sampling")) out.sampling = r.json["sampling"].dump();
  return out;
}

inline void read_ranking_groups(const JsonRecord& r, Ranking& out) {
  const std::size_t k = out.responses.size();
  std::vector<std::vector<int>> groups;
  for (const Json& group : r.list("ranking")) {
    if (!group.is_array()) bad_record("expected \"ranking\" as a list of lists", r.where);
    groups.push_back(r.integers(group, "ranking"));
  }
  if (groups.empty()) bad_record("\"ranking\" ranks nothing", r.where);
  out.rank = ranks_from_groups(groups, k, r.where);
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
  return std::string(trimmed(rest.substr(0, rest.find("\n\nAssistant:"))));
}

/// A pair of hh-rlhf. In its own files both texts are transcripts of a dialogue: what they share,
/// up to the assistant's last turn in it, is the prompt. (Where they part earlier than in the last
/// turn, what comes after belongs to the responses.) Equal texts, which it has, are a tie: nothing
/// is decided.
inline void read_pair(const JsonRecord& r, Ranking& out) {
  constexpr std::string_view kAssistant = "\n\nAssistant:";
  out.responses = {r.text("chosen"), r.text("rejected")};
  std::string &a = out.responses[0], &b = out.responses[1];
  out.rank = {0, a == b ? 0 : 1};
  if (!r.has("prompt")) {
    const auto shared = static_cast<std::size_t>(
        std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
    const std::size_t turn = std::string_view(a).substr(0, shared).rfind(kAssistant);
    if (turn == std::string_view::npos)
      bad_record(
          "expected text \"prompt\", or \"chosen\" and \"rejected\" that begin with the same "
          "dialogue, up to \"\\n\\nAssistant:\"",
          r.where);
    out.prompt = a.substr(0, turn + kAssistant.size());
    a.erase(0, out.prompt.size());
    b.erase(0, out.prompt.size());
  }
  out.group = first_human_turn(out.prompt);
}

inline Ranking ranking_from(const JsonRecord& r) {
  Ranking out;
  out.id = r.id();
  if (r.has("prompt") || !r.has("chosen")) out.prompt = r.text("prompt");
  out.group = out.prompt;
  if (r.has("ranking")) {
    out.responses = r.texts("responses");
    read_ranking_groups(r, out);
  } else if (r.has("ranked")) {
    out.responses = r.texts("ranked");
    for (std::size_t i = 0; i < out.responses.size(); ++i) out.rank.push_back(static_cast<int>(i));
    out.group = r.text("tree");
  } else if (r.has("votes")) {
    out.responses = {r.text("response1"), r.text("response2")};
    out.rank = ranks_from_votes(r);
  } else if (r.has("chosen")) {
    read_pair(r, out);
  } else {
    bad_record(
        "expected a ranking: \"ranking\" with \"responses\", or \"ranked\" with \"tree\", or "
        "\"votes\" with \"response1\" and \"response2\", or \"chosen\" and \"rejected\"",
        r.where);
  }
  out.finished = r.finished(out.responses.size());
  out.tokens = r.tokens(out.responses.size());
  out.group = r.text_or("group", std::move(out.group));
  out.annotator = r.text_or("annotator", "");
  out.labeller = r.text_or("labeller", "person");
  out.time = r.text_or("time", "");
  return out;
}

inline Demonstration demonstration_from(const JsonRecord& r) {
  return {r.text("prompt"), r.text("completion")};
}

inline Prompt prompt_from(const JsonRecord& r) { return {r.id(), r.text("prompt")}; }

template <class Record>
Lines<Record> read_lines(const std::string& path, BadLine policy, Where where,
                         Record (*parse)(const JsonRecord&)) {
  const std::string text = read_text(path, where);
  Lines<Record> out;
  Index number = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t newline = text.find('\n', at);
    const std::size_t end = newline == std::string::npos ? text.size() : newline;
    const std::string_view line = trimmed(std::string_view(text).substr(at, end - at));
    at = end + 1;
    ++number;
    try {
      if (line.empty()) bad_record("the line is empty; expected a JSON object", where);
      Json json;
      try {
        json = parse_json(line);
      } catch (const DataError& e) {
        bad_record(
            str("expected a JSON object; ",
                newline == std::string::npos ? "the last line was cut short: " : "", e.what()),
            where);
      }
      if (!json.is_object()) bad_record("expected a JSON object; the line is another value", where);
      out.records.push_back(parse(JsonRecord{json, number, where}));
    } catch (const DataError& e) {
      const std::string message = str("[jsonl] ", shown(path), ":", number, ": ", e.what());
      if (policy == BadLine::Refuse) throw DataError(message);
      out.skipped.push_back(message);
    }
  }
  return out;
}

[[noreturn]] inline void fail_locked(const std::string& path, Where where) {
  fail<IoError>(str("[jsonl] another program adds to ", shown(path),
                    ". HINT: wait for it, or give each annotator a file of their own"),
                where);
}

inline std::string json_line(const Json& json) { return json_text(json) + '\n'; }

}  // namespace detail

/// Candidate responses. DataError naming file and line for a bad line, unless it is to be skipped.
inline Lines<Candidates> read_candidates(const std::string& path, BadLine policy = BadLine::Refuse,
                                         Where where = Where::here()) {
  return detail::read_lines(path, policy, where, detail::candidates_from);
}

/// Rankings in any of the forms above; errors as for candidates. What a form does not say: all
/// responses finished, the labeller a person, the group the prompt, the id the line's number.
inline Lines<Ranking> read_rankings(const std::string& path, BadLine policy = BadLine::Refuse,
                                    Where where = Where::here()) {
  return detail::read_lines(path, policy, where, detail::ranking_from);
}

/// The "prompt" and the id of every line, whatever else a line holds; errors as for candidates.
inline Lines<Prompt> read_prompts(const std::string& path, BadLine policy = BadLine::Refuse,
                                  Where where = Where::here()) {
  return detail::read_lines(path, policy, where, detail::prompt_from);
}

/// Prompts with the completion to imitate; errors as for candidates.
inline Lines<Demonstration> read_demonstrations(const std::string& path,
                                                BadLine policy = BadLine::Refuse,
                                                Where where = Where::here()) {
  return detail::read_lines(path, policy, where, detail::demonstration_from);
}

/// One line's JSON. DataError if `sampling` is neither empty nor JSON.
inline Json to_json(const Candidates& c, Where where = Where::here()) {
  Json sampling = Json::object();
  if (!c.sampling.empty()) sampling = parse_json(c.sampling, "Candidates::sampling", where);
  Json out = {
      {"id", c.id}, {"prompt", c.prompt}, {"responses", c.responses}, {"finished", c.finished}};
  if (!c.tokens.empty()) out["tokens"] = c.tokens;
  out["model"] = c.model;
  out["sampling"] = std::move(sampling);
  return out;
}

inline Json to_json(const Ranking& r) {
  Json out = {{"id", r.id}, {"prompt", r.prompt}};
  if (!r.group.empty() && r.group != r.prompt) out["group"] = r.group;
  out["responses"] = r.responses;
  out["finished"] = r.finished;
  if (!r.tokens.empty()) out["tokens"] = r.tokens;
  out["ranking"] = groups_from_ranks(r.rank);
  out["annotator"] = r.annotator;
  out["labeller"] = r.labeller;
  out["time"] = r.time;
  out["shown"] = r.shown;
  return out;
}

/// Replaces PATH by one line per record, atomically. IoError if another program adds to the file
/// that is there: its next line would go to a file without a name.
template <class Record>
void write_jsonl(const std::string& path, const std::vector<Record>& records,
                 Where where = Where::here()) {
  const detail::OutputTarget target = detail::output_target(path, where);
  detail::Descriptor before;  // not of a pipe, whose reader this would then be
  if (target.regular && target.before)
    before = detail::Descriptor(::open(target.path.c_str(), O_RDONLY | O_CLOEXEC));
  if (before.get() >= 0 && !detail::try_lock(before.get(), path, where))
    detail::fail_locked(path, where);
  write_atomically(
      path,
      [&](auto put) {
        for (const Record& record : records) put(detail::json_line(to_json(record)));
      },
      where);
}

}}  // namespace plumb::v0_1
