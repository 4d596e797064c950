// Causal attention over packed sequences, forward and backward, and one step of decoding.
#include <plumb/bench.hpp>
#include <plumb/bench/arrays.hpp>
#include <plumb/cpu/kernels.hpp>
#include <plumb/cpu/reference_attention.hpp>

#include "cases/attention.hpp"

using namespace plumb::bench;
using plumb::Cpu;
using plumb::Index;

namespace {

using plumb::AttentionShape;
namespace attention = cases::attention;

/// The columns of `count` heads from `head` on, of rows [first, last).
std::vector<float> slice(const float* x, Index first, Index last, Index heads, Index head,
                         Index count, Index size) {
  std::vector<float> some;
  for (Index i = first; i < last; ++i) {
    const float* row = x + (i * heads + head) * size;
    some.insert(some.end(), row, row + count * size);
  }
  return some;
}

struct Inputs {
  using Case = attention::Case;
  Case of;
  std::vector<std::int32_t> offsets{0};
  Floats q, k, v, dout, out, lse;

  explicit Inputs(const Case& c)
      : of(c),
        q(queries(c), 1),
        k(keys(c), 2),
        v(keys(c), 3),
        dout(queries(c), 4),
        out(queries(c)),
        lse(attention::tokens(c) * c.shape.heads) {
    for (const Index length : c.lengths)
      offsets.push_back(offsets.back() + static_cast<std::int32_t>(length));
  }
  static Index queries(const Case& c) {
    return attention::tokens(c) * c.shape.heads * c.shape.head_size;
  }
  static Index keys(const Case& c) {
    return attention::tokens(c) * c.shape.kv_heads * c.shape.head_size;
  }
  Index sequences() const { return static_cast<Index>(of.lengths.size()); }

  void forward(Cpu device) const {
    plumb::kernels::attention_forward(device, out.data(), lse.data(), q.data(), k.data(), v.data(),
                                      offsets.data(), offsets.data(), sequences(),
                                      attention::tokens(of), attention::tokens(of), of.shape);
  }

  // What the oracle looks at: the last sequence's last key/value head and the heads that read it.
  Index group() const { return of.shape.heads / of.shape.kv_heads; }
  AttentionShape slice_shape() const { return {group(), 1, of.shape.head_size, of.shape.scale}; }
  std::vector<std::int32_t> slice_offsets() const {
    return {0, static_cast<std::int32_t>(of.lengths.back())};
  }
  std::vector<float> queries_of(const Floats& x) const {
    return slice(x.data(), offsets[offsets.size() - 2], offsets.back(), of.shape.heads,
                 of.shape.heads - group(), group(), of.shape.head_size);
  }
  std::vector<float> keys_of(const Floats& x) const {
    return slice(x.data(), offsets[offsets.size() - 2], offsets.back(), of.shape.kv_heads,
                 of.shape.kv_heads - 1, 1, of.shape.head_size);
  }
};

double compare(const std::vector<float>& x, const std::vector<double>& exact, double tolerance) {
  Worst worst;
  if (x.size() != exact.size()) return INFINITY;
  for (std::size_t i = 0; i < x.size(); ++i) worst.see(x[i], exact[i], tolerance);
  return worst.value();
}

struct Forward : Inputs {
  using Inputs::Inputs;
  Work work() const { return attention::forward_work(of); }
  void run(Cpu device) { forward(device); }

  double error(Cpu device) {
    forward(device);
    const auto some_q = queries_of(q), some_k = keys_of(k), some_v = keys_of(v);
    const auto exact = plumb::reference::attention_forward(
        some_q.data(), some_k.data(), some_v.data(), slice_offsets().data(), 1, slice_shape());
    return compare(queries_of(out), exact.out, attention::kTolerance);
  }
};

struct Backward : Inputs {
  Floats dq, dk, dv;
  explicit Backward(const Case& c) : Inputs(c), dq(queries(c)), dk(keys(c)), dv(keys(c)) {}
  Work work() const { return attention::backward_work(of); }

  void run(Cpu device) {
    plumb::kernels::attention_backward(
        device, dq.data(), dk.data(), dv.data(), dout.data(), out.data(), lse.data(), q.data(),
        k.data(), v.data(), offsets.data(), offsets.data(), sequences(), attention::tokens(of),
        attention::tokens(of), of.shape);
  }

  double error(Cpu device) {
    forward(device);
    for (Floats* gradient : {&dq, &dk, &dv}) gradient->fill(0.0F);
    run(device);
    const auto some_dout = queries_of(dout), some_q = queries_of(q);
    const auto some_k = keys_of(k), some_v = keys_of(v);
    const auto exact = plumb::reference::attention_backward(
        some_dout.data(), some_q.data(), some_k.data(), some_v.data(), slice_offsets().data(), 1,
        slice_shape());
    return std::max({compare(queries_of(dq), exact.dq, attention::kGradientTolerance),
                     compare(keys_of(dk), exact.dk, attention::kGradientTolerance),
                     compare(keys_of(dv), exact.dv, attention::kGradientTolerance)});
  }
};

/// Every slot's next token attends to all positions. Caches of T rotate, as a model's layers' do.
template <class T>
struct Decode {
  static constexpr Index kInFloat = sizeof(float) / sizeof(T);
  using Case = attention::Decode;
  Case of;
  plumb::KvShape shape;
  Floats q, out, k, v;
  Rotating keys, values;
  std::vector<std::int32_t> slots, positions;

  explicit Decode(const Case& c)
      : of(c),
        shape{c.slots, c.length, c.shape},
        q(c.slots * c.shape.heads * c.shape.head_size, 1),
        out(q.size()),
        k(c.slots * c.length * c.shape.kv_heads * c.shape.head_size, 2),
        v(k.size(), 3),
        keys(shape.keys_size() / kInFloat, 4),
        values(shape.values_size() / kInFloat, 5) {
    for (Index slot = 0; slot < c.slots; ++slot) {
      slots.push_back(static_cast<std::int32_t>(slot));
      positions.push_back(static_cast<std::int32_t>(c.length - 1));
    }
  }
  Work work() const {
    Work work = attention::work(of, sizeof(T));
    work.footprint = keys.bytes() + values.bytes();
    return work;
  }

  static T* take(Rotating& arrays) { return reinterpret_cast<T*>(arrays.take()); }
  void attend(Cpu device, const T* cached_keys, const T* cached_values) const {
    plumb::kernels::attention_cached_forward(device, out.data(), q.data(), cached_keys,
                                             cached_values, slots.data(), positions.data(),
                                             of.slots, shape);
  }
  void run(Cpu device) { attend(device, take(keys), take(values)); }

  /// The last slot's last key/value head, after its positions were appended.
  double error(Cpu device) {
    T *cached_keys = take(keys), *cached_values = take(values);
    const Index rows = of.slots * of.length;
    std::vector<std::int32_t> slot_of, position_of;
    for (Index i = 0; i < rows; ++i) {
      slot_of.push_back(static_cast<std::int32_t>(i / of.length));
      position_of.push_back(static_cast<std::int32_t>(i % of.length));
    }
    plumb::kernels::kv_append(device, cached_keys, cached_values, k.data(), v.data(),
                              slot_of.data(), position_of.data(), rows, shape);
    attend(device, cached_keys, cached_values);

    const auto [heads, kv_heads, size, scale] = of.shape;
    const Index group = heads / kv_heads;
    const auto last_head = [&](const Floats& x) {
      auto some = slice(x.data(), rows - of.length, rows, kv_heads, kv_heads - 1, 1, size);
      for (float& value : some) value = static_cast<float>(plumb::kernels::cached<T>(value));
      return some;
    };
    const auto some_k = last_head(k), some_v = last_head(v);
    // The oracle takes a query for every position; all but the last are of no interest.
    std::vector<float> some_q(static_cast<std::size_t>((of.length - 1) * group * size));
    const auto last_q = slice(q.data(), of.slots - 1, of.slots, heads, heads - group, group, size);
    some_q.insert(some_q.end(), last_q.begin(), last_q.end());
    const std::int32_t offsets[] = {0, static_cast<std::int32_t>(of.length)};
    const auto exact = plumb::reference::attention_forward(
        some_q.data(), some_k.data(), some_v.data(), offsets, 1, {group, 1, size, scale});
    return compare(slice(out.data(), of.slots - 1, of.slots, heads, heads - group, group, size),
                   {exact.out.end() - group * size, exact.out.end()}, attention::kTolerance);
  }
};

}  // namespace

int main(int argc, char** argv) {
  add<Forward>("attention_forward", cases::attention::kTimed);
  add<Backward>("attention_backward", cases::attention::kTimed);
  add<Decode<float>>("attention_decode", cases::attention::kTimedDecode);
  add<Decode<plumb::bf16>>("attention_decode_bf16", cases::attention::kTimedDecode);
  return plumb::bench::run(argc, argv);
}
