// Records in files: read from any form of data, in any file that holds some, and written as JSON
// Lines, one record a line.
//
//   candidates  {"id","prompt","responses":[…],"finished":[…],"tokens":[[…],…],"model",
//                "name","sampling":{…}}
//   rankings    {"id","prompt","group","responses":[…],"finished":[…],"tokens":[[…],…],
//                "ranking":[[2],[0],[1,3]],"annotator","labeller","time","shown":[…]}: 0-based
//                groups, best first; and where they are said "level":[…], how good each is,
//                "seconds", "unusable":[…], "strength", "comment", "repeat" (data/records.hpp)
//
// Either may have "systems":[…], whose each response is, and "probability", that it was chosen to
// be asked (rlhf/active.hpp).
//
// The forms of others are in data/forms.hpp, the shapes of files in data/source.hpp. Every
// complaint names file and line. for_each_record() reads a file of any size in little memory;
// read_…() keep what they read. Text that is not UTF-8, which a byte model may sample, is written
// with U+FFFD in place of what is not; the tokens say what it was.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/data/form_records.hpp>
#include <plumb/data/records.hpp>
#include <plumb/data/source.hpp>
#include <plumb/io/file.hpp>
#include <plumb/io/json.hpp>
#include <plumb/io/lock.hpp>
#include <plumb/io/output.hpp>

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// What to do with a record that is empty, malformed or inconsistent.
enum class BadLine { Refuse, Skip };

/// What was read, and a message `[jsonl] file:line: …` for each record skipped.
template <class Record>
struct Lines {
  std::vector<Record> records;
  std::vector<std::string> skipped;
  std::string said;  ///< the file's shape and forms: "gzip, JSON Lines: 834 PandaLM's votes (…)"
};

/// How many records of each form a file has, and how many people's answers in them rank nothing.
struct FormCounts {
  std::map<DataForm, Index> records;
  Index left_out = 0;

  /// Counts a record that was read.
  void add(const detail::JsonRecord& record) {
    const DataForm form = detail::form_of(record);
    ++records[form];
    std::vector<Ranking> unused;
    if (detail::is_annotated(form)) left_out += detail::rankings_of_annotated(record, unused);
  }
};

/// "gzip, JSON Lines: 12 prompts (prompt), 3 …".
inline std::string forms_said(const RecordSource& source, const FormCounts& counts) {
  std::string out = source.kind() + ":";
  for (const auto& [form, count] : counts.records)
    out += str(out.ends_with(':') ? " " : ", ", count, " ", form_name(form));
  if (counts.left_out > 0)
    out += str("; answers left out, since they were discarded, cancelled or rank nothing: ",
               counts.left_out);
  return counts.records.empty() ? source.kind() + ", empty" : out;
}

/// Calls visit(record) for each record of a file, one at a time. What it throws as DataError with a
/// bare reason, and what is wrong with the record itself, gets the place put before it: thrown, or
/// given to skip(message). DataError always for what cannot be passed over.
template <class Visit, class Skip>
void for_each_record(RecordSource& source, BadLine policy, Visit&& visit, Skip&& skip,
                     Where where = Where::here()) {
  while (source.next()) {
    try {
      const Json json = source.record();
      visit(detail::JsonRecord{json, source.line(), where});
    } catch (const DataError& e) {
      const std::string message = source.place() + e.what();
      if (policy == BadLine::Refuse) throw DataError(message);
      skip(message);
    }
  }
}

namespace detail {

template <class Record>
Lines<Record> read_records(const std::string& path, BadLine policy, Where where,
                           void (*parse)(const JsonRecord&, std::vector<Record>&)) {
  RecordSource source(path, where);
  Lines<Record> out;
  FormCounts counts;
  for_each_record(
      source, policy,
      [&](const JsonRecord& record) {
        const std::size_t before = out.records.size();
        try {
          parse(record, out.records);
        } catch (const DataError&) {
          out.records.resize(before);  // all of a record, or nothing
          throw;
        }
        counts.add(record);
      },
      [&](const std::string& message) { out.skipped.push_back(message); }, where);
  out.said = forms_said(source, counts);
  return out;
}

[[noreturn]] inline void fail_locked(const std::string& path, Where where) {
  fail<IoError>(str("[jsonl] another program adds to ", shown(path),
                    ". HINT: wait for it, or give each annotator a file of their own"),
                where);
}

inline std::string json_line(const Json& json) { return json_text(json) + '\n'; }

}  // namespace detail

/// Candidate responses. DataError naming file and line for a bad record, unless it is to be
/// skipped.
inline Lines<Candidates> read_candidates(const std::string& path, BadLine policy = BadLine::Refuse,
                                         Where where = Where::here()) {
  return detail::read_records<Candidates>(path, policy, where, detail::candidates_from);
}

/// Rankings; errors as for candidates.
inline Lines<Ranking> read_rankings(const std::string& path, BadLine policy = BadLine::Refuse,
                                    Where where = Where::here()) {
  return detail::read_records<Ranking>(path, policy, where, detail::ranking_from);
}

/// The prompt and the id of every record, whatever else it holds; errors as for candidates.
inline Lines<Prompt> read_prompts(const std::string& path, BadLine policy = BadLine::Refuse,
                                  Where where = Where::here()) {
  return detail::read_records<Prompt>(path, policy, where, detail::prompts_from);
}

/// Prompts with the completion to imitate, the best one of a ranking; errors as for candidates.
inline Lines<Demonstration> read_demonstrations(const std::string& path,
                                                BadLine policy = BadLine::Refuse,
                                                Where where = Where::here()) {
  return detail::read_records<Demonstration>(path, policy, where, detail::demonstrations_from);
}

namespace detail {

/// A prompt as it is read back: text, unless that would not give the turns again.
inline Json prompt_json(const std::string& text, const Turns& turns) {
  if (turns == turns_of_transcript(text)) return text;
  Json out = Json::array();
  for (const Turn& turn : turns_of(text, turns))
    out.push_back({{"role", turn.role}, {"content", turn.text}});
  return out;
}

}  // namespace detail

/// One line's JSON. DataError if `sampling` is neither empty nor JSON.
inline Json to_json(const Candidates& c, Where where = Where::here()) {
  Json sampling = Json::object();
  if (!c.sampling.empty()) sampling = parse_json(c.sampling, "Candidates::sampling", where);
  Json out = {{"id", c.id},
              {"prompt", detail::prompt_json(c.prompt, c.turns)},
              {"responses", c.responses},
              {"finished", c.finished}};
  if (!c.tokens.empty()) out["tokens"] = c.tokens;
  if (!c.systems.empty()) out["systems"] = c.systems;
  if (c.probability > 0.0) out["probability"] = c.probability;
  out["model"] = c.model;
  if (!c.name.empty()) out["name"] = c.name;
  out["sampling"] = std::move(sampling);
  return out;
}

inline Json to_json(const Ranking& r) {
  Json out = {{"id", r.id}, {"prompt", detail::prompt_json(r.prompt, r.turns)}};
  if (!r.group.empty() && r.group != r.prompt) out["group"] = r.group;
  out["responses"] = r.responses;
  out["finished"] = r.finished;
  if (!r.tokens.empty()) out["tokens"] = r.tokens;
  out["ranking"] = groups_from_ranks(r.rank);
  if (!r.level.empty()) out["level"] = r.level;
  out["annotator"] = r.annotator;
  out["labeller"] = r.labeller;
  out["time"] = r.time;
  out["shown"] = r.shown;
  if (!r.systems.empty()) out["systems"] = r.systems;
  if (r.seconds > 0.0) out["seconds"] = r.seconds;
  if (r.probability > 0.0) out["probability"] = r.probability;
  if (!r.unusable.empty()) out["unusable"] = r.unusable;
  if (r.strength != 0) out["strength"] = r.strength;
  if (!r.comment.empty()) out["comment"] = r.comment;
  if (r.repeat != 0) out["repeat"] = r.repeat;
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
