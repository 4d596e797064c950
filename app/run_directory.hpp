// A run directory: made once, used by one process at a time, and bound to the settings and inputs
// that it was begun with.
//
// config.json keeps the settings, and under "inputs" a hash of every input's contents: a run that
// goes on with another prompt file of the same name would end with bits that nothing explains.
#pragma once

#include <plumb/io/file.hpp>
#include <plumb/io/json.hpp>
#include <plumb/io/lock.hpp>
#include <plumb/run/metrics.hpp>

#include <memory>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

void make_directory(const std::string& path);

/// Where a round's files are, from 0.
inline std::string round_directory(const std::string& run, Index round) {
  return str(run, "/round-", round);
}

/// Sixteen hexadecimal digits of a file's contents; empty for no path.
std::string contents_hash(const std::string& path);

/// Makes the directory if need be, takes its lock, and keeps `config` there. DataError if it holds
/// a run with another; but the number under a key of `may_grow` may be larger than it was. IoError
/// if another process uses it.
RunLock begin_run(const std::string& directory, const Json& config,
                  const std::vector<std::string>& may_grow = {});

/// TensorBoard's events in this folder, for MetricsWriter; nothing for no folder.
std::unique_ptr<MetricsSink> tensorboard_of(const std::string& folder);

/// What a run that was begun in `directory` says of a setting that was left to the program (0): the
/// same number again, so that it goes on to the bit; else what `now()` says.
template <class Now>
Index kept_number(const std::string& directory, const char* setting, Index said, Now now) {
  if (said > 0) return said;
  const std::string path = directory + "/config.json";
  if (detail::file_exists(path)) {
    const Json config = parse_json(read_file(path), path);
    if (config.is_object() && config.contains(setting) && config[setting].is_number_integer())
      return config[setting].get<Index>();
  }
  return now();
}

}}  // namespace plumb::v0_1
