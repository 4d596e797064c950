// L-BFGS (Liu and Nocedal 1989): where a smooth convex function of some hundreds of numbers is
// least, in double. The two-loop recursion of Nocedal and Wright 2006, algorithm 7.4, begins from
// the scale of the last step; a step is halved until the function falls enough (Armijo). One thread
// computes everything in one order. What this is not: AdamW's rival; it needs the whole gradient,
// and a function without noise.
#pragma once

#include <plumb/core/check.hpp>

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

struct LbfgsConfig {
  Index steps = 500;        ///< at most
  Index history = 12;       ///< steps remembered
  double tolerance = 1e-7;  ///< ends where no element of the gradient is larger
};

/// Σ a[i]·b[i]: eight chains, element i in chain i mod 8, added by halves.
template <class A, class B>
double dot8(const A* a, const B* b, Index n) {
  double lane[8] = {};
  Index i = 0;
  for (; i + 8 <= n; i += 8)
    for (Index j = 0; j < 8; ++j)
      lane[j] += static_cast<double>(a[i + j]) * static_cast<double>(b[i + j]);
  for (Index j = 0; i < n; ++i, ++j)
    lane[j] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  for (const Index half : {4, 2, 1})
    for (Index j = 0; j < half; ++j) lane[j] += lane[j + half];
  return lane[0];
}

/// The point, beginning from `x`, at which `f` is least. f(x, gradient) returns the value at x and
/// sets the gradient, which has x's size.
template <class F>
std::vector<double> minimise(F f, std::vector<double> x, const LbfgsConfig& config = {}) {
  struct Pair {
    std::vector<double> step, change;
    double product;
  };
  const auto n = static_cast<Index>(x.size());
  const auto dot = [n](const std::vector<double>& a, const std::vector<double>& b) {
    return dot8(a.data(), b.data(), n);
  };
  const auto add = [](std::vector<double>& to, double factor, const std::vector<double>& more) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] += factor * more[i];
  };
  std::deque<Pair> pairs;
  std::vector<double> gradient(x.size()), next_gradient(x.size());
  double value = f(x, gradient);
  for (Index s = 0; s < config.steps; ++s) {
    double most = 0;
    for (const double g : gradient) most = std::max(most, std::abs(g));
    if (!(most > config.tolerance)) break;
    std::vector<double> direction = gradient, share(pairs.size());
    for (std::size_t i = pairs.size(); i-- > 0;) {
      share[i] = dot(pairs[i].step, direction) / pairs[i].product;
      add(direction, -share[i], pairs[i].change);
    }
    const double scale = pairs.empty()
                             ? 1 / std::max(1.0, std::sqrt(dot(gradient, gradient)))
                             : pairs.back().product / dot(pairs.back().change, pairs.back().change);
    for (double& d : direction) d *= -scale;
    for (std::size_t i = 0; i < pairs.size(); ++i)
      add(direction, -share[i] - dot(pairs[i].change, direction) / pairs[i].product, pairs[i].step);
    const double slope = dot(direction, gradient);
    double length = 1;
    std::vector<double> next = x;
    double next_value = std::numeric_limits<double>::infinity();
    for (int halvings = 0; halvings < 40; ++halvings, length /= 2) {
      next = x;
      add(next, length, direction);
      next_value = f(next, next_gradient);
      if (next_value <= value + 1e-4 * length * slope) break;
    }
    if (!(next_value < value)) break;  // what is left of the slope is rounding
    Pair pair{std::move(next), next_gradient, 0};
    x.swap(pair.step);  // pair.step: where we were
    for (std::size_t i = 0; i < x.size(); ++i) {
      pair.step[i] = x[i] - pair.step[i];
      pair.change[i] -= gradient[i];
    }
    pair.product = dot(pair.step, pair.change);
    gradient.swap(next_gradient);
    value = next_value;
    if (!(pair.product > 0)) continue;
    pairs.push_back(std::move(pair));
    if (static_cast<Index>(pairs.size()) > config.history) pairs.pop_front();
  }
  return x;
}

}}  // namespace plumb::v0_1
