// The smallest program that uses Plumb, and each consumer builds it in its own way: one layer, one
// loss, one gradient. Prints a hash of the result's bits.
#include <plumb/plumb.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>

int main() {
  using namespace plumb;
  const auto x = Tensor<Cpu>::from({1, 2, 3, 4, 5, 6}, {2, 3});
  const auto w = Tensor<Cpu>::from({0.1F, -0.2F, 0.15F}, {1, 3});
  const auto ones = Tensor<Cpu>::from({1, 1}, {2});
  w.set_requires_grad(true);
  Tape tape;
  const auto loss = weighted_sum(plumb::tanh(linear(x, w)).reshape({2}), ones);
  tape.backward(loss);

  std::uint64_t hash = 14695981039346656037U;  // FNV-1a
  const auto gradient = w.grad_tensor().to_vector();
  for (const float value : gradient)
    hash = (hash ^ std::bit_cast<std::uint32_t>(value)) * 1099511628211U;
  std::printf("plumb %s: loss %.6f, gradient hash %016llx\n", PLUMB_VERSION,
              static_cast<double>(loss.item()), static_cast<unsigned long long>(hash));
  const double exact = std::tanh(0.15) + std::tanh(0.3);
  return std::abs(static_cast<double>(loss.item()) - exact) < 1e-6 ? 0 : 1;
}
