#include "run_directory.hpp"

#include <plumb/io/hash.hpp>
#include <plumb/io/mapped.hpp>
#include <plumb/io/output.hpp>
#include <plumb/run/tensorboard.hpp>

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace plumb { inline namespace v0_1 {

namespace {

std::string said(const Json& json) { return json.is_null() ? "none" : json_text(json); }

// DataError naming the first thing that differs.
void compare(const Json& before, const Json& now, const std::string& path, const std::string& what,
             const std::vector<std::string>& may_grow) {
  for (const auto& [key, value] : now.items()) {
    const Json was = before.is_object() && before.contains(key) ? before[key] : Json();
    if (was == value) continue;
    if (value.is_object()) {
      compare(was, value, path, key + " ", may_grow);
      continue;
    }
    const bool grows = std::find(may_grow.begin(), may_grow.end(), key) != may_grow.end();
    if (grows && was.is_number() && value > was) continue;
    fail<DataError>(str("[run] ", shown(path), " holds a run with another ", what, "'", key, "' (",
                        said(was), ", now ", said(value),
                        "). HINT: ", what.empty() ? "" : "put back what it was begun with, or ",
                        "name another directory with --run, or delete this one"));
  }
}

}  // namespace

void make_directory(const std::string& path) {
  if (::mkdir(path.c_str(), 0777) != 0 && errno != EEXIST)
    fail<IoError>(str("[run] cannot make the directory ", shown(path), ": ", std::strerror(errno)));
}

std::string contents_hash(const std::string& path) {
  return path.empty() ? std::string() : hex64(hash64(MappedFile(path).bytes()));
}

RunLock begin_run(const std::string& directory, const Json& config,
                  const std::vector<std::string>& may_grow) {
  make_directory(directory);
  RunLock lock(directory);
  const std::string path = directory + "/config.json";
  const std::string text = json_text(config, 2) + "\n";
  if (detail::file_exists(path))  // both as they are read back
    compare(parse_json(read_file(path), path), parse_json(text), path, "", may_grow);
  if (!detail::file_exists(path) || read_file(path) != text) write_atomically(path, text);
  return lock;
}

std::unique_ptr<MetricsSink> tensorboard_of(const std::string& folder) {
  if (folder.empty()) return nullptr;
  return std::make_unique<TensorBoardWriter>(folder);
}

}}  // namespace plumb::v0_1
