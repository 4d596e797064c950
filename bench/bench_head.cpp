// Log-probability of targets under a language-model head, forward and backward, and its row part
// alone: cross-entropy on given logits.
#include <plumb/bench.hpp>
#include <plumb/bench/arrays.hpp>
#include <plumb/cpu/kernels.hpp>
#include <plumb/cpu/reference_head.hpp>

#include "cases/head.hpp"

using namespace plumb::bench;
using plumb::Cpu;
using plumb::Index;

namespace {

namespace head = cases::head;
namespace reference = plumb::reference;

struct Inputs {
  using Case = head::Case;
  Case of;
  Floats x, w, logprob, entropy, lse;
  std::vector<std::int32_t> targets;

  /// Weights such that logits are of order 1.
  explicit Inputs(const Case& c)
      : of(c),
        x(c.n * c.c, 1),
        w(c.v * c.c, 2, 3.0F / std::sqrt(static_cast<float>(c.c))),
        logprob(c.n),
        entropy(c.n),
        lse(c.n),
        targets(random_ids(c.n, c.v)) {}

  void forward(Cpu device) const {
    plumb::kernels::head_logprob_forward(device, logprob.data(), entropy.data(), lse.data(),
                                         x.data(), w.data(), targets.data(), of.n, of.c, of.v,
                                         of.scale);
  }
  std::int32_t target(Index row) const { return targets[static_cast<std::size_t>(row)]; }
  std::vector<double> log_p(Index row) const {
    return reference::log_softmax(
        reference::head_logits(x.data() + row * of.c, w.data(), of.c, of.v),
        static_cast<double>(of.scale));
  }
};

struct Forward : Inputs {
  using Inputs::Inputs;
  Work work() const { return head::forward_work(of); }
  void run(Cpu device) { forward(device); }

  double error(Cpu device) {
    forward(device);
    Worst worst;
    for (const Index row : places(of.n, 3)) {
      const auto exact = log_p(row);
      worst.see(logprob[row], exact[static_cast<std::size_t>(target(row))], head::kTolerance);
      worst.see(entropy[row], reference::entropy_of(exact), head::kTolerance);
    }
    return worst.value();
  }
};

struct Backward : Inputs {
  Floats dx, dw, dlogprob, dentropy;

  explicit Backward(const Case& c)
      : Inputs(c), dx(c.n * c.c), dw(c.v * c.c), dlogprob(c.n, 3), dentropy(c.n, 4) {}
  Work work() const { return head::backward_work(of); }

  void run(Cpu device) {
    plumb::kernels::head_logprob_backward(device, dx.data(), dw.data(), dlogprob.data(),
                                          dentropy.data(), x.data(), w.data(), targets.data(),
                                          lse.data(), entropy.data(), of.n, of.c, of.v, of.scale);
  }

  /// Only a few rows are given gradients, so that the oracle's dw has few terms.
  double error(Cpu device) {
    forward(device);
    const auto rows = places(of.n, 3), tokens = places(of.v, 9), channels = places(of.c, 9);
    for (Floats* values : {&dx, &dw, &dlogprob, &dentropy}) values->fill(0.0F);
    for (const Index row : rows) dlogprob[row] = 1.0F, dentropy[row] = -0.5F;
    run(device);

    Worst worst;
    const std::size_t width = channels.size();
    std::vector<Sum> exact_dw(tokens.size() * width);
    for (const Index row : rows) {
      const auto exact = log_p(row);
      const auto d = reference::head_dlogits(exact, target(row), 1.0, -0.5, of_scale());
      const auto scale = dlogits_scale(exact, target(row));
      for (const Index k : channels) {
        Sum sum;
        for (std::size_t j = 0; j < d.size(); ++j)
          sum.add(d[j], scale[j], w[static_cast<Index>(j) * of.c + k]);
        worst.see(dx[row * of.c + k], sum.value, head::kGradientTolerance * sum.scale);
      }
      for (std::size_t at = 0; at < exact_dw.size(); ++at) {
        const auto j = static_cast<std::size_t>(tokens[at / width]);
        exact_dw[at].add(d[j], scale[j], x[row * of.c + channels[at % width]]);
      }
    }
    for (std::size_t at = 0; at < exact_dw.size(); ++at)
      worst.see(dw[tokens[at / width] * of.c + channels[at % width]], exact_dw[at].value,
                head::kGradientTolerance * exact_dw[at].scale);
    for (Index row = 0; row < of.n; ++row) dlogprob[row] = 1.0F, dentropy[row] = -0.5F;
    return worst.value();
  }

 private:
  /// A sum of products, and of their terms' sizes: what its error is measured by.
  struct Sum {
    double value = 0, scale = 0;
    void add(double a, double a_scale, float b) {
      value += a * static_cast<double>(b);
      scale += a_scale * std::abs(static_cast<double>(b));
    }
  };
  double of_scale() const { return static_cast<double>(of.scale); }

  /// The sizes of the terms of head_dlogits.
  std::vector<double> dlogits_scale(const std::vector<double>& exact, Index chosen) const {
    const double spread = reference::entropy_of(exact);
    std::vector<double> scale;
    for (const double l : exact)
      scale.push_back(of_scale() * std::exp(l) * (1.0 + 0.5 * (std::abs(l) + spread)));
    scale[static_cast<std::size_t>(chosen)] += of_scale();
    return scale;
  }
};

/// Logits of order 10, as a trained model's.
struct Rows {
  using Case = head::Case;
  Case of;
  Floats logits, logprob, lse;
  std::vector<std::int32_t> targets;

  explicit Rows(const Case& c)
      : of(c), logits(c.n * c.v, 1, 10.0F), logprob(c.n), lse(c.n), targets(random_ids(c.n, c.v)) {}

  void forward(Cpu device) const {
    plumb::kernels::logprob_rows(device, logprob.data(), nullptr, lse.data(), logits.data(),
                                 targets.data(), of.n, of.v, of.scale);
  }
  std::vector<double> log_p(Index row) const {
    const float* z = logits.data() + row * of.v;
    return reference::log_softmax({z, z + of.v}, static_cast<double>(of.scale));
  }
  std::size_t target(Index row) const {
    return static_cast<std::size_t>(targets[static_cast<std::size_t>(row)]);
  }
};

struct RowsForward : Rows {
  using Rows::Rows;
  Work work() const { return head::rows_forward_work(of); }
  void run(Cpu device) { forward(device); }

  double error(Cpu device) {
    forward(device);
    Worst worst;
    for (const Index row : places(of.n, 5))
      worst.see(logprob[row], log_p(row)[target(row)], head::kTolerance);
    return worst.value();
  }
};

/// Timed again and again in place, where gradients soon stand for logits: finite, and no faster.
struct RowsBackward : Rows {
  using Rows::Rows;
  Work work() const { return head::rows_backward_work(of); }

  void run(Cpu device) {
    const auto& table = plumb::kernels::dispatch<plumb::kernels::HeadTable>();
    plumb::kernels::for_head_rows(device, of.n, of.v, [&](Index i) {
      table.logprob_backward(logits.data() + i * of.v, 1.0F, 0.0F,
                             targets[static_cast<std::size_t>(i)], lse[i], 0.0F, of.v, of.scale);
    });
  }

  double error(Cpu device) {
    forward(device);
    const auto rows = places(of.n, 5);
    std::vector<std::vector<double>> exact;
    for (const Index row : rows)
      exact.push_back(reference::head_dlogits(log_p(row), static_cast<Index>(target(row)), 1.0, 0.0,
                                              static_cast<double>(of.scale)));
    run(device);
    Worst worst;
    for (std::size_t r = 0; r < rows.size(); ++r)
      for (const Index j : places(of.v, 999)) {
        const double d = exact[r][static_cast<std::size_t>(j)];
        worst.see(logits[rows[r] * of.v + j], d, head::kGradientTolerance * std::abs(d));
      }
    return worst.value();
  }
};

}  // namespace

int main(int argc, char** argv) {
  add<Forward>("head_forward", cases::head::kTimed);
  add<Backward>("head_backward", cases::head::kTimed);
  add<RowsForward>("head_rows_forward", cases::head::kTimedRows);
  add<RowsBackward>("head_rows_backward", cases::head::kTimedRows);
  return plumb::bench::run(argc, argv);
}
