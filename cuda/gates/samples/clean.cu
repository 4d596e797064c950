// A kernel without fault, in a namespace, a template, with static and dynamic shared memory.
namespace plumb { inline namespace v0_1 {
namespace kernels::gpu {
enum class Way { Forth, Back };

template <Way way, int kThreads>
__global__ void __launch_bounds__(kThreads) clean_kernel(float4* y, const float4* x) {
  __shared__ float4 part[kThreads];
  extern __shared__ __align__(16) float4 more[];
  part[threadIdx.x] = x[threadIdx.x];
  more[threadIdx.x] = x[threadIdx.x + kThreads];
  __syncthreads();
  const unsigned other = way == Way::Back ? kThreads - 1 - threadIdx.x : threadIdx.x ^ 1U;
  float4 sum = part[other];
  sum.x = fmaf(sum.x, more[other].y, __shfl_xor_sync(~0U, sum.y, 1));
  y[threadIdx.x] = sum;
}
}  // namespace kernels::gpu

void launch(float4* y, const float4* x) {
  kernels::gpu::clean_kernel<kernels::gpu::Way::Back, 128><<<1, 128, 2048>>>(y, x);
}
}}  // namespace plumb::v0_1

#define PLUMB_LAUNCHED(kernel, bytes, value) static_assert((bytes) == (value))
PLUMB_LAUNCHED("clean_kernel<(Way)1, 128>", 128 * sizeof(float4), 2048);
