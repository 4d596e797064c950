// Kernels of Plumb and of the peers that were found. Matrix products run in turn in one process:
// ours, peer, ours, peer, …, so that a disturbance meets all of them. The other ops
// (kernels_ops.hpp) are timed alone; their peer is another program, run in turn with this one by
// run.py.
//
//   kernels [--what gemm|ops|all] [--threads N] [--rounds N] [--only TEXT] [--json PREFIX]
//
// --json writes PREFIX.ENGINE.json for each engine. PLUMB_ISA=avx2 holds the peers to AVX2, too.
#include "kernels.hpp"

#include <unistd.h>

#include <plumb/bench/arrays.hpp>

#include <map>
#include <thread>

#include "cases/gemm.hpp"
#include "kernels_ops.hpp"

namespace {

using namespace compare;
using end_to_end::median;
using end_to_end::number;

namespace gemm = cases::gemm;
using Index = compare::Index;
using Form = compare::Form;

struct Options {
  std::string what = "all", only, json;
  int threads = 1, rounds = 5;
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i], value = i + 1 < argc ? argv[i + 1] : "";
    if (name == "--what" && (value == "gemm" || value == "ops" || value == "all"))
      options.what = value;
    else if (name == "--threads")
      options.threads = number(name, value);
    else if (name == "--rounds")
      options.rounds = number(name, value);
    else if (name == "--only")
      options.only = value;
    else if (name == "--json")
      options.json = value;
    else
      fail<DataError>(str("[kernels] '", name, " ", value, "' is not understood"));
  }
  return options;
}

/// The peers pick their instruction set when they are loaded: this process begins again with theirs
/// set, whatever the environment said of it before.
void choose_peers_isa(char** argv) {
  constexpr const char* kMark = "PLUMB_COMPARE_ISA";
  const bool avx512 = current_isa() >= Isa::Avx512;
  if (const char* mark = std::getenv(kMark);
      mark != nullptr && mark == std::string_view(name(current_isa())))
    return;
  setenv(kMark, name(current_isa()), 1);
  setenv("OPENBLAS_CORETYPE", avx512 ? "SkylakeX" : "Haswell", 1);
  unsetenv("OPENBLAS_L2_SIZE");
  if (avx512)
    unsetenv("ONEDNN_MAX_CPU_ISA");
  else
    setenv("ONEDNN_MAX_CPU_ISA", "AVX2", 1);
  // Idle workers of one library would spin into the next one's turn: milliseconds at the most,
  // where the defaults are tens. A library's own calls follow each other within microseconds.
  setenv("OPENBLAS_THREAD_TIMEOUT", "22", 1);
  setenv("GOMP_SPINCOUNT", "30000", 1);
  execv("/proc/self/exe", argv);
  fail("[kernels] cannot begin again with OPENBLAS_CORETYPE set");
}

class PlumbPacked final : public compare::PackedWeight {
 public:
  PlumbPacked(const float* b, Index m, Index n, Index k)
      : m_(m), n_(n), k_(k), packed_(packed_size(Cpu{}, n, k)) {
    pack_matrix(Cpu{}, packed_.data(), b, n, k);
  }
  void multiply(float* c, const float* a) const override {
    matmul_packed(Cpu{}, c, a, packed_.data(), m_, n_, k_);
  }

 private:
  Index m_, n_, k_;
  Scratch<float> packed_;
};

Engine plumb_engine() {
  return {"plumb", std::string(name(current_isa())),
          [](int threads) { default_pool().set_threads(threads); },
          [](const Product& p) {
            matmul(Cpu{}, p.c, p.a, p.b, p.m, p.n, p.k, static_cast<plumb::Form>(p.form),
                   p.accumulate);
          },
          [](const float* b, Index m, Index n, Index k) -> std::unique_ptr<compare::PackedWeight> {
            return std::make_unique<PlumbPacked>(b, m, n, k);
          }};
}

std::vector<Engine> engines() {
  std::vector<Engine> all{plumb_engine()};
#if defined(COMPARE_OPENBLAS)
  all.push_back(openblas());
#endif
#if defined(COMPARE_ONEDNN)
  all.push_back(onednn());
#endif
#if defined(COMPARE_EIGEN)
  if (current_isa() >= Isa::Avx512 || !supported(Isa::Avx512)) all.push_back(eigen());
#endif
  return all;
}

struct GemmCase {
  gemm::Case of;
  bool packed;  ///< the weight, once, outside the clock, by engines that can

  std::string name() const {
    const std::string name = gemm::name(of);  // NT/1x768x256
    return "gemm/" + (packed ? "packed" + name.substr(2) : name);
  }
};

/// The benchmarks' own sizes, but for gradients of a few tokens and a product of a second a call.
std::vector<GemmCase> gemm_cases() {
  std::vector<GemmCase> all;
  for (const gemm::Case& c : gemm::kTimed)
    if (!gemm::accumulates(c) || c.k >= 64) all.push_back({c, false});
  for (const gemm::Case& c : gemm::kTimedPacked) all.push_back({c, true});
  for (const gemm::Case& c : gemm::kTimedHead)
    if (gemm::work(c).flops < 1e11) all.push_back({c, false});
  return all;
}

/// The operands of a case. Activations stay; the weights, or their gradients, rotate: when a
/// layer's weights are needed, other layers have been through the caches.
struct Operands {
  explicit Operands(const GemmCase& c)
      : form(c),
        rotates_c(gemm::accumulates(c.of)),
        a(c.of.m * c.of.k, 1),
        fixed(rotates_c ? c.of.k * c.of.n : c.of.m * c.of.n, 2),
        weights(rotates_c ? c.of.m * c.of.n : c.of.k * c.of.n, 3) {}

  Product product(Index call) const {
    float* turn = weights.at(call);
    return {rotates_c ? turn : fixed.data(),
            a.data(),
            rotates_c ? fixed.data() : turn,
            form.of.m,
            form.of.n,
            form.of.k,
            static_cast<Form>(form.of.form),
            rotates_c};
  }

  GemmCase form;
  bool rotates_c;
  plumb::bench::Floats a, fixed;
  plumb::bench::Rotating weights;
};

/// One engine's calls of a case.
class Runner {
 public:
  Runner(const Engine& engine, const Operands& operands) : engine_(engine), operands_(operands) {
    const gemm::Case& c = operands.form.of;
    if (operands.form.packed && engine.pack != nullptr)
      for (Index i = 0; i < operands.weights.copies(); ++i)
        weights_.push_back(engine.pack(operands.weights.at(i), c.m, c.n, c.k));
  }

  void operator()(Index call) const { multiply(operands_.product(call), call); }

  /// The product of the first call, stored and not added.
  std::vector<float> result() const {
    Product product = operands_.product(0);
    product.accumulate = false;
    multiply(product, 0);
    return {product.c, product.c + product.m * product.n};
  }

  /// Seconds per call. First it works unseen for a while: threads that were just woken may share a
  /// core until the system has spread them.
  double time(Index calls) {
    const auto woken = Clock::now();
    do (*this)(next_++);
    while (seconds_since(woken) < 0.01);
    const auto start = Clock::now();
    for (Index i = 0; i < calls; ++i) (*this)(next_++);
    return seconds_since(start) / static_cast<double>(calls);
  }

 private:
  void multiply(const Product& product, Index call) const {
    if (weights_.empty())
      engine_.multiply(product);
    else
      weights_[static_cast<std::size_t>(call) % weights_.size()]->multiply(product.c, product.a);
  }

  const Engine& engine_;
  const Operands& operands_;
  std::vector<std::unique_ptr<compare::PackedWeight>> weights_;
  Index next_ = 0;
};

/// Whether two engines computed the same product: only then may their times be compared.
void require_equal(const std::vector<float>& x, const std::vector<float>& ours, const GemmCase& c,
                   const Engine& engine) {
  for (std::size_t i = 0; i < ours.size(); ++i)
    if (!(std::abs(x[i] - ours[i]) < 1e-6F * static_cast<float>(c.of.k) + 1e-4F))
      fail(str("[kernels] ", engine.name, " and Plumb differ in ", c.name()));
}

/// One result per engine.
std::vector<Result> time_gemm(const std::vector<Engine>& all, const GemmCase& c, int threads,
                              int rounds) {
  const Operands operands(c);
  std::vector<Runner> runners;
  std::vector<Result> results;
  for (const Engine& engine : all) {
    runners.emplace_back(engine, operands);
    require_equal(runners.back().result(), runners[0].result(), c, engine);
    results.push_back({.name = c.name(), .unit = "s"});
    results.back().work = {{"flops", gemm::work(c.of).flops}};
  }
  const Index calls =
      std::clamp(static_cast<Index>(0.05 / runners[0].time(1)), Index{2}, Index{20000});
  for (int round = 0; round < rounds; ++round)
    for (std::size_t e = 0; e < all.size(); ++e) {
      // Idle workers of the last engine spin for a while, on a core that this one needs.
      if (threads > 1) std::this_thread::sleep_for(std::chrono::milliseconds(30));
      results[e].samples.push_back(runners[e].time(calls));
    }
  return results;
}

void print_head(const std::vector<Engine>& all, int threads) {
  std::printf("threads: %d\n", threads);
  for (const Engine& engine : all)
    std::printf("%s: %s\n", engine.name.c_str(), engine.version.c_str());
  std::printf(
      "\nGFLOP/s, median; in brackets the spread (slowest … fastest round), %%\n\n| product |");
  for (const Engine& engine : all) std::printf(" %s |", engine.name.c_str());
  std::printf(" ours / best peer |\n|---|");
  for (std::size_t i = 0; i <= all.size(); ++i) std::printf("---|");
  std::printf("\n");
}

/// One line of the table; returns the ratio to the best peer, 0 without peers.
double print_row(const std::vector<Result>& results) {
  std::printf("| %s |", results[0].name.c_str() + std::string_view("gemm/").size());
  const double flops = results[0].work[0].second;
  double best = INFINITY;
  for (const Result& r : results) {
    const auto [low, high] = std::minmax_element(r.samples.begin(), r.samples.end());
    const double middle = median(r.samples);
    std::printf(" %.1f (%.0f … %+.0f) |", flops / middle * 1e-9, 100 * (middle / *high - 1),
                100 * (middle / *low - 1));
    if (&r != &results[0]) best = std::min(best, middle);
  }
  const double ratio = results.size() > 1 ? best / median(results[0].samples) : 0;
  std::printf(" %.2f |\n", ratio);
  std::fflush(stdout);
  return ratio;
}

std::vector<std::vector<Result>> run_gemm(const std::vector<Engine>& all, const Options& options) {
  std::vector<std::vector<Result>> by_engine(all.size());
  print_head(all, options.threads);
  std::map<std::string, std::pair<double, int>> means;  // by form: Σ log ratio, how many
  for (const GemmCase& c : gemm_cases()) {
    if (c.name().find(options.only) == std::string::npos) continue;
    const auto results = time_gemm(all, c, options.threads, options.rounds);
    for (std::size_t e = 0; e < all.size(); ++e) by_engine[e].push_back(results[e]);
    auto& [sum, count] = means[c.packed ? "packed" : c.name().substr(5, 2)];
    sum += std::log(print_row(results));
    ++count;
    release_cached_memory();
  }
  if (all.size() > 1)
    for (const auto& [form, mean] : means)
      std::printf("%s: ours / best peer, geometric mean of %d: %.2f\n", form.c_str(), mean.second,
                  std::exp(mean.first / mean.second));
  return by_engine;
}

std::vector<Result> run_ops(const Options& options) {
  std::vector<Result> results;
  for (const auto& make : op_cases()) {
    const OpCase op = make();
    if (op.name.find(options.only) == std::string::npos) continue;
    for (Result& result : time_case(op, options.rounds)) {
      std::printf("%-42s %10.1f µs\n", result.name.c_str(), 1e6 * median(result.samples));
      results.push_back(std::move(result));
    }
    std::fflush(stdout);
  }
  return results;
}

void write_json(const std::string& prefix, const Engine& engine, int threads,
                const std::vector<Result>& results) {
  const std::string path = prefix + "." + engine.name + ".json";
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr) fail<DataError>("[kernels] cannot write " + path);
  std::fprintf(
      file, "{\"engine\": \"%s\", \"version\": \"%s\", \"threads\": %d,\n \"results\": %s}\n",
      engine.name.c_str(), engine.version.c_str(), threads, end_to_end::json(results).c_str());
  if (std::fclose(file) != 0) fail<DataError>("[kernels] cannot write " + path);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Options options = parse(argc, argv);
    choose_peers_isa(argv);
    const auto all = engines();
    for (const Engine& engine : all) engine.set_threads(options.threads);
    std::vector<std::vector<Result>> results(all.size());
    if (options.what != "ops") results = run_gemm(all, options);
    if (options.what != "gemm")
      for (Result& result : run_ops(options)) results[0].push_back(std::move(result));
    if (!options.json.empty())
      for (std::size_t e = 0; e < all.size(); ++e)
        if (!results[e].empty()) write_json(options.json, all[e], options.threads, results[e]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
