#include "people_report.hpp"

#include "format.hpp"
#include "report.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>

namespace plumb { inline namespace v0_1 {

namespace {

std::string some(std::size_t count, const char* what) {
  return str(count, ' ', what, count == 1 ? "" : "s");
}

void add_agreement(Report& report, const Agreement& a, const AnnotatorRates& rates) {
  report.add_heading("Do they agree?");
  if (a.shared_pairs > 0) {
    report.add_summary("Krippendorff's α, which of two is better", fixed(a.alpha_pairs, 2),
                       str("1 is agreement, 0 chance; ", some(a.shared_pairs, "pair"),
                           " that two people or more judged"));
    report.add_summary("Krippendorff's α, ranks", fixed(a.alpha_ranks, 2),
                       some(a.shared_responses, "response"));
  }
  std::vector<NamedInterval> pairs, taus, selves, right;
  for (const Agreement::Pair& p : a.pairs) {
    if (p.prompts == 0) continue;
    const std::string both = p.a + " and " + p.b, of = some(p.prompts, "prompt");
    pairs.push_back({both, p.pairwise, std::nan(""), std::nan(""), of});
    taus.push_back({both, p.tau, std::nan(""), std::nan(""), of});
  }
  for (const Agreement::Self& s : a.selves)
    selves.push_back(
        {s.annotator, s.pairwise, std::nan(""), std::nan(""), some(s.repeats, "repeat")});
  for (const auto& [annotator, rate] : rates.rate)
    right.push_back({annotator, rate, std::nan(""), std::nan(""), ""});
  if (pairs.empty())
    report.add_text("No two annotators ranked the same responses, so nothing can be said of that.");
  else
    report.add_intervals("Pairs on which two order alike", "share; a tie in one counts half", pairs,
                         0.5);
  if (!taus.empty())
    report.add_intervals("Kendall's τ-b between two", "mean over prompts", taus, 0);
  if (!selves.empty())
    report.add_intervals("With oneself, asked again", "share of pairs ordered alike", selves, 0.5);
  if (!right.empty())
    report.add_intervals("How often each is right about a pair",
                         "by Dawid and Skene's model; where people err alike, they pass for right",
                         right, 0.5);
}

// How often the response in each place of the screen was on top, by annotator; one of m on top
// counts 1/m.
void add_places(Report& report, const std::vector<Ranking>& rankings, const Agreement& a) {
  std::map<std::string, std::vector<double>> best;
  std::map<std::string, std::vector<double>> shown;
  for (const Ranking& r : rankings) {
    if (r.shown.empty() || r.labeller != "person") continue;
    const auto top = static_cast<double>(std::count(r.rank.begin(), r.rank.end(), 0));
    if (top == 0.0) continue;
    auto &on_top = best[detail::annotator_name(r)], &all = shown[detail::annotator_name(r)];
    if (on_top.size() < r.shown.size()) on_top.resize(r.shown.size()), all.resize(r.shown.size());
    for (std::size_t place = 0; place < r.shown.size(); ++place) {
      all[place] += 1.0;
      if (r.rank[static_cast<std::size_t>(r.shown[place])] == 0) on_top[place] += 1.0 / top;
    }
  }
  if (best.empty()) return;
  report.add_heading("Where on the screen the best one stood");
  std::vector<NamedInterval> first;
  for (const Agreement::Position& p : a.positions) {
    const Interval within = wilson_interval(p.first_best, p.rankings);
    first.push_back(
        {p.annotator, p.first_best / p.rankings, within.low, within.high,
         str("without bias ", fixed(p.expected / p.rankings, 2), ", of ", fixed(p.rankings, 0))});
  }
  if (!first.empty())
    report.add_intervals("Shown first and ranked best", "share, 95 % interval", first);
  std::vector<Series> lines;
  for (const auto& [annotator, on_top] : best) {
    Series line{annotator, {}, {}};
    for (std::size_t place = 0; place < on_top.size(); ++place) {
      line.x.push_back(static_cast<double>(place + 1));
      line.y.push_back(on_top[place] / shown[annotator][place]);
    }
    lines.push_back(std::move(line));
  }
  report.add_chart("Ranked best, by place", "place as shown", "share", lines);
}

// How often the longer of two is preferred, by how much longer it is.
std::vector<NamedInterval> by_length(const std::vector<Ranking>& rankings) {
  struct Bin {
    double most;
    const char* name;
    double longer = 0, count = 0;
  };
  std::array<Bin, 5> bins{{{1.25, "up to 1.25 times"},
                           {1.5, "to 1.5 times"},
                           {2.0, "to twice"},
                           {3.0, "to 3 times"},
                           {std::numeric_limits<double>::infinity(), "longer still"}}};
  for (const Ranking& r : rankings)
    for (std::size_t i = 0; i < r.rank.size(); ++i)
      for (std::size_t j = 0; j < r.rank.size(); ++j) {
        const double a = characters_of(r.responses[i]), b = characters_of(r.responses[j]);
        if (r.rank[i] < 0 || r.rank[j] < 0 || r.rank[i] == r.rank[j] || !(a > b)) continue;
        for (Bin& bin : bins)
          if (a <= bin.most * b) {
            bin.longer += r.rank[i] < r.rank[j] ? 1.0 : 0.0;
            bin.count += 1.0;
            break;
          }
      }
  std::vector<NamedInterval> out;
  for (const Bin& bin : bins) {
    if (bin.count == 0.0) continue;
    const Interval within = wilson_interval(bin.longer, bin.count);
    out.push_back({bin.name, bin.longer / bin.count, within.low, within.high,
                   fixed(bin.count, 0) + " pairs"});
  }
  return out;
}

void add_leanings(Report& report, const std::vector<Ranking>& rankings,
                  const std::vector<Habits>& habits) {
  report.add_heading("What the choices lean on");
  report.add_text(
      "Each at equal others, as log-odds to be preferred, with 95 % intervals clustered by prompt; "
      "0 is no leaning. No causal claim: longer answers may also be better ones.");
  for (std::size_t h = 0; h < kHabitNames.size(); ++h) {
    std::vector<NamedInterval> rows;
    for (const Habits& one : habits)
      if (const Habits::Leaning& l = one.leanings[h]; l.pairs > 0.0)
        rows.push_back({one.annotator, l.log_odds, l.interval.low, l.interval.high,
                        fixed(l.pairs, 0) + " pairs"});
    if (!rows.empty()) report.add_intervals(std::string(kHabitNames[h]), "log-odds", rows, 0);
  }
  if (const auto rows = by_length(rankings); !rows.empty())
    report.add_intervals("The longer of two is preferred", "share, by how much longer", rows, 0.5);
}

double quantile(const std::vector<double>& sorted, double share) {
  const double at = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

void add_times(Report& report, const std::vector<Ranking>& rankings,
               const std::vector<Habits>& habits) {
  std::map<std::string, Series> times;
  for (const Ranking& r : rankings) {
    if (!(r.seconds > 0.0)) continue;
    Series& line = times[detail::annotator_name(r)];
    line.x.push_back(static_cast<double>(line.x.size() + 1));
    line.y.push_back(r.seconds);
  }
  if (times.empty()) return;
  report.add_heading("How long they took");
  std::vector<NamedInterval> rows;
  std::vector<Series> lines;
  for (auto& [annotator, line] : times) {
    line.name = annotator;
    std::vector<double> sorted = line.y;
    std::sort(sorted.begin(), sorted.end());
    double hasty = 0.0;
    for (const Habits& h : habits)
      if (h.annotator == annotator) hasty = h.hasty;
    rows.push_back({annotator, quantile(sorted, 0.5), quantile(sorted, 0.25),
                    quantile(sorted, 0.75), "in haste " + percent(hasty)});
    lines.push_back(line);
  }
  report.add_intervals("Time an answer took", "seconds: median, and the middle half", rows,
                       std::nan(""), 1);
  report.add_chart("Each answer's time", "answer", "seconds", lines);
}

}  // namespace

std::string people_html(const std::vector<Ranking>& rankings, const Agreement& agreement,
                        const AnnotatorRates& rates, const std::vector<Habits>& habits) {
  Report report("What these rankings are worth", str("Plumb ", PLUMB_VERSION));
  std::map<std::string, std::pair<std::size_t, bool>> by;  // how many, by a rule
  for (const Ranking& r : rankings) {
    auto& [count, rule] = by[detail::annotator_name(r)];
    ++count;
    rule = rule || r.labeller != "person";
  }
  for (const auto& [annotator, said] : by)
    report.add_summary(annotator, some(said.first, "ranking"), said.second ? "by a rule" : "");
  add_agreement(report, agreement, rates);
  add_places(report, rankings, agreement);
  add_leanings(report, rankings, habits);
  add_times(report, rankings, habits);
  return report.html();
}

}}  // namespace plumb::v0_1
