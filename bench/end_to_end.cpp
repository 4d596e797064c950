// Whole steps of training, generation, PPO and the reward model at three sizes, with what they
// allocate and the most memory that they hold. The same work in PyTorch:
// compare/torch_end_to_end.py.
#include "end_to_end_cases.hpp"

#include <cstdio>

namespace {

using namespace end_to_end;

/// How often `b` is faster than `a`, step by step, and what it holds of a's memory.
void print_ratio(const Result& a, const Result& b) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < a.samples.size(); ++i) ratios.push_back(a.samples[i] / b.samples[i]);
  const auto [low, high] = std::minmax_element(ratios.begin(), ratios.end());
  std::printf("%-26s %.2f x faster (%.2f … %.2f), %.2f of the memory\n", "", median(ratios), *low,
              *high, b.used / a.used);
}

/// Every case that the options ask for, in turn; each is printed when it is done.
std::vector<Result> run(const Options& options) {
  std::vector<Result> results;
  const Size& size = options.size;
  const auto add = [&](const std::string& name, auto work) {
    if (!options.wants_case(name)) return;
    release_cached_memory();  // a case's memory is its own
    results.push_back(work());
    check(results.back().name == name, "[end_to_end] a case is not what it is called");
    print(results.back());
    std::fflush(stdout);
  };
  if (options.wants("train"))
    add(str("train/", size.name), [&] { return train(size, options.repeat); });
  if (options.wants("generate"))
    for (const Index batch : {1, 16, 64})
      for (const bool bf16_weights : {false, true})
        if (batch == 1 || !bf16_weights)  // more rows are not bound by reading the weights
          add(str("generate/", size.name, "/b", batch, bf16_weights ? "/bf16" : ""),
              [&] { return generate(size, batch, bf16_weights, options.repeat); });
  if (options.wants("ppo"))
    for (const PpoCase form : {PpoCase{false, false}, PpoCase{false, true}, PpoCase{true, false}})
      add(str("ppo/", size.name, form.shared ? "/shared" : "/separate",
              form.geometric ? "/geometric" : "/full"),
          [&] { return ppo(size, form, options.repeat); });
  if (options.wants("tree"))
    for (const TreeShape& shape : kTreeShapes) {
      if (!options.wants_case(str("tree/", size.name, "/", shape.prompt, "-", shape.response, "-",
                                  shape.responses)))
        continue;
      for (const Result& result : tree(size, shape, options.repeat)) {
        results.push_back(result);
        print(result);
      }
      print_ratio(results.end()[-2], results.back());
      std::fflush(stdout);
    }
  if (options.wants("reward"))
    add(str("reward/", size.name), [&] { return reward(size, options.repeat); });
  return results;
}

bool same_lengths(const Result& result) {
  return std::all_of(result.lengths.begin(), result.lengths.end(),
                     [&](const auto& lengths) { return lengths == result.lengths.front(); });
}

void write_json(const std::string& path, const std::vector<Result>& results) {
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr) fail<DataError>("[end_to_end] cannot write " + path);
  std::fprintf(file,
               "{\"engine\": \"plumb\", \"isa\": \"%s\", \"threads\": %d,\n \"results\": %s}\n",
               name(current_isa()), default_pool().threads(), json(results).c_str());
  if (std::fclose(file) != 0) fail<DataError>("[end_to_end] cannot write " + path);
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  try {
    if (options.threads > 0) default_pool().set_threads(options.threads);
    std::printf("Plumb, %s, %d threads, size %s\n", name(current_isa()), default_pool().threads(),
                options.size.name);
    const auto results = run(options);
    if (results.empty()) usage("no case is called '" + options.only + "'");
    if (!options.json.empty()) write_json(options.json, results);
    // New lengths may need blocks of sizes not seen yet; the same lengths again may not.
    for (const Result& result : results)
      if (result.system_calls != 0 && same_lengths(result)) {
        std::fprintf(stderr, "%s asks the system for memory once it is warm\n",
                     result.name.c_str());
        return 1;
      }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
