// What the tests of the PTX way share: arrays on the device, and a main() that skips where there is
// none.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

/// An array in device memory for the length of a scope.
template <class T>
struct Device {
  explicit Device(std::size_t n) : size(n) {
    REQUIRE(cudaMalloc(&data, n * sizeof(T)) == cudaSuccess);
  }
  explicit Device(const std::vector<T>& host) : Device(host.size()) {
    REQUIRE(cudaMemcpy(data, host.data(), size * sizeof(T), cudaMemcpyHostToDevice) == cudaSuccess);
  }
  ~Device() { cudaFree(data); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  std::vector<T> host() const {
    std::vector<T> values(size);
    REQUIRE(cudaMemcpy(values.data(), data, size * sizeof(T), cudaMemcpyDeviceToHost) ==
            cudaSuccess);
    return values;
  }
  operator T*() const { return data; }

  T* data = nullptr;
  std::size_t size;
};

/// Equal bits, or two NaN: the payload of a computed NaN is open.
template <class T>
bool same_bits(const T& a, const T& b) {
  if constexpr (std::is_floating_point_v<T>)
    if (a != a || b != b) return a != a && b != b;
  return std::memcmp(&a, &b, sizeof a) == 0;
}

int main(int argc, char** argv) {
  int devices = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&devices);
      error != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device (%s)\n", cudaGetErrorString(error));
    return 77;
  }
  return doctest::Context(argc, argv).run();
}
