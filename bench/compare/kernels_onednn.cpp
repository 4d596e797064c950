// oneDNN: its plain product, and its matmul primitive on weights in the order that it asks for. On
// weights as they lie the primitive was measured, too (2.6): slower for few rows, equal for many.
#include <omp.h>

#include <dnnl.hpp>

#include "kernels.hpp"

namespace compare {
namespace {

void multiply(const Product& p) {
  const bool a_transposed = p.form == Form::TN, b_transposed = p.form == Form::NT;
  dnnl_sgemm(a_transposed ? 'T' : 'N', b_transposed ? 'T' : 'N', p.m, p.n, p.k, 1.0F, p.a,
             a_transposed ? p.m : p.k, p.b, b_transposed ? p.k : p.n, p.accumulate ? 1.0F : 0.0F,
             p.c, p.n);
}

using dnnl::memory;

class Packed final : public PackedWeight {
 public:
  Packed(const float* b, Index m, Index n, Index k)
      : engine_(dnnl::engine::kind::cpu, 0),
        stream_(engine_),
        a_(describe(m, k, memory::format_tag::ab)),
        c_(describe(m, n, memory::format_tag::ab)) {
    const memory::desc any = describe(k, n, memory::format_tag::any);
    const dnnl::matmul::primitive_desc matmul({a_, any, c_}, engine_);
    weights_ = memory(matmul.weights_desc(), engine_);
    memory plain(describe(k, n, memory::format_tag::ba), engine_, const_cast<float*>(b));
    dnnl::reorder(plain, weights_).execute(stream_, plain, weights_);
    stream_.wait();
    matmul_ = dnnl::matmul(matmul);
  }

  void multiply(float* c, const float* a) const override {
    const memory from(a_, engine_, const_cast<float*>(a)), to(c_, engine_, c);
    matmul_.execute(stream_,
                    {{DNNL_ARG_SRC, from}, {DNNL_ARG_WEIGHTS, weights_}, {DNNL_ARG_DST, to}});
    stream_.wait();
  }

 private:
  static memory::desc describe(Index rows, Index columns, memory::format_tag tag) {
    return {{rows, columns}, memory::data_type::f32, tag};
  }

  dnnl::engine engine_;
  mutable dnnl::stream stream_;
  memory::desc a_, c_;
  memory weights_;
  dnnl::matmul matmul_;
};

std::unique_ptr<PackedWeight> pack(const float* b, Index m, Index n, Index k) {
  return std::make_unique<Packed>(b, m, n, k);
}

}  // namespace

Engine onednn() {
  const dnnl_version_t* version = dnnl_version();
  return {"onednn",
          std::to_string(version->major) + "." + std::to_string(version->minor) + "." +
              std::to_string(version->patch),
          [](int threads) { omp_set_num_threads(threads); }, multiply, pack};
}

}  // namespace compare
