// What the page shows of runs while they train: the rows of their metrics.csv as they are written,
// what is alarming in them, and the episodes of an iteration (episodes.hpp). A run is only read: it
// may be under way in another program, end, or go on from a checkpoint before its last row. What
// this is not: a record; that is the run's own.
#pragma once

#include "studio/server.hpp"
#include "whatif_job.hpp"

#include <plumb/io/json.hpp>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// What there is to see of a step of a run, the newest without one: "step", "beta", "values" of the
/// row of metrics, "alarms" up to it, "episodes". None: the run keeps none of it.
std::optional<Json> step_json(const std::string& run, std::optional<Index> step);

class WatchStudio {
 public:
  explicit WatchStudio(std::vector<std::string> runs) : runs_(std::move(runs)) {}

  /// The actions: "open" says what the page is to show. "episodes" of "run", an index of those
  /// given, and "iteration", a step of its metrics, or null for the newest: step_json. "ranking" of
  /// "run", "round" and "ranking": WhatIfJob::ranking; "turn" starts that one, and replies the
  /// same. 400 says what does not fit, 404 what there is none of.
  StudioReply handle(const std::string& action, const std::string& body) const;

  /// What is new since the event of this id (empty: since ever): for each run "name", the number
  /// of rows "from" which these "rows" go on, those of timing.jsonl among their values, "alarms" so
  /// far, "error" where it cannot be read.
  /// Nothing new: no data.
  StudioEvent after(const std::string& id) const;

 private:
  std::vector<std::string> runs_;
  std::unique_ptr<WhatIfJob> job_ = std::make_unique<WhatIfJob>();
};

}}  // namespace plumb::v0_1
