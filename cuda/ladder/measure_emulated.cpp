// Counts from the emulator's tracer: every access of every thread, put together to the requests of
// warps. What these are not: times, or what a cache makes of the accesses.
#include <ladder/instructions.hpp>
#include <ladder/measure.hpp>

#include <emulator/core.hpp>
#include <emulator/runtime.hpp>
#include <emulator/trace.hpp>

#include <cstdio>

namespace plumb { inline namespace v0_1 { namespace ladder {
namespace {

std::string number(double value, const char* format = "%.2f") {
  char text[32];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

/// a / b, or a dash where there is nothing.
std::string ratio(std::uint64_t a, double b, const char* format = "%.2f") {
  return a == 0 || b == 0.0 ? "–" : number(static_cast<double>(a) / b, format);
}

}  // namespace

Sizes sizes() { return {256, 32, 4096, 256, Index{1} << 16}; }

std::string how() {
  if (!emulator::traced())
    fail<Error>("[ladder] compiled without the tracer. HINT: link plumb_emulated_trace",
                Where::here());
  return std::string("Counted in the emulator, access by access, of kernels compiled by ") +
         (counts_instructions() ? "nvcc to PTX" : "the host's compiler") +
         ". No GPU was there and nothing was timed.";
}

std::vector<std::string> headings() {
  std::vector<std::string> names = {"global, MB",        "FLOP/B",          "sectors a request",
                                    "of ideal",          "shared, MB",      "turns, of ideal",
                                    "turns per 64 FLOP", "barriers a block"};
  if (counts_instructions()) names.emplace_back("instructions per 2 FLOP");
  return names;
}

std::vector<std::string> measure(const std::function<void()>& run, const Work& work) {
  emulator::trace_transactions(true);
  emulator::trace_counts().clear();
  const emulator::Counts before = emulator::counts();
  take_instructions();
  run();
  emulator::drain_all();
  const emulator::Counts after = emulator::counts();
  if (!emulator::take_errors().empty())
    fail<Error>("[ladder] the emulator reports the errors above", Where::here());

  const emulator::TraceCounts total = emulator::trace_total();
  const std::uint64_t global = total.global_load_bytes + total.global_store_bytes;
  const std::uint64_t shared = total.shared_load_bytes + total.shared_store_bytes;
  const auto as_double = [](std::uint64_t n) { return static_cast<double>(n); };
  std::vector<std::string> cells = {
      ratio(global, 1e6),
      number(work.flops / as_double(global)),
      ratio(total.global_sectors, as_double(total.global_requests), "%.1f"),
      ratio(total.global_sectors, as_double(total.global_ideal)),
      ratio(shared, 1e6),
      ratio(total.shared_wavefronts, as_double(total.shared_ideal)),
      ratio(total.shared_wavefronts, work.flops / 64.0, "%.3f"),
      ratio(after.barriers - before.barriers, as_double(after.blocks - before.blocks), "%.1f")};
  if (counts_instructions()) cells.push_back(ratio(take_instructions(), work.flops / 2.0));
  return cells;
}

}}}  // namespace plumb::v0_1::ladder
