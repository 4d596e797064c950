// The differentiable ops: gradients by central differences and against PyTorch's, what they refuse,
// what they record.
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <fstream>
#include <limits>

#include "gradients.hpp"

using namespace plumb;
using namespace test;

namespace {

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
    const Shape x{n, 13}, w{9, 13}, bias{9}, residual{n, 9};
    check_op("linear", [](const auto& i) { return linear(i[0], i[1]); }, {x, w});
    check_op("with both", [](const auto& i) { return linear(i[0], i[1], i[2], i[3]); },
             {x, w, bias, residual});
    check_op("activated",
             [](const auto& i) { return activated_linear(i[0], i[1], i[2], Activation::Gelu); },
             {x, w, bias});
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

TEST_CASE("gradients: norms") {
  for (const Index c : {2, 31, 65}) {
    CAPTURE(c);
    check_op("rms_norm", [](const auto& i) { return rms_norm(i[0], i[1], 1e-5F); }, {{6, c}, {c}});
    if (c > 2)  // of two channels LayerNorm makes signs, whose gradient is that of eps
      check_op("layer_norm", [](const auto& i) { return layer_norm(i[0], i[1], i[2], 1e-5F); },
               {{6, c}, {c}, {c}});
  }
}

TEST_CASE("gradients: rotary positions") {
  const Index half = 3;
  const auto cosine = random_vector(9 * half, 1), sine = random_vector(9 * half, 2);
  const auto positions = ids({0, 1, 2, 0, 8});
  check_op("rope",
           [&](const auto& i) {
             return rope(i[0], beside(i[0], cosine).reshape({9, half}),
                         beside(i[0], sine).reshape({9, half}), positions);
           },
           {{5, 3 * 2 * half}});
}

TEST_CASE("gradients: attention, grouped heads, sequences of 1, 3 and more than a block of keys") {
  for (const Index kv_heads : {1, 2, 4}) {
    const AttentionShape shape{4, kv_heads, 6, 0.4F};
    const auto offsets = ids({0, 1, 4, 44});
    const Shape keys{44, kv_heads * 6};
    check_op("attention",
             [&](const auto& i) { return attention(i[0], i[1], i[2], offsets, shape); },
             {{44, 24}, keys, keys});
  }
}

TEST_CASE("gradients: attention to keys of a beginning that two sequences share") {
  const AttentionShape shape{2, 1, 6, 0.4F};
  // Rows 0 to 4 are the beginning's; sequences of 5 + 2 and 5 + 3 positions, the last their own.
  const SharedKeys<Cpu> shared{ids({0, 5, 12, 20}),
                               ids({0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 7, 8, 9})};
  const auto offsets = ids({0, 5, 7, 10});
  check_op("attention",
           [&](const auto& i) { return attention(i[0], i[1], i[2], offsets, shape, shared); },
           {{10, 12}, {10, 6}, {10, 6}});
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
  const Shape x{5, 8}, w{11, 8};
  for (const float temperature : {1.0F, 0.7F}) {
    const auto head = [&](const auto& i) {
      return head_logprob(i[0], i[1], targets, temperature, true);
    };
    check_op("both",
             [&](const auto& i) {
               const auto out = head(i);
               return out.logprob + 0.6F * out.entropy;
             },
             {x, w});
    check_op("log-prob", [&](const auto& i) { return head(i).logprob; }, {x, w});
    check_op("entropy", [&](const auto& i) { return head(i).entropy; }, {x, w});
  }
  check_op("cross_entropy", [&](const auto& i) { return cross_entropy(i[0], i[1], targets); },
           {x, w});
}

TEST_CASE("gradients: the losses of tokens and of responses") {
  const Index n = 40;
  auto weight = random_vector(n, 3);
  for (float& w : weight) w = std::abs(w) / static_cast<float>(n);
  const auto old = random_vector(n, 4), target = random_vector(n, 5);
  check_op("weighted_sum", [&](const auto& i) { return weighted_sum(i[0], beside(i[0], target)); },
           {{n}});
  // What is given is the difference from what was, so that many are within the clips.
  const auto near = [&](const auto& x) { return 0.5F * x + beside(x, old); };
  for (const PpoClip& clip : {PpoClip{}, PpoClip{.dual = 1.5F}, PpoClip{.low = 0.1F, .high = 0.4F},
                              PpoClip{.log_ratio_limit = 0.6F}})
    check_op("ppo_policy_loss",
             [&](const auto& i) {
               PolicyStats stats;
               return ppo_policy_loss(near(i[0]), beside(i[0], old), beside(i[0], target),
                                      beside(i[0], weight), clip, &stats);
             },
             {{n}});
  for (const float clip : {0.0F, 0.2F})
    check_op("ppo_value_loss",
             [&](const auto& i) {
               ValueStats stats;
               return ppo_value_loss(near(i[0]), beside(i[0], old), beside(i[0], target),
                                     beside(i[0], weight), clip, &stats);
             },
             {{n}});
  for (const KlEstimator kind : {KlEstimator::K1, KlEstimator::K2, KlEstimator::K3})
    check_op("kl_loss",
             [&](const auto& i) {
               return kl_loss(near(i[0]), beside(i[0], old), beside(i[0], weight), kind);
             },
             {{n}});
  auto sign = target;
  for (float& s : sign) s = s > 0 ? 1.0F : -1.0F;
  check_op(
      "kto_loss",
      [&](const auto& i) { return kto_loss(i[0], beside(i[0], sign), beside(i[0], weight), 0.1F); },
      {{n}});
  check_op(
      "log_odds", [](const auto& i) { return log_odds(-i[0]); }, {{n}}, true);
  const auto offsets = ids({0, 1, 7, 7, 40});
  check_op("segment_sum",
           [&](const auto& i) { return segment_sum(i[0], beside(i[0], target), offsets); }, {{n}});
}

TEST_CASE("gradients: rankings, of each kind of loss, with ties and responses that nobody judged") {
  const auto rank = ids({0, 1, 2, 0, 0, 1, -1, 1, 0}), offsets = ids({0, 3, 6, 9});
  const auto shares = random_vector(3, 7), level = random_vector(9, 9);
  const auto check_ranking = [&](const RankingLoss& settings, bool levels) {
    check_op("ranking_loss",
             [&](const auto& i) {
               using X = std::decay_t<decltype(i[0])>;
               RankingStats stats;
               return ranking_loss(i[0], rank, levels ? beside(i[0], level) : X{}, offsets,
                                   beside(i[0], shares), settings, &stats);
             },
             {{9}});
  };
  for (const PairLoss pair :
       {PairLoss::Logistic, PairLoss::Robust, PairLoss::Square, PairLoss::Hinge})
    for (const float smoothing : {0.0F, 0.1F})
      for (const bool levels : {false, true})
        check_ranking({.kind = RankingLossKind::BradleyTerry,
                       .pair = pair,
                       .smoothing = smoothing,
                       .margin = 0.3F,
                       .center = 0.1F},
                      levels);
  check_ranking({.kind = RankingLossKind::PlackettLuce, .center = 0.1F}, false);
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
