// OpenBLAS. It chooses its kernels by a list of processors that it knew when it was made, and on
// one that is newer it takes those of 2004, four times slower: kernels.cpp sets OPENBLAS_CORETYPE
// before it loads.
#include <cblas.h>

#include "kernels.hpp"

namespace compare {
namespace {

void multiply(const Product& p) {
  const auto m = static_cast<blasint>(p.m), n = static_cast<blasint>(p.n),
             k = static_cast<blasint>(p.k);
  const bool a_transposed = p.form == Form::TN, b_transposed = p.form == Form::NT;
  cblas_sgemm(CblasRowMajor, a_transposed ? CblasTrans : CblasNoTrans,
              b_transposed ? CblasTrans : CblasNoTrans, m, n, k, 1.0F, p.a, a_transposed ? m : k,
              p.b, b_transposed ? k : n, p.accumulate ? 1.0F : 0.0F, p.c, n);
}

}  // namespace

Engine openblas() {
  return {"openblas", std::string(openblas_get_config()) + ", kernels " + openblas_get_corename(),
          [](int threads) { openblas_set_num_threads(threads); }, multiply, nullptr};
}

}  // namespace compare
