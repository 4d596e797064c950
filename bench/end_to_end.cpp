// Whole steps of training, generation, PPO and the reward model at three sizes, with what they
// allocate and the most memory that they hold. The same work in PyTorch:
// compare/torch_end_to_end.py.
#include <plumb/bench/probe.hpp>

#include <cstdio>

#include "end_to_end_cases.hpp"

namespace {

using namespace end_to_end;

/// How often `b` is faster than `a`, step by step, and what it holds of a's memory.
void print_ratio(const Result& a, const Result& b) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < a.samples.size(); ++i)
    ratios.push_back(a.unit == "s" ? a.samples[i] / b.samples[i] : b.samples[i] / a.samples[i]);
  const auto [low, high] = std::minmax_element(ratios.begin(), ratios.end());
  std::printf("%-26s %.2f x faster (%.2f … %.2f), %.2f of the memory\n", "", median(ratios), *low,
              *high, b.used / a.used);
}

/// Every case that the options ask for, in turn; each is printed when it is done.
class Session {
 public:
  explicit Session(const Options& options) : options_(options) {}

  std::vector<Result> run() {
    const Size& size = options_.size;
    if (options_.wants("train"))
      add(str("train/", size.name), [&]<class D>(D, int repeat) { return train<D>(size, repeat); });
    if (options_.wants("generate"))
      for (const Index batch : {1, 16, 64})
        add(str("generate/", size.name, "/b", batch),
            [&]<class D>(D, int repeat) { return generate<D>(size, batch, repeat); });
    if (options_.wants("ppo"))
      for (const PpoCase form : {PpoCase{false, false}, PpoCase{false, true}, PpoCase{true, false}})
        add(str("ppo/", size.name, form.shared ? "/shared" : "/separate",
                form.geometric ? "/geometric" : "/full"),
            [&]<class D>(D, int repeat) { return ppo<D>(size, form, repeat); });
    if (options_.wants("tree"))
      for (const TreeShape& shape : options_.shapes) {
        if (floats()) add_tree<Cpu>(shape);
        if (bf16s()) add_tree<CpuBf16>(shape);
      }
    if (options_.wants("ranked"))
      for (const Index responses : {4, 8})
        add(str("ranked/", size.name, "/k", responses),
            [&]<class D>(D, int repeat) { return ranked<D>(size, responses, repeat); });
    if (options_.wants("group"))
      add(str("group/", size.name), [&]<class D>(D, int repeat) { return group<D>(size, repeat); });
    if (options_.wants("reward"))
      add(str("reward/", size.name),
          [&]<class D>(D, int repeat) { return reward<D>(size, repeat); });
    return results_;
  }

 private:
  bool floats() const { return options_.precision != "bf16"; }
  bool bf16s() const { return options_.precision != "float"; }

  template <class D, class Work>
  Result one(const std::string& name, Work& work, int repeat) {
    release_cached_memory();  // a case's memory is its own
    const Result result = work(D{}, repeat);
    check(result.name == name + kSuffix<D>, "[end_to_end] a case is not what it is called");
    return result;
  }
  void keep(const Result& result) {
    results_.push_back(result);
    print(result);
    std::fflush(stdout);
  }

  template <class Work>
  void add(const std::string& name, Work work) {
    if (floats() && bf16s()) {
      if (!options_.wants_case(name)) return;
      Result a, b;
      for (int i = 0; i < options_.repeat; ++i) {  // step about
        const Result in_float = one<Cpu>(name, work, 1), in_bf16 = one<CpuBf16>(name, work, 1);
        i == 0 ? void(a = in_float) : append(a, in_float);
        i == 0 ? void(b = in_bf16) : append(b, in_bf16);
      }
      keep(a);
      keep(b);
      print_ratio(a, b);
    } else if (floats()) {
      if (options_.wants_case(name)) keep(one<Cpu>(name, work, options_.repeat));
    } else if (options_.wants_case(name + kSuffix<CpuBf16>)) {
      keep(one<CpuBf16>(name, work, options_.repeat));
    }
  }
  template <class D>
  void add_tree(const TreeShape& shape) {
    if (!options_.wants_case(str("tree/", options_.size.name, "/", shape.prompt, "-",
                                 shape.response, "-", shape.responses, kSuffix<D>)))
      return;
    const auto [whole, shared] = tree<D>(options_.size, shape, options_.repeat);
    keep(whole);
    keep(shared);
    print_ratio(whole, shared);
  }

  const Options& options_;
  std::vector<Result> results_;
};

/// What a case must keep: memory that is asked for once, and hardly more resident than is in use. A
/// megabyte or two that is no tensor (episodes, tokens) is not counted against it.
bool keeps_memory(const Result& r) {
  constexpr double kRoom = 4e6;
  const bool asks = r.system_calls != 0, holds = r.resident - r.beside > 1.3 * r.used + kRoom;
  if (asks)
    std::fprintf(stderr, "%s asks the system for memory once it is warm, %.4g times a step\n",
                 r.name.c_str(), r.system_calls);
  if (holds)
    std::fprintf(stderr, "%s holds %.0f MB, more than 1.3 times the %.0f in use\n", r.name.c_str(),
                 (r.resident - r.beside) / 1e6, r.used / 1e6);
  return !asks && !holds;
}

void write_json(const std::string& path, const std::vector<Result>& results) {
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr) fail<DataError>("[end_to_end] cannot write " + path);
  std::fprintf(file,
               "{\"engine\": \"plumb\", \"isa\": \"%s\", \"threads\": %d,\n"
               " \"gflops\": {\"fma\": %.0f, \"vdpbf16ps\": %.0f},\n \"results\": %s}\n",
               name(current_isa()), default_pool().threads(), plumb::bench::fma_peak(1),
               plumb::bench::dot_peak(1), json(results).c_str());
  if (std::fclose(file) != 0) fail<DataError>("[end_to_end] cannot write " + path);
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  try {
    if (options.threads > 0) default_pool().set_threads(options.threads);
    std::printf("Plumb, %s, %d threads, size %s\n", name(current_isa()), default_pool().threads(),
                options.size.name);
    const auto results = Session(options).run();
    if (results.empty()) usage("no case is called '" + options.only + "'");
    if (!options.json.empty()) write_json(options.json, results);
    bool kept = true;
    for (const Result& result : results) kept &= keeps_memory(result);
    return kept ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
