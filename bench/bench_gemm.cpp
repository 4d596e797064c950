// Matrix products: a linear layer's at the yardstick's sizes, GPT-2's head, and sizes one off.
#include <plumb/cpu/kernels.hpp>

#include "families/gemm.hpp"

int main(int argc, char** argv) {
  using namespace cases::gemm;
  using families::add_gemm;
  using families::add_gemm_packed;
  using plumb::bf16;
  using plumb::Cpu;
  using plumb::CpuBf16;
  add_gemm<Cpu>("gemm", kTimed);
  add_gemm<CpuBf16>("gemm_bf16", kTimedBf16);
  add_gemm_packed<Cpu, float>("gemm_packed", kTimedPacked);
  add_gemm_packed<CpuBf16, bf16>("gemm_packed_bf16", kTimedPacked);
  add_gemm_packed<Cpu, bf16>("gemm_packed_mixed", kTimedMixed);
  add_gemm<Cpu>("gemm_head", kTimedHead);
  add_gemm<CpuBf16>("gemm_head_bf16", kTimedBf16Head);
  add_gemm<Cpu>("gemm_odd", kTimedOdd);
  add_gemm<CpuBf16>("gemm_odd_bf16", kTimedOdd);
  add_gemm<Cpu>("gemm_odd", kTimedOddHead);
  return plumb::bench::run(argc, argv);
}
