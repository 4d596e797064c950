// Checkpoints: a safetensors file that is replaced as a whole and knows when it is damaged.
//
// Its metadata holds `format` (plumb-checkpoint-1), `checksum` (16 hexadecimal digits over all
// other metadata, then every array's name, shape and data, in file order) and the caller's own
// strings, such as the trainer's state as JSON. Any safetensors reader opens it. What this is not:
// a rotation policy; how many checkpoints to keep is the caller's affair.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/io/arrays.hpp>
#include <plumb/io/hash.hpp>
#include <plumb/io/safetensors.hpp>

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

inline constexpr std::string_view kCheckpointFormat = "plumb-checkpoint-1";

/// What a checkpoint holds: the caller's metadata and its arrays, in the order written.
struct Checkpoint {
  std::map<std::string, std::string> metadata;
  std::vector<OwnedArray> arrays;

  /// The array of that name, or null.
  const OwnedArray* find(std::string_view name) const { return find_array(arrays, name); }
};

namespace detail {

inline std::string checkpoint_checksum(const std::map<std::string, std::string>& metadata,
                                       std::span<const NamedArray> arrays) {
  std::uint64_t hash = kFnvBasis;
  for (const auto& [key, value] : metadata) {
    if (key == "checksum") continue;
    hash = checksum64(value, checksum64(key, hash));
  }
  for (const NamedArray& array : arrays) {
    hash = checksum64(str(array.shape), checksum64(array.name, hash));
    hash = checksum64(as_text(array.data), hash);
  }
  return hex64(hash);
}

}  // namespace detail

/// Replaces PATH by a checkpoint, atomically: if anything fails (IoError), the previous one is
/// whole. ShapeError if metadata uses the reserved keys `format` or `checksum`.
inline void write_checkpoint(const std::string& path, std::span<const NamedArray> arrays,
                             std::map<std::string, std::string> metadata = {},
                             Where where = Where::here()) {
  check(!metadata.contains("format") && !metadata.contains("checksum"),
        "[checkpoint] the metadata keys 'format' and 'checksum' are reserved", where);
  metadata["format"] = kCheckpointFormat;
  metadata["checksum"] = detail::checkpoint_checksum(metadata, arrays);
  write_safetensors(path, arrays, metadata, where);
}

/// Reads a checkpoint. DataError if it is truncated, altered in any bit that carries meaning, or
/// not a checkpoint at all.
inline Checkpoint read_checkpoint(const std::string& path, Where where = Where::here()) {
  Safetensors file;
  try {
    file = read_safetensors(path, where);
  } catch (const DataError& e) {
    fail<DataError>(str("[checkpoint] ", path, " is truncated or corrupt: ", e.what(),
                        ". HINT: go back to the checkpoint before it"),
                    where);
  }
  const auto format = file.metadata.find("format");
  if (format == file.metadata.end() || format->second != kCheckpointFormat)
    fail<DataError>(str("[checkpoint] ", path, " is not a ", kCheckpointFormat,
                        " file: its metadata says format '",
                        format == file.metadata.end() ? "" : format->second,
                        "'. HINT: is it a model file rather than a checkpoint?"),
                    where);
  const std::string computed = detail::checkpoint_checksum(file.metadata, views(file.arrays));
  const auto recorded = file.metadata.find("checksum");
  if (recorded == file.metadata.end() || recorded->second != computed)
    fail<DataError>(
        str("[checkpoint] ", path, " is corrupt: its contents have checksum ", computed,
            ", it was written with ", recorded == file.metadata.end() ? "none" : recorded->second,
            ". HINT: go back to the checkpoint before it"),
        where);
  file.metadata.erase("format");
  file.metadata.erase("checksum");
  return {std::move(file.metadata), std::move(file.arrays)};
}

}}  // namespace plumb::v0_1
