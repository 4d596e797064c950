// The CUDA kernels, by the families that bench_*.cpp times on the CPU. Built by nvcc, on a GPU:
// time by events against the part's datasheet, matrix products beside cuBLAS in the same run. Built
// for the emulator: what each call reads, stores and moves, counted; nothing is timed. Either way
// each case is held to its oracle first. Without a GPU the former says so and measures nothing.
#include <plumb/cpu/kernels.hpp>
#include <plumb/cuda/bench.cuh>
#include <plumb/cuda/gemm_vendor.cuh>
#include <plumb/cuda/kernels.cuh>

#include <cmath>
#include <cstring>
#include <vector>

#include "families/attention.hpp"
#include "families/elementwise.hpp"
#include "families/gemm.hpp"
#include "families/head.hpp"
#include "families/norm.hpp"
#include "families/optimizer.hpp"
#include "families/reduce.hpp"
#include "families/rows.hpp"

using namespace families;
using plumb::Cuda;

namespace {

/// The cases for a GPU, or the few that the emulator gets through.
template <class Case>
std::vector<Case> sized(std::vector<Case> on_gpu, std::vector<Case> counted) {
  return kCounted ? counted : on_gpu;
}

/// The nearest tf32: 11 bits, ties away from zero.
constexpr auto as_tf32 = [](double x) {
  const auto value = static_cast<float>(x);
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits = (bits + 0x1000U) & ~0x1FFFU;
  float rounded;
  std::memcpy(&rounded, &bits, sizeof rounded);
  return static_cast<double>(rounded);
};

void add_products() {
  using cases::gemm::Case;
  const auto sizes = sized<Case>({{Form::NT, 1, 768, 3072},
                                  {Form::NT, 16, 768, 3072},
                                  {Form::NT, 512, 768, 3072},
                                  {Form::NT, 2048, 3072, 768},
                                  {Form::NT, 4096, 4096, 4096},
                                  {Form::NT, 2048, 50257, 768},
                                  {Form::NN, 2048, 768, 3072},
                                  {Form::TN, 3072, 768, 2048}},
                                 {{Form::NT, 1, 128, 256},
                                  {Form::NT, 128, 128, 256},
                                  {Form::NN, 128, 128, 256},
                                  {Form::TN, 128, 128, 256}});
  if (!kCounted) {  // the emulator's cuBLAS is no kernel of anybody's
    add_gemm<plumb::CudaVendor>("gemm_cublas", sizes,
                                Precision<decltype(as_it_is)>{as_it_is, false, false, false, 4});
    for (const char* name : {"gemm", "gemm_tf32", "gemm_tensor_core"}) beside(name, "gemm_cublas");
  }
  add_gemm<Cuda>("gemm", sizes);
  add_gemm<plumb::CudaTf32>("gemm_tf32", sizes,
                            Precision<decltype(as_tf32)>{as_tf32, false, true, true, 4});
  add_gemm<plumb::CudaTensorCore>("gemm_tensor_core", sizes,
                                  Precision<decltype(as_bf16)>{as_bf16, true, false, true, 4});
}

void add_streams() {
  const auto elements = sized<Index>({4096 * 768, 4096 * 1024 + 1}, {8192});
  add_sums<Cuda>(elements);
  add_gelu<Cuda>(elements);
  add_swiglu<Cuda>(elements);
  add_functions<Cuda>(elements);
  const auto norms = sized<cases::norm::Case>({{4096, 768}, {4095, 257}}, {{64, 256}});
  add_rms_norm<Cuda>(norms);
  add_layer_norm<Cuda>(norms);
  const auto matrices = sized<cases::reduce::Case>({{4096, 768}, {1024, 50257}}, {{32, 512}});
  add_row_sums<Cuda>(matrices);
  add_softmax<Cuda>(matrices);
  add_transpose<Cuda>(matrices);
  add_groups<Cuda>(matrices);
  add_argmax_and_pick<Cuda>(matrices);
  const auto tables = sized<cases::rows::Case>({{4096, 768, 50257}}, {{64, 256, 128}});
  add_embedding<Cuda>(tables);
  add_sum_rows<Cuda>(tables);
  add_rope<Cuda>(sized<cases::rows::Rope>({{4096, 12, 64}}, {{64, 4, 32}}));
  const auto parameters = sized<cases::optimizer::Case>({{16'777'216}}, {{8192}});
  add_adamw<Cuda>(parameters);
  add_momentum<Cuda>(parameters);
}

constexpr auto kCountedLengths = cases::attention::each<2>(64);

void add_heads_and_attention() {
  using cases::head::Case;
  const auto heads = sized<Case>({{1024, 768, 50257, 1.0F}}, {{32, 64, 512, 1.0F}});
  add_head_forward<Cuda>(heads);
  add_head_backward<Cuda>(heads);
  add_head_rows_forward<Cuda>(heads);
  const auto packed = sized<cases::attention::Case>(
      {{"B4H12T256D64", cases::attention::k4x256, cases::attention::kHeads12},
       {"B4H12T1024D64", cases::attention::k4x1024, cases::attention::kHeads12},
       {"ragged/B10H8D32", cases::attention::kRagged, cases::attention::kHeads8},
       {"B1H1T4096D64", cases::attention::k1x4096, cases::attention::kHead1}},
      {{"B2H2T64D32", kCountedLengths, {2, 2, 32, 0.17677670F}}});
  add_attention_forward<Cuda>(packed);
  add_attention_backward<Cuda>(packed);
  const auto decoded = sized<cases::attention::Decode>(
      {{1, 1024, cases::attention::kHeads12}, {64, 1024, cases::attention::kGrouped}},
      {{2, 64, {2, 2, 32, 0.17677670F}}});
  add_attention_decode<Cuda, float>("attention_decode", decoded);
}

}  // namespace

int main(int argc, char** argv) {
  add_products();
  add_streams();
  add_heads_and_attention();
  return plumb::bench::run(argc, argv);
}
