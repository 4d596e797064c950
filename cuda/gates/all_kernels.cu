// Every kernel of the CUDA backend, for the gate to compile: each host function is called once for
// each device tag and type that it takes. Never run; the arguments mean nothing. gate.py looks in
// the headers for kernels that this file forgets.
#include <plumb/cuda/gemm_vendor.cuh>
#include <plumb/cuda/kernels.cuh>

using namespace plumb;

namespace {

/// Stands for any array.
struct Any {
  void* address;
  template <class T>
  operator T*() const {
    return static_cast<T*>(address);
  }
};

void elementwise(Cuda d, Any x, Index n) {
  accumulate(d, x, x, 1.0F, n);
  accumulate_by(d, x, x, x, n);
  const Operand<float> operand{x, n, 1};
  assign(d, x, n, operand, 1.0F, true, n, n);
  combine_forward(d, x, operand, operand, Arithmetic::Add, n, n);
  combine_backward(d, x, x, operand, operand, Arithmetic::Add, true, n, n);
  shift_forward(d, x, x, 1.0F, n);
  clamp_forward(d, x, x, 0.0F, 1.0F, n);
  clamp_backward(d, x, x, x, 0.0F, 1.0F, n);
  scale_forward(d, x, x, 1.0F, n);
  activation_forward(d, x, x, Activation::Gelu, n);
  activation_backward(d, x, x, x, Activation::Gelu, n);
  swiglu_forward(d, x, x, x, n);
  swiglu_backward(d, x, x, x, x, x, n);
  function_forward(d, x, x, Function::Exp, n);
  function_backward(d, x, x, x, Function::Exp, n);
}

void reductions(Cuda d, Any x, Index n) {
  row_sums(d, x, x, n, n, true);
  argmax_rows(d, x, x, n, n);
  softmax_rows(d, x, x, n, n, true);
  softmax_rows_backward(d, x, x, x, n, n, true);
  pick_forward(d, x, x, x, n, n);
  pick_backward(d, x, x, x, n, n);
  transpose(d, x, x, n, n, n);
  group_sums(d, x, x, x, n, n);
  group_sums_backward(d, x, x, x, n, n);
  group_logsumexp(d, x, x, x, n, n);
  group_logsumexp_backward(d, x, x, x, x, x, n, n);
}

void rows(Cuda d, Any x, Index n) {
  embedding_forward(d, x, x, x, n, n);
  embedding_backward(d, x, x, x, n, n, n);
  sum_rows(d, x, x, n, n);
  rope_forward(d, x, x, x, x, x, n, n, n);
  rope_backward(d, x, x, x, x, x, n, n, n);
  rms_norm_forward(d, x, x, x, x, n, n, 1.0F);
  rms_norm_backward(d, x, x, x, x, x, x, n, n);
  layer_norm_forward(d, x, x, x, x, x, x, n, n, 1.0F);
  layer_norm_backward(d, x, x, x, x, x, x, x, x, n, n);
}

void training(Cuda d, Any x, Index n) {
  ppo_policy_loss(d, x, x, x, x, x, x, x, n, PpoClip{});
  ppo_value_loss(d, x, x, x, x, x, x, x, n, 1.0F);
  weighted_sum(d, x, x, x, n);
  segment_sum(d, x, x, x, x, n);
  segment_spread(d, x, x, x, x, n);
  kl_loss(d, x, x, x, x, x, n, KlEstimator::K3);
  kto_loss(d, x, x, x, x, x, n, 1.0F);
  log_odds_forward(d, x, x, n);
  log_odds_backward(d, x, x, x, n);
  ranking_loss(d, x, x, x, x, x, x, x, x, n, RankingLoss{});
  adamw_update(d, x, x, x, x, n, AdamWStep{});
  sgd_update(d, x, x, x, n, SgdStep{});
  lion_update(d, x, x, x, n, LionStep{});
  sum_of_squares(d, x, n);
  sample_rows(d, x, x, x, n, n, SamplingSettings{}, x);
}

void attention(Cuda d, Any x, Index n, KvShape shape) {
  attention_forward(d, x, x, x, x, x, x, x, n, n, n, shape.attention);
  attention_backward(d, x, x, x, x, x, x, x, x, x, x, x, n, n, n, shape.attention);
  const auto cache = [&]<class T>(T* of) {
    kv_append(d, of, of, x, x, x, x, n, shape);
    kv_copy(d, of, of, n, n, n, shape);
    attention_cached_forward(d, x, x, of, of, x, x, n, shape);
  };
  cache(static_cast<float*>(x));
  cache(static_cast<bf16*>(x));
}

/// What differs by the device's tag.
template <class D>
void products(D d, Any x, Index n) {
  float* f = x;
  matmul(d, f, f, f, n, n, n, Form::NN);
  matmul_batched(d, f, f, f, n, n, n, n, Form::NN, true);
  head_logprob_forward(d, f, f, f, f, f, x, n, n, n, 1.0F);
  head_logprob_backward(d, f, f, f, f, f, f, x, f, f, n, n, n, 1.0F);
  head_kl_forward(d, f, f, f, n, f, f, n, n, n, 1.0F);
  quantize_rows(d, static_cast<std::int8_t*>(x), f, f, n, n);
  expand_rows(d, f, static_cast<std::int8_t*>(x), f, n, n);
  const auto packed = [&]<class T>(T* weights) {
    pack_matrix(d, weights, f, n, n);
    unpack_matrix(d, f, weights, n, n);
    matmul_packed(d, f, f, weights, n, n, n);
  };
  if constexpr (!rounds_products<D>) packed(f);
  packed(static_cast<bf16*>(x));
}

}  // namespace

void all_kernels(Cuda d, void* x, Index n, KvShape shape) {
  elementwise(d, Any{x}, n);
  reductions(d, Any{x}, n);
  rows(d, Any{x}, n);
  training(d, Any{x}, n);
  attention(d, Any{x}, n, shape);
  products(d, Any{x}, n);
  products(CudaBf16{d}, Any{x}, n);
  products(CudaTensorCore{d}, Any{x}, n);
  products(CudaTf32{d}, Any{x}, n);
  products(CudaVendor{d}, Any{x}, n);
}

// Dynamic shared memory, in bytes, of the kernels that have any: no report of the compiler's has
// it.
#define PLUMB_LAUNCHED(kernel, bytes, value) static_assert((bytes) == (value))
namespace gpu = plumb::kernels::gpu;
PLUMB_LAUNCHED("attention_forward_kernel<32>", gpu::ForwardTile<32>::kBytes, 28672);
PLUMB_LAUNCHED("attention_forward_kernel<64>", gpu::ForwardTile<64>::kBytes, 45056);
PLUMB_LAUNCHED("attention_forward_kernel<128>", gpu::ForwardTile<128>::kBytes, 61440);
PLUMB_LAUNCHED("attention_forward_kernel<256>", gpu::ForwardTile<256>::kBytes, 55808);
PLUMB_LAUNCHED("attention_dq_kernel<32>", gpu::QueryGradientTile<32>::kBytes, 37888);
PLUMB_LAUNCHED("attention_dq_kernel<64>", gpu::QueryGradientTile<64>::kBytes, 62464);
PLUMB_LAUNCHED("attention_dq_kernel<128>", gpu::QueryGradientTile<128>::kBytes, 56320);
PLUMB_LAUNCHED("attention_dq_kernel<256>", gpu::QueryGradientTile<256>::kBytes, 89088);
PLUMB_LAUNCHED("attention_dkv_kernel<32>", gpu::KeyGradientTile<32>::kBytes, 28672);
PLUMB_LAUNCHED("attention_dkv_kernel<64>", gpu::KeyGradientTile<64>::kBytes, 45056);
PLUMB_LAUNCHED("attention_dkv_kernel<128>", gpu::KeyGradientTile<128>::kBytes, 77824);
PLUMB_LAUNCHED("attention_dkv_kernel<256>", gpu::KeyGradientTile<256>::kBytes, 85760);
