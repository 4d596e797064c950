// Plumb's version, and what it refuses to be compiled with. CMake reads the three numbers; every
// name lives in the inline namespace v0_1, so that translation units built against two versions
// link without one silently using the other.
//
// Every header includes this one first. What stops a compilation is a header that does not exist:
// after an #error compilers go on, and a hundred errors follow that say nothing of the cause.
#pragma once

#if __cplusplus < 202002L
#include "Plumb needs C++20. HINT: compile with -std=c++20 or later"
#elif defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || \
    defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || defined(__NO_SIGNED_ZEROS__)
#include "Plumb refuses -ffast-math, -Ofast and their parts. HINT: compile without such flags"
#endif

#define PLUMB_VERSION_MAJOR 0
#define PLUMB_VERSION_MINOR 1
#define PLUMB_VERSION_PATCH 0
#define PLUMB_VERSION "0.1.0"
