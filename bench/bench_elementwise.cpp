// One pass over n elements: activations and their derivatives, sums, arithmetic, elementary
// functions.
#include <plumb/cpu/kernels.hpp>

#include "families/elementwise.hpp"

int main(int argc, char** argv) {
  using cases::elementwise::kTimedSizes;
  families::add_sums<plumb::Cpu>(kTimedSizes);
  families::add_gelu<plumb::Cpu>(kTimedSizes);
  families::add_swiglu<plumb::Cpu>(kTimedSizes);
  families::add_functions<plumb::Cpu>(kTimedSizes);
  return plumb::bench::run(argc, argv);
}
