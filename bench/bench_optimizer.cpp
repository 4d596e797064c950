// AdamW, gradient descent with momentum and Lion on one flat buffer, and the sum of squares that
// clipping needs.
#include <plumb/cpu/kernels.hpp>

#include "families/optimizer.hpp"

int main(int argc, char** argv) {
  using cases::optimizer::kTimed;
  families::add_adamw<plumb::Cpu>(kTimed);
  families::add_momentum<plumb::Cpu>(kTimed);
  families::add_sum_of_squares<plumb::Cpu>(kTimed);
  return plumb::bench::run(argc, argv);
}
