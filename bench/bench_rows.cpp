// Embedding forward and backward, sums over tokens, rotary positions.
#include <plumb/cpu/kernels.hpp>

#include "families/rows.hpp"

int main(int argc, char** argv) {
  families::add_embedding<plumb::Cpu>(cases::rows::kTimedEmbedding);
  families::add_sum_rows<plumb::Cpu>(cases::rows::kTimedSums);
  families::add_rope<plumb::Cpu>(cases::rows::kTimedRope);
  return plumb::bench::run(argc, argv);
}
