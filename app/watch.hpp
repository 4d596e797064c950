// What the page shows of runs while they train: the rows of their metrics.csv as they are written,
// and what is alarming in them. A run is only read: it may be under way in another program, end, or
// go on from a checkpoint before its last row. What this is not: a record; that is the run's own.
#pragma once

#include "studio/server.hpp"

#include <plumb/io/json.hpp>

#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

class WatchStudio {
 public:
  explicit WatchStudio(std::vector<std::string> runs) : runs_(std::move(runs)) {}

  /// The one action, "open", says what the page is to show.
  StudioReply handle(const std::string& action, const std::string& body) const;

  /// What is new since the event of this id (empty: since ever): for each run "name", the number
  /// of rows "from" which these "rows" go on, "alarms" so far, "error" where it cannot be read.
  /// Nothing new: no data.
  StudioEvent after(const std::string& id) const;

 private:
  std::vector<std::string> runs_;
};

}}  // namespace plumb::v0_1
