// `plumb ratings`: rlhf/ratings.hpp and rlhf/fragility.hpp on files, in words and numbers.
#include "commands.hpp"
#include "format.hpp"
#include "report.hpp"
#include "screen.hpp"

#include <plumb/io/output.hpp>
#include <plumb/rlhf/fragility.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <optional>
#include <utility>

namespace plumb { inline namespace v0_1 {

namespace {

// Rankings that say whose each response is, as comparisons of numbered systems.
struct Rated {
  std::vector<std::string> names;  // in their order as text
  std::vector<Comparison> votes;
  std::vector<std::string> ids;  // of the votes
  double by_rule = 0.0, without = 0.0;
};

Rated rated(const RatingsCommand& c) {
  std::vector<Ranking> rankings;
  for (const std::string& path : c.rankings) {
    auto more =
        noted(path, read_rankings(path, c.skip_bad_lines ? BadLine::Skip : BadLine::Refuse));
    std::move(more.begin(), more.end(), std::back_inserter(rankings));
  }
  Rated out;
  std::map<std::string, std::size_t> systems, prompts;
  for (const Ranking& r : rankings)
    for (const std::string& name : r.systems) systems[name] = 0;
  for (auto& [name, number] : systems) {
    number = out.names.size();
    out.names.push_back(name);
  }
  for (const Ranking& r : rankings) {
    if (r.systems.empty()) {
      out.without += 1.0;
      continue;
    }
    Comparison vote{{}, r.rank, prompts.try_emplace(r.group, prompts.size()).first->second};
    for (const std::string& name : r.systems) vote.systems.push_back(systems.at(name));
    out.votes.push_back(std::move(vote));
    out.ids.push_back(r.id);
    out.by_rule += r.labeller == "person" ? 0.0 : 1.0;
  }
  check<DataError>(
      !out.votes.empty(),
      "[ratings] no ranking says whose its responses are. HINT: \"systems\":[a name "
      "for each response] in each record; `plumb next` and `plumb eval --judge person` "
      "write it");
  return out;
}

std::optional<std::size_t> number_of(const std::string& name,
                                     const std::vector<std::string>& names) {
  if (name.empty()) return {};
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) {
    std::string known;
    for (const std::string& one : names) known += (known.empty() ? "" : ", ") + one;
    fail<DataError>(
        str("[ratings] no response is by the system ", shown(name), ". HINT: one of ", known));
  }
  return static_cast<std::size_t>(found - names.begin());
}

const char* model_name(RatingModel model) {
  return model == RatingModel::BradleyTerry
             ? "Bradley and Terry's model, a tie being half a win each"
         : model == RatingModel::Davidson ? "Davidson's model, with ties of their own"
                                          : "Plackett and Luce's model";
}

std::string interval_text(Interval i) { return fixed(i.low, 2) + " to " + fixed(i.high, 2); }

void print_ratings(const RatingsCommand& c, const Rated& data, const Ratings& ratings,
                   const RatingBootstrap& drawn, std::optional<std::size_t> reference) {
  std::printf(
      "%zu systems by %s: %zu votes on %zu prompts%s\n", data.names.size(),
      model_name(c.settings.model), ratings.votes, ratings.prompts,
      data.by_rule > 0 ? (", " + fixed(data.by_rule, 0) + " of them by a rule").c_str() : "");
  if (data.without > 0)
    std::printf("%s rankings left out: they do not say whose their responses are\n",
                fixed(data.without, 0).c_str());
  if (c.settings.penalty > 0)
    std::printf("held together by a penalty of %s: nearer to each other than the votes say\n",
                general(static_cast<double>(c.settings.penalty), 6).c_str());
  std::printf("log-odds to be preferred, beside %s; 95 %% intervals clustered by prompt:\n",
              reference ? harmless(data.names[*reference]).c_str() : "the mean of all");
  std::size_t place = 0;
  for (const std::size_t s : ratings.order()) {
    const RatingEstimate e = ratings.estimate(s, reference);
    std::string line = str(++place, ". ", harmless(data.names[s]), "  ", fixed(e.value, 2), " (",
                           interval_text(e.interval), ")");
    if (drawn.draws > 0)
      line += str("; prompts drawn anew: ", interval_text(drawn.interval[s]), ", first in ",
                  percent(drawn.first[s]));
    std::printf("%s\n", line.c_str());
  }
  if (drawn.without > 0)
    std::printf(
        "%lld of %lld draws have no ratings, since a group was never beaten in them: the "
        "intervals by draws are too short\n",
        static_cast<long long>(drawn.without), static_cast<long long>(drawn.without + drawn.draws));
  if (c.settings.model == RatingModel::Davidson)
    std::printf("of two alike, %s of votes are ties\n",
                percent(ratings.ties / (2.0 + ratings.ties)).c_str());
}

void print_fragility(const Fragility& f, const Rated& data) {
  if (f.withdrawn.empty()) {
    std::printf("No withdrawal of votes that was tried makes another system come first.\n");
    return;
  }
  std::printf(
      "The first place hangs on few votes or many: without %zu of %zu (%s), %s would come "
      "before %s. Fewer may do; these were found one by one.\n",
      f.withdrawn.size(), f.votes,
      percent(static_cast<double>(f.withdrawn.size()) / static_cast<double>(f.votes)).c_str(),
      harmless(data.names[f.rival]).c_str(), harmless(data.names[f.first]).c_str());
}

Json fragility_json(const Fragility& f, const Rated& data) {
  Json ids = Json::array();
  for (const std::size_t v : f.withdrawn) ids.push_back(data.ids[v]);
  return {{"first", data.names[f.first]},
          {"rival", data.names[f.rival]},
          {"withdrawn", f.withdrawn.size()},
          {"votes", f.votes},
          {"ids", std::move(ids)}};
}

// The same as a page.
std::string ratings_html(const RatingsCommand& c, const Rated& data, const Ratings& ratings,
                         const RatingBootstrap& drawn, std::optional<std::size_t> reference,
                         const Fragility& fragility) {
  Report report("Ratings of systems",
                str("Plumb ", PLUMB_VERSION, ", ", model_name(c.settings.model)));
  if (data.by_rule > 0)
    report.add_notice(fixed(data.by_rule, 0) + " of the votes are by a rule, not by people.");
  report.add_summary("Systems", str(data.names.size()));
  report.add_summary("Votes", str(ratings.votes), str("on ", ratings.prompts, " prompts"));
  if (data.without > 0)
    report.add_summary("Left out", fixed(data.without, 0),
                       "rankings that do not say whose their responses are");
  if (c.settings.penalty > 0)
    report.add_summary("Penalty", general(static_cast<double>(c.settings.penalty), 6),
                       "holds the systems nearer to each other than the votes say");
  std::vector<NamedInterval> rows, redrawn, first;
  for (const std::size_t s : ratings.order()) {
    const RatingEstimate e = ratings.estimate(s, reference);
    rows.push_back({data.names[s], e.value, e.interval.low, e.interval.high});
    if (drawn.draws == 0) continue;
    redrawn.push_back({data.names[s], e.value, drawn.interval[s].low, drawn.interval[s].high});
    first.push_back({data.names[s], drawn.first[s]});
  }
  const std::string beside = str("log-odds to be preferred, beside ",
                                 reference ? data.names[*reference] : "the mean of all");
  report.add_heading("Ratings");
  report.add_intervals("Ratings, 95 % intervals clustered by prompt", beside, rows, 0);
  if (!redrawn.empty())
    report.add_intervals("Prompts drawn anew, 95 % of draws", beside, redrawn, 0);
  if (!first.empty()) report.add_intervals("Comes first", "share of draws of prompts", first);
  report.add_heading("How few votes would change the first place");
  if (fragility.withdrawn.empty()) {
    report.add_text("No withdrawal of votes that was tried makes another system come first.");
    return report.html();
  }
  const double share =
      static_cast<double>(fragility.withdrawn.size()) / static_cast<double>(fragility.votes);
  report.add_text(str("Without ", fragility.withdrawn.size(), " of ", fragility.votes, " votes, ",
                      data.names[fragility.rival], " would come before ",
                      data.names[fragility.first], ". Fewer may do; these were found one by one."));
  report.add_intervals("Votes that the first place hangs on", "share of all votes",
                       {{"withdrawn", share, std::nan(""), std::nan(""),
                         str(fragility.withdrawn.size(), " of ", fragility.votes)},
                        {"all", 1.0}},
                       0.0, 3);
  std::string ids;
  for (const std::size_t v : fragility.withdrawn) ids += data.ids[v] + "\n";
  report.add_details("Their ids", ids);
  return report.html();
}

}  // namespace

void ratings_command(const RatingsCommand& c, Json& results) {
  check_fields(c.settings, "ratings");
  if (!c.report.empty()) check_output(c.report, c.rankings);
  const Rated data = rated(c);
  const std::optional<std::size_t> reference = number_of(c.reference, data.names);
  const Ratings ratings = rate(data.votes, data.names, c.settings);
  RatingBootstrap drawn;
  if (c.settings.bootstrap > 0)
    drawn = bootstrap_ratings(data.votes, data.names, c.settings, reference);
  print_ratings(c, data, ratings, drawn, reference);
  Json systems = Json::array();
  for (const std::size_t s : ratings.order()) {
    const RatingEstimate e = ratings.estimate(s, reference);
    Json one = {{"system", data.names[s]}, {"rating", e.value},
                {"low", e.interval.low},   {"high", e.interval.high},
                {"error", e.error},        {"error_of_independent_votes", e.model_error}};
    if (drawn.draws > 0)
      one.update({{"drawn_low", drawn.interval[s].low},
                  {"drawn_high", drawn.interval[s].high},
                  {"first_in_draws", drawn.first[s]}});
    systems.push_back(std::move(one));
  }
  results.update({{"method", choice_name(c.settings.model)},
                  {"systems", std::move(systems)},
                  {"votes", ratings.votes},
                  {"votes_by_rule", data.by_rule},
                  {"without_systems", data.without},
                  {"prompts", ratings.prompts},
                  {"draws", drawn.draws},
                  {"draws_without_ratings", drawn.without}});
  if (reference) results["reference"] = data.names[*reference];
  if (c.settings.model == RatingModel::Davidson) results["ties"] = ratings.ties;
  const Fragility fragility = fragility_of(data.votes, data.names, c.settings);
  print_fragility(fragility, data);
  results["fragility"] = fragility_json(fragility, data);
  if (c.report.empty()) return;
  write_atomically(c.report, ratings_html(c, data, ratings, drawn, reference, fragility));
  std::printf("report: %s\n", harmless(c.report).c_str());
}

}}  // namespace plumb::v0_1
