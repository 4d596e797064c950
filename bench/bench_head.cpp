// Log-probability of targets under a language-model head, forward and backward, and its row part
// alone: cross-entropy on given logits.
#include <plumb/cpu/kernels.hpp>

#include "families/head.hpp"

using namespace families;

namespace {

/// Timed again and again in place, where gradients soon stand for logits: finite, and no faster.
void add_head_rows_backward() {
  using cases::head::Case;
  add(
      "head_rows_backward",
      [](Cpu device, float* logits, const std::int32_t* targets, const float* lse, Index n, Index v,
         float scale) {
        const auto& table = plumb::kernels::dispatch<plumb::kernels::HeadTable>();
        plumb::kernels::for_head_rows(device, n, v, [&](Index i) {
          table.logprob_backward(logits + i * v, 1.0F, 0.0F, targets[i], lse[i], 0.0F, v, scale);
        });
      },
      each_of(cases::head::kTimedRows,
              [](const Case& k) {
                const double top = std::log(double(k.v));
                return arguments(inout(k.n * k.v, cases::head::kGradientTolerance, -10, 10),
                                 ids(k.n, k.v), in(k.n, top + 6, top + 8), k.n, k.v, k.scale);
              }),
      [](const Places& places, Results logits, Ids targets, Doubles lse, Index n, Index v,
         float scale) {
        for (const Index i : places(n * v)) {
          const double p = std::exp(double{scale} * logits[at(i)] - lse[at(i / v)]);
          logits[at(i)] = double{scale} * ((targets[at(i / v)] == i % v ? 1.0 : 0.0) - p);
        }
      },
      cases::head::rows_backward_work);
}

}  // namespace

int main(int argc, char** argv) {
  add_head_forward<Cpu>(cases::head::kTimed);
  add_head_backward<Cpu>(cases::head::kTimed);
  add_head_rows_forward<Cpu>(cases::head::kTimedRows);
  add_head_rows_backward();
  return plumb::bench::run(argc, argv);
}
