// Sums, softmax and transposition of rows, groups of rows, a matrix with a row or column beside it.
#include <plumb/cpu/kernels.hpp>

#include "families/reduce.hpp"

int main(int argc, char** argv) {
  using cases::reduce::kTimed;
  families::add_row_sums<plumb::Cpu>(kTimed);
  families::add_softmax<plumb::Cpu>(kTimed);
  families::add_transpose<plumb::Cpu>(kTimed);
  families::add_groups<plumb::Cpu>(kTimed);
  families::add_beside<plumb::Cpu>(kTimed);
  families::add_argmax_and_pick<plumb::Cpu>(kTimed);
  return plumb::bench::run(argc, argv);
}
