// RMSNorm and LayerNorm, forward and backward.
#include <plumb/cpu/kernels.hpp>

#include "families/norm.hpp"

int main(int argc, char** argv) {
  families::add_rms_norm<plumb::Cpu>(cases::norm::kTimed);
  families::add_layer_norm<plumb::Cpu>(cases::norm::kTimed);
  return plumb::bench::run(argc, argv);
}
