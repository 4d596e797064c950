// What goes wrong in a training that does not fail: each said once, while it runs and in the
// report, with what to do. Looked for in the metrics alone, so that a run that was resumed, and a
// report that is written later, say the same. Not here: what a judge says (run_report.hpp).
#pragma once

#include "format.hpp"

#include <plumb/run/metrics.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// Whether the score that is trained for still rises while the judge of the same responses falls:
/// by means over the last kWindow rows, against those of the window where the judge was highest.
/// Noise is that of one row to the next, half its mean squared step, which no trend inflates.
class Parting {
 public:
  struct Window {
    Index end = 0;  ///< its last row
    double score = 0, judge = 0;
  };
  Window best, now;

  /// Takes row `i`. Whether the score is above all earlier windows and, by more than kRise standard
  /// errors, above the best one's, and the judge below it by more than kFall.
  bool watch(Index i, double score, double judge) {
    if (!std::isfinite(score) || !std::isfinite(judge)) return false;
    if (!rows_.empty()) {
      const double up = score - rows_.back().score, down = judge - rows_.back().judge;
      score_steps_ += up * up;
      judge_steps_ += down * down;
    }
    rows_.push_back({i, score, judge});
    const std::size_t n = rows_.size();
    if (n < kWindow) return false;
    now = {i, 0, 0};
    for (std::size_t k = n - kWindow; k < n; ++k) {
      now.score += rows_[k].score / kWindow;
      now.judge += rows_[k].judge / kWindow;
    }
    const auto error = [&](double steps) {  // of a difference of two windows
      return std::sqrt(steps / static_cast<double>(n - 1) / kWindow);
    };
    const bool rings = n - best_rows_ >= kWindow && best_rows_ > 0 && now.score > highest_score_ &&
                       now.score > best.score + kRise * error(score_steps_) &&
                       now.judge < best.judge - kFall * error(judge_steps_);
    highest_score_ = std::max(highest_score_, now.score);
    if (best_rows_ == 0 || now.judge > best.judge) {
      best = now;
      best_rows_ = n;
    }
    return rings;
  }

 private:
  static constexpr std::size_t kWindow = 5;
  static constexpr double kRise = 3, kFall = 3.5;  // the judge's best is the highest of many
  std::vector<Window> rows_;
  std::size_t best_rows_ = 0;  // rows by the end of the best window; 0: none yet
  double score_steps_ = 0, judge_steps_ = 0;
  double highest_score_ = -std::numeric_limits<double>::infinity();
};

class Alarms {
 public:
  /// `step`: what a row of the metrics is called.
  explicit Alarms(std::string step = "iteration") : step_(std::move(step)) {}

  /// What iteration `i`'s metrics show that was not shown before; the first to be shown are those
  /// that later ones are compared with.
  std::vector<std::string> watch(Index i, const Metrics& row) {
    std::vector<std::string> now;
    const auto value = [&](const char* name) { return metric(row, name); };
    const auto sound = [&](const char* kind, bool rings, const std::string& what) {
      if (rings && said_.insert(kind).second) now.push_back(str(step_, " ", i, ": ", what));
    };
    const double length = value("response/length"), entropy = value("policy/entropy_avg");
    if (std::isnan(first_length_)) first_length_ = length;
    if (std::isnan(first_entropy_)) first_entropy_ = entropy;
    const double exact = value("objective/kl_exact");
    const double kl = std::isnan(exact) ? value("objective/kl") : exact;
    const double off = value("val/ratio_first_minibatch_max_deviation");
    sound("ratio", off != 0 && !std::isnan(off),
          str("the first ratios are up to ", general(off, 3),
              " from 1: the responses were not drawn from the policy that is trained"));
    sound("gap", std::abs(value("objective/kl_gap_z")) > 4,
          str("sampled and exact KL differ by ", fixed(value("objective/kl_gap_z"), 1),
              " standard errors: responses are not drawn from the policy's own distribution"));
    sound("kl", kl > kKlPerToken * length,
          str("the policy is ", fixed(kl, 1), " nats a response from its reference, more than ",
              general(kKlPerToken, 3), " a token: raise beta, or take fewer iterations"));
    sound("entropy", entropy < kEntropyLeft * first_entropy_,
          str("the entropy of a token has fallen from ", fixed(first_entropy_, 3), " to ",
              fixed(entropy, 3), " nats: the policy says one thing. Raise beta or entropy-coef"));
    sound("length", length > 2 * first_length_ || length < first_length_ / 2,
          str("responses have ", fixed(length, 0), " tokens, where the first had ",
              fixed(first_length_, 0), ": see whether length is what is rewarded"));
    sound("agree", value("group/agreeing") > kAgreeing,
          str("in ", percent(value("group/agreeing")),
              " of the groups all scores are equal, and these teach nothing: more responses to a "
              "prompt, or harder prompts"));
    sound("repeats", value("response/distinct") < kDistinct,
          str("only ", percent(value("response/distinct")),
              " of the responses to a prompt differ from one another"));
    const bool parts = parting_.watch(i, value("objective/scores"), value("judge/total"));
    sound("parting", parts, parting_in_words());
    return now;
  }

 private:
  std::string parting_in_words() const {
    const Parting::Window &then = parting_.best, &now = parting_.now;
    return str("since ", step_, " ", then.end, " the score has risen from ", fixed(then.score, 2),
               " to ", fixed(now.score, 2), " while the judge's has fallen from ",
               fixed(then.judge, 2), " to ", fixed(now.judge, 2),
               ": what is learned is the reward model's error. Take a fresh round of rankings, "
               "raise beta, or keep the best policy (kl-budget)");
  }

  static constexpr double kKlPerToken = 0.5, kEntropyLeft = 0.1, kAgreeing = 0.9, kDistinct = 0.5;
  std::string step_;
  double first_length_ = std::nan(""), first_entropy_ = std::nan("");
  Parting parting_;
  std::set<std::string> said_;
};

}}  // namespace plumb::v0_1
