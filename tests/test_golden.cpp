// Kernels against numbers that PyTorch computed in float64 with autograd: golden/losses.json, made
// by golden/make_losses.py. Inputs are exact in float, so every difference is the kernel's
// rounding.
#include "support.hpp"

#include <plumb/cpu/kernels.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

using namespace plumb;
using namespace test;
using Json = nlohmann::json;

namespace {

const Json& golden(const char* name) {
  static const Json all = [] {
    std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/losses.json");
    return Json::parse(file);
  }();
  return all.at(name);
}

using Floats = std::vector<float>;
using Ints = std::vector<std::int32_t>;

Floats floats(const Json& j) { return j.get<Floats>(); }
Ints ints(const Json& j) { return j.get<Ints>(); }
Floats zeros(const Floats& like) { return Floats(like.size(), 0.0F); }

/// Largest |x − golden| over the largest |golden|, but at least 1: an error in units of the result.
double error(const Floats& x, const Json& j) {
  const auto exact = j.get<std::vector<double>>();
  double scale = 1.0;
  for (const double e : exact) scale = std::max(scale, std::abs(e));
  return max_error(x, exact, scale);
}
double error(float x, const Json& j) { return error(Floats{x}, Json::array({j})); }
double error(double x, const Json& j) { return std::abs(x - j.get<double>()); }

}  // namespace

TEST_CASE("PPO policy loss") {
  for (const Json& g : golden("ppo_policy_loss")) {
    const PpoClip clip{.low = g["low"],
                       .high = g["high"],
                       .dual = g["dual"],
                       .log_ratio_limit = g["log_ratio_limit"]};
    const Floats logprob = floats(g["logprob"]), old = floats(g["old_logprob"]);
    const Floats advantage = floats(g["advantage"]), weight = floats(g["weight"]);
    Floats d = zeros(logprob);
    float loss = 0;
    PolicyStats stats;
    kernels::ppo_policy_loss({}, &loss, d.data(), &stats, logprob.data(), old.data(),
                             advantage.data(), weight.data(), static_cast<Index>(d.size()), clip);
    CHECK(error(loss, g["loss"]) < 1e-6);
    CHECK(error(d, g["dlogprob"]) < 1e-6);
    CHECK(error(stats.approx_kl, g["approx_kl"]) < 1e-9);
    CHECK(error(stats.approx_kl_k3, g["approx_kl_k3"]) < 1e-6);
    CHECK(error(stats.clipfrac, g["clipfrac"]) < 1e-9);
    CHECK(error(stats.ratio, g["ratio"]) < 1e-6);
  }
}

TEST_CASE("PPO value loss") {
  for (const Json& g : golden("ppo_value_loss")) {
    const Floats value = floats(g["value"]), old = floats(g["old_value"]);
    const Floats returns = floats(g["returns"]), weight = floats(g["weight"]);
    Floats d = zeros(value);
    float loss = 0;
    ValueStats stats;
    kernels::ppo_value_loss({}, &loss, d.data(), &stats, value.data(), old.data(), returns.data(),
                            weight.data(), static_cast<Index>(d.size()), g["clip"]);
    CHECK(error(loss, g["loss"]) < 1e-6);
    CHECK(error(d, g["dvalue"]) < 1e-6);
    CHECK(error(stats.error, g["error"]) < 1e-9);
  }
}

TEST_CASE("ranking losses") {
  for (const Json& g : golden("ranking_loss")) {
    const RankingLoss settings{.kind = g["kind"] == "BradleyTerry" ? RankingLossKind::BradleyTerry
                                                                   : RankingLossKind::PlackettLuce,
                               .margin = g["margin"],
                               .center = g["center"]};
    const Floats score = floats(g["score"]), weight = floats(g["weight"]);
    const Ints rank = ints(g["rank"]), offsets = ints(g["offsets"]);
    Floats d = zeros(score);
    float loss = 0;
    RankingStats stats;
    kernels::ranking_loss({}, &loss, d.data(), &stats, score.data(), rank.data(), nullptr,
                          offsets.data(), weight.data(), static_cast<Index>(weight.size()),
                          settings);
    CHECK(error(loss, g["loss"]) < 1e-6);
    CHECK(error(d, g["dscore"]) < 1e-6);
  }
}

TEST_CASE("head: log-prob, entropy, cross-entropy, exact KL and gradients") {
  for (const Json& g : golden("head")) {
    const Index n = g["n"], c = g["c"], v = g["v"];
    const float scale = g["inverse_temperature"];
    const Floats x = floats(g["x"]), w = floats(g["w"]), x_q = floats(g["x_q"]);
    const Floats dlogprob = floats(g["dlogprob"]), dentropy = floats(g["dentropy"]);
    const Ints targets = ints(g["targets"]);
    Floats logprob = zeros(dlogprob), entropy = logprob, lse = logprob, kl = logprob;
    Floats dx = zeros(x), dw = zeros(w);
    kernels::head_logprob_forward(Cpu{}, logprob.data(), entropy.data(), lse.data(), x.data(),
                                  w.data(), targets.data(), n, c, v, scale);
    kernels::head_logprob_backward(Cpu{}, dx.data(), dw.data(), dlogprob.data(), dentropy.data(),
                                   x.data(), w.data(), targets.data(), lse.data(), entropy.data(),
                                   n, c, v, scale);
    kernels::head_kl_forward(Cpu{}, kl.data(), x.data(), w.data(), c, x_q.data(), w.data(), c, n, v,
                             scale);
    const Floats mean(logprob.size(), -1.0F / static_cast<float>(n));
    float cross_entropy = 0;
    kernels::weighted_sum({}, &cross_entropy, logprob.data(), mean.data(), n);
    CHECK(error(logprob, g["logprob"]) < 1e-6);
    CHECK(error(entropy, g["entropy"]) < 1e-6);
    CHECK(error(cross_entropy, g["cross_entropy"]) < 1e-6);
    CHECK(error(kl, g["kl"]) < 1e-6);
    CHECK(error(dx, g["dx"]) < 1e-6);
    CHECK(error(dw, g["dw"]) < 1e-6);
  }
}

TEST_CASE("GELU (tanh form)") {
  const Json& g = golden("gelu");
  const Floats x = floats(g["x"]), dy = floats(g["dy"]);
  const Index n = static_cast<Index>(x.size());
  Floats y = zeros(x), dx = zeros(x);
  kernels::activation_forward({}, y.data(), x.data(), Activation::Gelu, n);
  kernels::activation_backward({}, dx.data(), dy.data(), x.data(), Activation::Gelu, n);
  CHECK(error(y, g["y"]) < 1e-6);
  CHECK(error(dx, g["dx"]) < 1e-6);
}

TEST_CASE("SwiGLU") {
  const Json& g = golden("swiglu");
  const Floats gate = floats(g["gate"]), up = floats(g["up"]), dy = floats(g["dy"]);
  const Index n = static_cast<Index>(gate.size());
  Floats y = zeros(gate), dgate = y, dup = y;
  kernels::swiglu_forward({}, y.data(), gate.data(), up.data(), n);
  kernels::swiglu_backward({}, dgate.data(), dup.data(), dy.data(), gate.data(), up.data(), n);
  CHECK(error(y, g["y"]) < 1e-6);
  CHECK(error(dgate, g["dgate"]) < 1e-6);
  CHECK(error(dup, g["dup"]) < 1e-6);
}

TEST_CASE("RMSNorm") {
  const Json& g = golden("rms_norm");
  const Index n = g["n"], c = g["c"];
  const Floats x = floats(g["x"]), weight = floats(g["weight"]), dy = floats(g["dy"]);
  Floats y = zeros(x), dx = zeros(x), dweight = zeros(weight), rstd(static_cast<std::size_t>(n));
  kernels::rms_norm_forward({}, y.data(), rstd.data(), x.data(), weight.data(), n, c, g["eps"]);
  kernels::rms_norm_backward({}, dx.data(), dweight.data(), dy.data(), x.data(), weight.data(),
                             rstd.data(), n, c);
  CHECK(error(y, g["y"]) < 1e-6);
  CHECK(error(dx, g["dx"]) < 1e-6);
  CHECK(error(dweight, g["dweight"]) < 1e-6);
}

TEST_CASE("LayerNorm") {
  const Json& g = golden("layer_norm");
  const Index n = g["n"], c = g["c"];
  const Floats x = floats(g["x"]), weight = floats(g["weight"]), bias = floats(g["bias"]);
  const Floats dy = floats(g["dy"]);
  Floats y = zeros(x), dx = zeros(x), dweight = zeros(weight), dbias = zeros(bias);
  Floats mean(static_cast<std::size_t>(n)), rstd = mean;
  kernels::layer_norm_forward({}, y.data(), mean.data(), rstd.data(), x.data(), weight.data(),
                              bias.data(), n, c, g["eps"]);
  kernels::layer_norm_backward({}, dx.data(), dweight.data(), dbias.data(), dy.data(), x.data(),
                               weight.data(), mean.data(), rstd.data(), n, c);
  CHECK(error(y, g["y"]) < 1e-6);
  CHECK(error(dx, g["dx"]) < 1e-6);
  CHECK(error(dweight, g["dweight"]) < 1e-6);
  CHECK(error(dbias, g["dbias"]) < 1e-6);
}

TEST_CASE("AdamW, both conventions of epsilon") {
  for (const Json& g : golden("adamw")) {
    AdamWStep step{.lr = g["lr"],
                   .beta1 = g["beta1"],
                   .beta2 = g["beta2"],
                   .eps = g["eps"],
                   .weight_decay = g["weight_decay"],
                   .grad_scale = 1.0F,
                   .step = 0,
                   .eps_inside = g["style"] == "TensorFlow"};
    Floats p = floats(g["start"]), m = zeros(p), v = zeros(p);
    for (const Json& grad : g["grads"]) {
      const Floats gradient = floats(grad);
      const auto at = static_cast<std::size_t>(step.step++);
      kernels::adamw_update({}, p.data(), gradient.data(), m.data(), v.data(),
                            static_cast<Index>(p.size()), step);
      CHECK(error(p, g["after"][at]) < 1e-6);
    }
  }
}
