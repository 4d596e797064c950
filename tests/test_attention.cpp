#include <doctest/doctest.h>
#include <plumb/cpu/kernels.hpp>
#include <plumb/cpu/reference_attention.hpp>

#include "cases/attention.hpp"
#include "support.hpp"

using namespace plumb;
using namespace test;
using namespace cases::attention;

namespace {

using Ints = std::vector<std::int32_t>;
using Floats = std::vector<float>;

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

AttentionShape shape_of(Index heads, Index kv_heads, Index size) {
  return {heads, kv_heads, size, 1.0F / std::sqrt(static_cast<float>(size))};
}

struct Result {
  Floats out, lse, dq, dk, dv;
};

/// Sequences of the given lengths; sequence i's numbers depend on its length alone, so that it can
/// be met again in another batch.
struct Batch {
  AttentionShape shape;
  Ints offsets{0}, key_offsets{0};
  Floats q, k, v, dout;

  Batch(AttentionShape s, const std::vector<Index>& lengths) : shape(s) {
    for (const Index length : lengths) {
      offsets.push_back(offsets.back() + static_cast<std::int32_t>(length));
      const auto add = [&](Floats& to, Index heads, std::uint64_t seed) {
        const Floats x = random_vector(length * heads * shape.head_size,
                                       seed + 10 * static_cast<std::uint64_t>(length));
        to.insert(to.end(), x.begin(), x.end());
      };
      add(q, shape.heads, 1);
      add(k, shape.kv_heads, 2);
      add(v, shape.kv_heads, 3);
      add(dout, shape.heads, 4);
    }
    key_offsets = offsets;
  }

  /// The same sequences from position `first` on (or the last one's, if that is less).
  Batch from_position(Index first) const {
    Batch some = *this;
    some.offsets = {0};
    some.q.clear();
    some.dout.clear();
    const Index width = shape.heads * shape.head_size;
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
      const Index most = std::max<Index>(offsets[s], offsets[s + 1] - 1);
      const Index begin = std::min<Index>(offsets[s] + first, most);
      const auto take = [&](Floats& to, const Floats& x) {
        to.insert(to.end(), x.begin() + begin * width, x.begin() + offsets[s + 1] * width);
      };
      take(some.q, q);
      take(some.dout, dout);
      some.offsets.push_back(some.offsets.back() +
                             static_cast<std::int32_t>(offsets[s + 1] - begin));
    }
    return some;
  }

  Index sequences() const { return static_cast<Index>(offsets.size()) - 1; }
  Index rows() const { return offsets.back(); }
  Index keys() const { return key_offsets.back(); }

  /// Gradients start at `start`, as they accumulate.
  Result run(Cpu device, float start = 0.0F) const {
    Result r{Floats(q.size(), NAN), Floats(at(rows() * shape.heads), NAN), Floats(q.size(), start),
             Floats(k.size(), start), Floats(v.size(), start)};
    kernels::attention_forward(device, r.out.data(), r.lse.data(), q.data(), k.data(), v.data(),
                               offsets.data(), key_offsets.data(), sequences(), rows(), keys(),
                               shape);
    kernels::attention_backward(device, r.dq.data(), r.dk.data(), r.dv.data(), dout.data(),
                                r.out.data(), r.lse.data(), q.data(), k.data(), v.data(),
                                offsets.data(), key_offsets.data(), sequences(), rows(), keys(),
                                shape);
    return r;
  }
};

void check_same(const Result& a, const Result& b) {
  CHECK(same_bits(a.out, b.out));
  CHECK(same_bits(a.lse, b.lse));
  CHECK(same_bits(a.dq, b.dq));
  CHECK(same_bits(a.dk, b.dk));
  CHECK(same_bits(a.dv, b.dv));
}

const std::vector<Index> kLengths(std::begin(kSmallLengths), std::end(kSmallLengths));
// Under a sanitizer one shape, a key past a chunk.
const std::vector<Index> kManyKeys =
    sanitized() ? std::vector<Index>{513}
                : std::vector<Index>(std::begin(kLongLengths), std::end(kLongLengths));
std::span<const AttentionShape> long_shapes() {
  return std::span(kLong).first(sanitized() ? 1 : std::size(kLong));
}

/// Every shape with the lengths meant for it.
std::vector<Batch> batches() {
  std::vector<Batch> all;
  for (const AttentionShape& shape : kSmall) all.emplace_back(shape, kLengths);
  for (const AttentionShape& shape : long_shapes()) all.emplace_back(shape, kManyKeys);
  return all;
}

float exp_of(float x) {
  float y = 0.0F;
  kernels::function_forward(Cpu{}, &y, &x, Function::Exp, 1);
  return y;
}

/// One row's softmax over some keys: the largest score, the sum of weights and of weighted values.
struct State {
  float m = -INFINITY, l = 0.0F;
  Floats acc;
};

/// Row `row` of a sequence of one head, in the canonical order, by plain loops.
Floats row_by_the_book(const Batch& b, Index row) {
  const Index size = b.shape.head_size;
  State total;
  for (Index start = 0; start <= row; start += kAttentionChunk) {
    State chunk{-INFINITY, 0.0F, Floats(at(size), 0.0F)};
    for (Index first = start; first <= row && first < start + kAttentionChunk; first += 32) {
      float s[32], m = -INFINITY;
      for (Index j = 0; j < 32; ++j) {
        float dot = 0.0F;
        for (Index d = 0; first + j <= row && d < size; ++d)
          dot = std::fma(b.q[at(row * size + d)], b.k[at((first + j) * size + d)], dot);
        s[j] = first + j <= row ? dot * b.shape.scale : -INFINITY;
        m = std::max(m, s[j]);
      }
      m = std::max(m, chunk.m);
      const float change = exp_of(chunk.m - m);
      float sum[32];
      for (Index j = 0; j < 32; ++j) sum[j] = s[j] = first + j <= row ? exp_of(s[j] - m) : 0.0F;
      for (Index apart = 16; apart > 0; apart /= 2)
        for (Index j = 0; j < apart; ++j) sum[j] = sum[j] + sum[j + apart];
      chunk.m = m;
      chunk.l = chunk.l * change + sum[0];
      for (Index d = 0; d < size; ++d) {
        float x = chunk.acc[at(d)] * change;
        for (Index j = 0; j < 32 && first + j <= row; ++j)
          x = std::fma(s[j], b.v[at((first + j) * size + d)], x);
        chunk.acc[at(d)] = x;
      }
    }
    if (start == 0) {
      total = chunk;
      continue;
    }
    const float m = std::max(total.m, chunk.m);
    const float before = exp_of(total.m - m);
    const float after = exp_of(chunk.m - m);
    total.m = m;
    total.l = std::fma(chunk.l, after, total.l * before);
    for (std::size_t d = 0; d < total.acc.size(); ++d)
      total.acc[d] = std::fma(chunk.acc[d], after, total.acc[d] * before);
  }
  for (float& x : total.acc) x = x / total.l;
  return total.acc;
}

/// The batch as a cache of T keeps it.
template <class T>
Batch kept(Batch b) {
  for (Floats* x : {&b.k, &b.v})
    for (float& value : *x) value = static_cast<float>(kernels::cached<T>(value));
  return b;
}

/// Queries, keys and values run through a cache whose unused places are NaN.
template <class T = float>
struct Cache {
  KvShape shape;
  std::vector<T> keys, values;

  explicit Cache(KvShape s)
      : shape(s), keys(at(s.keys_size()), T(NAN)), values(at(s.values_size()), T(NAN)) {}

  /// Appends rows `rows` of the batch, at the given places, then attends.
  Floats step(const Batch& b, const std::vector<Index>& rows, const Ints& slots,
              const Ints& positions, Cpu device = {}) {
    const AttentionShape& s = b.shape;
    const auto pick = [&](const Floats& x, Index heads) {
      Floats some;
      for (const Index row : rows)
        some.insert(some.end(), x.begin() + row * heads * s.head_size,
                    x.begin() + (row + 1) * heads * s.head_size);
      return some;
    };
    const Floats q = pick(b.q, s.heads);
    const Floats k = pick(b.k, s.kv_heads);
    const Floats v = pick(b.v, s.kv_heads);
    Floats out(q.size(), NAN);
    const auto count = static_cast<Index>(rows.size());
    kernels::kv_append(device, keys.data(), values.data(), k.data(), v.data(), slots.data(),
                       positions.data(), count, shape);
    kernels::attention_cached_forward(device, out.data(), q.data(), keys.data(), values.data(),
                                      slots.data(), positions.data(), count, shape);
    return out;
  }
};

std::span<const float> row_of(const Floats& out, Index row, const AttentionShape& s) {
  return std::span(out).subspan(at(row * s.heads * s.head_size), at(s.heads * s.head_size));
}

}  // namespace

TEST_CASE("attention: forward and backward are near the oracle") {
  for (const Batch& b : batches()) {
    const AttentionShape& shape = b.shape;
    const Result r = b.run(Cpu{});
    const auto y = reference::attention_forward(b.q.data(), b.k.data(), b.v.data(),
                                                b.offsets.data(), b.sequences(), shape);
    const auto g = reference::attention_backward(b.dout.data(), b.q.data(), b.k.data(), b.v.data(),
                                                 b.offsets.data(), b.sequences(), shape);
    CAPTURE(shape.head_size);
    CHECK(max_error(r.out, y.out) < kTolerance);
    CHECK(max_error(r.lse, y.lse) < 2 * kTolerance);
    CHECK(max_error(r.dq, g.dq) < kGradientTolerance);
    CHECK(max_error(r.dk, g.dk) < kGradientTolerance);
    CHECK(max_error(r.dv, g.dv) < kGradientTolerance);
  }
}

TEST_CASE("attention: the oracle's gradient agrees with central differences") {
  const AttentionShape shape = shape_of(2, 1, 3);
  Batch b(shape, {1, 5, 3});
  const auto g = reference::attention_backward(b.dout.data(), b.q.data(), b.k.data(), b.v.data(),
                                               b.offsets.data(), b.sequences(), shape);
  const auto loss = [&] {
    const auto y = reference::attention_forward(b.q.data(), b.k.data(), b.v.data(),
                                                b.offsets.data(), b.sequences(), shape);
    double sum = 0;
    for (std::size_t i = 0; i < y.out.size(); ++i) sum += y.out[i] * static_cast<double>(b.dout[i]);
    return sum;
  };
  const auto compare = [&](Floats& x, const std::vector<double>& dx) {
    for (std::size_t i = 0; i < x.size(); ++i) {
      const float before = x[i];
      x[i] = before + 0x1p-10F;
      const double above = loss();
      const double step_up = static_cast<double>(x[i]);
      x[i] = before - 0x1p-10F;
      const double below = loss();
      const double slope = (above - below) / (step_up - static_cast<double>(x[i]));
      x[i] = before;
      CHECK(std::abs(slope - dx[i]) < 1e-5);  // the third derivative times step², 1e-6
    }
  };
  compare(b.q, g.dq);
  compare(b.k, g.dk);
  compare(b.v, g.dv);
}

TEST_CASE("attention: every instruction set and thread count gives the same bits") {
  Pool pools[] = {Pool(3), Pool(2), Pool(1)};
  for (const Batch& b : batches()) {
    const Result expected = b.run(Cpu{&pools[2]}, 0.5F);
    CAPTURE(b.shape.head_size);
    for_each_isa([&](Isa isa) {
      CAPTURE(name(isa));
      for (Pool& pool : std::span(pools).first(sanitized() ? 1 : 3))
        check_same(b.run(Cpu{&pool}, 0.5F), expected);
    });
  }
}

TEST_CASE("attention: few sequences for many threads are split, and have the same bits") {
  CHECK(kernels::attention_splits(1, 16));
  CHECK_FALSE(kernels::attention_splits(16, 16));
  Pool alone(1), pools[] = {Pool(2), Pool(16)};
  const Batch all[] = {Batch(shape_of(2, 1, 20), {sanitized() ? 300 : 1100}),
                       Batch(shape_of(4, 2, 8), {500, 0, 33}), Batch(shape_of(1, 1, 64), {200})};
  for (const Batch& whole : all)
    for (const Index first : {0, 45}) {
      const Batch b = whole.from_position(first);
      const Result expected = b.run(Cpu{&alone}, 0.5F);
      for_each_isa([&](Isa isa) {
        CAPTURE(name(isa));
        for (Pool& pool : pools) check_same(b.run(Cpu{&pool}, 0.5F), expected);
      });
    }
}

TEST_CASE("attention: a row's bits are those of the order that the header states") {
  const Batch b(shape_of(1, 1, 7), {1100});
  const Result r = b.run(Cpu{});
  for (const Index row : {0, 30, 31, 32, 300, 510, 511, 512, 513, 700, 1023, 1024, 1099}) {
    CAPTURE(row);
    CHECK(same_bits(row_of(r.out, row, b.shape), row_by_the_book(b, row)));
  }
}

TEST_CASE("attention: gradients are added, once, to what is there") {
  const Batch b(shape_of(4, 2, 8), kLengths);
  const Result from_zero = b.run(Cpu{});
  const Result from_three = b.run(Cpu{}, 3.0F);
  for (std::size_t i = 0; i < b.q.size(); ++i) CHECK(from_three.dq[i] == 3.0F + from_zero.dq[i]);
  for (std::size_t i = 0; i < b.k.size(); ++i) CHECK(from_three.dk[i] == 3.0F + from_zero.dk[i]);
  for (std::size_t i = 0; i < b.v.size(); ++i) CHECK(from_three.dv[i] == 3.0F + from_zero.dv[i]);
}

TEST_CASE("attention: a sequence's bits are the same alone and in any batch") {
  for (const AttentionShape& shape : {shape_of(8, 4, 8), shape_of(3, 3, 20), shape_of(4, 1, 64)}) {
    const Batch all(shape, kLengths);
    const Result together = all.run(Cpu{});
    for (std::size_t i = 0; i < kLengths.size(); ++i) {
      const Result alone = Batch(shape, {kLengths[i]}).run(Cpu{});
      const auto part = [&](const Floats& x, Index heads) {
        return std::span(x).subspan(at(all.offsets[i] * heads), at(kLengths[i] * heads));
      };
      const Index size = shape.head_size;
      CHECK(same_bits(alone.out, part(together.out, shape.heads * size)));
      CHECK(same_bits(alone.lse, part(together.lse, shape.heads)));
      CHECK(same_bits(alone.dq, part(together.dq, shape.heads * size)));
      CHECK(same_bits(alone.dk, part(together.dk, shape.kv_heads * size)));
      CHECK(same_bits(alone.dv, part(together.dv, shape.kv_heads * size)));
    }
  }
}

TEST_CASE("attention: a row's bits do not depend on what follows it") {
  const AttentionShape shape = shape_of(2, 1, 8);
  Batch b(shape, {70});
  const Result whole = b.run(Cpu{});
  for (const Index length : {1, 3, 32, 33, 62}) {
    b.offsets = {0, static_cast<std::int32_t>(length)};
    Floats out(at(length * 16));
    Floats lse(at(length * 2));
    kernels::attention_forward(Cpu{}, out.data(), lse.data(), b.q.data(), b.k.data(), b.v.data(),
                               b.offsets.data(), b.offsets.data(), 1, length, length, shape);
    CHECK(same_bits(out, std::span(whole.out).first(out.size())));
    CHECK(same_bits(lse, std::span(whole.lse).first(lse.size())));
  }
}

TEST_CASE("attention: from a later position on, the bits of whole sequences") {
  Pool pool(3);
  const std::vector<Index> firsts =
      sanitized() ? std::vector<Index>{33} : std::vector<Index>{1, 31, 33, 257, 600};
  for (const Batch& whole : batches())
    for (const Index first : firsts) {
      if (first > whole.rows()) continue;
      CAPTURE(whole.shape.head_size);
      CAPTURE(first);
      const Batch some = whole.from_position(first);
      // What a query that nobody asks for adds to a gradient is 0.
      Batch zeroed = whole;
      const Index width = whole.shape.heads * whole.shape.head_size;
      for (std::size_t s = 0; s + 1 < whole.offsets.size(); ++s) {
        const Index own = some.offsets[s + 1] - some.offsets[s];
        std::fill(zeroed.dout.begin() + whole.offsets[s] * width,
                  zeroed.dout.begin() + (whole.offsets[s + 1] - own) * width, 0.0F);
      }
      const Result all = zeroed.run(Cpu{});
      for_each_isa([&](Isa isa) {
        CAPTURE(name(isa));
        const Result part = some.run(Cpu{&pool});
        for (std::size_t s = 0; s + 1 < whole.offsets.size(); ++s) {
          const Index own = some.offsets[s + 1] - some.offsets[s];
          const auto same = [&](const Floats& x, const Floats& of, Index columns) {
            return same_bits(std::span(x).subspan(at(some.offsets[s] * columns), at(own * columns)),
                             std::span(of).subspan(at((whole.offsets[s + 1] - own) * columns),
                                                   at(own * columns)));
          };
          CHECK(same(part.out, all.out, width));
          CHECK(same(part.lse, all.lse, whole.shape.heads));
          CHECK(same(part.dq, all.dq, width));
        }
        CHECK(same_bits(part.dk, all.dk));
        CHECK(same_bits(part.dv, all.dv));
      });
    }
}

TEST_CASE("attention: a batch of no sequences, or of empty ones, does nothing") {
  const Batch none(shape_of(2, 1, 8), {});
  const Batch empty(shape_of(2, 1, 8), {0, 0});
  none.run(Cpu{});
  CHECK(empty.run(Cpu{}).out.empty());
}

// Of bf16: those of keys and values that were rounded before.
TEST_CASE_TEMPLATE("attention: the cache gives the training bits, prefilled, token by token and "
                   "mixed",
                   T, float, bf16) {
  Pool pool(3);
  for (const AttentionShape& shape : kSmall) {
    CAPTURE(shape.head_size);
    const Batch b(shape, {1, 31, 32, 33, 65});
    const Result expected = kept<T>(b).run(Cpu{});
    const Index sequences = b.sequences();
    for_each_isa([&](Isa isa) {
      CAPTURE(name(isa));
      const auto slot_of = [&](Index s) { return static_cast<std::int32_t>(sequences - s); };
      const KvShape kv{sequences + 1, 70, shape};

      // Everything at once.
      Cache<T> once(kv);
      std::vector<Index> rows;
      Ints slots;
      Ints positions;
      for (Index s = 0; s < sequences; ++s)
        for (std::int32_t row = b.offsets[at(s)]; row < b.offsets[at(s + 1)]; ++row) {
          rows.push_back(row);
          slots.push_back(slot_of(s));
          positions.push_back(row - b.offsets[at(s)]);
        }
      CHECK(same_bits(once.step(b, rows, slots, positions), expected.out));
      CHECK(same_bits(once.step(b, rows, slots, positions, Cpu{&pool}), expected.out));

      // Each sequence s prefilled up to its first 5·s positions, then all of them a token a step.
      Cache<T> steps(kv);
      for (Index t = 0; t < 70; ++t) {
        rows.clear();
        slots.clear();
        positions.clear();
        for (Index s = 0; s < sequences; ++s) {
          const Index length = b.offsets[at(s + 1)] - b.offsets[at(s)];
          const Index prefill = std::min(length, 5 * s + 1);
          const Index first = t == 0 ? 0 : prefill + t - 1;
          const Index last = std::min(length, t == 0 ? prefill : first + 1);
          for (Index p = first; p < last; ++p) {
            rows.push_back(b.offsets[at(s)] + p);
            slots.push_back(slot_of(s));
            positions.push_back(static_cast<std::int32_t>(p));
          }
        }
        const Floats out = steps.step(b, rows, slots, positions);
        bool same = true;
        for (std::size_t i = 0; i < rows.size(); ++i)
          same = same && same_bits(row_of(out, static_cast<Index>(i), shape),
                                   row_of(expected.out, rows[i], shape));
        CHECK(same);
      }
    });
  }
}

TEST_CASE_TEMPLATE("attention: the cache gives the training bits past a chunk of keys", T, float,
                   bf16) {
  Pool pool(3);
  for (const AttentionShape& shape : long_shapes()) {
    CAPTURE(shape.head_size);
    const Batch b(shape, kManyKeys);
    const Result expected = kept<T>(b).run(Cpu{});
    const KvShape kv{b.sequences(), 1025, shape};
    std::vector<Index> rows, ends;
    Ints slots, positions, end_slots, end_positions;
    for (Index s = 0; s < b.sequences(); ++s) {
      for (std::int32_t row = b.offsets[at(s)]; row < b.offsets[at(s + 1)]; ++row) {
        rows.push_back(row);
        slots.push_back(static_cast<std::int32_t>(s));
        positions.push_back(row - b.offsets[at(s)]);
      }
      for (const Index back : {1, 2, 33, 80, 514}) {
        const Index position = b.offsets[at(s + 1)] - b.offsets[at(s)] - back;
        if (position < 0) continue;
        ends.push_back(b.offsets[at(s)] + position);
        end_slots.push_back(static_cast<std::int32_t>(s));
        end_positions.push_back(static_cast<std::int32_t>(position));
      }
    }
    for_each_isa([&](Isa isa) {
      CAPTURE(name(isa));
      Cache<T> cache(kv);
      CHECK(same_bits(cache.step(b, rows, slots, positions, Cpu{&pool}), expected.out));
      // Single tokens: heads that share keys, or four heads side by side.
      const Floats out = cache.step(b, ends, end_slots, end_positions);
      for (std::size_t i = 0; i < ends.size(); ++i)
        CHECK(same_bits(row_of(out, static_cast<Index>(i), shape),
                        row_of(expected.out, ends[i], shape)));
    });
  }
}

TEST_CASE_TEMPLATE("attention: a copied slot continues as the original would", T, float, bf16) {
  const AttentionShape shape = shape_of(4, 2, 8);
  const Batch b(shape, {65});
  const Result expected = kept<T>(b).run(Cpu{});
  for (const Index length : {1, 31, 32, 40, 64}) {
    Cache<T> cache({3, 65, shape});
    std::vector<Index> rows;
    Ints positions;
    for (Index i = 0; i < length; ++i) {
      rows.push_back(i);
      positions.push_back(static_cast<std::int32_t>(i));
    }
    cache.step(b, rows, Ints(at(length), 0), positions);
    kernels::kv_copy(Cpu{}, cache.keys.data(), cache.values.data(), 0, 2, length, cache.shape);
    const auto next = static_cast<std::int32_t>(length);
    CHECK(same_bits(cache.step(b, {length}, {2}, {next}), row_of(expected.out, length, shape)));
  }
}
