// A computation whose result shows any difference in rounding, as one number. Each translation unit
// has its own copy (hence static); the inline functions of Plumb that it calls are shared by both,
// and the linker keeps either unit's.
#pragma once

#include <plumb/core/shape.hpp>

#include <cstdint>

static std::uint64_t compute() {
  return static_cast<std::uint64_t>(plumb::Shape{3, 5, 7}.size());
}
