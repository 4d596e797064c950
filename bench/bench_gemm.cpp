// Matrix products: a linear layer's at the yardstick's sizes, GPT-2's head, and sizes one off. The
// weights (NN, NT: B; TN: their gradient C) rotate over 64 MiB or more, as a model's layers do.
#include <plumb/cpu/reference_gemm.hpp>

#include "cases/gemm.hpp"
#include "support.hpp"

namespace bench {
namespace {

using plumb::Form;
namespace gemm = cases::gemm;

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
    return work;
  }

  void multiply(Cpu device, float* turn) const {
    plumb::kernels::matmul(device, rotates_c ? turn : fixed.data(), a.data(),
                           rotates_c ? fixed.data() : turn, of.m, of.n, of.k, of.form,
                           gemm::accumulates(of));
  }
  void run(Cpu device) { multiply(device, weights.take()); }

  /// Some rows of A and columns of B, gathered, so that the oracle multiplies them alone.
  double error(Cpu device) {
    float* turn = weights.take();
    const float* b = rotates_c ? fixed.data() : turn;
    const float* c = rotates_c ? turn : fixed.data();
    const auto rows = places(of.m, 5), columns = places(of.n, 9);
    std::vector<float> some_a, some_b, before;
    for (const Index i : rows)
      for (Index p = 0; p < of.k; ++p)
        some_a.push_back(a[of.form == Form::TN ? p * of.m + i : i * of.k + p]);
    for (const Index j : columns)
      for (Index p = 0; p < of.k; ++p)
        some_b.push_back(b[of.form == Form::NT ? j * of.k + p : p * of.n + j]);
    for (const Index i : rows)
      for (const Index j : columns)
        before.push_back(gemm::accumulates(of) ? c[i * of.n + j] : 0.0F);
    multiply(device, turn);

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
};

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  bench::add<bench::Matmul>("gemm", cases::gemm::kTimed);
  bench::add<bench::Matmul>("gemm_head", cases::gemm::kTimedHead);
  bench::add<bench::Matmul>("gemm_odd", cases::gemm::kTimedOdd);
  bench::add<bench::Matmul>("gemm_odd", cases::gemm::kTimedOddHead);
  return bench::run(argc, argv);
}
