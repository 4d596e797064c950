// `plumb whatif` started from the page of `plumb studio --watch`: one at a time, as a process of
// its own, so that the page stays quick and nothing of the work outlives its end. What it found
// lies beside the run, where the page finds it, whoever started it.
#pragma once

#include <plumb/io/json.hpp>

#include <sys/types.h>
#include <cstdio>
#include <mutex>
#include <string>

namespace plumb { inline namespace v0_1 {

class WhatIfJob {
 public:
  WhatIfJob() = default;
  WhatIfJob(const WhatIfJob&) = delete;
  WhatIfJob& operator=(const WhatIfJob&) = delete;
  ~WhatIfJob();

  /// A ranking of a run's round, from 0: its "prompt", "responses", "rank", the "rankings" and
  /// "rounds" that there are; "state" none, running, failed or done; the last thing "said", and the
  /// "result" once there is one. DataError where the run has no such ranking.
  Json ranking(const std::string& run, Index round, Index ranking);

  /// Starts it. DataError while another is under way, or where its result is there.
  void start(const std::string& run, Index round, Index ranking);

 private:
  void look();
  std::string last_words() const;

  std::mutex mutex_;
  std::string directory_;  // of the last one that was started
  pid_t process_ = 0;      // 0: none is under way
  bool failed_ = false;
  std::FILE* log_ = nullptr;
};

}}  // namespace plumb::v0_1
