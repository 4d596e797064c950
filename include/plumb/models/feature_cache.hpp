// Features of a frozen trunk, kept on disk: a checkpoint (io/checkpoint.hpp) with a row for each
// sequence, found again by a hash of its tokens and its border. A file of another model or of other
// layers, or one that is damaged, is made anew, and the caller is told why: it holds nothing that a
// forward pass does not give again.
#pragma once

#include <plumb/io/checkpoint.hpp>
#include <plumb/models/plumb_file.hpp>
#include <plumb/rlhf/features.hpp>

#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

namespace detail {

inline constexpr std::size_t kKeySize = 16;  // characters of a row's key

inline std::string feature_key(const Answered& sequence) {
  Hash64 hash;
  hash.add(static_cast<std::uint64_t>(sequence.begin));
  return hex64(hash.add(as_text(std::span<const std::int32_t>(sequence.tokens))).value());
}

/// What a file of features must say to be used for this trunk and these layers.
inline std::map<std::string, std::string> feature_metadata(const std::string& fingerprint,
                                                           const std::vector<Index>& layers) {
  std::string list;
  for (const Index layer : layers) list += str(list.empty() ? "" : " ", layer);
  return {{"features_of", fingerprint}, {"layers", list}};
}

/// The rows of the file at `path` by key. DataError saying why, where they cannot be used.
inline std::unordered_map<std::string, std::vector<float>> read_features(
    const std::string& path, const std::map<std::string, std::string>& metadata, Index width,
    Where where) {
  const Checkpoint file = read_checkpoint(path, where);
  for (const auto& [key, value] : metadata)
    if (const auto found = file.metadata.find(key);
        found == file.metadata.end() || found->second != value)
      fail<DataError>(str("[features] ", shown(path),
                          " holds features of another model, or of "
                          "other layers"),
                      where);
  const auto keys = file.metadata.find("keys");
  const OwnedArray* rows = file.find("features");
  if (keys == file.metadata.end() || rows == nullptr ||
      rows->shape != Shape{static_cast<Index>(keys->second.size() / kKeySize), width})
    fail<DataError>(str("[features] ", shown(path), " has no fitting rows"), where);
  std::unordered_map<std::string, std::vector<float>> out;
  for (std::size_t i = 0; i * kKeySize < keys->second.size(); ++i) {
    const float* row = rows->data.data() + static_cast<Index>(i) * width;
    out.emplace(keys->second.substr(i * kKeySize, kKeySize), std::vector<float>(row, row + width));
  }
  return out;
}

inline void write_features(const std::string& path, const std::vector<std::string>& keys,
                           std::map<std::string, std::string> metadata,
                           const ResponseFeatures& features, Where where) {
  std::string all;
  for (const std::string& key : keys) all += key;
  metadata["keys"] = all;
  const NamedArray array{"features", {features.rows(), features.width()}, features.values};
  write_checkpoint(path, {&array, 1}, metadata, Previous::Drop, where);
}

}  // namespace detail

/// response_features, of which those in the file at `path` are taken from there; the file then
/// holds all of them. `fingerprint` is the trunk's; an empty path is no file. `tell` is given a
/// sentence about a file that is there and cannot be used.
template <Policy P>
ResponseFeatures cached_features(const P& trunk, const std::string& fingerprint,
                                 const std::vector<Answered>& sequences, std::vector<Index> layers,
                                 const std::string& path,
                                 const std::function<void(const std::string&)>& tell,
                                 const FeatureProgress& progress = {},
                                 Where where = Where::here()) {
  if (path.empty()) return response_features(trunk, sequences, std::move(layers), progress, where);
  ResponseFeatures out{layers, trunk.head().dim(1), {}, {}};
  const auto metadata = detail::feature_metadata(fingerprint, layers);
  std::unordered_map<std::string, std::vector<float>> known;
  try {
    if (detail::file_exists(path))
      known = detail::read_features(path, metadata, out.width(), where);
  } catch (const DataError& error) {
    tell(str(error.what(), ". They are computed again"));
  }
  std::vector<std::string> keys;
  std::vector<Answered> missing;
  for (const Answered& sequence : sequences) {
    keys.push_back(detail::feature_key(sequence));
    if (!known.contains(keys.back())) missing.push_back(sequence);
  }
  const ResponseFeatures made =
      response_features(trunk, missing, std::move(layers), progress, where);
  std::size_t next = 0;
  const auto width = static_cast<std::size_t>(out.width());
  out.values.reserve(sequences.size() * width);
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const auto found = known.find(keys[i]);
    const float* row =
        found != known.end() ? found->second.data() : made.values.data() + width * next++;
    out.values.insert(out.values.end(), row, row + width);
    out.lengths.push_back(sequences[i].response());
  }
  if (!missing.empty()) detail::write_features(path, keys, metadata, out, where);
  return out;
}

}}  // namespace plumb::v0_1
