// `plumb data`: what files of data hold, read record by record. Memory: one record, and up to four
// million hashes of each kind a file, by which duplicates and leaks are found.
#include "commands.hpp"
#include "export.hpp"
#include "format.hpp"
#include "progress.hpp"
#include "screen.hpp"

#include <plumb/core/random.hpp>
#include <plumb/data/jsonl.hpp>
#include <plumb/io/hash.hpp>
#include <plumb/io/output.hpp>

#include <algorithm>
#include <cstdio>
#include <deque>
#include <iterator>
#include <map>
#include <optional>

namespace plumb { inline namespace v0_1 {

namespace {

// A record as what is counted of all forms: a prompt, and responses, ranked or not.
void items_of(const detail::JsonRecord& record, std::vector<Ranking>& to) {
  const DataForm form = detail::form_of(record);
  const auto unranked = [&](auto& one, std::vector<std::string> responses) {
    Ranking& r = to.emplace_back();
    r.group = r.prompt = std::move(one.*(&std::decay_t<decltype(one)>::prompt));
    r.turns = std::move(one.turns);
    r.responses = std::move(responses);
  };
  if (form == DataForm::Prompt) {
    std::vector<Prompt> prompts;
    detail::prompts_from(record, prompts);
    for (Prompt& one : prompts) {
      Ranking& r = to.emplace_back();
      r.group = r.prompt = std::move(one.text);
      r.turns = std::move(one.turns);
    }
  } else if (form == DataForm::Candidates) {
    std::vector<Candidates> candidates;
    detail::candidates_from(record, candidates);
    for (Candidates& one : candidates) unranked(one, std::move(one.responses));
  } else if (form == DataForm::Demonstration || form == DataForm::Messages) {
    std::vector<Demonstration> demonstrations;
    detail::demonstrations_from(record, demonstrations);
    for (Demonstration& one : demonstrations) unranked(one, {std::move(one.completion)});
  } else if (form == DataForm::Liked) {
    Demonstration one;
    detail::read_prompt(record, "prompt", one, &Demonstration::prompt);
    std::string completion =
        detail::read_answer(record, "completion", detail::turns_of(one.prompt, one.turns));
    unranked(one, {std::move(completion)});
  } else {
    detail::ranking_from(record, to);
  }
}

// How often each number of tokens occurs; beyond the last, how often in all.
class Lengths {
 public:
  void add(Index tokens) {
    ++counts_[static_cast<std::size_t>(std::min<Index>(tokens, kMost))];
    longest_ = std::max(longest_, tokens);
    ++all_;
  }
  Index all() const { return all_; }
  Index longest() const { return longest_; }
  // The length that `share` of the sequences do not exceed.
  Index quantile(double share) const {
    Index seen = 0;
    for (Index n = 0; n < kMost; ++n)
      if (static_cast<double>(seen += count(n)) >= share * static_cast<double>(all_)) return n;
    return longest_;
  }
  // (longest, how many): lengths up to a power of two, from the first that any has.
  std::vector<std::pair<Index, Index>> histogram() const {
    std::vector<std::pair<Index, Index>> out;
    Index below = 0;
    for (Index most = 16; below <= std::min(longest_, kMost); most *= 2) {
      Index here = 0;
      for (; below <= std::min(most, kMost); ++below) here += count(below);
      if (here > 0 || !out.empty()) out.emplace_back(std::min(most, longest_), here);
    }
    return out;
  }

 private:
  static constexpr Index kMost = Index{1} << 16;
  Index count(Index n) const { return counts_[static_cast<std::size_t>(n)]; }
  std::vector<Index> counts_ = std::vector<Index>(static_cast<std::size_t>(kMost) + 1);
  Index longest_ = 0, all_ = 0;
};

// Hashes of what a file holds, by which equal things are found. All of them, as long as they are
// few; of many, those that end in a number of zero bits, in every file the same ones: shares are
// then estimates.
class Hashes {
 public:
  void add(std::uint64_t hash) {
    if ((hash & left_out_) != 0) return;
    kept_.push_back(hash);
    if (kept_.size() > kMany) thin_out(2 * left_out_ + 1);
  }
  bool all() const { return left_out_ == 0; }
  // Once all are there: how many are different, and how many of these are among the others.
  Index distinct() {
    std::sort(kept_.begin(), kept_.end());
    Index out = 0;
    for (std::size_t i = 0; i < kept_.size(); ++i) out += i == 0 || kept_[i] != kept_[i - 1];
    return out * scale(left_out_);
  }
  Index count() const { return std::ssize(kept_) * scale(left_out_); }
  Index in_common(const Hashes& others) const {
    const std::uint64_t left_out = left_out_ | others.left_out_;
    return scale(left_out) * std::count_if(kept_.begin(), kept_.end(), [&](std::uint64_t hash) {
             return (hash & left_out) == 0 &&
                    std::binary_search(others.kept_.begin(), others.kept_.end(), hash);
           });
  }

 private:
  static constexpr std::size_t kMany = std::size_t{1} << 22;
  static Index scale(std::uint64_t left_out) { return static_cast<Index>(left_out + 1); }
  void thin_out(std::uint64_t left_out) {
    left_out_ = left_out;
    std::erase_if(kept_, [&](std::uint64_t hash) { return (hash & left_out) != 0; });
  }
  std::deque<std::uint64_t> kept_;  // grows without a copy
  std::uint64_t left_out_ = 0;      // these bits are zero in what is kept
};

struct Sample {
  Index line;
  Ranking item;
};

// What is counted of a file.
struct FileReport {
  explicit FileReport(Index budget) : packed(budget) {}

  std::string name, said;
  Index file_bytes = 0, records = 0, skipped = 0;
  Index items = 0, responses = 0, dialogues = 0;
  Index pairs = 0, ties = 0, identical = 0, unranked = 0;
  Index prompts_cut = 0, responses_cut = 0;
  Lengths lengths;
  TokenRuns packed;
  Hashes whole, groups;  // of items, and of what must not be split
  Index duplicates = 0, distinct_groups = 0;
  std::vector<Sample> samples;
};

void count_ranking(const Ranking& item, FileReport& report) {
  for (std::size_t i = 0; i < item.rank.size(); ++i) {
    report.unranked += item.rank[i] < 0;
    for (std::size_t j = 0; j < i; ++j) {
      if (item.responses[i] == item.responses[j]) {
        ++report.identical;
      } else if (item.rank[i] >= 0 && item.rank[j] >= 0) {
        (item.rank[i] == item.rank[j] ? report.ties : report.pairs) += 1;
      }
    }
  }
}

void count_tokens(const Ranking& item, const Language& language, FileReport& report) {
  const PromptView prompt{item.prompt, item.turns};
  Index together = 0;
  const auto add = [&](std::string_view response, bool ended) {
    const Encoded e = encode_pair(language, prompt, response, ended);
    const auto kept = static_cast<Index>(e.prompt.size() + e.response.size());
    report.lengths.add(kept + e.prompt_cut + e.response_cut);
    report.prompts_cut += e.prompt_cut > 0;
    report.responses_cut += e.response_cut > 0;
    together += kept;
  };
  for (const std::string& response : item.responses) add(response, true);
  if (item.responses.empty()) add("", false);
  report.packed.add(together);
}

void count_item(Ranking& item, Index line, const DataCommand& c, const Language& language, Rng& rng,
                FileReport& report) {
  ++report.items;
  report.responses += std::ssize(item.responses);
  report.dialogues += item.turns.size() > 1;
  count_ranking(item, report);
  if (c.tokens) count_tokens(item, language, report);
  Hash64 whole;
  whole.field(item.prompt);
  for (const std::string& response : item.responses) whole.field(response);
  report.whole.add(whole.value());
  report.groups.add(hash64(item.group.empty() ? item.prompt : item.group));
  // Each item is as likely among the samples as any other.
  if (std::ssize(report.samples) < c.samples) {
    report.samples.push_back({line, std::move(item)});
  } else if (c.samples > 0) {
    const auto place = static_cast<Index>(rng.below(static_cast<std::uint32_t>(
        std::min<Index>(report.items, std::numeric_limits<std::uint32_t>::max()))));
    if (place < c.samples)
      report.samples[static_cast<std::size_t>(place)] = {line, std::move(item)};
  }
}

FileReport read_report(const std::string& path, const DataCommand& c, const Language& language) {
  FileReport report(c.budget);
  report.name = path;
  RecordSource source(path);
  report.file_bytes = source.source().file_size();
  constexpr Index kLong = Index{1} << 24, kUnit = 1000000;
  std::optional<Progress> progress;
  if (report.file_bytes > kLong) progress.emplace("reading", report.file_bytes / kUnit, "MB");
  FormCounts forms;
  Rng rng(1);
  std::vector<Ranking> items;
  for_each_record(
      source, c.skip_bad_lines ? BadLine::Skip : BadLine::Refuse,
      [&](const detail::JsonRecord& record) {
        items.clear();
        items_of(record, items);
        ++report.records;
        forms.add(record);
        for (Ranking& item : items) count_item(item, record.line, c, language, rng, report);
        if (progress) progress->update(source.source().position() / kUnit);
      },
      [&](const std::string& message) {
        if (++report.skipped <= 10) note("skipped: " + message);
      });
  report.said = forms_said(source, forms);
  report.duplicates = report.whole.count() - report.whole.distinct();
  report.distinct_groups = report.groups.distinct();
  std::sort(report.samples.begin(), report.samples.end(),
            [](const Sample& a, const Sample& b) { return a.line < b.line; });
  return report;
}

void print_row(const char* label, const std::string& text) {
  std::printf("  %-22s %s\n", label, text.c_str());
}

std::string of_all(Index count, Index all) {
  return all > 0
             ? str(count, " (", percent(static_cast<double>(count) / static_cast<double>(all)), ")")
             : str(count);
}

void print_lengths(const FileReport& r, const Language& language) {
  if (r.lengths.all() == 0) return;
  print_row("tokens",
            str("median ", r.lengths.quantile(0.5), ", 95 % within ", r.lengths.quantile(0.95),
                ", longest ", r.lengths.longest(), ", by ", language.tokenizer->name()));
  const auto histogram = r.lengths.histogram();
  Index most = 1;
  for (const auto& bar : histogram) most = std::max(most, bar.second);
  for (const auto& bar : histogram) {
    std::string length = str(bar.first), count = str(bar.second);
    length.insert(0, 10 - std::min<std::size_t>(10, length.size()), ' ');
    count.insert(0, 10 - std::min<std::size_t>(10, count.size()), ' ');
    const auto cells = static_cast<std::size_t>((bar.second * 40 + most - 1) / most);
    std::printf("    to %s %s %s\n", length.c_str(), count.c_str(),
                std::string(cells, '#').c_str());
  }
  print_row("cut to the context",
            str("of ", language.context, " tokens: ", of_all(r.prompts_cut, r.lengths.all()),
                " prompts, ", of_all(r.responses_cut, r.lengths.all()), " responses"));
  print_row("packed", str("in order, to ", r.packed.budget(), " tokens: ", r.packed.runs(),
                          " batches, ", percent(r.packed.fill()), " full"));
}

void print_report(const FileReport& r, const Language& language) {
  std::printf("%s: %s\n", harmless(shown(r.name)).c_str(), r.said.c_str());
  print_row("records",
            r.skipped > 0 ? str(r.records, ", and ", r.skipped, " skipped") : str(r.records));
  if (r.items != r.records) print_row("prompts in them", str(r.items));
  if (r.responses > 0) print_row("responses", str(r.responses));
  if (r.dialogues > 0) print_row("dialogues", str(r.dialogues, " of several turns"));
  const Index decided = r.pairs + r.ties + r.identical;
  if (decided > 0) {
    print_row("pairs that decide", of_all(r.pairs, decided));
    print_row("ties", of_all(r.ties, decided));
    print_row("identical responses", of_all(r.identical, decided));
  }
  if (r.unranked > 0) print_row("unranked responses", of_all(r.unranked, r.responses));
  const std::string about = r.whole.all() ? "" : "about ";
  print_row("duplicates", about + of_all(r.duplicates, r.items));
  print_row("prompts or groups", str(about, r.distinct_groups, " distinct"));
  print_lengths(r, language);
}

void print_samples(const FileReport& r) {
  const auto begin = [](const std::string& text) {
    constexpr std::size_t kShown = 300;
    const bool all = text.size() <= kShown;
    return harmless(repaired_utf8(text.substr(0, kShown)), Layout::Lines) + (all ? "" : " …");
  };
  const int width = std::min(terminal_width(stdout), 100);
  for (const Sample& sample : r.samples) {
    std::printf("  sample, line %lld\n", static_cast<long long>(sample.line));
    std::fputs(wrap(begin(sample.item.prompt), width, "    ").c_str(), stdout);
    for (std::size_t i = 0; i < std::min<std::size_t>(sample.item.responses.size(), 4); ++i) {
      const bool ranked = !sample.item.rank.empty() && sample.item.rank[i] >= 0;
      std::printf("    [%s]\n", ranked ? str(sample.item.rank[i] + 1).c_str() : "-");
      std::fputs(wrap(begin(sample.item.responses[i]), width, "      ").c_str(), stdout);
    }
  }
}

Json report_json(const FileReport& r) {
  return {{"file", shown(r.name)},
          {"said", r.said},
          {"records", r.records},
          {"skipped", r.skipped},
          {"prompts", r.items},
          {"responses", r.responses},
          {"dialogues", r.dialogues},
          {"pairs", r.pairs},
          {"ties", r.ties},
          {"identical", r.identical},
          {"unranked", r.unranked},
          {"duplicates", r.duplicates},
          {"groups", r.distinct_groups},
          {"tokens_median", r.lengths.all() > 0 ? r.lengths.quantile(0.5) : 0},
          {"tokens_longest", r.lengths.longest()},
          {"prompts_cut", r.prompts_cut},
          {"responses_cut", r.responses_cut},
          {"batches", r.packed.runs()},
          {"fill", r.packed.fill()}};
}

void export_command(const DataCommand& c, Json& results) {
  check<DataError>(!c.as.empty() && !c.out.empty(),
                   "[data] --export FORM and --out FILE go together");
  const ExportForm form = export_form(c.as);
  check_output(c.out, c.files);
  std::vector<Ranking> rankings;
  for (const std::string& file : c.files) {
    auto more =
        noted(file, read_rankings(file, c.skip_bad_lines ? BadLine::Skip : BadLine::Refuse));
    std::move(more.begin(), more.end(), std::back_inserter(rankings));
  }
  const Exported out = export_rankings(rankings, form);
  if (out.lines.empty()) fail<DataError>(str("[data] nothing can be written: ", out.said()));
  write_atomically(c.out, [&](auto put) {
    for (const std::string& line : out.lines) put(line);
  });
  std::fprintf(c.out == "-" ? stderr : stdout, "%s -> %s\n", harmless(out.said()).c_str(),
               harmless(c.out).c_str());
  results = out.json();
}

}  // namespace

void data_command(const DataCommand& c, Json& results) {
  if (!c.as.empty() || !c.out.empty()) return export_command(c, results);
  const auto start = std::chrono::steady_clock::now();
  const Loaded loaded = load_model(c.from.model, c.from.tokenizer, c.from.chat);
  std::vector<FileReport> reports;
  results = {{"files", Json::array()}, {"leaks", Json::array()}};
  for (const std::string& file : c.files) {
    reports.push_back(read_report(file, c, loaded));
    print_report(reports.back(), loaded);
    print_samples(reports.back());
    flush_standard_output();
    results["files"].push_back(report_json(reports.back()));
  }
  for (std::size_t i = 0; i < reports.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) {
      const Index groups = reports[i].groups.in_common(reports[j].groups);
      const Index whole = reports[i].whole.in_common(reports[j].whole);
      const bool all = reports[i].whole.all() && reports[j].whole.all();
      std::printf("%s, of what %s has: %s%s prompts or groups, %s whole records%s\n",
                  harmless(shown(reports[i].name)).c_str(),
                  harmless(shown(reports[j].name)).c_str(), all ? "" : "about ",
                  of_all(groups, reports[i].items).c_str(), of_all(whole, reports[i].items).c_str(),
                  groups > 0 ? ": a leak, if one is to test the other" : "");
      results["leaks"].push_back({{"file", shown(reports[i].name)},
                                  {"of", shown(reports[j].name)},
                                  {"groups", groups},
                                  {"records", whole}});
    }
  results["seconds"] =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}}  // namespace plumb::v0_1
