// What the tests of CUDA kernels share: one call run on the CPU and on the device, and their bits
// compared.
#pragma once

#include <plumb/core/tensor.hpp>
#include <plumb/cpu/kernels.hpp>

#include <doctest/doctest.h>

#include <deque>
#include <string>
#include <vector>

#include "support.hpp"

namespace test {

/// Arrays of one device: inputs, and outputs that are read back after the call.
template <class D>
class Arrays {
 public:
  const float* in(const std::vector<float>& values) { return put(inputs_, values); }
  const std::int32_t* in(const std::vector<std::int32_t>& values) { return put(ids_, values); }
  /// An array that the call writes, or adds to.
  float* out(const std::vector<float>& start) { return put(outputs_, start); }
  float* out(Index n, float start = 0.0F) {
    return out(std::vector<float>(static_cast<std::size_t>(n), start));
  }
  std::vector<std::vector<float>> results() const {
    std::vector<std::vector<float>> all;
    for (const auto& tensor : outputs_) all.push_back(tensor.to_vector());
    return all;
  }

 private:
  template <class T>
  static T* put(std::deque<plumb::Tensor<D, T>>& list, const std::vector<T>& values) {
    list.push_back(plumb::Tensor<D, T>::from(values, {static_cast<Index>(values.size())}));
    return list.back().data();
  }

  std::deque<plumb::Tensor<D>> inputs_, outputs_;
  std::deque<plumb::Tensor<D, std::int32_t>> ids_;
};

/// Checks that call(device, arrays) gives the same bits on the CPU and on `device`.
template <class D, class Call>
void check_same_bits(D device, Call call) {
  Arrays<plumb::Cpu> on_cpu;
  Arrays<D> on_device;
  call(plumb::Cpu{}, on_cpu);
  call(device, on_device);
  const auto expected = on_cpu.results(), got = on_device.results();
  REQUIRE(expected.size() == got.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    std::size_t at = 0;
    while (at < got[i].size() && std::memcmp(&expected[i][at], &got[i][at], sizeof(float)) == 0)
      ++at;
    if (at == got[i].size()) continue;
    CHECK_MESSAGE(false, "output ", i, " differs first at element ", at, " of ", got[i].size(),
                  ": ", got[i][at], ", on the CPU ", expected[i][at]);
  }
  CHECK(expected.size() == got.size());  // counts the comparison
}

inline std::vector<std::int32_t> random_ids(Index n, Index v, std::uint64_t seed) {
  plumb::Rng rng(seed);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(n));
  for (auto& id : ids) id = static_cast<std::int32_t>(rng.below(static_cast<std::uint32_t>(v)));
  return ids;
}

}  // namespace test
