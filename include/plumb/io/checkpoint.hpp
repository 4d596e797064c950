// Checkpoints: a safetensors file that is replaced as a whole and knows when it is damaged.
//
// Its metadata holds `format` (plumb-checkpoint-2), `checksum` (16 hexadecimal digits over all
// other metadata, then every array's name, shape and digest, in file order) and the caller's own
// strings, such as the trainer's state as JSON. Any safetensors reader opens it.
//
// An array's digest is a hash of the hashes of its bytes in blocks of 256 KiB. So a block can be
// hashed while it lies in the processor's cache because it is being copied, and blocks by several
// threads. The checkpoint before may be kept beside it, as PATH.previous. What this is not: a
// longer history.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/core/pool.hpp>
#include <plumb/io/arrays.hpp>
#include <plumb/io/hash.hpp>
#include <plumb/io/output.hpp>
#include <plumb/io/safetensors.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

inline constexpr std::string_view kCheckpointFormat = "plumb-checkpoint-2";

/// What a checkpoint holds: the caller's metadata and its arrays, in the order written.
struct Checkpoint {
  std::map<std::string, std::string> metadata;
  std::vector<OwnedArray> arrays;

  /// The array of that name, or null.
  const OwnedArray* find(std::string_view name) const { return find_array(arrays, name); }
};

/// Whether the checkpoint that is replaced stays, under the name that previous_checkpoint() says.
enum class Previous { Drop, Keep };

/// Where the checkpoint before the one at PATH is kept.
inline std::string previous_checkpoint(const std::string& path, Where where = Where::here()) {
  return followed_links(path, where) + ".previous";
}

namespace detail {

inline constexpr std::size_t kDigestBlock = std::size_t{1} << 18;

inline std::size_t digest_blocks(std::size_t bytes) {
  return (bytes + kDigestBlock - 1) / kDigestBlock;
}

/// Calls body(array, block, bytes) for every block of every array, on all threads. `bytes` is in
/// place; body returns the block's hash. The result is each array's digest.
template <class Body>
std::vector<std::uint64_t> digests_by_block(std::size_t arrays, auto&& bytes_of_array,
                                            Body&& body) {
  std::vector<std::size_t> first{0};  // of each array, among all blocks
  for (std::size_t i = 0; i < arrays; ++i)
    first.push_back(first.back() + digest_blocks(bytes_of_array(i).size()));
  std::vector<std::uint64_t> hashes(first.back());
  default_pool().run(static_cast<Index>(hashes.size()), [&](Index task) {
    const auto at = static_cast<std::size_t>(task);
    const auto array = static_cast<std::size_t>(std::upper_bound(first.begin(), first.end(), at) -
                                                first.begin() - 1);
    const std::size_t begin = (at - first[array]) * kDigestBlock;
    hashes[at] = body(array, begin, bytes_of_array(array).substr(begin, kDigestBlock));
  });
  std::vector<std::uint64_t> out;
  for (std::size_t i = 0; i < arrays; ++i)
    out.push_back(hash64(as_text(
        std::span<const std::uint64_t>(hashes).subspan(first[i], first[i + 1] - first[i]))));
  return out;
}

/// The checksum that goes with these names, shapes and digests.
template <class Arrays>
std::string checkpoint_checksum(const std::map<std::string, std::string>& metadata,
                                const Arrays& arrays, std::span<const std::uint64_t> digests) {
  Hash64 hash;
  for (const auto& [key, value] : metadata)
    if (key != "checksum") hash.field(key).field(value);
  std::size_t i = 0;
  for (const auto& array : arrays) hash.field(array.name).field(str(array.shape)).add(digests[i++]);
  return hex64(hash.value());
}

/// The checkpoint before the one at `path`, if it is there; empty otherwise.
inline std::string existing_previous(const std::string& path) {
  try {
    const std::string previous = previous_checkpoint(path);
    return ::access(previous.c_str(), R_OK) == 0 ? previous : std::string();
  } catch (const IoError&) {  // the path itself cannot be followed: there is nothing beside it
    return {};
  }
}

/// What to do about a checkpoint that cannot be used.
inline std::string previous_hint(const std::string& path) {
  const std::string previous = existing_previous(path);
  return previous.empty() ? ". HINT: no earlier one is kept beside it; fetch or write it again"
                          : ". HINT: go back to the checkpoint before it: mv " + shown(previous) +
                                " " + shown(path);
}

}  // namespace detail

/// A checkpoint where it lies in its file. Opening it checks every size; the numbers are checked by
/// verify(), or by copying all of them with copy_to().
class CheckpointView {
 public:
  /// DataError if the file is cut short, inconsistent or not a checkpoint; IoError if unreadable.
  explicit CheckpointView(const std::string& path, Where where = Where::here()) : path_(path) {
    try {
      file_ = view_safetensors(path, where);
    } catch (const DataError& e) {
      fail<DataError>(str("[checkpoint] ", shown(path), " is truncated or corrupt: ", e.what(),
                          detail::previous_hint(path)),
                      where);
    } catch (const IoError& e) {
      // Where a file system has no links, a crash may leave the one before alone.
      if (::access(path.c_str(), F_OK) == 0 || detail::existing_previous(path).empty()) throw;
      throw IoError(e.what() + detail::previous_hint(path));
    }
    const auto format = file_.metadata.find("format");
    const std::string said = format == file_.metadata.end() ? "" : format->second;
    if (said != kCheckpointFormat)
      fail<DataError>(str("[checkpoint] ", shown(path), " is not a ", kCheckpointFormat,
                          " file: its metadata says format '", said, "'. HINT: ",
                          said.starts_with("plumb-checkpoint-")
                              ? "it is of another version of Plumb; that version can read it"
                              : "is it a model file rather than a checkpoint?"),
                      where);
    checksum_ = file_.metadata["checksum"];
  }

  /// The caller's metadata.
  std::map<std::string, std::string> metadata() const {
    auto out = file_.metadata;
    out.erase("format");
    out.erase("checksum");
    return out;
  }
  const std::vector<ArrayView>& arrays() const { return file_.arrays; }
  /// The array of that name, or null.
  const ArrayView* find(std::string_view name) const { return file_.find(name); }

  /// Reads all numbers. DataError if a bit of them, or of the metadata, is not as it was written.
  void verify(Where where = Where::here()) const {
    expect(detail::digests_by_block(
               arrays().size(), [&](std::size_t i) { return arrays()[i].bytes; },
               [](std::size_t, std::size_t, std::string_view bytes) { return hash64(bytes); }),
           where);
  }

  /// Copies the numbers of every array for which `place(array)` says where (null: nowhere), and
  /// verifies all of them in the same pass. The error of verify() comes after the copying.
  template <class Place>
  void copy_to(Place&& place, Where where = Where::here()) const {
    std::vector<float*> out;
    for (const ArrayView& array : arrays()) out.push_back(place(array));
    const auto copy = [&](std::size_t i, std::size_t begin, std::string_view bytes) {
      const Dtype dtype = arrays()[i].dtype;
      if (out[i] != nullptr)
        to_floats({{}, dtype, {}, bytes}, out[i] + begin / layout_of(dtype).bytes);
      return hash64(bytes);
    };
    expect(detail::digests_by_block(
               arrays().size(), [&](std::size_t i) { return arrays()[i].bytes; }, copy),
           where);
  }

 private:
  void expect(const std::vector<std::uint64_t>& digests, Where where) const {
    const std::string computed = detail::checkpoint_checksum(file_.metadata, arrays(), digests);
    if (computed != checksum_)
      fail<DataError>(str("[checkpoint] ", shown(path_), " is corrupt: its contents have checksum ",
                          computed, ", it was written with ",
                          checksum_.empty() ? "none" : checksum_, detail::previous_hint(path_)),
                      where);
  }

  std::string path_, checksum_;
  SafetensorsView file_;
};

/// Replaces PATH by a checkpoint, atomically: if anything fails (IoError), the previous one is
/// whole. ShapeError if metadata uses the reserved keys `format` or `checksum`.
inline void write_checkpoint(const std::string& path, std::span<const NamedArray> arrays,
                             std::map<std::string, std::string> metadata = {},
                             Previous previous = Previous::Drop, Where where = Where::here()) {
  check(!metadata.contains("format") && !metadata.contains("checksum"),
        "[checkpoint] the metadata keys 'format' and 'checksum' are reserved", where);
  Output out(path, where);
  metadata["format"] = kCheckpointFormat;
  metadata["checksum"] = detail::checkpoint_checksum(
      metadata, arrays,
      detail::digests_by_block(
          arrays.size(), [&](std::size_t i) { return as_text(arrays[i].data); },
          [](std::size_t, std::size_t, std::string_view bytes) { return hash64(bytes); }));
  put_safetensors(out, arrays, metadata, where);
  out.commit(previous == Previous::Keep ? previous_checkpoint(path, where) : std::string(), where);
}

/// Reads a checkpoint whole. DataError if it is truncated, altered in any bit that carries meaning,
/// or not a checkpoint at all.
inline Checkpoint read_checkpoint(const std::string& path, Where where = Where::here()) {
  const CheckpointView view(path, where);
  view.verify(where);
  Checkpoint out{view.metadata(), {}};
  for (const ArrayView& array : view.arrays()) out.arrays.push_back(to_owned(array));
  return out;
}

}}  // namespace plumb::v0_1
