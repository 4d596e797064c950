// Eigen, compiled for the machine that compiles it: it chooses its instruction set at that time.
#include <Eigen/Core>

#include "kernels.hpp"

namespace compare {
namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using In = Eigen::Map<const Matrix>;

template <class A, class B>
void multiply(const Product& p, const A& a, const B& b) {
  Eigen::Map<Matrix> c(p.c, p.m, p.n);
  if (p.accumulate)
    c.noalias() += a * b;
  else
    c.noalias() = a * b;
}

void multiply(const Product& p) {
  switch (p.form) {
    case Form::NN: return multiply(p, In(p.a, p.m, p.k), In(p.b, p.k, p.n));
    case Form::NT: return multiply(p, In(p.a, p.m, p.k), In(p.b, p.n, p.k).transpose());
    case Form::TN: return multiply(p, In(p.a, p.k, p.m).transpose(), In(p.b, p.k, p.n));
  }
}

}  // namespace

Engine eigen() {
  return {"eigen",
          std::to_string(EIGEN_WORLD_VERSION) + "." + std::to_string(EIGEN_MAJOR_VERSION) + "." +
              std::to_string(EIGEN_MINOR_VERSION) + ", " + Eigen::SimdInstructionSetsInUse(),
          [](int threads) { Eigen::setNbThreads(threads); },
          [](const Product& product) { multiply(product); }, nullptr};
}

}  // namespace compare
