// Plumb's version. CMake reads these three numbers; every name lives in the inline namespace v0_1,
// so that translation units built against two versions link without one silently using the other.
#pragma once

#define PLUMB_VERSION_MAJOR 0
#define PLUMB_VERSION_MINOR 1
#define PLUMB_VERSION_PATCH 0
#define PLUMB_VERSION "0.1.0"
