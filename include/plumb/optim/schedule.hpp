// Learning-rate schedules: plain functions of the update's number.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/core/real.hpp>

namespace plumb { inline namespace v0_1 {

/// Linear from `lr` at update 0 to zero at update `total` (lm-human-preferences, TRL).
inline float linear_schedule(float lr, Index update, Index total) {
  if (total <= 0 || update >= total) return 0.0F;
  return lr * (1.0F - static_cast<float>(update) / static_cast<float>(total));
}

/// Rises in a line over the first `warmup` updates, lr at the last of them; then lr. What other
/// schedules are multiplied by, for a start as gentle.
inline float warmup_schedule(float lr, Index update, Index warmup) {
  if (update + 1 >= warmup) return lr;
  return lr * (static_cast<float>(update + 1) / static_cast<float>(warmup));
}

/// Half a cosine from `lr` at update 0 to `last` at update `total` (Loshchilov and Hutter 2017,
/// "SGDR", without restarts).
inline float cosine_schedule(float lr, Index update, Index total, float last = 0.0F) {
  if (total <= 0 || update >= total) return last;
  const double turn = 3.14159265358979323846 * static_cast<double>(update);
  const double half = (1.0 + real::cos(turn / static_cast<double>(total))) / 2.0;
  return static_cast<float>(double{last} + (double{lr} - double{last}) * half);
}

}}  // namespace plumb::v0_1
