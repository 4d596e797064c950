// What the kernels that are bound by memory move, counted by the emulator's tracer: bytes of global
// memory as stated here per element, in whole sectors. Products: test_emulated_gemm_traffic.cu. For
// traced programs only.
//
// Bytes are counted as requested by threads: what 32 lanes read from one place counts 32 times, and
// a row that is read again counts again, although a GPU finds it in a cache.
#include <plumb/core/tensor.hpp>
#include <plumb/cuda/elementwise.cuh>
#include <plumb/cuda/gemm.cuh>
#include <plumb/cuda/head.cuh>
#include <plumb/cuda/norm.cuh>
#include <plumb/cuda/optimizer.cuh>
#include <plumb/cuda/reduce.cuh>
#include <plumb/cuda/sampling.cuh>

#include <doctest/doctest.h>

#include <cstdio>
#include <vector>

#include "traffic.hpp"

using namespace plumb;

namespace {

constexpr Index kRows = 64,
                kColumns = 256;  // whole warps and blocks, so that the figures are exact

Tensor<Cuda> ones(Index n) {
  return Tensor<Cuda>::from(std::vector<float>(static_cast<std::size_t>(n), 1.0F), {n});
}

/// Bytes loaded and stored by a call, for each of `elements`, and that none of a sector was wasted.
template <class Call>
void check_bytes(const char* name, double elements, double loads, double stores, Call call) {
  const test::Traffic t = test::traffic_of(call);
  std::printf("%-24s %7.3f bytes loaded, %6.3f stored an element; sectors %5.3f of the least\n",
              name, t.loaded / elements, t.stored / elements, t.sectors / t.sectors_ideal);
  CAPTURE(name);
  CHECK(t.loaded / elements == doctest::Approx(loads));
  CHECK(t.stored / elements == doctest::Approx(stores));
  CHECK(t.sectors <= t.sectors_ideal);  // fewer: one sector for all the lanes that read one number
}

}  // namespace

TEST_CASE("element-by-element kernels read and write each element once") {
  const Index n = kRows * kColumns;
  const auto x = ones(n), a = ones(n), b = ones(n), y = ones(n), z = ones(n);
  const Cuda device;
  const auto count = static_cast<double>(n);
  const auto whole = [n](const Tensor<Cuda>& t) { return Operand<float>{t.data(), n, 1}; };
  check_bytes("add", count, 8, 4, [&] {
    combine_forward(device, y.data(), whole(a), whole(b), Arithmetic::Add, 1, n);
  });
  check_bytes("gelu forward", count, 4, 4,
              [&] { activation_forward(device, y.data(), x.data(), Activation::Gelu, n); });
  check_bytes("gelu backward", count, 12, 4, [&] {
    activation_backward(device, y.data(), a.data(), x.data(), Activation::Gelu, n);
  });
  check_bytes("swiglu forward", count, 8, 4,
              [&] { swiglu_forward(device, y.data(), a.data(), b.data(), n); });
  check_bytes("swiglu backward", count, 20, 8, [&] {
    swiglu_backward(device, y.data(), z.data(), x.data(), a.data(), b.data(), n);
  });
  check_bytes("adamw", count, 16, 12, [&] {
    adamw_update(device, y.data(), x.data(), a.data(), b.data(), n,
                 AdamWStep{1e-3F, 0.9F, 0.999F, 1e-8F, 0.0F, 1.0F, 1, false});
  });
  // One sum for 4096 elements.
  check_bytes("sum of squares", count, 4 + 4.0 / 4096, 4.0 / 4096 + 8 / count,
              [&] { sum_of_squares(device, x.data(), n); });
}

TEST_CASE("norms read a row twice or three times, their weights as often") {
  const Index n = kRows, c = kColumns;
  const auto x = ones(n * c), y = ones(n * c), dy = ones(n * c), weight = ones(c), bias = ones(c);
  const auto mean = ones(n), rstd = ones(n);
  const Cuda device;
  const double count = static_cast<double>(n * c), a_row = 4.0 / kColumns;
  const double by_lanes = 32 * a_row;  // one number of a row, read by every lane
  check_bytes("rms_norm forward", count, 2 * 4 + 4, 4 + a_row, [&] {
    rms_norm_forward(device, y.data(), rstd.data(), x.data(), weight.data(), n, c, 1e-5F);
  });
  check_bytes("rms_norm backward, dx", count, 2 * 12 + 4 + by_lanes, 4, [&] {
    rms_norm_backward(device, y.data(), nullptr, dy.data(), x.data(), weight.data(), rstd.data(), n,
                      c);
  });
  check_bytes("layer_norm forward", count, 3 * 4 + 8, 4 + 2 * a_row, [&] {
    layer_norm_forward(device, y.data(), mean.data(), rstd.data(), x.data(), weight.data(),
                       bias.data(), n, c, 1e-5F);
  });
  check_bytes("layer_norm backward, dx", count, 8 + 2 * 12 + 4 + 2 * by_lanes, 4, [&] {
    layer_norm_backward(device, y.data(), nullptr, nullptr, dy.data(), x.data(), weight.data(),
                        mean.data(), rstd.data(), n, c);
  });
}

TEST_CASE("gathering reads a row once") {
  const Index n = kRows, c = kColumns;
  const auto table = ones(n * c), y = ones(n * c);
  const auto ids = Tensor<Cuda, std::int32_t>::zeros({n});
  const Cuda device;
  const double count = static_cast<double>(n * c), by_lanes = 32 * 4.0 / kColumns;
  check_bytes("embedding forward", count, 4 + by_lanes, 4,
              [&] { embedding_forward(device, y.data(), table.data(), ids.data(), n, c); });
}

TEST_CASE("a row of logits is read for its maximum and for its sum, and nothing of it is stored") {
  const Index n = kRows, v = kColumns;
  const auto p = ones(n * v), q = ones(n * v), logprob = ones(n), entropy = ones(n), lse = ones(n);
  const auto ids = Tensor<Cuda, std::int32_t>::zeros({n});
  const Cuda device;
  const double count = static_cast<double>(n * v), a_row = 4.0 / kColumns;
  // Its target's logit once more.
  check_bytes("log-probs forward", count, 2 * 4 + 2 * a_row, 2 * a_row, [&] {
    logprob_rows(device, logprob.data(), nullptr, lse.data(), p.data(), ids.data(), n, v, 1.0F);
  });
  check_bytes("log-probs and entropy", count, 2 * 4 + 2 * a_row, 3 * a_row, [&] {
    logprob_rows(device, logprob.data(), entropy.data(), lse.data(), p.data(), ids.data(), n, v,
                 1.0F);
  });
  // Two rows, and both a third time: the terms need both normalisers.
  check_bytes("kl", count, 3 * 8, a_row, [&] {
    constexpr int kThreads = kernels::gpu::kFewLogitThreads;
    PLUMB_LAUNCH((kernels::gpu::kl_kernel<kThreads>), static_cast<unsigned>(n), kThreads, 0,
                 device.stream, lse.data(), p.data(), q.data(), nullptr, nullptr,
                 static_cast<int>(v), 1.0F);
  });
  check_bytes("arg-max", count, 4, a_row, [&] { argmax_rows(device, ids.data(), p.data(), n, v); });
}

TEST_CASE("a token is drawn with two readings of its row, and of 256 weights once more") {
  const Index n = 4, v = 8192, blocks = v / 256;
  const auto logits = ones(n * v);
  const Cuda device;
  const std::vector<SampleKey> keys(4, SampleKey{1, 2, 3, 4});
  std::vector<std::int32_t> token(4);
  std::vector<float> logprob(4);
  const auto per_logit = [&](const SamplingSettings& settings) {
    const test::Traffic t = test::traffic_of([&] {
      sample_rows(device, token.data(), logprob.data(), logits.data(), n, v, settings, keys.data());
    });
    CHECK(t.sectors <= t.sectors_ideal);
    const auto count = static_cast<double>(n * v);
    return test::Traffic{t.loaded / count, t.stored / count};
  };
  const double one = 4.0 / static_cast<double>(v), sums = one * static_cast<double>(blocks);
  const test::Traffic greedy = per_logit({.temperature = 0.0F});
  CHECK(greedy.loaded == doctest::Approx(8 + one));
  CHECK(greedy.stored == doctest::Approx(sums + 2 * one));
  const test::Traffic drawn = per_logit({});
  CHECK(drawn.loaded > 8 + 2 * sums);
  CHECK(drawn.loaded <= 8 + 2 * sums + 257 * one + 32 * 6 * one);  // the key by every lane
  CHECK(drawn.stored == doctest::Approx(sums + 2 * one));
}
