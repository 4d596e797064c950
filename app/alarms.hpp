// What goes wrong in a training that does not fail: each said once, while it runs and in the
// report, with what to do. Looked for in the metrics alone, so that a run that was resumed, and a
// report that is written later, say the same. Not here: what a judge says (run_report.hpp).
#pragma once

#include "format.hpp"

#include <plumb/run/metrics.hpp>

#include <cmath>
#include <set>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

class Alarms {
 public:
  /// What iteration `i`'s metrics show that was not shown before; the first to be shown are those
  /// that later ones are compared with.
  std::vector<std::string> watch(Index i, const Metrics& row) {
    std::vector<std::string> now;
    const auto value = [&](const char* name) { return metric(row, name); };
    const auto sound = [&](const char* kind, bool rings, const std::string& what) {
      if (rings && said_.insert(kind).second) now.push_back(str("iteration ", i, ": ", what));
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
    return now;
  }

 private:
  static constexpr double kKlPerToken = 0.5, kEntropyLeft = 0.1, kAgreeing = 0.9, kDistinct = 0.5;
  double first_length_ = std::nan(""), first_entropy_ = std::nan("");
  std::set<std::string> said_;
};

}}  // namespace plumb::v0_1
