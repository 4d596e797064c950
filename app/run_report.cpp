#include "run_report.hpp"

#include "alarms.hpp"
#include "device.hpp"
#include "format.hpp"
#include "progress.hpp"
#include "report.hpp"
#include "screen.hpp"

#include <plumb/io/file.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace plumb { inline namespace v0_1 {

namespace {

std::string between(const Interval& i) {
  return str("95 % interval ", fixed(100 * i.low, 1), " to ", percent(i.high));
}

std::string change(double before, double after, int decimals) {
  return str(fixed(before, decimals), " → ", fixed(after, decimals));
}

// A response with its score, where the judge gives one.
std::string scored(const Outcome& o, std::size_t i, bool after) {
  const std::string& text = (after ? o.after : o.before)[i].responses[0];
  if (!o.verdict.scored || i >= o.verdict.items.size()) return text;
  const Verdict::Item& item = o.verdict.items[i];
  return str("[", fixed(after ? item.after : item.before, 1), "] ", text);
}

void add_reward(Report& report, const RewardReport& reward) {
  report.add_summary("Reward model, held-out pairs", percent(reward.accuracy),
                     str(between(reward.interval), "; ", fixed(reward.pairs, 0), " pairs of ",
                         fixed(reward.prompts, 0), " prompts"));
  report.add_summary("  baseline: longer response wins", percent(reward.longer));
  report.add_summary("  baseline: bag of words", percent(reward.words));
  if (!std::isnan(reward.shuffled))
    report.add_summary("  control: fitted to shuffled labels", percent(reward.shuffled));
  report.add_summary("  on what it was fitted to", percent(reward.training));
  if (!std::isnan(reward.without_length))
    report.add_summary("  without the length", percent(reward.without_length));
  if (!reward.fit.empty()) report.add_summary("  a linear head of", reward.fit);
}

// What a policy that learned without a reward model makes of the last round's rankings.
std::string directly_in_words(const AlignSettings& s, const std::vector<MetricRow>& rows) {
  const Metrics row = rows.empty() ? Metrics{} : rows.back().values;
  return str("learned from rankings directly, by ", choice_name(s.method),
             "; its own score is right on ", percent(metric(row, "rewards/accuracies")),
             " of the last round's pairs, by ", fixed(metric(row, "rewards/margins"), 3));
}

void add_results(Report& report, const AlignSettings& s, const Outcome& o,
                 const std::vector<RewardReport>& rewards, const std::vector<MetricRow>& rows) {
  const Verdict& v = o.verdict;
  report.add_summary("Win rate, after against before", percent(v.rate()),
                     str(between(v.interval()), "; ", fixed(v.n(), 0),
                         " held-out responses, judged by ", v.judge));
  const Verdict& m = o.shortcut.matched;
  report.add_summary("  at equal length and ending", m.items.empty() ? "-" : percent(m.rate()),
                     str(between(m.interval()), "; ", fixed(m.n(), 0),
                         o.shortcut.cut ? " pairs, the response before cut at the end of a sentence"
                                        : " pairs that are so by themselves"));
  if (s.directly())
    report.add_summary("No reward model", choice_name(s.method), directly_in_words(s, rows));
  else
    add_reward(report, rewards.back());
  for (Index round = 0; round < s.rounds && s.ppo.kl_budget > 0; ++round)
    report.add_summary(s.rounds > 1 ? str("Best policy of round ", round + 1) : "Best policy",
                       "policy-best",
                       best_in_words(best_of_round(s, rows, round), s.ppo.kl_budget));
  report.add_summary("KL to the first policy", fixed(o.kl, 2) + " nats",
                     "exact, full vocabulary, mean per response");
  report.add_summary("Perplexity of held-out stories",
                     change(o.perplexity_before, o.perplexity_after, 2),
                     "per token, before → after: what the training cost");
}

void add_alarms(Report& report, const AlignSettings& s, const std::vector<MetricRow>& rows) {
  if (s.directly()) {
    Alarms alarms("round");
    for (const MetricRow& row : rows)
      for (const std::string& alarm : alarms.watch(row.step + 1, row.values))
        report.add_notice(str(alarm, "."));
  }
  for (Index round = 0; round < s.rounds && !s.directly(); ++round) {
    Alarms alarms;
    for (const MetricRow& row : rows)
      if (row.step / s.ppo.config.iterations == round)
        for (const std::string& alarm :
             alarms.watch(row.step % s.ppo.config.iterations, row.values))
          report.add_notice(str("Round ", round + 1, ", ", alarm, "."));
  }
}

void add_shortcut(Report& report, const Shortcut& s) {
  report.add_heading("What the policy found, and what it cost");
  report.add_text(s.sentence());
  report.add_summary("Responses that end by themselves",
                     str(percent(s.before.finished), " → ", percent(s.after.finished)));
  report.add_summary("Length", change(s.before.characters, s.after.characters, 0),
                     "characters, mean");
  report.add_summary("  words", change(s.before.words, s.after.words, 1));
  report.add_summary("Responses with dialogue",
                     str(percent(s.before.dialogue), " → ", percent(s.after.dialogue)));
  report.add_summary("Distinct words", change(s.before.vocabulary, s.after.vocabulary, 0),
                     str("among the first ", s.before.first_words, " words of each side"));
  report.add_summary("  within a response",
                     str(percent(s.before.distinct), " → ", percent(s.after.distinct)),
                     "of its words, mean");
  for (std::size_t p = 0; p < std::min(s.before.parts.size(), s.after.parts.size()); ++p)
    report.add_summary("Rule's part: " + s.before.parts[p].first,
                       change(s.before.parts[p].second, s.after.parts[p].second, 2), "mean");
  std::vector<std::vector<std::string>> rows;
  for (const auto* list : {&s.words, &s.openings})
    for (const Overused& o : *list)
      rows.push_back({(list == &s.words ? "" : "opening: ") + o.text, fixed(o.before, 0),
                      fixed(o.after, 0), fixed(o.log_odds, 1)});
  if (!rows.empty())
    report.add_samples({"Came up most", "Times before", "Times after", "Log-odds"}, rows);
}

// Charts of a method without a reward model, a point a round.
void add_direct_charts(Report& report, const std::vector<MetricRow>& rows) {
  const auto chart = [&](const char* title, const char* unit,
                         const std::vector<std::pair<const char*, const char*>>& lines) {
    std::vector<Series> all;
    for (const auto& [name, metric] : lines) {
      all.push_back(metric_series(name, rows, metric));
      for (double& round : all.back().x) round += 1;
    }
    if (!all[0].x.empty()) report.add_chart(title, "round", unit, all);
  };
  report.add_heading("Training");
  report.add_text(
      "A round's responses are those that the policy gave before it learned from them; the scores "
      "are its own, after.");
  chart("True score of a round's responses, by the rule itself", "score",
        {{"score", "judge/total"}});
  chart("The policy's own scores", "score",
        {{"best", "rewards/chosen"}, {"last", "rewards/rejected"}});
  chart("Pairs that they order rightly", "share of pairs", {{"accuracy", "rewards/accuracies"}});
  chart("Log-prob of the best responses", "nats per response", {{"best", "logps/chosen"}});
  chart("Loss", "loss", {{"mean", "loss"}});
  chart("Response length", "tokens", {{"mean", "response/length"}});
}

void add_charts(Report& report, const AlignSettings& s, const std::vector<MetricRow>& rows,
                const std::vector<RewardReport>& rewards) {
  const auto series = [&](const char* name, const char* metric) {
    return metric_series(name, rows, metric);
  };
  std::vector<Mark> marks;  // where rounds begin
  for (Index round = 0; s.rounds > 1 && round < s.rounds; ++round)
    marks.push_back(
        {static_cast<double>(round * s.ppo.config.iterations), str("round ", round + 1)});
  const auto chart = [&](const char* title, const char* unit, const std::vector<Series>& lines) {
    report.add_chart(title, "PPO iteration", unit, lines, marks);
  };
  report.add_heading("Training");
  report.add_text(curves_in_words(rows, s.rounds, s.ppo.config.iterations));
  chart("Score by the reward model", "score",
        {series("score", "objective/scores"), series("score − β·KL", "objective/rlhf_reward")});
  if (const Series truth = series("score", "judge/total"); !truth.x.empty())
    chart("True score, by the rule itself", "score", {truth});
  chart("KL to the first policy", "nats per response",
        {series("exact", "objective/kl_exact"), series("sampled (k1)", "objective/kl"),
         series("sampled (k3)", "objective/kl_k3")});
  chart("KL coefficient β", "β", {series("β", "objective/kl_coef")});
  chart("Entropy", "nats per token", {series("entropy", "policy/entropy_avg")});
  chart("Clip fraction", "share",
        {series("policy", "policy/clipfrac_avg"), series("value", "val/clipfrac_avg")});
  chart("Approximate KL of an update", "nats per token",
        {series("approx_kl", "policy/approxkl_avg")});
  Series accuracy{"held-out accuracy", {}, {}}, longer{"longer response wins", {}, {}};
  for (std::size_t round = 0; round < rewards.size(); ++round) {
    accuracy.x.push_back(static_cast<double>(round + 1));
    accuracy.y.push_back(rewards[round].accuracy);
    longer.x.push_back(static_cast<double>(round + 1));
    longer.y.push_back(rewards[round].longer);
  }
  report.add_chart("Reward model", "round", "share of pairs", {accuracy, longer});
  chart("Value function", "explained variance",
        {series("explained variance", "val/explained_variance")});
  chart("Response length", "tokens", {series("mean", "response/length")});
}

// Where a curve starts and ends among steps first … last - 1: means of up to three values, since
// one iteration's mean is noisy.
struct Move {
  double from = std::nan(""), to = std::nan("");
  bool known() const { return !std::isnan(from); }
  double by() const { return to - from; }
};

Move move_of(const std::vector<MetricRow>& rows, Index first, Index last, std::string_view metric) {
  const Series all = metric_series("", rows, metric);
  std::vector<double> values;
  for (std::size_t i = 0; i < all.x.size(); ++i)
    if (all.x[i] >= static_cast<double>(first) && all.x[i] < static_cast<double>(last))
      values.push_back(all.y[i]);
  if (values.empty()) return {};
  const std::size_t some = std::min<std::size_t>(3, (values.size() + 1) / 2);
  return {mean(std::span(values).first(some)), mean(std::span(values).last(some))};
}

}  // namespace

Json Outcome::json() const {
  Json results = verdict.json();
  results["win_rate_prompts"] = verdict.prompts();
  results["win_rate_pairs"] = verdict.n();
  results.update({{"kl", kl},
                  {"perplexity_before", perplexity_before},
                  {"perplexity_after", perplexity_after},
                  {"ended_before", shortcut.before.finished},
                  {"ended_after", shortcut.after.finished},
                  {"length_before", shortcut.before.characters},
                  {"length_after", shortcut.after.characters},
                  {"shortcut", shortcut.json()}});
  if (!std::isnan(ratio_first_minibatch)) results["ratio_first_minibatch"] = ratio_first_minibatch;
  return results;
}

std::string trained_towards(const AlignSettings& s) {
  if (s.labeller == "person") return "trained towards the rankings of " + s.annotator;
  return str("trained towards the rule `", rule_of(s.labeller).short_name(), "`");
}

std::optional<Best> best_of_round(const AlignSettings& s, const std::vector<MetricRow>& rows,
                                  Index round) {
  const Index begin = round * s.ppo.config.iterations;
  return best_within(rows, begin, begin + s.ppo.config.iterations, s.ppo.kl_budget);
}

std::string curves_in_words(const std::vector<MetricRow>& rows, Index rounds, Index iterations) {
  std::string text;
  for (Index round = 0; round < rounds; ++round) {
    const Index first = round * iterations, last = first + iterations;
    const Move model = move_of(rows, first, last, "objective/scores");
    const Move truth = move_of(rows, first, last, "judge/total");
    if (!model.known()) continue;
    text += text.empty() ? "" : " ";
    if (rounds > 1) text += str("Round ", round + 1, ": ");
    text += str(rounds > 1 ? "the" : "The", " reward model's score went from ",
                fixed(model.from, 2), " to ", fixed(model.to, 2));
    if (!truth.known()) {
      text += ".";
      continue;
    }
    text += str(", the rule's true score from ", fixed(truth.from, 2), " to ", fixed(truth.to, 2));
    text += model.by() > 0 && truth.by() < 0
                ? ": the policy found what the reward model scores wrongly."
            : model.by() > 0 && truth.by() > 0
                ? ": what the reward model likes is what the rule likes."
            : model.by() <= 0 && truth.by() > 0
                ? ": the rule was served better although the reward model saw no gain."
                : ": neither gained.";
  }
  return text;
}

namespace {

// "The rule's parts, before → after: reading 0.5 → 1.2, …"
std::string parts_in_words(const Shortcut& s) {
  std::string text = "The rule's parts, before → after:";
  for (std::size_t p = 0; p < std::min(s.before.parts.size(), s.after.parts.size()); ++p)
    text += str(p > 0 ? ", " : " ", s.before.parts[p].first, " ",
                change(s.before.parts[p].second, s.after.parts[p].second, 2));
  return text + ".";
}

}  // namespace

void print_outcome(const AlignSettings& s, const Outcome& o,
                   const std::vector<RewardReport>& rewards) {
  const int width = terminal_width(stdout);
  const auto print = [](const std::string& text) { std::fputs(text.c_str(), stdout); };
  for (std::size_t i = 0; i < std::min<std::size_t>(3, o.before.size()); ++i)
    print(str("\n--- prompt ", i + 1, ": ", wrap(o.before[i].prompt, width, ""), "\nbefore:\n",
              wrap(scored(o, i, false), width, "    "), "after:\n",
              wrap(scored(o, i, true), width, "    ")));
  print("\n");
  if (s.directly())
    print(str("The policy ", directly_in_words(s, read_metrics(s.run + "/metrics.csv")), ".\n"));
  else
    rewards.back().print();
  const Interval win = o.verdict.interval();
  const std::string pairs =
      o.verdict.n() > o.verdict.prompts() ? fixed(o.verdict.n(), 0) + " answers to " : "";
  print(str("win rate, after against before, ", pairs, fixed(o.verdict.prompts(), 0),
            " held-out prompts, judged by ", harmless(o.verdict.judge), ":\n  ",
            percent(o.verdict.rate()), "  (95 % interval ", fixed(100 * win.low, 1), " to ",
            fixed(100 * win.high, 1), ")\n"));
  print(wrap(o.shortcut.sentence(), std::min(width, 100), ""));
  if (!o.shortcut.before.parts.empty())
    print(wrap(parts_in_words(o.shortcut), std::min(width, 100), ""));
  print(str("KL(policy || first policy), exact: ", fixed(o.kl, 2), " nats per response\n"));
  print(str("perplexity of held-out stories: ", fixed(o.perplexity_before, 3), " before, ",
            fixed(o.perplexity_after, 3), " after\n"));
  for (Index round = 0; round < s.rounds && s.ppo.kl_budget > 0; ++round)
    print(str("round ", round + 1, ": ",
              best_in_words(best_of_round(s, read_metrics(s.run + "/metrics.csv"), round),
                            s.ppo.kl_budget),
              " (policy-best.safetensors)\n"));
  if (!std::isnan(o.ratio_first_minibatch))
    print(str("first-minibatch ratio: ", general(o.ratio_first_minibatch, 9),
              " (1 means the sampled log-probs are the trained ones, bit for bit)\n"));
  if (s.labeller != "person")
    print(str("The rankings were made by the rule `", rule_of(s.labeller).short_name(),
              "`, not by people.\n"));
}

std::string write_report(const AlignSettings& s, const std::string& title, const Outcome& o,
                         const std::vector<RewardReport>& rewards, const Json& results,
                         const Json& config) {
  Report report(str(title, ", ", trained_towards(s)),
                str("Plumb ", PLUMB_VERSION, ", ", kDeviceName, ", ", kPrecision));
  if (s.labeller != "person")
    report.add_notice(str("The rankings were made by a stated rule, “",
                          rule_of(s.labeller).short_name(),
                          "”, not by people. Its text: ", rule_of(s.labeller).text));
  const std::vector<MetricRow> rows = read_metrics(s.run + "/metrics.csv");
  add_alarms(report, s, rows);
  add_results(report, s, o, rewards, rows);
  add_shortcut(report, o.shortcut);
  if (s.directly())
    add_direct_charts(report, rows);
  else
    add_charts(report, s, rows, rewards);
  report.add_heading(str("Held-out prompts, before and after",
                         o.verdict.scored ? " (the judge's score in brackets)" : ""));
  std::vector<std::vector<std::string>> table;
  for (std::size_t i = 0; i < std::min<std::size_t>(12, o.before.size()); ++i)
    table.push_back({o.before[i].prompt, scored(o, i, false), scored(o, i, true)});
  report.add_samples({"Prompt", "Before", "After"}, table);
  report.add_details("Results", json_text(results, 2));
  report.add_details("Configuration", json_text(config, 2));
  std::string path = s.run + "/report.html";
  write_atomically(path, report.html());
  return path;
}

}}  // namespace plumb::v0_1
