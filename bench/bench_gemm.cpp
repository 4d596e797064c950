// Matrix products: a linear layer's at the yardstick's sizes, GPT-2's head, and sizes one off. The
// weights (NN, NT: B; TN: their gradient C) rotate over 64 MiB or more, as a model's layers do.
#include <plumb/bench.hpp>
#include <plumb/bench/arrays.hpp>
#include <plumb/cpu/kernels.hpp>
#include <plumb/cpu/reference_gemm.hpp>

#include <type_traits>

#include "cases/gemm.hpp"

using namespace plumb::bench;
using plumb::Cpu;
using plumb::Index;

namespace {

using plumb::Form;
namespace gemm = cases::gemm;

/// The error of C after multiply(): some rows of A and columns of B, gathered, and rounded as
/// device D does, so that the oracle multiplies them alone.
template <class D, class Multiply>
double error_of(const gemm::Case& of, const float* a, const float* b, const float* c,
                Multiply multiply) {
  const auto rows = places(of.m, 5), columns = places(of.n, 9);
  std::vector<float> some_a, some_b, before;
  for (const Index i : rows)
    for (Index p = 0; p < of.k; ++p)
      some_a.push_back(a[of.form == Form::TN ? p * of.m + i : i * of.k + p]);
  for (const Index j : columns)
    for (Index p = 0; p < of.k; ++p)
      some_b.push_back(b[of.form == Form::NT ? j * of.k + p : p * of.n + j]);
  if (plumb::rounds_products<D>)
    for (auto* operand : {&some_a, &some_b})
      for (float& x : *operand) x = static_cast<float>(plumb::product_bf16(x));
  for (const Index i : rows)
    for (const Index j : columns) before.push_back(gemm::accumulates(of) ? c[i * of.n + j] : 0.0F);
  multiply();

  const auto m = static_cast<Index>(rows.size()), n = static_cast<Index>(columns.size());
  const auto exact = plumb::reference::matmul(some_a.data(), some_b.data(), m, n, of.k, Form::NT);
  const auto scale =
      plumb::reference::matmul_scale(some_a.data(), some_b.data(), m, n, of.k, Form::NT);
  Worst worst;
  for (std::size_t at = 0; at < exact.size(); ++at) {
    const std::size_t i = at / columns.size(), j = at % columns.size();
    const double was = before[at];
    worst.see(c[rows[i] * of.n + columns[j]], was + exact[at],
              gemm::kTolerance * (std::abs(was) + scale[at]));
  }
  return worst.value();
}

template <class D>
struct Matmul {
  using Case = gemm::Case;
  Case of;
  bool rotates_c;
  Floats a;
  Floats fixed;      // B, or C
  Rotating weights;  // C, or B

  explicit Matmul(const Case& c)
      : of(c),
        rotates_c(gemm::accumulates(c)),
        a(c.m * c.k, 1),
        fixed(rotates_c ? c.k * c.n : c.m * c.n, 2),
        weights(rotates_c ? c.m * c.n : c.k * c.n, 3) {}

  Work work() const {
    Work work = gemm::work(of);
    work.footprint += weights.bytes();
    work.bf16 = plumb::rounds_products<D>;
    return work;
  }

  void multiply(Cpu device, float* turn) const {
    plumb::kernels::matmul(D{device}, rotates_c ? turn : fixed.data(), a.data(),
                           rotates_c ? fixed.data() : turn, of.m, of.n, of.k, of.form,
                           gemm::accumulates(of));
  }
  void run(Cpu device) { multiply(device, weights.take()); }

  double error(Cpu device) {
    float* turn = weights.take();
    return error_of<D>(of, a.data(), rotates_c ? fixed.data() : turn,
                       rotates_c ? turn : fixed.data(), [&] { multiply(device, turn); });
  }
};

/// The form NT with weights packed as T before, on device D: generation.
template <class D, class T>
struct Packed {
  using Case = gemm::Case;
  Case of;
  Floats a, c;
  Rotating weights;
  Index size, next = 0;
  plumb::Scratch<T> packed;  // a copy of each of the weights

  explicit Packed(const Case& k)
      : of(k),
        a(k.m * k.k, 1),
        c(k.m * k.n, 2),
        weights(k.n * k.k, 3),
        size(plumb::kernels::packed_size(Cpu{}, k.n, k.k)),
        packed(size * weights.copies()) {
    for (Index i = 0; i < weights.copies(); ++i)
      plumb::kernels::pack_matrix(Cpu{}, packed.data() + i * size, weights.at(i), k.n, k.k);
  }
  Work work() const {
    Work work = gemm::work(of, static_cast<double>(sizeof(T)));
    work.footprint += static_cast<double>(sizeof(T)) * static_cast<double>(size * weights.copies());
    work.bf16 = plumb::rounds_products<D>;
    return work;
  }
  void multiply(Cpu device, Index copy) {
    plumb::kernels::matmul_packed(D{device}, c.data(), a.data(),
                                  packed.data() + copy * size, of.m, of.n, of.k);
  }
  void run(Cpu device) { multiply(device, next++ % weights.copies()); }

  double error(Cpu device) {
    std::vector<float> b(weights.at(0), weights.at(0) + of.n * of.k);
    if constexpr (std::is_same_v<T, plumb::bf16>)
      for (float& value : b) value = static_cast<float>(plumb::bf16(value));
    return error_of<D>(of, a.data(), b.data(), c.data(), [&] { multiply(device, 0); });
  }
};

}  // namespace

int main(int argc, char** argv) {
  using plumb::Cpu;
  using plumb::CpuBf16;
  add<Matmul<Cpu>>("gemm", cases::gemm::kTimed);
  add<Matmul<CpuBf16>>("gemm_bf16", cases::gemm::kTimedBf16);
  add<Packed<Cpu, float>>("gemm_packed", cases::gemm::kTimedPacked);
  add<Packed<CpuBf16, plumb::bf16>>("gemm_packed_bf16", cases::gemm::kTimedPacked);
  add<Packed<Cpu, plumb::bf16>>("gemm_packed_mixed", cases::gemm::kTimedMixed);
  add<Matmul<Cpu>>("gemm_head", cases::gemm::kTimedHead);
  add<Matmul<CpuBf16>>("gemm_head_bf16", cases::gemm::kTimedBf16Head);
  add<Matmul<Cpu>>("gemm_odd", cases::gemm::kTimedOdd);
  add<Matmul<CpuBf16>>("gemm_odd_bf16", cases::gemm::kTimedOdd);
  add<Matmul<Cpu>>("gemm_odd", cases::gemm::kTimedOddHead);
  return plumb::bench::run(argc, argv);
}
