#include "agreement.hpp"

#include "format.hpp"
#include "screen.hpp"

#include <cmath>
#include <ostream>

namespace plumb { inline namespace v0_1 {

namespace {

std::string tau_text(double tau) { return std::isnan(tau) ? "-" : fixed(tau, 2); }

const char* plural(std::size_t count) { return count == 1 ? "" : "s"; }

void print_alphas(const Agreement& a, std::ostream& out) {
  if (a.shared_pairs == 0) return;
  out << "Krippendorff's alpha of all people: " << tau_text(a.alpha_pairs)
      << " for which of two is better (nominal, " << a.shared_pairs << " pair"
      << plural(a.shared_pairs) << "), " << tau_text(a.alpha_ranks) << " for ranks (ordinal, "
      << a.shared_responses << " responses); 1 is agreement, 0 chance\n";
}

}  // namespace

void print_agreement(const Agreement& agreement, std::ostream& out) {
  for (const Agreement::Pair& p : agreement.pairs) {
    out << "Agreement, " << harmless(p.a) << " and " << harmless(p.b) << ": ";
    if (p.prompts == 0)
      out << "no pair of responses in common";
    else
      out << "Kendall tau-b " << tau_text(p.tau) << ", pairwise " << percent(p.pairwise)
          << ", over " << p.prompts << " prompt" << plural(p.prompts);
    if (p.other_responses > 0)
      out << " (" << p.other_responses << " left out: other responses under the same id)";
    out << '\n';
  }
  print_alphas(agreement, out);
  for (const Agreement::Self& s : agreement.selves)
    out << "Asked again, " << harmless(s.annotator) << ": Kendall tau-b " << tau_text(s.tau)
        << " with the answer before, pairwise " << percent(s.pairwise) << ", over " << s.repeats
        << " repeat" << plural(s.repeats) << '\n';
  for (const Agreement::Position& p : agreement.positions) {
    const Interval interval = wilson_interval(p.first_best, p.rankings);
    out << "Shown first and ranked best, " << harmless(p.annotator) << ": "
        << percent(p.first_best / p.rankings) << " of " << fixed(p.rankings, 0)
        << " (95 % interval " << fixed(100.0 * interval.low, 1) << " to " << percent(interval.high)
        << "; without position bias " << percent(p.expected / p.rankings) << ")\n";
  }
}

Json agreement_json(const Agreement& agreement) {
  Json between = Json::array(), again = Json::array(), first = Json::array();
  for (const Agreement::Pair& p : agreement.pairs)
    between.push_back({{"annotators", {p.a, p.b}},
                       {"kendall_tau_b", p.tau},
                       {"pairwise", p.pairwise},
                       {"prompts", p.prompts},
                       {"other_responses", p.other_responses}});
  for (const Agreement::Self& s : agreement.selves)
    again.push_back({{"annotator", s.annotator},
                     {"kendall_tau_b", s.tau},
                     {"pairwise", s.pairwise},
                     {"repeats", s.repeats}});
  for (const Agreement::Position& p : agreement.positions) {
    const Interval interval = wilson_interval(p.first_best, p.rankings);
    first.push_back({{"annotator", p.annotator},
                     {"shown_first_ranked_best", p.first_best / p.rankings},
                     {"low", interval.low},
                     {"high", interval.high},
                     {"without_bias", p.expected / p.rankings},
                     {"rankings", p.rankings}});
  }
  return {{"annotators", agreement.annotators},
          {"agreement", between},
          {"krippendorff_alpha",
           {{"pairs_nominal", agreement.alpha_pairs},
            {"ranks_ordinal", agreement.alpha_ranks},
            {"pairs", agreement.shared_pairs},
            {"responses", agreement.shared_responses}}},
          {"self_agreement", again},
          {"position_bias", first}};
}

void print_rates(const AnnotatorRates& rates, std::ostream& out) {
  if (rates.pairs == 0) return;
  if (rates.rate.empty()) {
    out << "How often each is right cannot be told: that takes three people who ranked the same.\n";
    return;
  }
  out << "How often each is right about a pair, by Dawid and Skene's model of " << rates.pairs
      << " pairs:";
  for (const auto& [annotator, rate] : rates.rate)
    out << ' ' << harmless(annotator) << ' ' << percent(rate) << ';';
  out << " where people err alike, they pass for right\n";
}

Json rates_json(const AnnotatorRates& rates) {
  return {{"pairs", rates.pairs}, {"rate", rates.rate}};
}

void print_habits(const std::vector<Habits>& habits, std::ostream& out) {
  for (const Habits& h : habits) {
    out << "What the choices of " << harmless(h.annotator) << " lean on, each at equal others ("
        << fixed(h.pairs, 0) << " pairs to " << fixed(h.prompts, 0)
        << " prompts; log-odds to be preferred, 95 % interval):\n";
    for (std::size_t i = 0; i < kHabitNames.size(); ++i) {
      const Habits::Leaning& l = h.leanings[i];
      if (l.pairs == 0.0) continue;  // nothing to be told apart by
      out << "  " << kHabitNames[i] << ": " << fixed(l.log_odds, 2) << " ("
          << fixed(l.interval.low, 2) << " to " << fixed(l.interval.high, 2) << "), of "
          << fixed(l.pairs, 0) << " pairs that differ in it\n";
    }
    if (h.timed == 0.0) continue;
    out << "  time: median " << fixed(h.seconds, 1) << " s an answer for " << fixed(h.characters, 0)
        << " characters, " << fixed(h.speed, 0) << " a second; " << percent(h.hasty) << " of "
        << fixed(h.timed, 0) << " came faster than " << fixed(kHastySpeed, 0)
        << " a second, three times as fast as people read\n";
  }
}

Json habits_json(const std::vector<Habits>& habits) {
  Json all = Json::array();
  for (const Habits& h : habits) {
    Json leanings = Json::object();
    constexpr std::array<const char*, kHabitNames.size()> names{"shown_earlier", "length_doubled",
                                                                "list", "bold", "heading"};
    for (std::size_t i = 0; i < names.size(); ++i)
      if (const Habits::Leaning& l = h.leanings[i]; l.pairs > 0.0)
        leanings[names[i]] = {{"log_odds", l.log_odds},
                              {"low", l.interval.low},
                              {"high", l.interval.high},
                              {"pairs", l.pairs}};
    Json one = {{"annotator", h.annotator},
                {"pairs", h.pairs},
                {"prompts", h.prompts},
                {"log_odds", std::move(leanings)}};
    if (h.timed > 0.0)
      one["time"] = {{"answers", h.timed},
                     {"median_seconds", h.seconds},
                     {"median_characters", h.characters},
                     {"median_characters_per_second", h.speed},
                     {"hasty", h.hasty}};
    all.push_back(std::move(one));
  }
  return all;
}

}}  // namespace plumb::v0_1
