// The next token of each row: plain, with top-k or top-p, greedy.
#include <plumb/bench.hpp>
#include <plumb/bench/arrays.hpp>
#include <plumb/cpu/kernels.hpp>
#include <plumb/cpu/reference_head.hpp>

#include <numeric>

#include "cases/sampling.hpp"

using namespace plumb::bench;
using plumb::Cpu;
using plumb::Index;

namespace {

namespace sampling = cases::sampling;
namespace reference = plumb::reference;

struct Sample {
  using Case = sampling::Case;
  Case of;
  Index sets, set = 0;
  Floats logits, logprob;
  std::vector<std::int32_t> token;
  std::vector<plumb::SampleKey> keys;

  /// Normal with a deviation of 3.5: a nucleus of 0.9 then has some hundred of 50257 tokens. Many
  /// sets of rows: in the same few again and again, branches get predicted that never are in use
  /// (top-k of 512: 4 times as fast).
  explicit Sample(const Case& c)
      : of(c),
        sets(std::max<Index>(1, (c.v < 4096 ? 1024 : 64) / c.n)),
        logits(sets * c.n * c.v),
        logprob(c.n),
        token(static_cast<std::size_t>(c.n)) {
    plumb::Rng rng(5);
    for (Index i = 0; i < logits.size(); ++i) logits[i] = 3.5F * rng.normal();
    for (Index i = 0; i < c.n; ++i)
      keys.push_back({.seed = 7, .step = 0, .sequence = static_cast<std::uint32_t>(i), .token = 3});
  }
  Work work() const {
    Work work = sampling::work(of);
    work.footprint = cases::floats(logits.size());
    return work;
  }
  const float* rows() const { return logits.data() + set * of.n * of.v; }

  void run(Cpu device) {
    for (plumb::SampleKey& key : keys) ++key.step;
    set = (set + 1) % sets;
    plumb::kernels::sample_rows(device, token.data(), logprob.data(), rows(), of.n, of.v,
                                of.kind.settings, keys.data());
  }

  /// The token must be where the exact running sum passes the draw's uniform number.
  double error(Cpu device) {
    run(device);
    Worst worst;
    for (const Index row : places(of.n, 9)) {
      const float* z = rows() + row * of.v;
      const auto i = static_cast<std::size_t>(row), drawn = static_cast<std::size_t>(token[i]);
      const auto p = reference::sampling_probabilities(z, of.v, of.kind.settings);
      if (token[i] < 0 || token[i] >= of.v || p[drawn] == 0) return INFINITY;
      const auto log_p = reference::log_softmax({z, z + of.v}, 1.0);
      worst.see(logprob[row], log_p[drawn], sampling::kTolerance);
      if (of.kind.settings.temperature == 0.0F) continue;
      const auto words = plumb::philox(keys[i].seed, plumb::Stage::Sample, keys[i].step,
                                       keys[i].sequence, keys[i].token);
      const double u = plumb::uniform_from(words[0]);
      const double below =
          std::accumulate(p.begin(), p.begin() + static_cast<std::ptrdiff_t>(drawn), 0.0);
      worst.see(std::clamp(u, below, below + p[drawn]), u, sampling::kTolerance);
    }
    return worst.value();
  }
};

}  // namespace

int main(int argc, char** argv) {
  add<Sample>("sample", cases::sampling::kTimed);
  return plumb::bench::run(argc, argv);
}
