// Attention on the device, over packed sequences and over a cache: the CPU's bits.
#include <plumb/cuda/attention.cuh>
#include <plumb/cuda/graph.cuh>

#include "cases/attention.hpp"
#include "cuda/support.cuh"

using namespace plumb;
using namespace cases::attention;
using test::check_same_bits;
using test::random_vector;

namespace {

using Ints = std::vector<std::int32_t>;
using Floats = std::vector<float>;

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

/// Offsets of sequences of these lengths, the first at row `first`.
Ints offsets_of(std::span<const Index> lengths, Index first = 0) {
  Ints offsets{static_cast<std::int32_t>(first)};
  for (const Index length : lengths)
    offsets.push_back(offsets.back() + static_cast<std::int32_t>(length));
  return offsets;
}

/// Both passes; `shift` floats before each array unalign it, gradients start from what is there.
/// With key offsets, queries are the last positions of their sequences.
void check_training(const AttentionShape& shape, const Ints& offsets, Index shift = 0,
                    const Ints& of_keys = {}) {
  CAPTURE(shape.head_size);
  const Ints& key_offsets = of_keys.empty() ? offsets : of_keys;
  const Index sequences = static_cast<Index>(offsets.size()) - 1;
  const Index rows = offsets.back() - offsets.front();
  const Index seen = key_offsets.back() - key_offsets.front();
  const Index queries = offsets.back() * shape.heads * shape.head_size + shift;
  const Index keys = key_offsets.back() * shape.kv_heads * shape.head_size + shift;
  const Index sums = offsets.back() * shape.heads + shift;
  const Floats q = random_vector(queries, 1), k = random_vector(keys, 2),
               v = random_vector(keys, 3), dout = random_vector(queries, 4),
               dq = random_vector(queries, 5), dk = random_vector(keys, 6),
               dv = random_vector(keys, 7);
  check_same_bits(Cuda{}, [&](auto device, auto& arrays) {
    const auto *of = arrays.in(offsets), *key_of = arrays.in(key_offsets);
    const float *qs = arrays.in(q) + shift, *ks = arrays.in(k) + shift, *vs = arrays.in(v) + shift,
                *douts = arrays.in(dout) + shift;
    float *out = arrays.out(queries, 0.5F) + shift, *lse = arrays.out(sums, 0.5F) + shift;
    attention_forward(device, out, lse, qs, ks, vs, of, key_of, sequences, rows, seen, shape);
    attention_backward(device, arrays.out(dq) + shift, arrays.out(dk) + shift,
                       arrays.out(dv) + shift, douts, out, lse, qs, ks, vs, of, key_of, sequences,
                       rows, seen, shape);
  });
}

/// One step with a cache: these rows are appended at their places, then those from `first` on
/// attend.
struct Step {
  Ints slots, positions;
  Index first = 0;
  void add(std::int32_t slot, std::int32_t position, std::int32_t count = 1) {
    for (std::int32_t p = position; p < position + count; ++p) {
      slots.push_back(slot);
      positions.push_back(p);
    }
  }
};
/// Or a copy between slots.
struct Copy {
  Index from, to, length;
};

/// Runs the steps, then the copy and the steps after it, in one cache, and compares what each gives
/// and what the cache then holds.
template <class T>
void check_cache_of(const KvShape& kv, const std::vector<Step>& before, Copy copy,
                    const std::vector<Step>& after) {
  const AttentionShape& shape = kv.attention;
  CAPTURE(shape.head_size);
  CAPTURE(shape.heads);
  check_same_bits(Cuda{}, [&](auto device, auto& arrays) {
    const auto room = [&](Index n) {
      constexpr Index kInFloat = sizeof(float) / sizeof(T);
      return reinterpret_cast<T*>(arrays.out((n + kInFloat - 1) / kInFloat, NAN));
    };
    T *keys = room(kv.keys_size()), *values = room(kv.values_size());
    std::uint64_t seed = 1;
    const auto run = [&](const Step& step) {
      const auto rows = static_cast<Index>(step.slots.size());
      const auto* slots = arrays.in(step.slots);
      const auto* positions = arrays.in(step.positions);
      const auto random = [&](Index heads) {
        return arrays.in(random_vector(rows * heads * shape.head_size, seed++));
      };
      const float *q = random(shape.heads), *k = random(shape.kv_heads),
                  *v = random(shape.kv_heads);
      kv_append(device, keys, values, k, v, slots, positions, rows, kv);
      const Index width = shape.heads * shape.head_size, left = rows - step.first;
      attention_cached_forward(device, arrays.out(left * width, 0.5F), q + step.first * width, keys,
                               values, slots + step.first, positions + step.first, left, kv);
    };
    for (const Step& step : before) run(step);
    kv_copy(device, keys, values, copy.from, copy.to, copy.length, kv);
    for (const Step& step : after) run(step);
  });
}
void check_cache(const KvShape& kv, const std::vector<Step>& before, Copy copy,
                 const std::vector<Step>& after) {
  check_cache_of<float>(kv, before, copy, after);
  check_cache_of<bf16>(kv, before, copy, after);
}

}  // namespace

TEST_CASE("attention over packed sequences has the CPU's bits") {
  for (const AttentionShape& shape : kSmall) check_training(shape, offsets_of(kSmallLengths));
  check_training({4, 2, 8, 0.35F}, offsets_of(kSmallLengths), 1);  // no 16-byte boundaries
  check_training({2, 2, 64, 0.125F}, offsets_of(kSmallLengths, 5));
  check_training({3, 1, 20, 0.2F}, offsets_of(std::array<Index, 2>{200, 130}));
}

TEST_CASE("attention past a chunk of keys has the CPU's bits") {
  check_training({2, 1, 8, 0.35F}, offsets_of(std::array<Index, 2>{512, 513}));
  check_training({1, 1, 7, 0.4F}, offsets_of(std::array<Index, 1>{1030}));
}

TEST_CASE("attention from a later position on has the CPU's bits") {
  for (const AttentionShape& shape : kSmall)
    for (const Index own : {Index{1}, Index{3}, Index{45}}) {
      Ints offsets{0};
      for (const Index length : kSmallLengths)
        offsets.push_back(offsets.back() + static_cast<std::int32_t>(std::min(length, own)));
      check_training(shape, offsets, 0, offsets_of(kSmallLengths));
    }
  check_training({2, 1, 64, 0.125F}, {2, 79, 80}, 0, offsets_of(std::array<Index, 2>{103, 541}, 3));
}

TEST_CASE("attention of no rows does nothing") {
  check_training({2, 1, 8, 0.35F}, {0});
  check_training({2, 1, 8, 0.35F}, {0, 0, 0});
}

TEST_CASE("attention: a row's bits do not depend on what follows it") {
  const AttentionShape shape{2, 1, 8, 0.35F};
  const Index rows = 70, kept = 40;
  const auto q = random_vector(rows * 16, 1);
  auto k = random_vector(rows * 8, 2), v = random_vector(rows * 8, 3);
  Floats results[2];
  for (Floats& out : results) {
    test::Arrays<Cuda> arrays;
    float* to = arrays.out(rows * 16);
    attention_forward(Cuda{}, to, arrays.out(rows * 2), arrays.in(q), arrays.in(k), arrays.in(v),
                      arrays.in(Ints{0, rows}), arrays.in(Ints{0, rows}), 1, rows, rows, shape);
    out = arrays.results()[0];
    out.resize(at(kept * 16));
    std::fill(k.begin() + kept * 8, k.end(), NAN);
    std::fill(v.begin() + kept * 8, v.end(), NAN);
  }
  CHECK(test::same_bits(results[0], results[1]));
}

TEST_CASE("attention to a cache has the CPU's bits: prompts, tokens, copies") {
  for (const AttentionShape& shape : kSmall) {
    Step prompts, tokens, more;
    prompts.add(2, 0, 33);
    prompts.add(0, 0, 5);
    prompts.add(3, 0, 64);
    tokens.add(3, 64);
    tokens.add(0, 5);
    more.add(1, 64);
    more.add(3, 65);
    more.add(2, 33);
    check_cache({4, 70, shape}, {prompts, tokens}, {3, 1, 64}, {more});
  }
}

TEST_CASE("attention to a cache past a chunk of keys has the CPU's bits") {
  for (const AttentionShape& shape :
       {AttentionShape{1, 1, 8, 0.35F}, {2, 1, 7, 0.4F}, {6, 1, 16, 0.25F}}) {
    Step prompt, tokens, more;
    prompt.add(1, 0, 1024);
    prompt.first = 990;
    tokens.add(1, 1024);
    tokens.add(0, 0);
    more.add(1, 1025);
    more.add(2, 513);
    more.add(0, 1);
    check_cache({3, 1030, shape}, {prompt, tokens}, {1, 2, 513}, {more});
  }
}

TEST_CASE("attention to a long cache takes some rows after others") {
  // 32 chunks of a head of 256 elements: kPartialFloats are 128 rows.
  Step prompt;
  prompt.add(0, 0, 520);
  prompt.first = 380;
  check_cache({2, 16384, {1, 1, 256, 0.0625F}}, {prompt}, {0, 1, 40}, {});
}

TEST_CASE("attention to a cache, captured once, follows the positions on the device") {
  const KvShape kv{2, 700, {2, 1, 8, 0.35F}};
  const Index rows = 2, width = kv.attention.heads * kv.attention.head_size;
  const auto keys = random_vector(kv.keys_size(), 1), values = random_vector(kv.values_size(), 2),
             q = random_vector(rows * width, 3);
  test::Arrays<Cuda> arrays;
  const float *device_keys = arrays.in(keys), *device_values = arrays.in(values),
              *device_q = arrays.in(q);
  const auto slots = Tensor<Cuda, std::int32_t>::empty({rows});
  const auto positions = Tensor<Cuda, std::int32_t>::empty({rows});
  Replay<Cuda> replay;
  const Ints steps[][2] = {{{0, 1}, {3, 600}}, {{1, 0}, {511, 512}}, {{1, 0}, {0, 699}}};
  for (const auto& [slot, position] : steps) {
    copy_from_host(Cuda{}, slots.data(), slot.data(), slot.size() * sizeof(slot[0]));
    copy_from_host(Cuda{}, positions.data(), position.data(), position.size() * sizeof(slot[0]));
    const auto& out = replay.run(1, [&] {
      auto y = Tensor<Cuda>::empty({rows, width});
      attention_cached_forward(Cuda{}, y.data(), device_q, device_keys, device_values, slots.data(),
                               positions.data(), rows, kv);
      return y;
    });
    Floats expected(at(rows * width));
    attention_cached_forward(Cpu{}, expected.data(), q.data(), keys.data(), values.data(),
                             slot.data(), position.data(), rows, kv);
    CHECK(test::same_bits(out.to_vector(), expected));
  }
}
