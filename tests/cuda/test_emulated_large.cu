// Tensors of more than 2^32 elements: an index that a kernel keeps in 32 bits, with a sign or
// without, shows at their ends.
// Memory is given untouched and only the blocks at the ends of a grid run (emulator::OnlyEnds), so
// that 16 GiB a tensor cost little. What a kernel writes last is compared with what the CPU gives
// for the last rows alone.
#include <plumb/cuda/kernels.cuh>
#include <plumb/plumb.hpp>

#include <emulator/runtime.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <deque>
#include <string>
#include <vector>

#include "support.hpp"

using namespace plumb;
using test::random_vector;

namespace {

using Ints = std::vector<std::int32_t>;

constexpr Index kPast = (Index{1} << 32) + 4096;
constexpr Index kTail = 4200;  // rows of which all is there: what four blocks have at most

/// Memory of the device for five tensors, which one kernel after another is given.
std::byte* arena(std::size_t i) {
  static std::vector<std::byte*> all;
  constexpr std::size_t kBytes = (kPast + kPast / 32 + (Index{1} << 20)) * sizeof(float);
  while (all.size() <= i) {
    emulator::set_memory_limit(std::size_t{120} << 30U);
    void* p = nullptr;
    REQUIRE(all.size() < 5);
    REQUIRE(cudaMalloc(&p, kBytes) == cudaSuccess);
    all.push_back(static_cast<std::byte*>(p) + kBytes);
  }
  return all[i];  // its end
}

/// The arrays of a call on n rows, of which the first and the last `tail` are filled, alike: on the
/// CPU there are no others.
template <class D>
class Rows {
 public:
  static constexpr bool kHere = std::is_same_v<D, Cpu>;
  const Index tail, n;
  Rows(Index rows, Index filled) : tail(filled), n(kHere ? filled : rows) {}

  /// (n, width), the last rows random.
  const float* in(Index width, std::uint64_t seed = 1, float scale = 1.0F) {
    return put(random_vector(tail * width, seed, scale), width);
  }
  /// Written or added to; the last row is compared.
  float* out(Index width = 1) {
    float* p = put(random_vector(tail * width, 77), width);
    compared_.push_back({p + (n - 1) * width, width});
    return p;
  }
  /// (n, width), written and not compared.
  float* unseen(Index width) { return put(random_vector(tail * width, 5), width); }
  /// The row's number from the first of the tail on gives its integer.
  template <class Value>
  std::int32_t* ids(Value value) {
    Ints values;
    for (Index i = 0; i < tail; ++i) values.push_back(static_cast<std::int32_t>(value(i)));
    return put(values, 1);
  }
  /// As they are, on either device.
  float* small(const std::vector<float>& values) { return keep(floats_, values); }
  std::int32_t* small(const Ints& values) { return keep(ints_, values); }
  void compare(const float* p, Index count) { compared_.push_back({p, count}); }

  std::vector<std::vector<float>> results() const {
    std::vector<std::vector<float>> all;
    for (const auto& [p, count] : compared_) {
      all.emplace_back(static_cast<std::size_t>(count));
      copy_to_host(D{}, all.back().data(), p, all.back().size() * sizeof(float));
    }
    return all;
  }

 private:
  template <class T>
  T* put(const std::vector<T>& values, Index width) {
    if constexpr (kHere) {
      if constexpr (std::is_same_v<T, float>)
        return keep(floats_, values);
      else
        return keep(ints_, values);
    } else {
      T* end = reinterpret_cast<T*>(arena(arenas_++));
      const std::size_t bytes = values.size() * sizeof(T);
      copy_from_host(D{}, end - values.size(), values.data(), bytes);
      copy_from_host(D{}, end - n * width, values.data(), bytes);
      return end - n * width;
    }
  }
  template <class T>
  static T* keep(std::deque<Tensor<D, T>>& list, const std::vector<T>& values) {
    list.push_back(Tensor<D, T>::from(values, {static_cast<Index>(values.size())}));
    return list.back().data();
  }

  struct Compared {
    const float* p;
    Index count;
  };
  std::size_t arenas_ = 0;
  std::deque<Tensor<D>> floats_;
  std::deque<Tensor<D, std::int32_t>> ints_;
  std::vector<Compared> compared_;
};

/// Runs call(device, rows) on `tail` rows on the CPU, and on the device on so many that they pass
/// 2^32 elements at `width` a row. Whether what was to be compared is alike.
template <class Call>
bool same_at_the_end(Index width, Call call, Index tail = kTail, std::uint64_t blocks = 4) {
  Rows<Cpu> few(0, tail);
  call(Cpu{}, few);
  const emulator::OnlyEnds ends(blocks);
  Rows<Cuda> many(kPast / width + 1, tail);
  call(Cuda{}, many);
  const auto expected = few.results(), got = many.results();
  REQUIRE(emulator::take_errors().empty());
  REQUIRE(expected.size() == got.size());
  REQUIRE(!expected.empty());
  for (std::size_t i = 0; i < got.size(); ++i)
    if (!test::same_bits(expected[i], got[i])) return false;
  return true;
}

template <class Kept>
__global__ void __launch_bounds__(256) double_all(float* y, const float* x, Index n) {
  const auto i = static_cast<Kept>(static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x);
  if (static_cast<Index>(i) >= 0 && static_cast<Index>(i) < n) y[i] = 2.0F * x[i];
}

template <class Kept>
bool doubles() {
  return same_at_the_end(1, [](auto device, auto& at) {
    float* y = at.out();
    const float* x = at.in(1);
    if constexpr (std::is_same_v<decltype(device), Cpu>)
      scale_forward(device, y, x, 2, at.n);
    else
      PLUMB_LAUNCH(double_all<Kept>, kernels::blocks_for(at.n, 256), 256, 0, device.stream, y, x,
                   at.n);
  });
}

}  // namespace

TEST_CASE("an index of 32 bits is seen") {
  CHECK(doubles<Index>());
  CHECK_FALSE(doubles<std::int32_t>());
  CHECK_FALSE(doubles<std::uint32_t>());
}

TEST_CASE("elements beyond 2^32: one by one") {
  CHECK(same_at_the_end(1, [](auto device, auto& at) {
    const Index n = at.n;
    const float* x = at.in(1, 2);
    accumulate(device, at.out(), x, 0.3F, n);
    shift_forward(device, at.out(), x, 0.7F, n);
    clamp_forward(device, at.out(), x, -1, 1, n);
    clamp_backward(device, at.out(), x, x, -1, 1, n);
  }));
  CHECK(same_at_the_end(1, [](auto device, auto& at) {
    const Index n = at.n;
    const float* x = at.in(1, 2);
    accumulate_by(device, at.out(), x, at.small(std::vector<float>{0.3F}), n);
    function_forward(device, at.out(), x, Function::Exp, n);
    function_backward(device, at.out(), x, x, Function::Exp, n);
    scale_forward(device, at.out(), x, 3, n);
  }));
  CHECK(same_at_the_end(1, [](auto device, auto& at) {
    const Index n = at.n;
    const float* x = at.in(1, 2);
    activation_forward(device, at.out(), x, Activation::Gelu, n);
    activation_backward(device, at.out(), x, x, Activation::Gelu, n);
    swiglu_backward(device, at.out(), at.out(), x, x, x, n);
  }));
  CHECK(same_at_the_end(1, [](auto device, auto& at) {
    const Index n = at.n;
    const float* x = at.in(1, 2);
    float* v = at.out();
    function_forward(device, v, x, Function::Exp, n);  // a second moment is not below 0
    adamw_update(device, at.out(), x, at.out(), v, n,
                 AdamWStep{1e-2F, 0.9F, 0.99F, 1e-8F, 0.1F, 0.7F, 3, false});
    swiglu_forward(device, at.out(), x, x, n);
  }));
  CHECK(same_at_the_end(1, [](auto device, auto& at) {
    const Index n = at.n;
    const float* x = at.in(1, 2);
    sgd_update(device, at.out(), x, at.out(), n, SgdStep{0.1F, 0.9F, 0.01F, 0.5F, true});
    lion_update(device, at.out(), x, at.out(), n, LionStep{0.01F, 0.1F, 0.01F, -0.001F, 0.5F});
  }));
}

TEST_CASE("elements beyond 2^32: losses") {
  CHECK(same_at_the_end(1, [](auto device, auto& at) {
    const float* x = at.in(1, 2);
    float* loss = at.small(std::vector<float>{0});
    ppo_policy_loss(device, loss, at.out(), nullptr, x, x, x, x, at.n, PpoClip{});
    ppo_value_loss(device, loss, at.out(), nullptr, x, x, x, x, at.n, 0.2F);
    kl_loss(device, loss, at.out(), x, x, x, at.n, KlEstimator::K3);
    kto_loss(device, loss, at.out(), x, x, x, at.n, 0.1F);
  }));
}

TEST_CASE("elements beyond 2^32: rows") {
  constexpr Index kC = 33;
  CHECK(same_at_the_end(kC, [](auto device, auto& at) {
    const float* x = at.in(kC, 2);
    const Operand<float> whole{x, kC, 1}, row{at.small(random_vector(kC, 3)), 0, 1};
    combine_forward(device, at.out(kC), whole, row, Arithmetic::Add, at.n, kC);
    combine_backward(device, at.out(kC), x, row, whole, Arithmetic::Multiply, true, at.n, kC);
    assign(device, at.out(kC + 1), kC + 1, whole, 0.3F, false, at.n, kC);
  }));
  CHECK(same_at_the_end(kC, [](auto device, auto& at) {
    const float* x = at.in(kC, 2);
    row_sums(device, at.out(), x, at.n, kC, false);
    softmax_rows(device, at.out(kC), x, at.n, kC, true);
    softmax_rows_backward(device, at.out(kC), x, x, at.n, kC, false);
    argmax_rows(device, at.ids([](Index) { return 0; }), x, at.n, kC);
  }));
  CHECK(same_at_the_end(kC, [](auto device, auto& at) {
    const float* x = at.in(kC, 2);
    const std::int32_t* column = at.ids([](Index i) { return i % kC; });
    pick_forward(device, at.out(), x, column, at.n, kC);
    pick_backward(device, at.out(kC), at.in(1, 3), column, at.n, kC);
  }));
  CHECK(same_at_the_end(kC, [](auto device, auto& at) {
    const float *x = at.in(kC, 2), *w = at.small(random_vector(kC, 3));
    float* rstd = at.unseen(1);
    rms_norm_forward(device, at.out(kC), rstd, x, w, at.n, kC, 1e-5F);
    rms_norm_backward(device, at.out(kC), nullptr, x, x, w, rstd, at.n, kC);
  }));
  CHECK(same_at_the_end(kC, [](auto device, auto& at) {
    const float *x = at.in(kC, 2), *w = at.small(random_vector(kC, 3));
    float *rstd = at.unseen(1), *mean = at.unseen(1);
    layer_norm_forward(device, at.out(kC), mean, rstd, x, w, w, at.n, kC, 1e-5F);
    layer_norm_backward(device, at.out(kC), nullptr, nullptr, x, x, w, mean, rstd, at.n, kC);
  }));
  CHECK(same_at_the_end(32, [](auto device, auto& at) {  // two heads of 16
    const float* cosine = at.small(random_vector(9 * 8, 3));
    const float* sine = at.small(random_vector(9 * 8, 4));
    const std::int32_t* positions = at.ids([](Index i) { return i % 9; });
    rope_forward(device, at.out(32), at.in(32, 2), cosine, sine, positions, at.n, 2, 16);
  }));
}

TEST_CASE("elements beyond 2^32: tables and logits") {
  constexpr Index kC = 33, kV = 300;
  CHECK(same_at_the_end(kC, [](auto device, auto& at) {  // many tokens
    embedding_forward(device, at.out(kC), at.small(random_vector(5 * kC, 3)),
                      at.ids([](Index i) { return i % 5; }), at.n, kC);
  }));
  CHECK(same_at_the_end(kC, [](auto device, auto& at) {  // a large vocabulary, at its end
    const auto last = static_cast<std::int32_t>(at.n - 1);
    const std::int32_t* ids = at.small(Ints{last - 3, last});
    float* y = at.small(random_vector(2 * kC, 3));
    embedding_forward(device, y, at.in(kC, 2), ids, 2, kC);
    at.compare(y, 2 * kC);
    embedding_backward(device, at.out(kC), at.small(random_vector(2 * kC, 4)), ids, 2, kC, at.n);
  }));
  CHECK(same_at_the_end(kV, [](auto device, auto& at) {
    const float* logits = at.in(kV, 2);
    const std::int32_t* targets = at.ids([](Index i) { return i % kV; });
    float *logprob = at.out(), *entropy = at.out(), *lse = at.out();
    if constexpr (std::is_same_v<decltype(device), Cuda>) {
      logprob_rows(device, logprob, entropy, lse, logits, targets, at.n, kV, 0.8F);
    } else {  // the row part alone: of logits that are a product with the unit matrix
      std::vector<float> unit(kV * kV);
      for (Index i = 0; i < kV; ++i) unit[static_cast<std::size_t>(i * (kV + 1))] = 1;
      head_logprob_forward(device, logprob, entropy, lse, logits, at.small(unit), targets, at.n, kV,
                           kV, 0.8F);
    }
  }));
  const auto draw = [](auto device, auto& at) {
    std::vector<std::int32_t> token(static_cast<std::size_t>(at.n));
    std::vector<float> logprob(static_cast<std::size_t>(at.n));
    std::vector<SampleKey> keys(static_cast<std::size_t>(at.n));
    keys.back() = {3, 1, 4, 1};
    sample_rows(device, token.data(), logprob.data(), at.in(50257, 2), at.n, 50257, {},
                keys.data());
    at.compare(at.small(std::vector<float>{static_cast<float>(token.back()), logprob.back()}), 2);
  };
  CHECK(same_at_the_end(50257, draw, 20));
}

TEST_CASE("elements beyond 2^32: products") {
  constexpr Index kFew = 8, kInner = 300, kRows = 200;
  constexpr std::uint64_t kBlocks = 128;  // tiles go in groups
  for (const Index n : {kFew, Index{40}}) {
    const auto rows = [n](auto device, auto& at) {  // of A and C
      const float* b = at.small(random_vector(n * kInner, 3));
      matmul(device, at.out(n), at.in(kInner, 2), b, at.n, n, kInner, Form::NT);
      matmul(device, at.out(n), at.in(kInner, 2), b, at.n, n, kInner, Form::NN);
    };
    CHECK(same_at_the_end(kInner, rows, kRows, kBlocks));
    const auto columns = [n](auto device, auto& at) {  // of C, which are rows of B
      float* c = at.unseen(n);
      matmul(device, c, at.small(random_vector(n * kInner, 3)), at.in(kInner, 2), n, at.n, kInner,
             Form::NT);
      at.compare(c + n * at.n - 1, 1);
    };
    CHECK(same_at_the_end(kInner, columns, kRows, kBlocks));
  }
  const auto of_product = [](auto device, auto& at) {  // C alone
    constexpr Index kWide = 2000;
    matmul(device, at.out(kWide), at.in(kFew, 2), at.small(random_vector(kWide * kFew, 3)), at.n,
           kWide, kFew, Form::NT, true);
  };
  CHECK(same_at_the_end(2000, of_product, kRows, kBlocks));
}

TEST_CASE("elements beyond 2^32: attention") {
  const AttentionShape shape{1, 1, 16, 0.25F};
  const auto train = [&](auto device, auto& at) {
    // Of the CPU's two sequences the second, of the device's three the last has 65 rows; those in
    // between are no block's at an end of the grid.
    const auto n = static_cast<std::int32_t>(at.n);
    Ints offsets{0, 65, n};
    if constexpr (std::is_same_v<decltype(device), Cuda>) {
      const std::int32_t middle = (n - 130) / 64 * 64 + 1;  // so that every block has a tile
      offsets = {0, n - 65 - middle, n - 65, n};
    }
    const std::int32_t* of = at.small(offsets);
    const auto sequences = static_cast<Index>(offsets.size()) - 1;
    const float* x = at.in(16, 2);
    float* out = at.out(16);
    const auto sums = Tensor<decltype(device)>::empty({at.n, 1});
    float* lse = sums.data();
    attention_forward(device, out, lse, x, x, x, of, of, sequences, at.n, at.n, shape);
    attention_backward(device, at.out(16), at.out(16), at.out(16), x, out, lse, x, x, x, of, of,
                       sequences, at.n, at.n, shape);
  };
  CHECK(same_at_the_end(16, train, 130, 1));
  // A cache whose last slot lies beyond.
  const auto generate = [&](auto device, auto& at) {
    const KvShape kv{at.n, 512, shape};
    float *keys = at.unseen(512 * 16), *values = at.unseen(512 * 16);
    const auto last = static_cast<std::int32_t>(at.n - 1);
    const std::int32_t* slots = at.small(Ints{last, last, last});
    const std::int32_t* positions = at.small(Ints{0, 1, 2});
    const float* x = at.small(random_vector(3 * 16, 2));
    kv_append(device, keys, values, x, x, slots, positions, 3, kv);
    float* out = at.small(random_vector(3 * 16, 3));
    attention_cached_forward(device, out, x, keys, values, slots, positions, 3, kv);
    at.compare(out, 3 * 16);
    kv_copy(device, keys, values, at.n - 1, at.n - 2, 3, kv);
    const std::int32_t* copied = at.small(Ints{last - 1});
    float* again = at.small(random_vector(16, 3));
    attention_cached_forward(device, again, x, keys, values, copied, at.small(Ints{2}), 1, kv);
    at.compare(again, 16);
  };
  CHECK(same_at_the_end(512 * 16, generate, 4));
}
