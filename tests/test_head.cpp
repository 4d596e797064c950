// Head + log-softmax + gather, its entropy, gradients and the exact KL against double precision,
// and their bits over instruction sets, threads and batches.
#include "cases/head.hpp"
#include "support.hpp"

#include <plumb/cpu/kernels.hpp>
#include <plumb/cpu/reference_head.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <vector>

using namespace plumb;
using namespace test;
using namespace cases::head;

namespace {

struct Inputs {
  explicit Inputs(const Case& k) : of(k) {
    x = random_vector(k.n * k.c, 1);
    w = random_vector(k.v * k.c, 2, 2.0F / std::sqrt(static_cast<float>(k.c)));
    dlogprob = random_vector(k.n, 3);
    dentropy = random_vector(k.n, 4);
    Rng rng(5);
    for (Index i = 0; i < k.n; ++i)
      targets.push_back(static_cast<std::int32_t>(rng.below(static_cast<std::uint32_t>(k.v))));
  }
  std::vector<double> log_p(Index row) const {
    return reference::log_softmax(reference::head_logits(&x[at(row * of.c)], w.data(), of.c, of.v),
                                  static_cast<double>(of.scale));
  }
  static std::size_t at(Index i) { return static_cast<std::size_t>(i); }

  Case of;
  std::vector<float> x, w, dlogprob, dentropy;
  std::vector<std::int32_t> targets;
};

struct Outputs {
  std::vector<float> logprob, entropy, lse, dx, dw;
};

/// Forward, then backward onto gradients that start at 1.
Outputs run(const Inputs& in, Cpu device = {}, bool with_entropy = true, bool keep = false) {
  const Case& k = in.of;
  const auto n = static_cast<std::size_t>(k.n);
  Outputs out{std::vector<float>(n), std::vector<float>(n), std::vector<float>(n),
              std::vector<float>(in.x.size(), 1.0F), std::vector<float>(in.w.size(), 1.0F)};
  float* entropy = with_entropy ? out.entropy.data() : nullptr;
  std::vector<float> room(keep ? in.at(k.n * k.v) : 0);
  float* logits = keep ? room.data() : nullptr;
  kernels::head_logprob_forward(device, out.logprob.data(), entropy, out.lse.data(), in.x.data(),
                                in.w.data(), in.targets.data(), k.n, k.c, k.v, k.scale, logits);
  kernels::head_logprob_backward(device, out.dx.data(), out.dw.data(), in.dlogprob.data(),
                                 with_entropy ? in.dentropy.data() : nullptr, in.x.data(),
                                 in.w.data(), in.targets.data(), out.lse.data(), entropy, k.n, k.c,
                                 k.v, k.scale, logits);
  return out;
}

/// Σ dlogprob · logprob + dentropy · entropy, in double: what the gradients are of.
double objective(const Inputs& in, const std::vector<double>& x) {
  double sum = 0;
  for (Index i = 0; i < in.of.n; ++i) {
    const auto log_p = reference::log_softmax(
        reference::head_logits(&x[in.at(i * in.of.c)], in.w.data(), in.of.c, in.of.v),
        static_cast<double>(in.of.scale));
    sum += static_cast<double>(in.dlogprob[in.at(i)]) * log_p[in.at(in.targets[in.at(i)])] +
           static_cast<double>(in.dentropy[in.at(i)]) * reference::entropy_of(log_p);
  }
  return sum;
}

/// The gradients by x and w, double, on top of 1.
void oracle_gradients(const Inputs& in, bool with_entropy, std::vector<double>& dx,
                      std::vector<double>& dw) {
  const Case& k = in.of;
  dx.assign(in.x.size(), 1.0);
  dw.assign(in.w.size(), 1.0);
  for (Index i = 0; i < k.n; ++i) {
    const auto d = reference::head_dlogits(
        in.log_p(i), in.targets[in.at(i)], static_cast<double>(in.dlogprob[in.at(i)]),
        with_entropy ? static_cast<double>(in.dentropy[in.at(i)]) : 0.0,
        static_cast<double>(k.scale));
    for (Index j = 0; j < k.v; ++j)
      for (Index c = 0; c < k.c; ++c) {
        dx[in.at(i * k.c + c)] += d[in.at(j)] * static_cast<double>(in.w[in.at(j * k.c + c)]);
        dw[in.at(j * k.c + c)] += d[in.at(j)] * static_cast<double>(in.x[in.at(i * k.c + c)]);
      }
  }
}

}  // namespace

TEST_CASE("head_logprob_forward and backward against double precision") {
  for (const Case& k : kSmall) {
    const Inputs in(k);
    std::vector<double> logprob, entropy, lse, dx, dw, dx_alone, dw_alone;
    for (Index i = 0; i < k.n; ++i) {
      const auto log_p = in.log_p(i);
      const auto logits = reference::head_logits(&in.x[in.at(i * k.c)], in.w.data(), k.c, k.v);
      logprob.push_back(log_p[in.at(in.targets[in.at(i)])]);
      entropy.push_back(reference::entropy_of(log_p));
      lse.push_back(static_cast<double>(k.scale) * logits[0] - log_p[0]);
    }
    oracle_gradients(in, true, dx, dw);
    oracle_gradients(in, false, dx_alone, dw_alone);
    CAPTURE(k.n);
    CAPTURE(k.v);
    for_each_isa([&](Isa) {
      // Logits are of size up to ~10, rounded at 2^-24 of their largest partial sum; gradients sum
      // up to 257 tokens or 1000 tokens of the vocabulary.
      const Outputs out = run(in);
      CHECK(max_error(out.logprob, logprob) < kTolerance);
      CHECK(max_error(out.entropy, entropy) < kTolerance);
      CHECK(max_error(out.lse, lse) < kTolerance);
      CHECK(max_error(out.dx, dx) < kGradientTolerance);
      CHECK(max_error(out.dw, dw) < kGradientTolerance);
      const Outputs alone = run(in, {}, false);
      CHECK(same_bits(alone.logprob, out.logprob));
      CHECK(max_error(alone.dx, dx_alone) < kGradientTolerance);
      CHECK(max_error(alone.dw, dw_alone) < kGradientTolerance);
    });
  }
}

TEST_CASE("the oracle's gradient is the objective's, by central differences") {
  const Inputs in({4, 5, 13, 0.8F});
  std::vector<double> dx, dw, x(in.x.begin(), in.x.end());
  oracle_gradients(in, true, dx, dw);
  for (std::size_t i = 0; i < x.size(); ++i) {
    auto above = x, below = x;
    above[i] += 1e-5;
    below[i] -= 1e-5;
    const double slope = (objective(in, above) - objective(in, below)) / 2e-5;
    CHECK(dx[i] - 1.0 == doctest::Approx(slope).epsilon(1e-7));
  }
}

TEST_CASE("the head's bits depend on neither instruction set nor threads") {
  Pool one(1), two(2), three(3);
  for (const Case& k : kSmall) {
    const Inputs in(k);
    std::vector<Outputs> results;
    for_each_isa([&](Isa) {
      for (Pool* pool : {&one, &two, &three}) results.push_back(run(in, Cpu{pool}));
    });
    CAPTURE(k.n);
    CAPTURE(k.v);
    for (const Outputs& out : results) {
      CHECK(same_bits(out.logprob, results[0].logprob));
      CHECK(same_bits(out.entropy, results[0].entropy));
      CHECK(same_bits(out.lse, results[0].lse));
      CHECK(same_bits(out.dx, results[0].dx));
      CHECK(same_bits(out.dw, results[0].dw));
    }
  }
}

TEST_CASE("a row's bits depend on no other row; logprob_rows gives them from logits") {
  const Case k{300, 70, 129, 1.1F};
  const Inputs in(k);
  const Outputs all = run(in);
  for (const Index first : {0, 1, 255, 256, 299})
    for (const Index rows : {Index{1}, Index{2}, Index{7}, k.n - first}) {
      if (first + rows > k.n) continue;
      const auto n = static_cast<std::size_t>(rows);
      std::vector<float> logprob(n), entropy(n), lse(n), again(n), logits(in.at(rows * k.v));
      const float* x = &in.x[in.at(first * k.c)];
      const std::int32_t* targets = &in.targets[in.at(first)];
      kernels::head_logprob_forward(Cpu{}, logprob.data(), entropy.data(), lse.data(), x,
                                    in.w.data(), targets, rows, k.c, k.v, k.scale);
      CHECK(same_bits(logprob, std::span(all.logprob).subspan(in.at(first), n)));
      CHECK(same_bits(entropy, std::span(all.entropy).subspan(in.at(first), n)));
      kernels::matmul(Cpu{}, logits.data(), x, in.w.data(), rows, k.v, k.c, Form::NT);
      kernels::logprob_rows({}, again.data(), nullptr, lse.data(), logits.data(), targets, rows,
                            k.v, k.scale);
      CHECK(same_bits(again, logprob));
    }
}

TEST_CASE("dw of a batch is dw of its chunks of 256, in turn") {
  const Inputs in({513, 6, 40, 1.0F});
  const Outputs whole = run(in);
  std::vector<float> dw(in.w.size(), 1.0F);
  for (const Index first : {0, 256, 512}) {
    const Index rows = std::min<Index>(256, 513 - first);
    const std::size_t i = in.at(first);
    kernels::head_logprob_backward(Cpu{}, nullptr, dw.data(), &in.dlogprob[i], &in.dentropy[i],
                                   &in.x[in.at(first * 6)], in.w.data(), &in.targets[i],
                                   &whole.lse[i], &whole.entropy[i], rows, 6, 40, 1.0F);
  }
  CHECK(same_bits(dw, whole.dw));
}

TEST_CASE("logits kept from the forward pass give the bits of logits computed anew") {
  for (const Case k : {Case{300, 70, 129, 1.1F}, Case{5, 3, 2, 1.0F}}) {
    const Inputs in(k);
    REQUIRE(kernels::head_keeps_logits(Cpu{}, k.n, k.v));
    const Outputs anew = run(in), kept = run(in, {}, true, true);
    CHECK(same_bits(kept.logprob, anew.logprob));
    CHECK(same_bits(kept.entropy, anew.entropy));
    CHECK(same_bits(kept.dx, anew.dx));
    CHECK(same_bits(kept.dw, anew.dw));
  }
}

TEST_CASE("GPT-2's vocabulary: forward and backward of 2048 rows take less than 64 MB") {
  if (sanitized()) {
    MESSAGE("skipped under a sanitizer: a billion operations");
    return;
  }
  const Case k{2048, 8, 50257, 1.0F};
  const Inputs in(k);
  release_cached_memory();
  reset_peak_memory();
  const std::size_t before = memory_counters().used_bytes;
  CHECK(!kernels::head_keeps_logits(Cpu{}, k.n, k.v));
  const Outputs out = run(in);
  const std::size_t most = memory_counters().peak_bytes - before;
  MESSAGE("at most ", most, " bytes");
  CHECK(most > 4 * 256 * 50257);  // the counter sees the logits
  CHECK(most < 64'000'000);
  // The chunks of 256 rows are those of a batch of 2048: the last row is as if alone.
  float logprob = 0, lse = 0;
  kernels::head_logprob_forward(Cpu{}, &logprob, nullptr, &lse, &in.x[in.at(2047 * 8)], in.w.data(),
                                &in.targets[2047], 1, 8, 50257, 1.0F);
  CHECK(same_bits({&logprob, 1}, {&out.logprob[2047], 1}));
}

TEST_CASE("large logits and certain tokens stay finite") {
  const std::vector<float> logits = {1000.0F, -1000.0F, 999.0F, 0.0F, -1e30F};
  float logprob = 0, entropy = 0, lse = 0;
  for_each_isa([&](Isa) {
    for (std::int32_t target = 0; target < 5; ++target) {
      kernels::logprob_rows({}, &logprob, &entropy, &lse, logits.data(), &target, 1, 5, 1.0F);
      const double exact = static_cast<double>(logits[static_cast<std::size_t>(target)]) - 1000.0 -
                           std::log1p(std::exp(-1.0));
      // z - lse: both are rounded at 2^-24 of the larger.
      const double rounding = 1.2e-7 * std::max(1000.0, std::abs(exact));
      CHECK(std::abs(static_cast<double>(logprob) - exact) < rounding);
    }
    const double p = 1 / (1 + std::exp(-1.0));
    CHECK(entropy == doctest::Approx(-p * std::log(p) - (1 - p) * std::log1p(-p)).epsilon(1e-6));
  });
}

TEST_CASE("logits as far apart as floats are: entropy, gradient and KL stay numbers") {
  for (const Index v : {2, 31, 33, 70}) {
    const auto n = static_cast<std::size_t>(v);
    std::vector<float> z(n, -3e38F), even(n, 0.0F);
    z[n / 2] = 3e38F;
    const std::vector<float> one{1.0F}, most = z;
    const auto target = static_cast<std::int32_t>(v / 2);
    for_each_isa([&](Isa) {
      float logprob = 1, entropy = 1, lse = 0;
      kernels::logprob_rows({}, &logprob, &entropy, &lse, z.data(), &target, 1, v, 1.0F);
      CHECK(logprob == 0.0F);
      CHECK(entropy == 0.0F);
      // x = (1), so that w is the logits: the certain token's gradient is 0, and so are the
      // others'.
      std::vector<float> dx(1), dw(n);
      const float dlogprob = 1.0F, dentropy = 100.0F;
      kernels::head_logprob_backward(Cpu{}, dx.data(), dw.data(), &dlogprob, &dentropy, one.data(),
                                     most.data(), &target, &lse, &entropy, 1, 1, v, 1.0F, nullptr);
      for (const float d : dw) CHECK(d == 0.0F);
      float kl = -1;
      kernels::head_kl_forward(Cpu{}, &kl, one.data(), most.data(), 1, one.data(), even.data(), 1,
                               1, v, 1.0F);
      CHECK(kl == doctest::Approx(std::log(static_cast<double>(v))).epsilon(1e-6));
      kernels::head_kl_forward(Cpu{}, &kl, one.data(), even.data(), 1, one.data(), most.data(), 1,
                               1, v, 1.0F);
      CHECK(kl > 1e37F);  // what the even one gives, the certain one excludes
    });
  }
}

TEST_CASE("logits far below zero: lanes past the end of a row take no part in its maximum") {
  for (const Index v : {1, 15, 33, 70}) {
    const std::vector<float> logits(static_cast<std::size_t>(v), -500.0F);
    float logprob = 0, lse = 0;
    const std::int32_t target = 0;
    for_each_isa([&](Isa) {
      kernels::logprob_rows({}, &logprob, nullptr, &lse, logits.data(), &target, 1, v, 1.0F);
      // lse is rounded at 2^-24 of 500.
      CHECK(std::abs(static_cast<double>(logprob) + std::log(static_cast<double>(v))) < 3.1e-5);
    });
  }
}

TEST_CASE("a NaN logit shows wherever it stands") {
  for_each_isa([&](Isa) {
    for (std::size_t i : {0U, 31U, 40U, 64U, 69U}) {
      std::vector<float> logits(70, 1.0F);
      logits[i] = std::numeric_limits<float>::quiet_NaN();
      float logprob = 0, entropy = 0, lse = 0;
      const std::int32_t target = 5;
      kernels::logprob_rows({}, &logprob, &entropy, &lse, logits.data(), &target, 1, 70, 1.0F);
      CHECK(std::isnan(logprob));
      CHECK(std::isnan(entropy));
    }
  });
}

TEST_CASE("head_kl_forward: exact, zero for equal models, the same bits everywhere") {
  Pool three(3);
  for (const Case& k : kSmall) {
    const Index c_q = k.c + 3;
    const Inputs p(k), q({k.n, c_q, k.v, k.scale});
    std::vector<double> exact;
    for (Index i = 0; i < k.n; ++i)
      exact.push_back(reference::kl_divergence(p.log_p(i), q.log_p(i)));
    std::vector<std::vector<float>> results;
    for_each_isa([&](Isa) {
      for (Pool* pool : {static_cast<Pool*>(nullptr), &three}) {
        std::vector<float> kl(p.dlogprob.size(), -1.0F), logprob = kl, expected = kl, lse = kl;
        kernels::head_kl_forward(Cpu{pool}, kl.data(), p.x.data(), p.w.data(), k.c, q.x.data(),
                                 q.w.data(), c_q, k.n, k.v, k.scale);
        results.push_back(kl);
        kernels::head_kl_forward(Cpu{pool}, kl.data(), p.x.data(), p.w.data(), k.c, q.x.data(),
                                 q.w.data(), c_q, k.n, k.v, k.scale, q.targets.data(),
                                 logprob.data());
        CHECK(same_bits(kl, results.back()));
        kernels::head_logprob_forward(Cpu{pool}, expected.data(), nullptr, lse.data(), q.x.data(),
                                      q.w.data(), q.targets.data(), k.n, c_q, k.v, k.scale);
        CHECK(same_bits(logprob, expected));
      }
      std::vector<float> self(p.dlogprob.size(), -1.0F);
      kernels::head_kl_forward(Cpu{}, self.data(), p.x.data(), p.w.data(), k.c, p.x.data(),
                               p.w.data(), k.c, k.n, k.v, k.scale);
      CHECK(same_bits(self, std::vector<float>(self.size(), 0.0F)));
    });
    CAPTURE(k.v);
    for (const auto& kl : results) {
      CHECK(max_error(kl, exact) < 1e-5);
      CHECK(same_bits(kl, results[0]));
    }
  }
}

TEST_CASE("a KL of 1e-5 nats is known to 3e-8") {
  const Inputs p({8, 16, 512, 1.0F});
  auto near = p.w;
  const auto noise = random_vector(static_cast<Index>(near.size()), 9, 1e-3F);
  for (std::size_t i = 0; i < near.size(); ++i) near[i] += noise[i];
  Inputs q = p;
  q.w = near;
  std::vector<float> kl(8);
  kernels::head_kl_forward(Cpu{}, kl.data(), p.x.data(), p.w.data(), 16, q.x.data(), q.w.data(), 16,
                           8, 512, 1.0F);
  for (Index i = 0; i < 8; ++i) {
    const double exact = reference::kl_divergence(p.log_p(i), q.log_p(i));
    CHECK(exact < 3e-5);
    CHECK(std::abs(static_cast<double>(kl[p.at(i)]) - exact) < 3e-8);
  }
}
