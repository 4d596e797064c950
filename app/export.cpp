#include "export.hpp"

#include <plumb/data/jsonl.hpp>

#include <optional>
#include <utility>

namespace plumb { inline namespace v0_1 {

namespace {

// A ranking as a line says it, when it is read.
std::optional<Ranking> read_again(const std::string& line) {
  try {
    const Json json = parse_json(line, "what was written");
    std::vector<Ranking> back;
    detail::ranking_from({json, 1, Where::here()}, back);
    if (back.size() == 1) return std::move(back[0]);
  } catch (const DataError&) {
  }
  return {};
}

bool has_mark(std::string_view text) {
  return text.find(kHumanMark) != text.npos || text.find(kAssistantMark) != text.npos;
}

// What one line says, the same line's text, or why it cannot be said.
struct Line {
  std::string text;
  const char* unsaid = nullptr;
};

Line pair_for_trl(const Ranking& r, std::size_t good, std::size_t bad) {
  const bool dialogue = r.turns.size() > 1;
  const auto answer = [&](std::size_t i) -> Json {
    if (!dialogue) return r.responses[i];
    return Json::array({{{"role", "assistant"}, {"content", r.responses[i]}}});
  };
  Json prompt = detail::prompt_json(r.prompt, r.turns);
  if (dialogue && prompt.is_string()) {
    prompt = Json::array();
    for (const Turn& turn : r.turns)
      prompt.push_back({{"role", turn.role}, {"content", turn.text}});
  }
  Line out{
      detail::json_line({{"prompt", prompt}, {"chosen", answer(good)}, {"rejected", answer(bad)}})};
  const auto back = read_again(out.text);
  if (!back || back->responses != std::vector<std::string>{r.responses[good], r.responses[bad]} ||
      back->rank != std::vector<int>{0, 1} || back->turns != r.turns ||
      (!dialogue && back->prompt != r.prompt))
    out.unsaid = "it is read as another";
  return out;
}

Line pair_for_hh_rlhf(const Ranking& r, std::size_t good, std::size_t bad) {
  const Turns turns = detail::turns_of(r.prompt, r.turns);
  const std::string prompt = marked_transcript(turns);
  const auto answer = [&](std::size_t i) {
    const std::string& text = r.responses[i];
    const bool blank = !text.empty() && (text[0] == ' ' || text[0] == '\n' || text[0] == '\t');
    return (blank || text.empty() ? "" : " ") + text;
  };
  const std::vector<std::string> answers{answer(good), answer(bad)};
  Line out{detail::json_line({{"chosen", prompt + answers[0]}, {"rejected", prompt + answers[1]}})};
  const auto back = read_again(out.text);
  if (turns[0].role == "system")
    out.unsaid = "a transcript has no place for what the system says";
  else if (has_mark(r.responses[good]) || has_mark(r.responses[bad]))
    out.unsaid = "a response has a mark of a turn in it";
  else if (turns_of_transcript(prompt) != turns)
    out.unsaid = "a turn has blanks at an end, or a mark of a turn in it";
  else if (!back || back->prompt != prompt || back->responses != answers ||
           back->rank != std::vector<int>{0, 1})
    out.unsaid = "it is read as another";
  return out;
}

Line own_line(const Ranking& r) {
  Line out{detail::json_line(to_json(r))};
  const auto back = read_again(out.text);
  if (!back || detail::json_line(to_json(*back)) != out.text || back->prompt != r.prompt ||
      back->responses != r.responses || back->rank.size() != r.rank.size() ||
      groups_from_ranks(back->rank) != groups_from_ranks(r.rank))
    out.unsaid = "it is read as another";
  return out;
}

void add(Exported& to, const Ranking& r, Line line) {
  if (line.unsaid == nullptr) return to.lines.push_back(std::move(line.text));
  if (to.unsaid++ == 0) to.first_unsaid = str(shown(r.id), ": ", line.unsaid);
}

}  // namespace

ExportForm export_form(const std::string& name) {
  if (name == "rankings") return ExportForm::Rankings;
  if (name == "trl") return ExportForm::Trl;
  if (name == "hh-rlhf") return ExportForm::HhRlhf;
  fail<DataError>(
      str("[data] there is no form \"", shown(name), "\". HINT: rankings, trl, hh-rlhf"));
}

std::string Exported::said() const {
  std::string out = str(lines.size(), form == ExportForm::Rankings ? " rankings" : " pairs", " of ",
                        rankings, " rankings");
  const std::pair<std::size_t, std::string> left[] = {
      {ties, "ties"},
      {unranked, "pairs with an unranked response"},
      {identical, "pairs of the same text"},
      {unsaid, "that the form cannot say (the first, " + first_unsaid + ")"}};
  bool any = false;
  for (const auto& [count, what] : left) {
    if (count == 0) continue;
    out += str(any ? ", " : "; left out: ", count, ' ', what);
    any = true;
  }
  return out;
}

Json Exported::json() const {
  return {{"written", lines.size()}, {"rankings", rankings},   {"ties", ties},
          {"unranked", unranked},    {"identical", identical}, {"unsaid", unsaid}};
}

Exported export_rankings(const std::vector<Ranking>& rankings, ExportForm form) {
  Exported out;
  out.form = form;
  out.rankings = rankings.size();
  for (const Ranking& r : rankings) {
    if (form == ExportForm::Rankings) {
      add(out, r, own_line(r));
      continue;
    }
    for (std::size_t i = 0; i < r.rank.size(); ++i)
      for (std::size_t j = i + 1; j < r.rank.size(); ++j) {
        if (r.rank[i] < 0 || r.rank[j] < 0) {
          ++out.unranked;
        } else if (r.responses[i] == r.responses[j]) {
          ++out.identical;
        } else if (r.rank[i] == r.rank[j]) {
          ++out.ties;
        } else {
          const std::size_t good = r.rank[i] < r.rank[j] ? i : j, bad = i + j - good;
          add(out, r,
              form == ExportForm::Trl ? pair_for_trl(r, good, bad)
                                      : pair_for_hh_rlhf(r, good, bad));
        }
      }
  }
  return out;
}

}}  // namespace plumb::v0_1
