// `plumb align`: rounds of generate → rank → reward model → PPO in a run directory, and the evaluation
// and report at its end; `plumb demo` is one such run with settings of its own.
//
// Run directory: config.json · round-N/{candidates,rankings}.jsonl, reward.safetensors,
// policy.safetensors (checkpoint and, at the end, the result) · metrics.csv, metrics.jsonl,
// timing.jsonl · samples.jsonl · report.html. A stage whose file exists is not done again, a stage
// that was cut off starts from its last checkpoint, and every draw is keyed by what it is for: so a run
// stopped at any moment and taken up again ends with the same bits.
#pragma once

#include "steps.hpp"

namespace plumb { inline namespace v0_1 {

/// Runs or takes up a run. Returns its results as named numbers. `title` heads the report; what the
/// run was trained towards is added.
Json align_command(const AlignSettings& settings, const std::string& title);

/// Makes a run directory and keeps its settings there. DataError if it holds a run with others.
void begin_run(const std::string& directory, const Json& config);

/// Settings as JSON, in the order of their list.
template <class Settings>
Json settings_json(Settings settings) {
  Json json = Json::object();
  fields(settings, [&](const char* name, auto& member, const char*) { json[name] = member; });
  return json;
}

}}  // namespace plumb::v0_1
