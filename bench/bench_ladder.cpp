// The ladder: C (M, N) = A·B from the definition to the library's kernel, one idea a rung
// (ladder/). Each rung is compared with the oracle at odd sizes and at those timed, and with the
// library bit by bit. With --markdown it prints the table of docs/kernels/gemm.md, the best of all
// repetitions.
#include <plumb/bench.hpp>
#include <plumb/bench/arrays.hpp>
#include <plumb/cpu/kernels.hpp>
#include <plumb/cpu/reference_gemm.hpp>

#include <cstring>
#include <map>
#include <span>

#include "cases/gemm.hpp"
#include "ladder/gemm_11_library.hpp"
#include "ladder/gemm_12_threads.hpp"
#include "ladder/gemm_1_naive.hpp"
#include "ladder/gemm_2_loop_order.hpp"
#if defined(__x86_64__)
#include "ladder/gemm_10_even_tiles.hpp"
#include "ladder/gemm_3_vectors.hpp"
#include "ladder/gemm_4_accumulators.hpp"
#include "ladder/gemm_5_register_tile.hpp"
#include "ladder/gemm_6_packing.hpp"
#include "ladder/gemm_7_chunks.hpp"
#include "ladder/gemm_8_blocks.hpp"
#include "ladder/gemm_9_wide.hpp"
#endif

using namespace plumb::bench;
using plumb::Cpu;
using plumb::Index;

namespace {

using cases::gemm::Size;
using plumb::Form;
using plumb::Isa;

struct Rung {
  const char* name;
  const char* idea;
  Isa needs;
  bool all_threads;
  void (*matmul)(Cpu device, float* c, const float* a, const float* b, Index m, Index n, Index k);
};

#define RUNG(name, idea, needs, all_threads) \
  { #name, idea, needs, all_threads, ladder::name::matmul }
constexpr Rung kRungs[] = {
    RUNG(gemm_1_naive, "the definition", Isa::Scalar, false),
    RUNG(gemm_2_loop_order, "rows of B, not columns; the compiler's vectors", Isa::Scalar, false),
#if defined(__x86_64__)
    RUNG(gemm_3_vectors, "AVX2 and fma by hand", Isa::Avx2, false),
    RUNG(gemm_4_accumulators, "C in registers: 1 × 64", Isa::Avx2, false),
    RUNG(gemm_5_register_tile, "a tile of C in registers: 6 × 16", Isa::Avx2, false),
    RUNG(gemm_6_packing, "B copied to panels", Isa::Avx2, false),
    RUNG(gemm_7_chunks, "k in chunks of 256: a panel in the first cache", Isa::Avx2, false),
    RUNG(gemm_8_blocks, "blocks of 96 rows: A in the second cache", Isa::Avx2, false),
    RUNG(gemm_9_wide, "AVX-512: a tile of 12 × 32", Isa::Avx512, false),
    RUNG(gemm_10_even_tiles, "tiles of even height", Isa::Avx512, false),
#endif
    RUNG(gemm_11_library, "the library, one thread", Isa::Scalar, false),
    RUNG(gemm_12_threads, "the library, all threads", Isa::Scalar, true)};
#undef RUNG

/// Powers of two, whose rows share the sets of a cache; as large without that; few rows, 4·12 + 1.
constexpr Size kTimed[] = {{1024, 1024, 1024}, {1000, 1000, 1000}, {49, 1024, 1024}};
constexpr Size kOdd[] = {{1, 1, 1}, {7, 33, 65}, {25, 31, 256}, {97, 64, 513}, {129, 257, 300}};

std::string name(const Size& s) { return plumb::str(s.m, "x", s.n, "x", s.k); }

std::string name_of(const Rung& rung, const Size& size) {
  return plumb::str("ladder/", rung.name, "/", name(size));
}

/// A size's inputs, and what the oracle and the library make of them: the same for every rung.
struct Inputs {
  Floats a, b, library;
  std::vector<double> exact, scale;

  explicit Inputs(const Size& s) : a(s.m * s.k, 1), b(s.k * s.n, 2), library(s.m * s.n) {
    // The oracle's loops are rung 1's: it is given B transposed, or it would take as long.
    const Floats transposed(s.n * s.k);
    for (Index p = 0; p < s.k; ++p)
      for (Index j = 0; j < s.n; ++j) transposed[j * s.k + p] = b[p * s.n + j];
    exact = plumb::reference::matmul(a.data(), transposed.data(), s.m, s.n, s.k, Form::NT);
    scale = plumb::reference::matmul_scale(a.data(), transposed.data(), s.m, s.n, s.k, Form::NT);
    plumb::kernels::matmul(Cpu{}, library.data(), a.data(), b.data(), s.m, s.n, s.k, Form::NN);
  }
  static const Inputs& of(const Size& s) {
    static std::map<std::string, Inputs> known;
    return known.try_emplace(name(s), s).first->second;
  }
};

struct Ladder {
  struct Case {
    const Rung& rung;
    Size size;
  };
  Case of;
  Floats c;
  bool same_bits = true;

  explicit Ladder(const Case& of_case) : of(of_case), c(of.size.m * of.size.n) {}

  Work work() const { return cases::gemm::work({Form::NN, of.size.m, of.size.n, of.size.k}); }

  void multiply(Cpu device, const Size& s, float* to) const {
    const Inputs& in = Inputs::of(s);
    of.rung.matmul(device, to, in.a.data(), in.b.data(), s.m, s.n, s.k);
  }
  void run(Cpu device) { multiply(device, of.size, c.data()); }

  std::vector<std::pair<std::string, double>> more() const { return {{"same bits", same_bits}}; }

  double error(Cpu device) {
    Worst worst;
    std::vector<Size> sizes(std::begin(kOdd), std::end(kOdd));
    sizes.push_back(of.size);
    for (const Size& s : sizes) {
      const Inputs& in = Inputs::of(s);
      Floats out(s.m * s.n);
      out.fill(NAN);
      multiply(device, s, out.data());
      for (Index i = 0; i < out.size(); ++i) {
        const auto at = static_cast<std::size_t>(i);
        worst.see(out[i], in.exact[at], cases::gemm::kTolerance * in.scale[at]);
      }
      const auto bytes = static_cast<std::size_t>(out.size()) * sizeof(float);
      same_bits &= std::memcmp(out.data(), in.library.data(), bytes) == 0;
    }
    return worst.value();
  }
};

void add_rungs() {
  for (const Rung& rung : kRungs) {
    const int threads = rung.all_threads ? thread_counts().back() : 1;
    const bool lacks_threads = rung.all_threads && threads == 1;
    if (rung.needs > plumb::current_isa() || lacks_threads) {
      std::fprintf(stderr, "%s: skipped, it needs %s\n", rung.name,
                   lacks_threads ? "more than one thread" : plumb::name(rung.needs));
      continue;
    }
    for (const Size& size : kTimed) {
      const Ladder::Case of{rung, size};
      entries().push_back({rung.name, name_of(rung, size), threads, false,
                           [of] { return std::make_unique<Adapted<Ladder>>(of); }});
    }
  }
}

/// Keeps the fastest run of each rung and size, and prints them as a table in the end.
class Markdown : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) {
      if (run.error_occurred)
        std::fprintf(stderr, "%s: %s\n", run.benchmark_name().c_str(), run.error_message.c_str());
      if (run.run_type != Run::RT_Iteration || run.error_occurred) continue;
      const std::string& full = run.run_name.function_name;
      auto& kept = best_[full.substr(0, full.rfind("/threads:"))];
      if (kept.empty() || kept.at("GFLOP/s") < run.counters.at("GFLOP/s")) kept = run.counters;
    }
  }
  /// The first size in full, of the others the speed.
  void Finalize() override {
    const auto others = std::span(kTimed).subspan(1);
    std::printf("| rung | idea | GFLOP/s, %s | %% of peak | × the rung before |",
                name(kTimed[0]).c_str());
    for (const Size& size : others) std::printf(" GFLOP/s, %s |", name(size).c_str());
    std::printf(" same bits |\n|---|---|--:|--:|--:|");
    for (std::size_t i = 0; i < others.size(); ++i) std::printf("--:|");
    std::printf("---|\n");
    double before = 0;
    for (const Rung& rung : kRungs) {
      const double speed = best(rung, kTimed[0], "GFLOP/s");
      if (std::isnan(speed)) continue;
      std::printf("| `%s` | %s | %.1f | %.1f | %.2f |", rung.name, rung.idea, speed,
                  best(rung, kTimed[0], "%bound"), before == 0 ? 1 : speed / before);
      for (const Size& size : others) std::printf(" %.1f |", best(rung, size, "GFLOP/s"));
      std::printf(" %s |\n", best(rung, kTimed[0], "same bits") == 1.0 ? "yes" : "no");
      before = speed;
    }
  }

 private:
  /// Of the fastest run; NaN if there is none.
  double best(const Rung& rung, const Size& size, const char* counter) const {
    const auto run = best_.find(name_of(rung, size));
    if (run == best_.end() || !run->second.contains(counter)) return NAN;
    return run->second.at(counter);
  }

  std::map<std::string, benchmark::UserCounters> best_;
};

}  // namespace

int main(int argc, char** argv) {
  add_rungs();
  Markdown markdown;
  char** const end = std::remove_if(argv + 1, argv + argc, [](const char* argument) {
    return std::strcmp(argument, "--markdown") == 0;
  });
  const bool table = end != argv + argc;
  argc = static_cast<int>(end - argv);
  return plumb::bench::run(argc, argv, table ? &markdown : nullptr);
}
