// Learning-rate schedules: plain functions of the update's number.
#pragma once

#include <plumb/core/check.hpp>

namespace plumb { inline namespace v0_1 {

/// Linear from `lr` at update 0 to zero at update `total` (lm-human-preferences, TRL).
inline float linear_schedule(float lr, Index update, Index total) {
  if (total <= 0 || update >= total) return 0.0F;
  return lr * (1.0F - static_cast<float>(update) / static_cast<float>(total));
}

}}  // namespace plumb::v0_1
