// The differentiable ops: gradients by central differences and against PyTorch's, what they refuse,
// what they record.
#include "tiny.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <fstream>
#include <limits>

using namespace plumb;
using namespace test;

namespace {

using Inputs = std::vector<Tensor<Cpu>>;
using Op = std::function<Inputs(const Inputs&)>;

/// Σ over outputs of Σ weight · y, in double; the weights are fixed random numbers.
double probe(const Inputs& outputs) {
  double sum = 0;
  for (std::size_t o = 0; o < outputs.size(); ++o) {
    const auto y = outputs[o].to_vector(), w = random_vector(outputs[o].size(), 500 + o);
    for (std::size_t i = 0; i < y.size(); ++i) sum += double{w[i]} * double{y[i]};
  }
  return sum;
}

void backward_probe(Tape& tape, const Inputs& outputs) {
  Tensor<Cpu> total;
  for (std::size_t o = 0; o < outputs.size(); ++o) {
    const auto w = random_tensor({outputs[o].size()}, 500 + o);
    const auto part = weighted_sum(outputs[o].reshape({outputs[o].size()}), w);
    total = total ? add(total, part) : part;
  }
  tape.backward(total);
}

/// Every input's gradient against differences of the forward, and that a second pass adds to it.
void check_op(const Op& op, const Inputs& inputs, float step = 2e-2F, double tolerance = 1e-3) {
  for (const auto& x : inputs) x.set_requires_grad(true);
  {
    Tape tape;
    backward_probe(tape, op(inputs));
  }
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    CAPTURE(i);
    const auto gradient = grad_of(inputs[i]);
    CHECK(gradient_error(
              inputs[i], gradient, [&] { return probe(op(inputs)); }, step, 150) < tolerance);
  }
  Inputs once;
  for (const auto& x : inputs) once.push_back(x.grad_tensor());
  {
    Tape tape;
    backward_probe(tape, op(inputs));
  }
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const auto first = once[i].to_vector(), both = grad_of(inputs[i]);
    float most = 0, worst = 0;
    for (std::size_t k = 0; k < both.size(); ++k) {
      most = std::max(most, std::abs(both[k]));
      worst = std::max(worst, std::abs(both[k] - 2 * first[k]));
    }
    CHECK(worst <= 1e-6F * most);
  }
}

nlohmann::json golden() {
  std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/losses.json");
  return nlohmann::json::parse(file);
}

std::vector<float> floats(const nlohmann::json& j) { return j.get<std::vector<float>>(); }
std::vector<double> doubles(const nlohmann::json& j) { return j.get<std::vector<double>>(); }

Tensor<Cpu> tensor(const nlohmann::json& j, const Shape& shape) {
  auto x = Tensor<Cpu>::from(floats(j), shape);
  x.set_requires_grad(true);
  return x;
}

/// Backward from a given dy.
void backward_from(Tape& tape, const Tensor<Cpu>& y, const nlohmann::json& dy) {
  const auto flat = y.reshape({y.size()});
  tape.backward(weighted_sum(flat, Tensor<Cpu>::from(floats(dy), {y.size()})));
}

}  // namespace

TEST_CASE("gradients: linear, with bias and residual and without") {
  for (const Index n : {1, 7, 33}) {
    const auto x = random_tensor({n, 13}, 1), w = random_tensor({9, 13}, 2, 0.3F);
    const auto bias = random_tensor({9}, 3), residual = random_tensor({n, 9}, 4);
    check_op([](const Inputs& i) { return Inputs{linear(i[0], i[1])}; }, {x.clone(), w.clone()});
    check_op([](const Inputs& i) { return Inputs{linear(i[0], i[1], i[2], i[3])}; },
             {x, w, bias, residual});
    check_op(
        [](const Inputs& i) {
          return Inputs{activated_linear(i[0], i[1], i[2], Activation::Gelu)};
        },
        {x.clone(), w.clone(), bias.clone()});
  }
}

TEST_CASE("an activated linear layer has the bits of the two ops, forward and backward") {
  const auto bits = [](bool fused) {
    const auto x = random_tensor({33, 13}, 1), w = random_tensor({9, 13}, 2, 0.3F);
    const auto bias = random_tensor({9}, 3);
    for (const auto& t : {x, w, bias}) Tensor<Cpu>(t).set_requires_grad(true);
    Tape tape;
    const auto y =
        fused ? activated_linear(x, w, bias, Activation::Gelu) : gelu(linear(x, w, bias));
    tape.backward(weighted_sum(y.reshape({y.size()}), random_tensor({y.size()}, 5)));
    std::vector<float> all = y.to_vector();
    for (const auto& t : {x, w, bias}) {
      const auto gradient = grad_of(t);
      all.insert(all.end(), gradient.begin(), gradient.end());
    }
    return all;
  };
  CHECK(same_bits(bits(true), bits(false)));
  // Without a tape, and with the weight packed.
  const auto x = random_tensor({5, 13}, 1), w = random_tensor({9, 13}, 2),
             bias = random_tensor({9}, 3);
  const auto expected = gelu(linear(x, w, bias)).to_vector();
  CHECK(same_bits(activated_linear(x, w, bias, Activation::Gelu).to_vector(), expected));
  CHECK(same_bits(activated_linear(x, PackedWeight<Cpu>(w), bias, Activation::Gelu).to_vector(),
                  expected));
}

TEST_CASE("gradients: embedding, with repeated and unused rows") {
  const auto rows = ids({3, 0, 3, 3, 5, 1});
  check_op([&](const Inputs& i) { return Inputs{embedding(i[0], rows)}; },
           {random_tensor({7, 11}, 1)});
}

TEST_CASE("gradients: addition, scaling and activations") {
  const auto a = random_tensor({5, 7}, 1), b = random_tensor({5, 7}, 2);
  check_op([](const Inputs& i) { return Inputs{add(i[0], i[1])}; }, {a.clone(), b.clone()});
  check_op([](const Inputs& i) { return Inputs{add(i[0], i[0])}; }, {a.clone()});
  check_op([](const Inputs& i) { return Inputs{scale(i[0], -0.7F)}; }, {a.clone()});
  check_op([](const Inputs& i) { return Inputs{gelu(i[0])}; }, {a.clone()});
  check_op([](const Inputs& i) { return Inputs{gelu_erf(i[0])}; }, {a.clone()});
  check_op([](const Inputs& i) { return Inputs{tanh(i[0])}; }, {a.clone()});
  check_op([](const Inputs& i) { return Inputs{activate(i[0], Activation::Silu)}; }, {a.clone()});
  check_op([](const Inputs& i) { return Inputs{swiglu(i[0], i[1])}; }, {a.clone(), b.clone()});
  auto away = random_vector(35, 3);  // from the edge at 0, where a difference straddles two slopes
  for (float& x : away) x += x > 0 ? 0.1F : -0.1F;
  check_op([](const Inputs& i) { return Inputs{relu(i[0])}; }, {Tensor<Cpu>::from(away, {5, 7})});
}

TEST_CASE("gradients: norms") {
  for (const Index c : {2, 31, 65}) {
    CAPTURE(c);
    const auto x = random_tensor({6, c}, 1), w = random_tensor({c}, 2), b = random_tensor({c}, 3);
    check_op([](const Inputs& i) { return Inputs{rms_norm(i[0], i[1], 1e-5F)}; },
             {x.clone(), w.clone()});
    if (c > 2)  // of two channels LayerNorm makes signs, whose gradient is that of eps
      check_op([](const Inputs& i) { return Inputs{layer_norm(i[0], i[1], i[2], 1e-5F)}; },
               {x, w, b});
  }
}

TEST_CASE("gradients: rotary positions") {
  const Index head = 6;
  const auto cosine = random_tensor({9, head / 2}, 1), sine = random_tensor({9, head / 2}, 2);
  const auto positions = ids({0, 1, 2, 0, 8});
  check_op([&](const Inputs& i) { return Inputs{rope(i[0], cosine, sine, positions)}; },
           {random_tensor({5, 3 * head}, 3)});
}

TEST_CASE("gradients: attention, grouped heads, sequences of 1, 3 and more than a block of keys") {
  for (const Index kv_heads : {1, 2, 4}) {
    const AttentionShape shape{4, kv_heads, 6, 0.4F};
    const auto offsets = ids({0, 1, 4, 44});
    const auto q = random_tensor({44, 24}, 1), k = random_tensor({44, kv_heads * 6}, 2),
               v = random_tensor({44, kv_heads * 6}, 3);
    check_op([&](const Inputs& i) { return Inputs{attention(i[0], i[1], i[2], offsets, shape)}; },
             {q, k, v});
  }
}

TEST_CASE("head: with the loss's slopes known, the same bits from logits computed once") {
  const Index n = 300, c = 5, v = 50257;  // two chunks
  const auto x = random_tensor({n, c}, 1), w = random_tensor({v, c}, 2, 0.5F);
  const auto dlogprob = random_tensor({n}, 3), dentropy = random_tensor({n}, 4);
  const auto targets = ids(random_tokens(n, v, 5));
  const auto run = [&](bool with_entropy, bool known) {
    for (const auto& tensor : {x, w}) {
      tensor.set_requires_grad(true);
      tensor.zero_grad();
    }
    const HeadSlope<Cpu> slope = [&](Index first, Index rows, const LogProbs<Cpu>& out, float* to,
                                     float* to_entropy) {
      CHECK(std::isfinite(out.logprob.data()[first + rows - 1]));
      std::copy_n(dlogprob.data() + first, rows, to);
      CHECK((to_entropy != nullptr) == with_entropy);
      if (with_entropy) std::copy_n(dentropy.data() + first, rows, to_entropy);
    };
    Tape tape;
    const auto out =
        head_logprob(x, w, targets, 0.7F, with_entropy, known ? slope : HeadSlope<Cpu>{});
    auto loss = weighted_sum(out.logprob, dlogprob);
    if (with_entropy) loss = add(loss, weighted_sum(out.entropy, dentropy));
    tape.backward(loss);
    return std::vector<std::vector<float>>{out.logprob.to_vector(), grad_of(x), grad_of(w)};
  };
  for (const bool with_entropy : {false, true}) {
    const auto expected = run(with_entropy, false), once = run(with_entropy, true);
    for (std::size_t i = 0; i < expected.size(); ++i) CHECK(same_bits(once[i], expected[i]));
  }
}

TEST_CASE("gradients: head log-probability and entropy, together and alone") {
  const auto targets = ids({3, 0, 10, 10, 7});
  for (const float temperature : {1.0F, 0.7F}) {
    const auto x = random_tensor({5, 8}, 1), w = random_tensor({11, 8}, 2, 0.5F);
    check_op(
        [&](const Inputs& i) {
          const auto out = head_logprob(i[0], i[1], targets, temperature, true);
          return Inputs{out.logprob, out.entropy};
        },
        {x.clone(), w.clone()});
    check_op(
        [&](const Inputs& i) {
          return Inputs{head_logprob(i[0], i[1], targets, temperature, true).logprob};
        },
        {x.clone(), w.clone()});
    check_op(
        [&](const Inputs& i) {
          return Inputs{head_logprob(i[0], i[1], targets, temperature, true).entropy};
        },
        {x.clone(), w.clone()});
  }
  check_op([&](const Inputs& i) { return Inputs{cross_entropy(i[0], i[1], targets)}; },
           {random_tensor({5, 8}, 1), random_tensor({11, 8}, 2, 0.5F)});
}

TEST_CASE("gradients: weighted sum and the RLHF losses") {
  const Index n = 40;
  const auto weight = random_tensor({n}, 1);
  check_op([&](const Inputs& i) { return Inputs{weighted_sum(i[0], weight)}; },
           {random_tensor({n}, 2)});
  const auto positive = random_tensor({n}, 3);
  for (Index i = 0; i < n; ++i) positive.data()[i] = std::abs(positive.data()[i]) / n;
  const auto old = random_tensor({n}, 4), target = random_tensor({n}, 5);
  // Elements within a step of an edge of a clip have no one slope: take small steps and such inputs
  // as keep clear of them.
  auto x = random_tensor({n}, 6, 0.5F);
  for (Index i = 0; i < n; ++i) x.data()[i] += old.data()[i];
  check_op(
      [&](const Inputs& i) {
        PolicyStats stats;
        return Inputs{ppo_policy_loss(i[0], old, target, positive, {.dual = 1.5F}, &stats)};
      },
      {x.clone()}, 1e-3F, 2e-3);
  check_op(
      [&](const Inputs& i) {
        ValueStats stats;
        return Inputs{ppo_value_loss(i[0], old, target, positive, 0.2F, &stats)};
      },
      {x.clone()}, 1e-3F, 2e-3);
  const auto rank = ids({0, 1, 2, 0, 0, 1, -1, 1, 0}), offsets = ids({0, 3, 6, 9});
  const auto shares = random_tensor({3}, 7);
  const auto check_ranking = [&](RankingLossKind kind, const Tensor<Cpu>& levels) {
    check_op(
        [&](const Inputs& i) {
          RankingStats stats;
          return Inputs{ranking_loss(i[0], rank, levels, offsets, shares,
                                     {.kind = kind, .margin = 0.3F, .center = 0.1F}, &stats)};
        },
        {random_tensor({9}, 8)});
  };
  check_ranking(RankingLossKind::BradleyTerry, {});
  check_ranking(RankingLossKind::BradleyTerry, random_tensor({9}, 9));
  check_ranking(RankingLossKind::PlackettLuce, {});
}

TEST_CASE("gradients agree with PyTorch's in double precision") {
  const auto j = golden();
  const auto close = [](const Tensor<Cpu>& x, const nlohmann::json& expected) {
    double scale = 1e-30;
    for (const double e : doubles(expected)) scale = std::max(scale, std::abs(e));
    CHECK(max_error(grad_of(x), doubles(expected), scale) < 2e-6);
  };
  {
    const auto& g = j["gelu"];
    const auto x = tensor(g["x"], {static_cast<Index>(g["x"].size())});
    Tape tape;
    backward_from(tape, gelu(x), g["dy"]);
    close(x, g["dx"]);
  }
  {
    const auto& g = j["swiglu"];
    const Shape shape{static_cast<Index>(g["gate"].size())};
    const auto gate = tensor(g["gate"], shape), up = tensor(g["up"], shape);
    Tape tape;
    backward_from(tape, swiglu(gate, up), g["dy"]);
    close(gate, g["dgate"]);
    close(up, g["dup"]);
  }
  {
    const auto& g = j["rms_norm"];
    const Index n = g["n"], c = g["c"];
    const auto x = tensor(g["x"], {n, c}), w = tensor(g["weight"], {c});
    Tape tape;
    backward_from(tape, rms_norm(x, w, g["eps"]), g["dy"]);
    close(x, g["dx"]);
    close(w, g["dweight"]);
  }
  {
    const auto& g = j["layer_norm"];
    const Index n = g["n"], c = g["c"];
    const auto x = tensor(g["x"], {n, c}), w = tensor(g["weight"], {c}), b = tensor(g["bias"], {c});
    Tape tape;
    backward_from(tape, layer_norm(x, w, b, g["eps"]), g["dy"]);
    close(x, g["dx"]);
    close(w, g["dweight"]);
    close(b, g["dbias"]);
  }
  for (const auto& g : j["head"]) {
    const Index n = g["n"], c = g["c"], v = g["v"];
    const float inverse = g["inverse_temperature"];
    const auto x = tensor(g["x"], {n, c}), w = tensor(g["w"], {v, c});
    Tape tape;
    const auto out = head_logprob(x, w, ids(g["targets"].get<Tokens>()), 1.0F / inverse, true);
    CHECK(max_error(out.logprob.to_vector(), doubles(g["logprob"])) < 3e-6);
    CHECK(max_error(out.entropy.to_vector(), doubles(g["entropy"])) < 3e-6);
    tape.backward(add(weighted_sum(out.logprob, Tensor<Cpu>::from(floats(g["dlogprob"]), {n})),
                      weighted_sum(out.entropy, Tensor<Cpu>::from(floats(g["dentropy"]), {n}))));
    close(x, g["dx"]);
    close(w, g["dw"]);
  }
}

TEST_CASE("only what needs a gradient is recorded and given one") {
  const auto x = random_tensor({3, 4}, 1), w = random_tensor({5, 4}, 2);
  CHECK_FALSE(linear(x, w).requires_grad());
  w.set_requires_grad(true);
  CHECK_FALSE(linear(x, w).requires_grad());  // no tape: inference
  Tape tape;
  CHECK_FALSE(gelu(x).requires_grad());
  const auto y = linear(x, w);
  CHECK(y.requires_grad());
  tape.backward(weighted_sum(y, random_tensor({15}, 3)));
  CHECK(w.has_grad());
  CHECK_FALSE(x.has_grad());
}

TEST_CASE("backward refuses what it cannot do") {
  const auto x = random_tensor({2, 2}, 1);
  Tape tape;
  CHECK(contains(message_of<ShapeError>([&] { tape.backward(x); }), "(2, 2)"));
  CHECK(contains(
      message_of<ShapeError>([&] { tape.backward(weighted_sum(x, random_tensor({4}, 2))); }),
      "depends on no tensor with a gradient"));
}

TEST_CASE("views share a gradient with what they view") {
  const auto x = random_tensor({4, 3}, 1), w = random_tensor({6}, 2);
  x.set_requires_grad(true);
  Tape tape;
  tape.backward(weighted_sum(scale(x.rows(1, 3).reshape({6}), 2.0F), w));
  const auto d = grad_of(x), expected = w.to_vector();
  for (std::size_t i = 0; i < 12; ++i)
    CHECK(d[i] == (i < 3 || i >= 9 ? 0.0F : 2.0F * expected[i - 3]));
  // A product that reads a view adds to its part alone.
  const auto m = random_tensor({5, 3}, 3);
  tape.backward(weighted_sum(linear(x.rows(0, 2), m), random_tensor({10}, 4)));
  const auto after = grad_of(x);
  CHECK(after[0] != 0.0F);
  for (std::size_t i = 6; i < 12; ++i) CHECK(after[i] == d[i]);
}

TEST_CASE("a wrong shape is named with its op and both shapes") {
  const auto a = random_tensor({8, 7}, 1), b = random_tensor({3, 5}, 2), v = random_tensor({4}, 3);
  const auto i = ids({0, 1, 2});
  const auto names = [](const std::string& text, std::initializer_list<const char*> parts) {
    CAPTURE(text);
    CHECK(contains(text, "test_ops.cpp:"));
    for (const char* part : parts) CHECK(contains(text, part));
  };
  const auto error = [](auto f) { return message_of<ShapeError>(f); };
  names(error([&] { linear(a, b); }), {"[linear]", "(8, 7)", "(3, 5)", "HINT"});
  names(error([&] { linear(a, random_tensor({3, 7}, 1), v); }), {"[linear]", "bias", "(4)", "3"});
  names(error([&] {
          linear(a, random_tensor({3, 7}, 1), {}, b);
        }),
        {"[linear]", "residual", "(3, 5)", "(8, 3)"});
  names(error([&] { add(a, b); }), {"[add]", "(8, 7)", "(3, 5)"});
  names(error([&] { swiglu(a, b); }), {"[swiglu]", "(8, 7)", "(3, 5)"});
  names(error([&] { embedding(v, i); }), {"[embedding]", "(4)", "(3)"});
  names(error([&] { rope(a, b, b, i); }), {"[rope]", "(8, 7)", "3 rows", "10"});
  names(error([&] { rms_norm(a, v, 1e-5F); }), {"[rms_norm]", "(8, 7)", "(4)"});
  names(error([&] { layer_norm(a, v, v, 1e-5F); }), {"[layer_norm]", "(8, 7)", "(4)"});
  names(error([&] {
          attention(a, b, b, ids({0, 8}), {1, 1, 7, 1.0F});
        }),
        {"[attention]", "(8, 7)", "(3, 5)"});
  names(error([&] { head_logprob(a, b, i); }), {"[head_logprob]", "(8, 7)", "(3, 5)", "(3)"});
  names(error([&] { cross_entropy(a, b, i); }), {"(8, 7)", "(3, 5)"});
  names(error([&] { weighted_sum(v, a); }), {"[weighted_sum]", "(4)", "(8, 7)"});
  PolicyStats policy;
  ValueStats value;
  RankingStats ranking;
  names(error([&] { ppo_policy_loss(v, v, v, a, {}, &policy); }), {"[ppo_policy_loss]", "4", "56"});
  names(error([&] { ppo_value_loss(v, a, v, v, 0.2F, &value); }), {"[ppo_value_loss]", "4", "56"});
  names(error([&] {
          ranking_loss(v, i, {}, ids({0, 4}), v, {}, &ranking);
        }),
        {"[ranking_loss]", "(4)", "(3)"});
  names(error([&] {
          ranking_loss(v, ids({0, 1, 2, 3}), a, ids({0, 4}), random_tensor({1}, 1), {}, &ranking);
        }),
        {"[ranking_loss]", "level (8, 7)"});
  names(error([&] { head_logprob(a, a, ids(Tokens(8)), 0.0F); }),
        {"[head_logprob]", "temperature"});
}

TEST_CASE("CheckFinite names the op that made the first value that is not finite") {
  const auto x = random_tensor({2, 3}, 1), w = random_tensor({4, 3}, 2);
  x.data()[4] = std::numeric_limits<float>::infinity();
  CHECK_NOTHROW(linear(x, w));
  {
    const CheckFinite on;
    CHECK(contains(message_of<NumericError>([&] { linear(x, w); }), "[linear] element 4"));
    CHECK(contains(message_of<NumericError>([&] { gelu(x); }), "[activate] element 4"));
    CHECK_NOTHROW(linear(w, w));
  }
  CHECK_NOTHROW(linear(x, w));
}
