// Bodies of attention.hpp. Included once per instruction set.
//
// Rows are taken R at a time, so that each key and value loaded serves R of them. Templates of R,
// without lambdas, which gcc would compile for the wrong instruction set inside a template.

/// dots[r][j] = Σ_d x_r[d] · y[d][j] for one block of 32 columns j of y; kOwn: each row has a y of
/// its own, y_step apart.
template <Index R, bool kOwn = false, class T>
inline void attention_dots(float* dots, const float* x, Index x_stride, const T* y,
                           Index head_size, Index y_step = 0) {
  constexpr Index kPart = kRegisters < 2 ? kRegisters : 2;
  for (Index part = 0; part < kRegisters; part += kPart) {
    V acc[R][kPart];
    PLUMB_UNROLL for (Index r = 0; r < R; ++r) PLUMB_UNROLL for (Index v = 0; v < kPart; ++v)
        acc[r][v] = set(0.0F);
    const T* column = y + part * kWidth;
    for (Index d = 0; d < head_size; ++d, column += kLanes) {
      V yv[kPart];
      PLUMB_UNROLL for (Index r = 0; r < R; ++r) {
        if (kOwn || r == 0) PLUMB_UNROLL for (Index v = 0; v < kPart; ++v) yv[v] =
              load(column + r * y_step + v * kWidth);
        const V xr = set(x[r * x_stride + d]);
        PLUMB_UNROLL for (Index v = 0; v < kPart; ++v) acc[r][v] = fma(xr, yv[v], acc[r][v]);
      }
    }
    PLUMB_UNROLL for (Index r = 0; r < R; ++r) PLUMB_UNROLL for (Index v = 0; v < kPart; ++v)
        store(dots + r * kLanes + (part + v) * kWidth, acc[r][v]);
  }
}

/// What attention_gather does, for W vectors of the head's elements from d on; all whole, or one
/// of `width` elements.
template <Index R, Index W, bool kOwn, class T>
inline void attention_gather_at(float* acc, const float* factor, const float* w, const T* rows,
                                Index stride, Index count, Index step, Index acc_stride,
                                Index width, Index rows_step) {
  const bool whole = width >= W * kWidth;
  V x[R][W];
  PLUMB_UNROLL for (Index r = 0; r < R; ++r) PLUMB_UNROLL for (Index v = 0; v < W; ++v) x[r][v] =
      load(acc + r * acc_stride + v * kWidth) * set(factor[r]);
  const T* row = rows;
  for (Index j = 0; j < count; ++j, row += stride) {
    V value[W];
    PLUMB_UNROLL for (Index r = 0; r < R; ++r) {
      if (kOwn || r == 0) PLUMB_UNROLL for (Index v = 0; v < W; ++v) {
          const T* from = row + r * rows_step + v * kWidth;
          value[v] = whole ? load(from) : load(from, width - v * kWidth);
        }
      const V weight = set(w[r * kLanes + j]);
      PLUMB_UNROLL for (Index v = 0; v < W; ++v) x[r][v] = fma(weight, value[v], x[r][v]);
    }
  }
  PLUMB_UNROLL for (Index r = 0; r < R; ++r) PLUMB_UNROLL for (Index v = 0; v < W; ++v) {
    for (Index j = count; j < count + r * step && j < kKeyBlock; ++j)
      x[r][v] = fma(set(w[r * kLanes + j]),
                    load(rows + j * stride + v * kWidth, width - v * kWidth), x[r][v]);
    store(acc + r * acc_stride + v * kWidth, x[r][v]);
  }
}

/// acc_r · factor_r, then + Σ_j w[r][j] · rows_j for j < count + r · step (and j < 32). Rows have
/// head_size elements, those of acc `padded_head_size`: whole vectors, since a masked store
/// followed by a load of the same place stalls. Two vectors at a time, so that eight chains of fma
/// run side by side. kOwn: each r has rows of its own, rows_step apart; step is then 0.
template <Index R, bool kOwn = false, class T>
inline void attention_gather(float* acc, const float* factor, const float* w, const T* rows,
                             Index stride, Index count, Index step, Index head_size,
                             Index rows_step = 0) {
  const Index acc_stride = padded_head_size(head_size);
  Index d = 0;
  for (; d + 2 * kWidth <= head_size; d += 2 * kWidth)
    attention_gather_at<R, 2, kOwn>(acc + d, factor, w, rows + d, stride, count, step, acc_stride,
                                    head_size - d, rows_step);
  for (; d < head_size; d += kWidth)
    attention_gather_at<R, 1, kOwn>(acc + d, factor, w, rows + d, stride, count, step, acc_stride,
                                    head_size - d, rows_step);
}

/// acc_j + Σ_r w[r][j] · x_r for all j < count.
template <Index R>
inline void attention_scatter(float* acc, const float* w, const float* x, Index x_stride,
                              Index count, Index head_size) {
  const Index acc_stride = padded_head_size(head_size);
  for (Index d = 0; d < head_size; d += kWidth) {
    V xv[R];
    PLUMB_UNROLL for (Index r = 0; r < R; ++r) xv[r] = load(x + r * x_stride + d, head_size - d);
    for (Index j = 0; j < count; ++j) {
      float* at = acc + j * acc_stride + d;
      V sum = load(at);
      PLUMB_UNROLL for (Index r = 0; r < R; ++r) sum = fma(set(w[r * kLanes + j]), xv[r], sum);
      store(at, sum);
    }
  }
}

/// Which of 32 keys come before `count`, for register v.
inline Mask attention_valid(Index v, Index count) {
  alignas(64) static constexpr float kPlace[kLanes] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                                       11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                                       22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
  return less(load(kPlace + v * kWidth), set(static_cast<float>(count)));
}

/// Dots become scores, those from `count` on -infinity; gives the largest.
inline float attention_scores(float* s, float scale, Index count) {
  Lanes lanes;
  PLUMB_UNROLL for (Index v = 0; v < kRegisters; ++v) {
    lanes.v[v] = load(s + v * kWidth) * set(scale);
    if (count < kKeyBlock)
      lanes.v[v] = select(attention_valid(v, count), lanes.v[v], set(-__builtin_inff()));
    store(s + v * kWidth, lanes.v[v]);
  }
  return largest(lanes);
}

/// Scores become e^(s - shift), those from `count` on 0; gives the sum.
inline float attention_weights(float* s, float shift, Index count) {
  Lanes lanes;
  PLUMB_UNROLL for (Index v = 0; v < kRegisters; ++v) {
    lanes.v[v] = exp(load(s + v * kWidth) - set(shift));
    if (count < kKeyBlock) lanes.v[v] = select(attention_valid(v, count), lanes.v[v], set(0.0F));
    store(s + v * kWidth, lanes.v[v]);
  }
  return sum(lanes);
}

/// out = acc / l.
inline void attention_finish(float* out, const float* acc, float l, Index head_size) {
  for_vectors(
      head_size, [&](Index d) { store(out + d, load(acc + d) / set(l)); },
      [&](Index d, Index n) { store(out + d, load(acc + d) / set(l), n); });
}

/// R rows' softmax over the keys seen so far: largest score, sum of weights, weighted sum of
/// values.
template <Index R>
struct AttentionState {
  alignas(64) float acc[R * kMaxHeadSize];
  float m[R], l[R];
  float change[R];  ///< what a merge scales it by
};

template <Index R>
inline void attention_clear(AttentionState<R>& state, Index stride) {
  for (Index i = 0; i < R * stride; ++i) state.acc[i] = 0.0F;
  for (Index r = 0; r < R; ++r) state.m[r] = -__builtin_inff();
  for (Index r = 0; r < R; ++r) state.l[r] = 0.0F;
}

/// Merges the state of a chunk of keys into that of all chunks before it.
template <Index R>
[[gnu::noinline]] inline void attention_merge(AttentionState<R>& total,
                                              AttentionState<R>& chunk, Index stride) {
  // Not arrays of this function's own: gcc 12 places them wrongly under AddressSanitizer's
  // detect_stack_use_after_return.
  float *before = total.change, *after = chunk.change;
  for (Index r = 0; r < R; ++r) {
    const float most = chunk.m[r] > total.m[r] ? chunk.m[r] : total.m[r];
    before[r] = total.m[r] - most;
    after[r] = chunk.m[r] - most;
    total.m[r] = most;
  }
  for (Index r = 0; r < R; r += kWidth) {
    store(before + r, exp(load(before + r, R - r)), R - r);
    store(after + r, exp(load(after + r, R - r)), R - r);
  }
  for (Index r = 0; r < R; ++r) {
    total.l[r] = __builtin_fmaf(chunk.l[r], after[r], total.l[r] * before[r]);
    for (Index d = r * stride; d < (r + 1) * stride; d += kWidth)
      store(total.acc + d,
            fma(load(chunk.acc + d), set(after[r]), load(total.acc + d) * set(before[r])));
  }
}

/// One block of 32 keys, from `first` on, into the state of R rows, the first of which is t's row
/// `row`.
template <Index R, bool kOwn, class T>
[[gnu::always_inline]] inline void attention_block(AttentionState<R>& state,
                                                   const AttentionRows<T>& t, Index row,
                                                   Index first) {
  const Index position = t.position + row * t.step;
  alignas(64) float s[R * kLanes];
  float change[R];
  attention_dots<R, kOwn>(s, t.q + row * t.q_stride, t.q_stride,
                          t.keys + row * t.head_step + first * t.head_size, t.head_size,
                          t.head_step);
  for (Index r = 0; r < R; ++r) {
    const float most = attention_scores(s + r * kLanes, t.scale, position + r * t.step + 1 - first);
    const float before = state.m[r];
    state.m[r] = most > before ? most : before;
    change[r] = before - state.m[r];
  }
  for (Index r = 0; r < R; r += kWidth) store(change + r, exp(load(change + r, R - r)), R - r);
  for (Index r = 0; r < R; ++r)
    state.l[r] = state.l[r] * change[r] +
                 attention_weights(s + r * kLanes, state.m[r], position + r * t.step + 1 - first);
  const Index count = position + 1 - first;
  attention_gather<R, kOwn>(
      state.acc, change, s, t.values + row * t.head_step + first * t.value_stride, t.value_stride,
      count < kKeyBlock ? count : kKeyBlock, t.step, t.head_size, t.head_step);
}

template <Index R, bool kOwn, class T>
inline void attention_tile(const AttentionRows<T>& t, Index row) {
  const Index size = t.head_size;
  const Index position = t.position + row * t.step;
  const Index stride = padded_head_size(size);
  AttentionState<R> states[2];
  AttentionState<R>& total = states[0];
  for (Index start = 0; start <= position; start += kAttentionChunk) {
    AttentionState<R>& chunk = states[start > 0];
    attention_clear(chunk, stride);
    for (Index first = start; first <= position && first < start + kAttentionChunk;
         first += kKeyBlock)
      attention_block<R, kOwn>(chunk, t, row, first);
    if (start > 0) attention_merge(total, chunk, stride);
  }
  for (Index r = 0; r < R; ++r)
    attention_finish(t.out + (row + r) * t.q_stride, total.acc + r * stride, total.l[r], size);
  if (t.lse == nullptr) return;
  float* lse = total.m;
  for (Index r = 0; r < R; r += kWidth)
    store(lse + r, load(lse + r, R - r) + log(load(total.l + r, R - r)), R - r);
  for (Index r = 0; r < R; ++r) t.lse[(row + r) * t.lse_stride] = lse[r];
}

template <class T>
inline void attention_rows(const AttentionRows<T>& t) {
  Index row = 0;
  if (t.head_step != 0) {
    // Each row loads its own keys: four keep the loads as busy as eight rows that share them.
    for (; row + 4 <= t.rows; row += 4) attention_tile<4, true>(t, row);
  } else {
    for (; row + 8 <= t.rows; row += 8) attention_tile<8, false>(t, row);
    for (; row + 4 <= t.rows; row += 4) attention_tile<4, false>(t, row);
    for (; row + 2 <= t.rows; row += 2) attention_tile<2, false>(t, row);
  }
  for (; row < t.rows; ++row) attention_tile<1, false>(t, row);
}

inline void attention_pack(float* to, const float* rows, Index stride, Index count,
                           Index head_size) {
  for (Index first = 0; first < count; first += kKeyBlock)
    for (Index v = 0; v < kRegisters; ++v)
      transpose(to + first * head_size + v * kWidth, kKeyBlock,
                rows + (first + v * kWidth) * stride, stride, count - first - v * kWidth,
                head_size);
}

inline float attention_delta(const float* dout, const float* out, Index head_size) {
  Lanes lanes = all_lanes(0.0F);
  for_lanes(
      head_size,
      [&](Index r, Index d) { lanes.v[r] = fma(load(dout + d), load(out + d), lanes.v[r]); },
      [&](Index r, Index d, Index n) {
        lanes.v[r] = fma(load(dout + d, n), load(out + d, n), lanes.v[r]);
      });
  return sum(lanes);
}

/// Dots become weights p = e^(s - lse), and dp in place ds = p · (dp - delta) · scale; both 0 from
/// `count` on.
inline void attention_slopes(float* p, float* ds, float lse, float delta, float scale,
                             Index count) {
  PLUMB_UNROLL for (Index v = 0; v < kRegisters; ++v) {
    const V s = load(p + v * kWidth) * set(scale);
    const Mask valid = attention_valid(v, count);
    const V weight = select(valid, exp(s - set(lse)), set(0.0F));
    const V slope = weight * (load(ds + v * kWidth) - set(delta)) * set(scale);
    store(p + v * kWidth, weight);
    store(ds + v * kWidth, select(valid, slope, set(0.0F)));
  }
}

/// What one unit's backward pass keeps: keys and values transposed in blocks, and sums.
struct AttentionSums {
  const float* keys;
  const float* values;
  float* dk;
  float* dv;
};

/// R queries of one head, from position `row` on, against one block of keys: adds to dq, unless it
/// is null, and to the sums of dk and dv, unless these are.
template <Index R>
inline void attention_slope_tile(const AttentionUnit& t, const AttentionSums& sums, Index head,
                                 Index row, Index first, float* dq, const float* delta) {
  const Index size = t.head_size;
  const Index stride = padded_head_size(size);
  const Index own = row - t.first;
  const float* q = t.q + own * t.q_stride + head * size;
  const float* dout = t.dout + own * t.q_stride + head * size;
  alignas(64) float p[R * kLanes];
  alignas(64) float ds[R * kLanes];
  float one[R];
  attention_dots<R>(p, q, t.q_stride, sums.keys + first * size, size);
  attention_dots<R>(ds, dout, t.q_stride, sums.values + first * size, size);
  for (Index r = 0; r < R; ++r) {
    one[r] = 1.0F;
    attention_slopes(p + r * kLanes, ds + r * kLanes, t.lse[(own + r) * t.lse_stride + head],
                     delta[r], t.scale, row + r + 1 - first);
  }
  const Index count = row + 1 - first < kKeyBlock ? row + 1 - first : kKeyBlock;
  const Index most = row + R - first < kKeyBlock ? row + R - first : kKeyBlock;
  if (dq != nullptr)
    attention_gather<R>(dq, one, ds, t.k + first * t.kv_stride, t.kv_stride, count, 1, size);
  if (sums.dk == nullptr) return;
  attention_scatter<R>(sums.dv + first * stride, p, dout, t.q_stride, most, size);
  attention_scatter<R>(sums.dk + first * stride, ds, q, t.q_stride, most, size);
}

/// to_j += from_j for `count` rows.
inline void attention_add(float* to, Index stride, const float* from, Index count,
                          Index head_size) {
  for (Index j = 0; j < count; ++j)
    accumulate(to + j * stride, from + j * padded_head_size(head_size), 1.0F, head_size);
}

/// Where the block of queries ends that begins at position `row`.
inline Index attention_block_end(const AttentionUnit& t, Index row) {
  const Index end = (row / kKeyBlock + 1) * kKeyBlock;
  return end < t.length ? end : t.length;
}

/// One block of at most 32 queries of one head, at positions `row` to `end`, against the blocks of
/// keys from `first` to `last`, of those before each. With or without dq.
inline void attention_backward_block(const AttentionUnit& t, const AttentionSums& sums, Index head,
                                     Index row, Index first, Index last, bool with_dq) {
  const Index size = t.head_size;
  const Index end = attention_block_end(t, row);
  alignas(64) float sum[kKeyBlock * kMaxHeadSize];
  float delta[kKeyBlock];
  const Index stride = padded_head_size(size);
  if (with_dq)
    for (Index i = 0; i < (end - row) * stride; ++i) sum[i] = 0.0F;
  for (Index i = row; i < end; ++i) {
    const Index at = (i - t.first) * t.q_stride + head * size;
    delta[i - row] = attention_delta(t.dout + at, t.out + at, size);
  }
  for (; first <= row && first < last; first += kKeyBlock) {
    Index i = row;
    const auto dq = [&] { return with_dq ? sum + (i - row) * stride : nullptr; };
    for (; i + 8 <= end; i += 8)
      attention_slope_tile<8>(t, sums, head, i, first, dq(), delta + (i - row));
    for (; i + 4 <= end; i += 4)
      attention_slope_tile<4>(t, sums, head, i, first, dq(), delta + (i - row));
    for (; i < end; ++i)
      attention_slope_tile<1>(t, sums, head, i, first, dq(), delta + (i - row));
  }
  if (with_dq)
    attention_add(t.dq + (row - t.first) * t.q_stride + head * size, t.q_stride, sum, end - row,
                  size);
}

/// A quarter of a unit's scratch.
inline Index attention_part(const AttentionUnit& t) {
  const Index blocks = (t.length + kKeyBlock - 1) / kKeyBlock;
  return blocks * kKeyBlock * padded_head_size(t.head_size);
}

inline AttentionSums attention_sums(const AttentionUnit& t) {
  const Index part = attention_part(t);
  return {t.scratch, t.scratch + part, t.scratch + 2 * part, t.scratch + 3 * part};
}

inline void attention_unit_pack(const AttentionUnit& t) {
  attention_pack(t.scratch, t.k, t.kv_stride, t.length, t.head_size);
  attention_pack(t.scratch + attention_part(t), t.v, t.kv_stride, t.length, t.head_size);
}

inline void attention_unit(const AttentionUnit& t) {
  const AttentionSums sums = attention_sums(t);
  attention_unit_pack(t);
  for (Index i = 0; i < 2 * attention_part(t); ++i) sums.dk[i] = 0.0F;
  for (Index head = 0; head < t.group; ++head)
    for (Index row = t.first; row < t.length; row = attention_block_end(t, row))
      attention_backward_block(t, sums, head, row, 0, t.length, true);
  attention_add(t.dk, t.kv_stride, sums.dk, t.length, t.head_size);
  attention_add(t.dv, t.kv_stride, sums.dv, t.length, t.head_size);
}

/// dq of one block of queries.
inline void attention_queries(const AttentionUnit& t, Index head, Index row) {
  AttentionSums sums = attention_sums(t);
  sums.dk = sums.dv = nullptr;
  attention_backward_block(t, sums, head, row, 0, t.length, true);
}

/// dk and dv of one block of keys.
inline void attention_keys(const AttentionUnit& t, Index first) {
  const AttentionSums sums = attention_sums(t);
  const Index stride = padded_head_size(t.head_size);
  const Index count = t.length - first < kKeyBlock ? t.length - first : kKeyBlock;
  for (float* sum : {sums.dk, sums.dv})
    for (Index i = first * stride; i < (first + count) * stride; ++i) sum[i] = 0.0F;
  for (Index head = 0; head < t.group; ++head)
    for (Index row = first < t.first ? t.first : first; row < t.length;
         row = attention_block_end(t, row))
      attention_backward_block(t, sums, head, row, first, first + kKeyBlock, false);
  attention_add(t.dk + first * t.kv_stride, t.kv_stride, sums.dk + first * stride, count,
                t.head_size);
  attention_add(t.dv + first * t.kv_stride, t.kv_stride, sums.dv + first * stride, count,
                t.head_size);
}

inline const AttentionTable& attention_table() {
  static constexpr AttentionTable table{
      .pack = attention_pack,
      .forward = attention_rows<float>,
      .forward_bf16 = attention_rows<bf16>,
      .backward = attention_unit,
      .backward_pack = attention_unit_pack,
      .backward_queries = attention_queries,
      .backward_keys = attention_keys,
  };
  return table;
}
