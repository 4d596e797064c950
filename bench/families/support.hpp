// What the families of kernels share. A family is a function that adds benchmarks of a device's
// kernels, found by the device's tag: bench_<family>.cpp calls it for the CPU, cuda/bench_cuda.cu
// for a GPU. The oracles are cpu/reference_*.hpp and cpu/double.hpp.
#pragma once

#include <plumb/core/device.hpp>
#include <plumb/core/shape.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace families {

using namespace plumb::bench;
using plumb::Cpu;
using plumb::Index;

/// What oracles read and write.
using Doubles = std::span<const double>;
using Results = std::span<double>;
using Ids = std::span<const std::int32_t>;

constexpr std::size_t at(Index i) { return static_cast<std::size_t>(i); }

}  // namespace families
