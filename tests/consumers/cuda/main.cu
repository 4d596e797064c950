// The same inline functions and kernels as other.cu: two files must link, and without a GPU the
// error must say so.
#include <plumb/core/tensor.hpp>
#include <plumb/cuda/norm.cuh>

#include <cmath>
#include <cstdio>
#include <string_view>

float other(float x);

int main() try {
  using namespace plumb;
  const auto x = Tensor<Cuda>::from({3.0F, 4.0F}, {1, 2}), weight = Tensor<Cuda>::from({1, 1}, {2});
  auto y = Tensor<Cuda>::empty({1, 2}), rstd = Tensor<Cuda>::empty({1});
  rms_norm_forward(Cuda{}, y.data(), rstd.data(), x.data(), weight.data(), 1, 2, 0.0F);
  const float expected = 3.0F / std::sqrt(12.5F), got = y.to_vector()[0];
  std::printf("on a GPU: %g, expected %g\n", static_cast<double>(got),
              static_cast<double>(expected));
  return std::abs(got - expected) < 1e-6F && std::abs(other(2.0F) - 2.0F) < 1e-6F ? 0 : 1;
} catch (const plumb::CudaError& error) {
  std::printf("%s\n", error.what());
  return std::string_view(error.what()).find("HINT: this needs an NVIDIA GPU") ==
                 std::string_view::npos
             ? 1
             : 0;
}
