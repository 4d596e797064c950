// Embedding forward and backward, sums over tokens, rotary positions.
#include <plumb/bench.hpp>
#include <plumb/bench/arrays.hpp>
#include <plumb/cpu/kernels.hpp>
#include <plumb/cpu/reference_rows.hpp>

#include "cases/rows.hpp"

using namespace plumb::bench;
using plumb::Cpu;
using plumb::Index;

namespace {

namespace rows = cases::rows;
namespace kernels = plumb::kernels;
namespace reference = plumb::reference;

struct Embedding {
  using Case = rows::Case;
  Case of;
  Floats table, y;
  std::vector<std::int32_t> ids;
  explicit Embedding(const Case& c)
      : of(c), table(c.v * c.c, 1), y(c.n * c.c, 2), ids(random_ids(c.n, c.v)) {}
};

struct EmbeddingForward : Embedding {
  using Embedding::Embedding;
  Work work() const { return rows::embedding_forward_work(of); }
  void run(Cpu device) {
    kernels::embedding_forward(device, y.data(), table.data(), ids.data(), of.n, of.c);
  }
  double error(Cpu device) {
    run(device);
    for (Index i = 0; i < of.n; ++i)
      if (!std::equal(&y[i * of.c], &y[i * of.c] + of.c,
                      &table[ids[static_cast<std::size_t>(i)] * of.c]))
        return INFINITY;
    return 0;
  }
};

/// Here `table` is the gradient, y what is added.
struct EmbeddingBackward : Embedding {
  using Embedding::Embedding;
  Work work() const { return rows::embedding_backward_work(of); }
  void run(Cpu device) {
    kernels::embedding_backward(device, table.data(), y.data(), ids.data(), of.n, of.c, of.v);
  }
  /// A few columns, every row of the table.
  double error(Cpu device) {
    table.fill(0.0F);
    run(device);
    const auto columns = places(of.c, 3);
    const auto count = static_cast<Index>(columns.size());
    std::vector<float> some;
    for (Index i = 0; i < of.n; ++i)
      for (const Index j : columns) some.push_back(y[i * of.c + j]);
    const auto exact = reference::embedding_backward(some.data(), ids.data(), of.n, count, of.v);
    const double sums = rows::kTolerance * std::sqrt(static_cast<double>(of.n));
    Worst worst;
    for (std::size_t i = 0; i < exact.size(); ++i) {
      const Index row = static_cast<Index>(i) / count;
      worst.see(table[row * of.c + columns[i % columns.size()]], exact[i], sums);
    }
    return worst.value();
  }
};

struct SumRows {
  using Case = rows::Case;
  Case of;
  Floats x, total;
  explicit SumRows(const Case& c) : of(c), x(c.n * c.c, 1), total(c.c) {}
  Work work() const { return rows::sums_work(of); }
  void run(Cpu device) { kernels::sum_rows(device, total.data(), x.data(), of.n, of.c); }
  double error(Cpu device) {
    total.fill(0.0F);
    run(device);
    const auto exact = reference::sum_rows(x.data(), of.n, of.c);
    Worst worst;
    for (Index j = 0; j < of.c; ++j)
      worst.see(total[j], exact[static_cast<std::size_t>(j)],
                rows::kTolerance * std::sqrt(static_cast<double>(of.n)));
    return worst.value();
  }
};

/// Tables of any angles: cosine and sine need not belong together to be timed.
struct Rope {
  using Case = rows::Rope;
  static constexpr Index kPositions = 1024;
  Case of;
  Floats x, y, cosine, sine;
  std::vector<std::int32_t> positions;
  explicit Rope(const Case& c)
      : of(c),
        x(c.n * c.heads * c.head_size, 1),
        y(x.size()),
        cosine(kPositions * c.head_size / 2, 2),
        sine(cosine.size(), 3) {
    for (Index i = 0; i < c.n; ++i) positions.push_back(static_cast<std::int32_t>(i % kPositions));
  }
  /// y against the oracle's turned x.
  double compare(double direction) const {
    const auto exact = reference::rope(x.data(), cosine.data(), sine.data(), positions.data(), of.n,
                                       of.heads, of.head_size, direction);
    Worst worst;
    for (std::size_t i = 0; i < exact.size(); ++i)
      worst.see(y[static_cast<Index>(i)], exact[i], rows::kTolerance);
    return worst.value();
  }
};

struct RopeForward : Rope {
  using Rope::Rope;
  Work work() const { return rows::rope_forward_work(of); }
  void run(Cpu device) {
    kernels::rope_forward(device, y.data(), x.data(), cosine.data(), sine.data(), positions.data(),
                          of.n, of.heads, of.head_size);
  }
  double error(Cpu device) {
    run(device);
    return compare(1.0);
  }
};

struct RopeBackward : Rope {
  using Rope::Rope;
  Work work() const { return rows::rope_backward_work(of); }
  void run(Cpu device) {
    kernels::rope_backward(device, y.data(), x.data(), cosine.data(), sine.data(), positions.data(),
                           of.n, of.heads, of.head_size);
  }
  double error(Cpu device) {
    y.fill(0.0F);
    run(device);
    return compare(-1.0);
  }
};

}  // namespace

int main(int argc, char** argv) {
  add<EmbeddingForward>("embedding_forward", cases::rows::kTimedEmbedding);
  add<EmbeddingBackward>("embedding_backward", cases::rows::kTimedEmbedding);
  add<SumRows>("sum_rows", cases::rows::kTimedSums);
  add<RopeForward>("rope_forward", cases::rows::kTimedRope);
  add<RopeBackward>("rope_backward", cases::rows::kTimedRope);
  return plumb::bench::run(argc, argv);
}
