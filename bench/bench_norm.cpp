// RMSNorm and LayerNorm, forward and backward.
#include <plumb/bench.hpp>
#include <plumb/bench/arrays.hpp>
#include <plumb/cpu/kernels.hpp>
#include <plumb/cpu/reference_norm.hpp>

#include "cases/norm.hpp"

using namespace plumb::bench;
using plumb::Cpu;
using plumb::Index;

namespace {

namespace norm = cases::norm;
namespace reference = plumb::reference;
namespace kernels = plumb::kernels;
constexpr float kEps = 1e-5F;

template <bool Layer>
struct Inputs {
  using Case = norm::Case;
  Case of;
  Floats x, dy, weight, bias, y, mean, rstd;

  explicit Inputs(const Case& c)
      : of(c),
        x(c.n * c.c, 1),
        dy(c.n * c.c, 2),
        weight(c.c, 3),
        bias(c.c, 4),
        y(c.n * c.c),
        mean(c.n),
        rstd(c.n) {}

  void forward(Cpu device) const {
    if (Layer)
      kernels::layer_norm_forward(device, y.data(), mean.data(), rstd.data(), x.data(),
                                  weight.data(), bias.data(), of.n, of.c, kEps);
    else
      kernels::rms_norm_forward(device, y.data(), rstd.data(), x.data(), weight.data(), of.n, of.c,
                                kEps);
  }
};

template <bool Layer>
struct Forward : Inputs<Layer> {
  using Inputs<Layer>::Inputs;
  Work work() const { return norm::forward_work(this->of); }
  void run(Cpu device) { this->forward(device); }

  double error(Cpu device) {
    this->forward(device);
    const auto [n, c] = this->of;
    Worst worst;
    for (const Index row : places(n, 99)) {
      const auto exact =
          reference::norm_forward(this->x.data() + row * c, this->weight.data(),
                                  Layer ? this->bias.data() : nullptr, 1, c, double{kEps});
      for (Index j = 0; j < c; ++j)
        worst.see(this->y[row * c + j], exact[static_cast<std::size_t>(j)], norm::kTolerance);
    }
    return worst.value();
  }
};

template <bool Layer>
struct Backward : Inputs<Layer> {
  Floats dx, dweight, dbias;
  explicit Backward(const norm::Case& c)
      : Inputs<Layer>(c), dx(c.n * c.c), dweight(c.c), dbias(c.c) {}
  Work work() const { return norm::backward_work(this->of); }

  void run(Cpu device) {
    const auto [n, c] = this->of;
    if (Layer)
      kernels::layer_norm_backward(device, dx.data(), dweight.data(), dbias.data(), this->dy.data(),
                                   this->x.data(), this->weight.data(), this->mean.data(),
                                   this->rstd.data(), n, c);
    else
      kernels::rms_norm_backward(device, dx.data(), dweight.data(), this->dy.data(), this->x.data(),
                                 this->weight.data(), this->rstd.data(), n, c);
  }

  double error(Cpu device) {
    this->forward(device);
    for (Floats* gradient : {&dx, &dweight, &dbias}) gradient->fill(0.0F);
    run(device);
    const auto [n, c] = this->of;
    const auto exact = reference::norm_backward(this->dy.data(), this->x.data(),
                                                this->weight.data(), n, c, double{kEps}, Layer);
    Worst worst;
    for (Index i = 0; i < n * c; ++i)
      worst.see(dx[i], exact.dx[static_cast<std::size_t>(i)], 4 * norm::kTolerance);
    const double sums = norm::kTolerance * std::sqrt(static_cast<double>(n));
    for (Index j = 0; j < c; ++j) {
      worst.see(dweight[j], exact.dweight[static_cast<std::size_t>(j)], sums);
      if (Layer) worst.see(dbias[j], exact.dbias[static_cast<std::size_t>(j)], sums);
    }
    return worst.value();
  }
};

}  // namespace

int main(int argc, char** argv) {
  using cases::norm::kTimed;
  add<Forward<false>>("rms_norm_forward", kTimed);
  add<Backward<false>>("rms_norm_backward", kTimed);
  add<Forward<true>>("layer_norm_forward", kTimed);
  add<Backward<true>>("layer_norm_backward", kTimed);
  return plumb::bench::run(argc, argv);
}
