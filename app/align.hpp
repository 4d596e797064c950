// `plumb align`: rounds of generate → rank → reward model → PPO in a run directory, and the
// evaluation and report at its end; `plumb demo` is one such run with settings of its own.
//
// Run directory: config.json · lock · round-N/{candidates,rankings}.jsonl, reward.safetensors,
// reward.json, policy.safetensors (checkpoint and, at the end, the result; .previous: the one
// before) · metrics.csv, metrics.jsonl, timing.jsonl · samples-{before,after}.jsonl · report.html.
// A stage whose file exists is not done again, a stage that was cut off starts from its last
// checkpoint, and every draw is keyed by what it is for: so a run stopped at any moment goes on to
// the same bits.
#pragma once

#include "steps.hpp"

namespace plumb { inline namespace v0_1 {

/// Runs, or goes on with a run. Puts its results into `results` as named numbers. `title` heads the
/// report.
void align_command(const AlignSettings& settings, const std::string& title, Json& results);

}}  // namespace plumb::v0_1
