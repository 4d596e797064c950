// Causal attention over packed sequences, forward and backward, and one step of decoding.
#include <plumb/cpu/kernels.hpp>

#include "families/attention.hpp"

int main(int argc, char** argv) {
  using namespace cases::attention;
  families::add_attention_forward<plumb::Cpu>(kTimed);
  families::add_attention_backward<plumb::Cpu>(kTimed);
  families::add_attention_decode<plumb::Cpu, float>("attention_decode", kTimedDecode);
  families::add_attention_decode<plumb::Cpu, plumb::bf16>("attention_decode_bf16", kTimedDecode);
  return plumb::bench::run(argc, argv);
}
