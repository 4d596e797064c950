// Causal attention over packed sequences, forward and backward, on any device; and a step of
// decoding against a cache.
#pragma once

#include <plumb/bench.hpp>
#include <plumb/cpu/reference_attention.hpp>

#include <algorithm>
#include <cmath>

#include "cases/attention.hpp"
#include "families/support.hpp"

namespace families {

using plumb::AttentionShape;

/// Of few elements: each takes a row, or a column, of all scores.
inline constexpr Index kAttentionPlaces = 99;

inline std::vector<std::int32_t> offsets_of(const cases::attention::Case& k) {
  std::vector<std::int32_t> offsets{0};
  for (const Index length : k.lengths)
    offsets.push_back(offsets.back() + static_cast<std::int32_t>(length));
  return offsets;
}
inline Index query_size(const cases::attention::Case& k) {
  return cases::attention::tokens(k) * k.shape.heads * k.shape.head_size;
}
inline Index key_size(const cases::attention::Case& k) {
  return cases::attention::tokens(k) * k.shape.kv_heads * k.shape.head_size;
}

/// The sequence that token i is of: its first token, and the one behind its last.
struct Sequence {
  Index begin, end;
};
inline Sequence sequence_of(Ids offsets, Index i) {
  const auto next = std::upper_bound(offsets.begin(), offsets.end(), i);
  return {*(next - 1), *next};
}

template <class D, class Table>
void add_attention_forward(const Table& table) {
  using cases::attention::Case;
  add(
      "attention_forward",
      [](D device, float* y, float* lse, const float* q, const float* k, const float* v,
         const std::int32_t* offsets, Index sequences, Index rows, AttentionShape shape) {
        attention_forward(device, y, lse, q, k, v, offsets, offsets, sequences, rows, rows, shape);
      },
      each_of(table,
              [](const Case& k) {
                const Index rows = cases::attention::tokens(k);
                return arguments(out(query_size(k), cases::attention::kTolerance),
                                 out(rows * k.shape.heads, cases::attention::kTolerance),
                                 in(query_size(k)), in(key_size(k)), in(key_size(k)),
                                 fixed(offsets_of(k)), static_cast<Index>(k.lengths.size()), rows,
                                 k.shape)
                    .looked_at(kAttentionPlaces);
              }),
      [](const Places& places, Results y, Results lse, Doubles q, Doubles k, Doubles v, Ids offsets,
         Index, Index rows, AttentionShape s) {
        const Index group = s.heads / s.kv_heads, stride = s.kv_heads * s.head_size;
        const auto row_of = [&](Index i, Index h) {
          const Index begin = sequence_of(offsets, i).begin;
          return plumb::reference::attention_row(&q[at((i * s.heads + h) * s.head_size)],
                                                 &k[at(begin * stride + h / group * s.head_size)],
                                                 i - begin + 1, stride, s.head_size,
                                                 double{s.scale});
        };
        for (const Index to : places(rows * s.heads * s.head_size)) {
          const Index i = to / (s.heads * s.head_size), h = to / s.head_size % s.heads;
          const Index begin = sequence_of(offsets, i).begin;
          y[at(to)] = 0;
          const auto p = row_of(i, h).p;
          for (Index j = begin; j <= i; ++j)
            y[at(to)] +=
                p[at(j - begin)] * v[at(j * stride + h / group * s.head_size + to % s.head_size)];
        }
        for (const Index to : places(rows * s.heads))
          lse[at(to)] = row_of(to / s.heads, to % s.heads).lse;
      },
      cases::attention::forward_work);
}

/// The formula of attention's gradient, of arrays as the kernel is given them: `y` and `lse` need
/// not be what the forward pass would leave.
struct AttentionSlope {
  Doubles dout, y, lse, q, k, v;
  AttentionShape s;

  Index query(Index i, Index h) const { return (i * s.heads + h) * s.head_size; }
  Index key(Index j, Index h) const {
    return (j * s.kv_heads + h / (s.heads / s.kv_heads)) * s.head_size;
  }
  double dot(Doubles a, Index i, Doubles b, Index j) const {
    double sum = 0;
    for (Index d = 0; d < s.head_size; ++d) sum += a[at(i + d)] * b[at(j + d)];
    return sum;
  }
  double share(Index i, Index h, Index j) const {
    return std::exp(double{s.scale} * dot(q, query(i, h), k, key(j, h)) - lse[at(i * s.heads + h)]);
  }
  /// By the score of query i and key j.
  double of_score(Index i, Index h, Index j) const {
    const double delta = dot(dout, query(i, h), y, query(i, h));
    const double of_share = dot(dout, query(i, h), v, key(j, h));
    return share(i, h, j) * (of_share - delta) * double{s.scale};
  }
};

template <class D, class Table>
void add_attention_backward(const Table& table) {
  using cases::attention::Case;
  add(
      "attention_backward",
      [](D device, float* dq, float* dk, float* dv, const float* dout, const float* y,
         const float* lse, const float* q, const float* k, const float* v,
         const std::int32_t* offsets, Index sequences, Index rows, AttentionShape shape) {
        attention_backward(device, dq, dk, dv, dout, y, lse, q, k, v, offsets, offsets, sequences,
                           rows, rows, shape);
      },
      each_of(table,
              [](const Case& k) {
                const double tolerance = cases::attention::kGradientTolerance;
                const double top =
                    std::log(double(*std::max_element(k.lengths.begin(), k.lengths.end())));
                const Index rows = cases::attention::tokens(k), nq = query_size(k),
                            nk = key_size(k);
                return arguments(inout(nq, tolerance), inout(nk, tolerance), inout(nk, tolerance),
                                 in(nq), in(nq), in(rows * k.shape.heads, top, top + 1), in(nq),
                                 in(nk), in(nk), fixed(offsets_of(k)),
                                 static_cast<Index>(k.lengths.size()), rows, k.shape)
                    .looked_at(kAttentionPlaces);
              }),
      [](const Places& places, Results dq, Results dk, Results dv, Doubles dout, Doubles y,
         Doubles lse, Doubles q, Doubles k, Doubles v, Ids offsets, Index, Index rows,
         AttentionShape s) {
        const AttentionSlope slope{dout, y, lse, q, k, v, s};
        for (const Index to : places(rows * s.heads * s.head_size)) {
          const Index i = to / (s.heads * s.head_size), h = to / s.head_size % s.heads;
          for (Index j = sequence_of(offsets, i).begin; j <= i; ++j)
            dq[at(to)] += slope.of_score(i, h, j) * k[at(slope.key(j, h) + to % s.head_size)];
        }
        const Index group = s.heads / s.kv_heads;
        for (const Index to : places(rows * s.kv_heads * s.head_size)) {
          const Index j = to / (s.kv_heads * s.head_size), first = to / s.head_size % s.kv_heads;
          for (Index h = first * group; h < (first + 1) * group; ++h)
            for (Index i = j; i < sequence_of(offsets, j).end; ++i) {
              const Index from = slope.query(i, h) + to % s.head_size;
              dk[at(to)] += slope.of_score(i, h, j) * q[at(from)];
              dv[at(to)] += slope.share(i, h, j) * dout[at(from)];
            }
        }
      },
      cases::attention::backward_work);
}

/// Every slot's next token attends to all positions. Caches of T rotate, as a model's layers' do.
template <class D, class T, class Table>
void add_attention_decode(const char* name, const Table& table) {
  using cases::attention::Decode;
  add(
      name,
      [](D device, float* y, const float* q, const T* keys, const T* values,
         const std::int32_t* slots, const std::int32_t* positions, plumb::KvShape shape) {
        attention_cached_forward(device, y, q, keys, values, slots, positions, shape.slots, shape);
      },
      each_of(table,
              [](const Decode& k) {
                const plumb::KvShape shape{k.slots, k.length, k.shape};
                const Index queries = k.slots * k.shape.heads * k.shape.head_size;
                std::vector<std::int32_t> slots, positions;
                for (Index slot = 0; slot < k.slots; ++slot) {
                  slots.push_back(static_cast<std::int32_t>(slot));
                  positions.push_back(static_cast<std::int32_t>(k.length - 1));
                }
                return arguments(out(queries, cases::attention::kTolerance), in(queries),
                                 rotating(in<T>(shape.keys_size())),
                                 rotating(in<T>(shape.values_size())), fixed(slots),
                                 fixed(positions), shape)
                    .looked_at(kAttentionPlaces);
              }),
      [](const Places& places, Results y, Doubles q, Doubles keys, Doubles values, Ids, Ids,
         plumb::KvShape shape) {
        const AttentionShape& s = shape.attention;
        const Index size = s.head_size, padded = shape.rounded_capacity();
        for (const Index to : places(shape.slots * s.heads * size)) {
          const Index slot = to / (s.heads * size), h = to / size % s.heads;
          const Index begin = slot * shape.slot_size() + h / (s.heads / s.kv_heads) * padded * size;
          // A position's key lies transposed in its block of kKeyBlock.
          std::vector<double> key_rows;
          for (Index j = 0; j < shape.capacity; ++j)
            for (Index d = 0; d < size; ++d)
              key_rows.push_back(keys[at(begin + j / plumb::kKeyBlock * plumb::kKeyBlock * size +
                                         d * plumb::kKeyBlock + j % plumb::kKeyBlock)]);
          const auto p =
              plumb::reference::attention_row(&q[at(to / size * size)], key_rows.data(),
                                              shape.capacity, size, size, double{s.scale})
                  .p;
          y[at(to)] = 0;
          for (Index j = 0; j < shape.capacity; ++j)
            y[at(to)] += p[at(j)] * values[at(begin + j * size + to % size)];
        }
      },
      [](const Decode& k) {
        Work work = cases::attention::work(k, sizeof(T));
        work.footprint = 0;  // of all copies
        return work;
      });
}

}  // namespace families
