// What can be said of one run of a rung, by whoever runs it: the emulator counts its accesses
// (measure_emulated.cpp), a GPU takes its time (measure_device.cpp). The program is linked with one
// of the two.
#pragma once

#include <plumb/core/check.hpp>

#include <functional>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 { namespace ladder {

/// What is worth running: small in the emulator, large on a GPU.
struct Sizes {
  Index gemm;  ///< M = N = K
  Index softmax_rows, softmax_width;
  Index attention;  ///< positions, of head size 64
  Index sum;
};
Sizes sizes();

/// A run's work by its definition, not as a rung does it.
struct Work {
  double flops;
  double bytes;  ///< read or written at least once
  bool tensor_core = false;
};

/// Says on what the rungs run, and what the numbers are and are not. Empty if there is nothing to
/// run on.
std::string how();
/// The headings of what measure() returns.
std::vector<std::string> headings();
/// One cell for each heading.
std::vector<std::string> measure(const std::function<void()>& run, const Work& work);

}}}  // namespace plumb::v0_1::ladder
