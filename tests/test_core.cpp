// Shapes, tensors and their gradients, the tape, host memory, bf16 and error texts.
#include <plumb/core/bf16.hpp>
#include <plumb/core/check.hpp>
#include <plumb/core/memory.hpp>
#include <plumb/core/shape.hpp>
#include <plumb/core/tape.hpp>
#include <plumb/core/tensor.hpp>

#include "support.hpp"

#include <doctest/doctest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

using namespace plumb;
using test::contains;
using test::message_of;
using T = Tensor<Cpu>;

namespace {

// y = factor · x, as an op would be written.
T scaled(const T& x, float factor) {
  T y = T::empty(x.shape());
  for (Index i = 0; i < x.size(); ++i) y.data()[i] = factor * x.data()[i];
  if (recording(x))
    record(y, [x, y, factor] {
      for (Index i = 0; i < x.size(); ++i) x.grad()[i] += factor * y.grad()[i];
    });
  return y;
}

T parameter(std::initializer_list<float> values) {
  T x = T::from(values, {static_cast<Index>(values.size())});
  x.set_requires_grad(true);
  return x;
}

}  // namespace

TEST_CASE("str joins text, numbers, flags and shapes") {
  CHECK(str("a", std::string("b"), 'c', 1, true, 2.5, Shape{2, 3}, std::size_t{7}) ==
        "abc1true2.5(2, 3)7");
  CHECK(str(Shape{}) == "()");
  CHECK(str(1.0F / 3) == "0.3333333");
}

TEST_CASE("check and fail name the rule and the place, and throw what was asked") {
  check(true, "never seen");
  const int line = __LINE__ + 1;
  const auto text = message_of<ShapeError>([] { check(false, "[op] rule; got 3"); });
  CHECK(text == str("[op] rule; got 3 (test_core.cpp:", line, ")"));
  CHECK(contains(message_of<DataError>([] { fail<DataError>("bad"); }), "bad (test_core.cpp:"));
  CHECK_THROWS_AS(fail<IoError>("x"), IoError);
  CHECK_THROWS_AS(fail<NumericError>("x"), Error);  // Error is the base of all
  CHECK_THROWS_AS(fail("x"), std::runtime_error);
}

TEST_CASE("a shape knows its extents from both ends") {
  const Shape s{2, 3, 4};
  CHECK(s.rank() == 3);
  CHECK(s.size() == 24);
  CHECK(s[0] == 2);
  CHECK(s[-1] == 4);
  CHECK(Shape{}.rank() == 0);
  CHECK(Shape{}.size() == 1);
  CHECK(Shape{5, 0}.size() == 0);
  CHECK(s == Shape{2, 3, 4});
  CHECK(s != Shape{2, 3});
  CHECK(Shape{1} != Shape{});
  CHECK_THROWS_AS(s[3], ShapeError);
  CHECK_THROWS_AS(s[-4], ShapeError);
  CHECK_THROWS_AS((Shape{1, 2, 3, 4, 5}), ShapeError);
  CHECK_THROWS_AS((Shape{1, -2}), ShapeError);
}

TEST_CASE("tensors: values in, values out") {
  const T x = T::from({1, 2, 3, 4, 5, 6}, {2, 3});
  CHECK(x.to_vector() == std::vector<float>{1, 2, 3, 4, 5, 6});
  CHECK(x.dim(0) == 2);
  CHECK(x.dim(-1) == 3);
  CHECK(x.bytes() == 24);
  CHECK(reinterpret_cast<std::uintptr_t>(x.data()) % 64 == 0);
  CHECK(T::zeros({3}).to_vector() == std::vector<float>(3, 0.0F));
  CHECK(T::from({7}, {}).item() == 7.0F);
  CHECK(T::empty({0, 4}).to_vector().empty());
  CHECK_FALSE(T());
  CHECK(x);

  T copy = x;  // a handle
  copy.data()[0] = 9;
  CHECK(x.data()[0] == 9);
  const T clone = x.clone();
  clone.data()[0] = 1;
  CHECK(x.data()[0] == 9);
  copy = T();
  copy = x;
  copy = std::move(copy);
  CHECK(to<Cpu>(x).to_vector() == x.to_vector());

  CHECK(contains(message_of<ShapeError>([] {
                   (void)T::from({1, 2}, {3});
                 }),
                 "[tensor] 2 values do not fill the shape (3) (test_core.cpp:"));
  CHECK(contains(message_of<ShapeError>([&] { (void)x.item(); }),
                 "[item] one element expected, the shape is (2, 3) (test_core.cpp:"));
}

TEST_CASE("views share elements and gradient") {
  const T x = T::from({1, 2, 3, 4, 5, 6}, {3, 2});
  const T flat = x.reshape({6}), tail = x.rows(1, 3), middle = tail.rows(0, 1);
  CHECK(flat.shape() == Shape{6});
  CHECK(tail.to_vector() == std::vector<float>{3, 4, 5, 6});
  CHECK(middle.to_vector() == std::vector<float>{3, 4});
  CHECK(x.rows(1, 1).size() == 0);
  CHECK(T::zeros({4, 2, 3}).rows(1, 3).shape() == Shape{2, 2, 3});
  CHECK(T::zeros({4, 2, 3, 5}).rows(1, 3).shape() == Shape{2, 2, 3, 5});
  CHECK(T::zeros({4}).rows(1, 3).shape() == Shape{2});
  CHECK(T::zeros({0, 3}).rows(0, 0).shape() == Shape{0, 3});

  CHECK_FALSE(x.has_grad());
  middle.grad()[1] = 5;
  CHECK(x.has_grad());
  CHECK(x.grad_tensor().to_vector() == std::vector<float>{0, 0, 0, 5, 0, 0});
  CHECK(flat.grad()[3] == 5);
  tail.zero_grad();
  CHECK(x.grad()[3] == 0);
  x.grad()[0] = 1;
  tail.zero_grad();  // only its own part
  CHECK(x.grad()[0] == 1);
  flat.set_requires_grad(true);
  CHECK(x.requires_grad());

  CHECK(contains(message_of<ShapeError>([&] { (void)x.reshape({4}); }),
                 "[reshape] (3, 2) has 6 elements, (4) has 4 (test_core.cpp:"));
  CHECK(contains(message_of<ShapeError>([&] { (void)x.rows(2, 4); }),
                 "[rows] [2, 4) is not within the rows of (3, 2)"));
  CHECK_THROWS_AS(x.rows(-1, 1), ShapeError);
  CHECK_THROWS_AS(x.rows(2, 1), ShapeError);
  CHECK_THROWS_AS(T::zeros({}).rows(0, 1), ShapeError);
}

TEST_CASE("the first writer of a whole gradient overwrites, later ones and views accumulate") {
  const T x = T::zeros({2, 2});
  const GradTarget<float> first = x.grad_target();
  CHECK_FALSE(first.accumulate);
  for (int i = 0; i < 4; ++i) first.data[i] = 1;
  const GradTarget<float> second = x.grad_target();
  CHECK(second.accumulate);
  CHECK(second.data == first.data);

  const T y = T::zeros({2, 2});
  const GradTarget<float> part = y.rows(1, 2).grad_target();
  CHECK(part.accumulate);  // the rest of the gradient must be there too: all zero
  CHECK(y.grad_tensor().to_vector() == std::vector<float>(4, 0.0F));
  CHECK(part.data == y.grad() + 2);
  CHECK(y.grad_target().accumulate);

  CHECK_FALSE(T::zeros({2, 2}).reshape({4}).grad_target().accumulate);  // whole, if reshaped
}

TEST_CASE("one flat block carries many tensors") {
  T block = T::unallocated();
  const T a = block.view_at(0, {2}), b = block.view_at(2, {3});
  block.allocate_as({5});
  for (int i = 0; i < 5; ++i) block.data()[i] = static_cast<float>(i);
  CHECK(a.to_vector() == std::vector<float>{0, 1});
  CHECK(b.to_vector() == std::vector<float>{2, 3, 4});
  CHECK(b.grad() == block.grad() + 2);
}

TEST_CASE("backward runs the steps from the last to the first, each once") {
  std::vector<int> order;
  Tape tape;
  const T x = parameter({1});
  T y = scaled(x, 2);
  for (int i = 0; i < 3; ++i) record(y, [&order, i] { order.push_back(i); });
  tape.backward(y);
  CHECK(order == std::vector<int>{2, 1, 0});
  CHECK(x.grad()[0] == 2);
  tape.replay();
  CHECK(order.size() == 3);  // the tape is empty now
}

TEST_CASE("gradients are sums over paths, and over backward passes") {
  const T x = parameter({3, 4});
  for (int pass = 1; pass <= 2; ++pass) {
    Tape tape;
    const T y = scaled(x, 2);
    T total = T::zeros({});
    for (Index i = 0; i < 2; ++i) total.data()[0] += y.data()[i] + 5 * x.data()[i];
    record(total, [x, y, total] {
      for (Index i = 0; i < 2; ++i) {
        y.grad()[i] += total.grad()[0];
        x.grad()[i] += 5 * total.grad()[0];
      }
    });
    tape.backward(total, 0.5F);
    CHECK(x.grad_tensor().to_vector() == std::vector<float>(2, 3.5F * static_cast<float>(pass)));
  }
}

TEST_CASE("nothing is recorded without a tape or without a gradient, nor during backward") {
  const T x = parameter({1});
  CHECK_FALSE(recording(x));
  CHECK_FALSE(scaled(x, 2).requires_grad());
  Tape tape;
  CHECK(recording(x));
  CHECK_FALSE(recording(T::zeros({1})));
  CHECK(recording(T::zeros({1}), x));
  CHECK_FALSE(recording(T()));
  CHECK_FALSE(scaled(T::zeros({1}), 2).requires_grad());

  bool recorded_within = true, recorded_elsewhere = true;
  const T y = scaled(x, 2);
  record(y, [&] { recorded_within = recording(x); });
  std::thread([&] { recorded_elsewhere = recording(x); }).join();  // a tape is its thread's
  tape.backward(y);
  CHECK_FALSE(recorded_within);
  CHECK_FALSE(recorded_elsewhere);
  CHECK(recording(x));
}

TEST_CASE(
    "an inner tape takes the recording for its scope, backward of an outer step may use one") {
  const T x = parameter({1});
  Tape outer;
  const T y = scaled(x, 2);
  {
    Tape inner;
    const T z = scaled(x, 7);
    inner.backward(z);
    CHECK(x.grad()[0] == 7);
  }
  x.zero_grad();
  CHECK(recording(x));

  // Recomputation: the step runs its forward again under a tape of its own.
  const T w = T::from({2 * 3 * x.data()[0]}, {1});
  record(w, [x, w] {
    Tape inner;
    const T again = scaled(scaled(x, 2), 3);
    *again.grad() = w.grad()[0];
    inner.replay();
  });
  outer.backward(w);
  CHECK(x.grad()[0] == 6);
}

TEST_CASE("a step and what it holds are gone as soon as it has run") {
  const auto token = std::make_shared<int>(0);
  Tape tape;
  const T x = parameter({1});
  T y = scaled(x, 2);
  std::vector<long> holders;
  for (int i = 0; i < 3; ++i)
    record(y, [token, &holders] { holders.push_back(token.use_count()); });
  CHECK(token.use_count() == 4);
  tape.backward(y);
  CHECK(holders == std::vector<long>{4, 3, 2});
  CHECK(token.use_count() == 1);
}

TEST_CASE("a tape without backward, or whose step throws, frees what it holds") {
  const auto token = std::make_shared<int>(0);
  const T x = parameter({1});
  {
    Tape tape;
    record(scaled(x, 2), [token] {});
    CHECK(token.use_count() == 2);
  }
  CHECK(token.use_count() == 1);
  {
    Tape tape;
    const T y = scaled(x, 2);
    record(y, [token] {});
    record(y, [token] { throw NumericError("[step] stopped"); });
    CHECK_THROWS_AS(tape.backward(y), NumericError);
  }
  CHECK(token.use_count() == 1);
  CHECK_FALSE(recording(x));
}

TEST_CASE("after a step that throws the scope records as before") {
  const T x = parameter({1});
  Tape tape;
  const T y = scaled(x, 2);
  record(y, [] { throw NumericError("[step] stopped"); });
  CHECK_THROWS_AS(tape.backward(y), NumericError);
  CHECK(recording(x));
}

TEST_CASE("backward says what is wrong with its loss") {
  Tape tape;
  const T x = parameter({1, 2});
  CHECK(contains(message_of<ShapeError>([&] { tape.backward(scaled(x, 2)); }),
                 "[backward] the loss must have one element; its shape is (2) (test_core.cpp:"));
  const auto text = message_of<ShapeError>([&] { tape.backward(T::zeros({})); });
  CHECK(contains(text, "[backward] the loss depends on no tensor with a gradient. HINT: "));
}

TEST_CASE("a tape whose steps ran is spent, until something is recorded again") {
  const T x = T::from({2.0F}, {1});
  x.set_requires_grad(true);
  Tape tape;
  const T y = scaled(x, 3);
  tape.backward(y);
  CHECK(x.grad()[0] == 3.0F);
  CHECK(
      contains(message_of<ShapeError>([&] { tape.backward(y); }), "[backward] this tape is spent"));
  CHECK(x.grad()[0] == 3.0F);
  tape.backward(scaled(x, 5));
  CHECK(x.grad()[0] == 8.0F);
  {  // nothing is recorded in the scope of NoTape
    const NoTape inference;
    CHECK_FALSE(scaled(x, 2).requires_grad());
  }
  CHECK(scaled(x, 2).requires_grad());
}

TEST_CASE("tapes longer than a block and steps of every size") {
  const T x = parameter({0});
  Tape tape;
  const T y = scaled(x, 1);
  double sum = 0;
  for (int i = 0; i < 3000; ++i) {
    std::array<double, 40> large{};
    large[39] = i;
    if (i % 2 == 0)
      record(y, [&sum, large] { sum += large[39]; });
    else
      record(y, [&sum, i] { sum += i; });
  }
  tape.backward(y);
  CHECK(sum == 3000.0 * 2999 / 2);
}

TEST_CASE("after its first step a training loop asks the system for nothing") {
  const T x = parameter({1, 2, 3});
  x.grad();  // what outlives a step is made before the first
  const auto step = [&] {
    Tape tape;
    T y = x;
    for (int i = 0; i < 50; ++i) y = scaled(y, 1.01F);
    const T wide = T::zeros({100, 100});
    T loss = T::zeros({});
    record(loss, [y, loss, wide] {
      wide.grad();
      for (Index i = 0; i < 3; ++i) y.grad()[i] += loss.grad()[0];
    });
    tape.backward(loss);
  };
  step();
  const MemoryCounters before = memory_counters();
  for (int i = 0; i < 10; ++i) step();
  const MemoryCounters after = memory_counters();
  CHECK(after.system_calls == before.system_calls);
  CHECK(after.system_bytes == before.system_bytes);
  CHECK(after.used_bytes == before.used_bytes);
}

TEST_CASE("blocks are aligned, large enough, waste at most a quarter, and come back") {
  for (std::size_t bytes = 1; bytes < (std::size_t{1} << 22); bytes += 1 + bytes / 7) {
    const std::size_t before = memory_counters().used_bytes;
    void* block = kernels::allocate(Cpu{}, bytes);
    std::memset(block, 1, bytes);  // a sanitizer sees a block that is too small
    const std::size_t taken = memory_counters().used_bytes - before;
    CHECK(reinterpret_cast<std::uintptr_t>(block) % 64 == 0);
    CHECK(taken >= bytes);
    if (bytes > 512) CHECK(taken <= bytes + bytes / 4 + 1);
    kernels::release(Cpu{}, block, bytes);
    const std::size_t calls = memory_counters().system_calls;
    kernels::release(Cpu{}, kernels::allocate(Cpu{}, bytes), bytes);
    CHECK(memory_counters().system_calls == calls);
    CHECK(memory_counters().used_bytes == before);
  }
}

TEST_CASE("peak and release of memory") {
  reset_peak_memory();
  const std::size_t start = memory_counters().peak_bytes;
  { const Scratch<float> scratch(1 << 20); }
  CHECK(memory_counters().peak_bytes >= start + (std::size_t{4} << 20));
  CHECK(memory_counters().peak_bytes <= start + (std::size_t{4} << 20) + (std::size_t{1} << 13));
  reset_peak_memory();
  CHECK(memory_counters().peak_bytes == memory_counters().used_bytes);
  release_cached_memory();
  CHECK(memory_counters().system_bytes == memory_counters().used_bytes);
  const Scratch<double> scratch(3);
  scratch[2] = 1.5;
  CHECK(scratch.data()[2] == 1.5);
}

TEST_CASE("blocks of any lengths use one another's memory, and none overlap") {
  struct Held {
    unsigned char* data;
    std::size_t bytes;
    unsigned char mark;
  };
  const auto whole = [](const Held& h) {
    return h.data[0] == h.mark && h.data[h.bytes / 2] == h.mark && h.data[h.bytes - 1] == h.mark;
  };
  for (const double least : {300.0, 40e3}) {  // small ones to 30 kB, and large ones to 4 MB
    CAPTURE(least);
    release_cached_memory();
    std::vector<Held> held;
    std::uint64_t state = 9;
    const auto next = [&state] {
      return state = state * 6364136223846793005U + 1442695040888963407U;
    };
    std::size_t in_use = memory_counters().used_bytes, most = 0, calls = 0;
    reset_peak_memory();
    for (int step = 0; step < 6000; ++step) {
      if (step == 4000) calls = memory_counters().system_calls;
      // About two hundred blocks, log-uniform.
      if (held.size() < 200 || next() >> 63 != 0) {
        const double u = static_cast<double>(next() >> 40) / static_cast<double>(1U << 24);
        const auto bytes = static_cast<std::size_t>(least * std::pow(100.0, u));
        const auto mark = static_cast<unsigned char>(step);
        auto* data = static_cast<unsigned char*>(kernels::allocate(Cpu{}, bytes));
        data[0] = data[bytes / 2] = data[bytes - 1] = mark;
        held.push_back({data, bytes, mark});
      }
      while (held.size() > 220 || (held.size() > 180 && next() >> 63 != 0)) {
        const std::size_t i = (next() >> 20) % held.size();
        CHECK(whole(held[i]));
        kernels::release(Cpu{}, held[i].data, held[i].bytes);
        held[i] = held.back();
        held.pop_back();
      }
      most = std::max(most, memory_counters().system_bytes);
    }
    const MemoryCounters now = memory_counters();
    // What the system gives comes in pieces of 2 MB.
    CHECK(static_cast<double>(most) < 1.3 * static_cast<double>(now.peak_bytes) + 2.1e6);
    CHECK(now.system_calls - calls <= 2);  // a new largest mixture may still come
    for (const Held& h : held) {
      CHECK(whole(h));
      kernels::release(Cpu{}, h.data, h.bytes);
    }
    CHECK(memory_counters().used_bytes == in_use);
    release_cached_memory();
    CHECK(memory_counters().system_bytes == memory_counters().used_bytes);
  }
}

TEST_CASE("what the system does not give is said with sizes") {
  for (const std::size_t bytes : {std::size_t{1} << 60, std::numeric_limits<std::size_t>::max(),
                                  (std::size_t{1} << 43) + 1}) {
    bool thrown = false;
    try {
      kernels::allocate(Cpu{}, bytes);
    } catch (const std::bad_alloc& error) {
      thrown = true;
      CHECK(contains(error.what(), str("[memory] the system gives no ", bytes, " bytes more; ")));
      CHECK(contains(error.what(), "are in use"));
    }
    CHECK(thrown);
  }
  void* block = kernels::allocate(Cpu{}, 100000);  // and the next request is served
  kernels::release(Cpu{}, block, 100000);
}

TEST_CASE("memory is shared by threads") {
  const auto work = [](int offset) {
    for (int i = 0; i < 2000; ++i) {
      const Scratch<int> a(100 + i % 300);
      a[0] = a[99] = i + offset;
      const Scratch<int> b(200);
      b[0] = 0;
      if (a[0] != i + offset || a[99] != i + offset) std::abort();
    }
  };
  std::thread other(work, 1 << 20);
  work(0);
  other.join();
}

TEST_CASE("bf16 survives the way to float and back for all 2^16 patterns") {
  bool same = true;
  for (std::uint32_t bits = 0; bits < (1U << 16); ++bits) {
    bf16 x;
    x.bits = static_cast<std::uint16_t>(bits);
    const float value = static_cast<float>(x);
    const bool nan = std::isnan(value);
    const bf16 back(value);
    same = same && (nan ? std::isnan(static_cast<float>(back)) : back.bits == x.bits);
  }
  CHECK(same);
}

TEST_CASE("bf16 rounds to the nearest, ties to even") {
  // Between each finite bf16 and the next one up: just below, at and just above the middle, and the
  // extremes. The middle goes to the even pattern. Past the largest finite one lies infinity.
  bool right = true;
  for (std::uint32_t bits = 0; bits < (1U << 16); ++bits) {
    if ((bits & 0x7fffU) >= 0x7f80U) continue;
    const auto rounded = [&](std::uint32_t low) {
      return bf16(std::bit_cast<float>((bits << 16) | low)).bits;
    };
    const std::uint32_t even = bits + (bits & 1U);
    right = right && rounded(1) == bits && rounded(0x7fff) == bits && rounded(0x8000) == even &&
            rounded(0x8001) == bits + 1 && rounded(0xffff) == bits + 1;
  }
  CHECK(right);
  CHECK(bf16(1.0F).bits == 0x3f80);
  CHECK(bf16(std::bit_cast<float>(0x7f800001U)).bits ==
        0x7fc0);  // a NaN whose upper half is infinity
  CHECK(bf16(std::bit_cast<float>(0xffffffffU)).bits == 0xffff);
  CHECK(bf16(-INFINITY).bits == 0xff80);
}

TEST_CASE("shape errors name the caller's place and what came") {
  const auto message_of = [](auto make) -> std::string {
    try {
      make();
    } catch (const ShapeError& e) {
      return e.what();
    }
    return "";
  };
  const auto tensor = Tensor<Cpu>::zeros({2, 3});
  for (const std::string& message :
       {message_of([] {
          Shape{1, 2, 3, 4, 5};
        }),
        message_of([] {
          Shape{2, -1};
        }),
        message_of([&] { tensor.dim(2); }), message_of([&] { tensor.reshape({5}); }),
        message_of([&] { tensor.rows(1, 3); }), message_of([&] { tensor.item(); }), message_of([] {
          Tensor<Cpu>::from({1, 2}, {3});
        })}) {
    CAPTURE(message);
    CHECK(message.find("(test_core.cpp:") != std::string::npos);
  }
}

TEST_CASE("memory: what was given back is asked for once more, and then no more") {
  const Index large = Index{64} << 20;
  Tensor<Cpu>::empty({large / 4});  // the range has grown, and nothing of it is in use
  release_cached_memory();
  const auto step = [] {
    std::vector<Tensor<Cpu>> held;
    for (const Index size : {500'000, 1'100'000, 300'000, 900'000, 700'000}) {
      held.push_back(Tensor<Cpu>::empty({size}));
      if (held.size() % 2 == 0) held.erase(held.begin());
    }
  };
  for (int i = 0; i < 2; ++i) step();
  const std::size_t calls = memory_counters().system_calls;
  for (int i = 0; i < 20; ++i) step();
  CHECK(memory_counters().system_calls == calls);
}
