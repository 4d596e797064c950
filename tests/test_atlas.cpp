// The atlas's exact cases, row by row, with the trainers that it shows: what `plumb atlas` prints.
#include "../app/atlas.hpp"

#include <doctest/doctest.h>

#include <cstdlib>
#include <map>

using namespace plumb;

namespace {

// Under a sanitizer: that it runs.
bool in_brief() { return std::getenv("PLUMB_TEST_SANITIZED") != nullptr; }

std::map<std::string, atlas::GradientRow> by_method(const std::vector<atlas::GradientRow>& rows) {
  std::map<std::string, atlas::GradientRow> out;
  for (const auto& row : rows) out[row.method] = row;
  return out;
}

}  // namespace

TEST_CASE("atlas: every method comes to rest where it should") {
  const auto rows = atlas::rests(in_brief());
  CHECK(rows.size() == choices(PolicyMethod{}).size() + std::size(atlas::kVariants) + 1);
  for (const atlas::Rest& row : rows) {
    CAPTURE(row.method);
    CHECK((row.holds || in_brief()));
    CHECK(row.distance < 0.5);
  }
  const auto sequences = atlas::sequence_rests(in_brief());
  for (const atlas::Rest& row : sequences) {
    CAPTURE(row.method);
    CHECK((row.holds || in_brief()));
    const bool whole = row.method == "ppo" || row.method == "rloo" || row.method == "reinforce++";
    CHECK((row.from_optimum < 1e-9) == whole);
  }
}

TEST_CASE(
    "atlas: a sampled gradient is what the method's expectation says, or the reason is known") {
  auto rows = by_method(atlas::gradients(in_brief()));
  if (in_brief()) return;
  // The others' mean is independent of a response, and the divergence is the whole's: no bias.
  CHECK(rows.at("rloo").low == 0.0);
  CHECK(rows.at("rloo").bias < 0.05);
  // A group of 8's own mean takes an eighth off the reward, and not off the divergence.
  CHECK(rows.at("dr-grpo").low > rows.at("dr-grpo").own);
  // Means over each response first lean towards short ones, and k3 towards the reference's support.
  CHECK(rows.at("grpo").low > 0.5);
  CHECK(rows.at("gspo").low > 0.5);
}

TEST_CASE("atlas: weights by sequence make up for another sampler, by token they do not") {
  auto rows = by_method(atlas::corrected_gradients(in_brief()));
  if (in_brief()) return;
  CHECK(rows.at("by sequence, no cap").low == 0.0);
  CHECK(rows.at("by token, no cap").low > 0.2);
  CHECK(rows.at("by token, no cap").high < rows.at("recompute").low);
  CHECK(rows.at("by sequence, no cap").variance > 2 * rows.at("by token, no cap").variance);
}

TEST_CASE("atlas: the proxy's law is fitted to what is true") {
  const auto curves = atlas::goodhart(true);
  REQUIRE(curves.size() == 2);
  for (const atlas::GoodhartCurve& curve : curves) {
    CHECK(curve.root_kl.front() < 1e-6);
    CHECK(std::abs(curve.truth.front()) < 1e-9);  // of the reference, by definition
    CHECK(curve.proxy.back() > curve.truth.back());
    for (std::size_t i = 1; i < curve.proxy.size(); ++i)
      if (curve.best_of_n) CHECK(curve.proxy[i] >= curve.proxy[i - 1] - 1e-12);
    // The fit is the least squares: no other α is better.
    const auto error = [&](double alpha) {
      double sum = 0;
      for (std::size_t i = 0; i < curve.root_kl.size(); ++i) {
        const double d = curve.root_kl[i];
        if (d < 0.05) continue;
        const double law = d * (alpha - curve.beta * (curve.best_of_n ? d : std::log(d)));
        sum += (curve.truth[i] - law) * (curve.truth[i] - law);
      }
      return sum;
    };
    CHECK(error(curve.alpha) < error(curve.alpha + 0.01));
    CHECK(error(curve.alpha) < error(curve.alpha - 0.01));
  }
}
