// A kernel that cannot but spill: 64 values live at once in 32 registers. The gate must refuse it.
static __global__ void __launch_bounds__(1024, 2) spilling_kernel(float* x, int n) {
  float held[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) held[i] = x[i * 1024 + threadIdx.x];
  for (int round = 0; round < n; ++round)
#pragma unroll
    for (int i = 0; i < 64; ++i) held[i] = fmaf(held[i], held[(i + 17) % 64], held[(i + 5) % 64]);
#pragma unroll
  for (int i = 0; i < 64; ++i) x[i * 1024 + threadIdx.x] = held[i];
}

void launch(float* x, int n) { spilling_kernel<<<1, 1024>>>(x, n); }
