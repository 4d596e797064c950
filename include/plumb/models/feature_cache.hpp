// Features of a frozen trunk, kept on disk: a checkpoint (io/checkpoint.hpp) with a row for each
// sequence, found again by a hash of its tokens and its border. A file of another model or of other
// layers, or one that is damaged, is made anew, and the caller is told why: it holds nothing that a
// forward pass does not give again. Nothing is taken out of a file that can be used.
#pragma once

#include <plumb/io/checkpoint.hpp>
#include <plumb/io/hash.hpp>
#include <plumb/rlhf/features.hpp>

#include <algorithm>
#include <functional>
#include <map>
#include <string>
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

/// Rows by the key of their sequence.
using FeatureRows = std::map<std::string, std::vector<float>>;

/// The rows of the file at `path` by key. DataError saying why, where they cannot be used.
inline FeatureRows read_features(const std::string& path,
                                 const std::map<std::string, std::string>& metadata, Index width,
                                 Where where) {
  const Checkpoint file = read_checkpoint(path, where);
  for (const auto& [key, value] : metadata)
    if (const auto found = file.metadata.find(key);
        found == file.metadata.end() || found->second != value)
      fail<DataError>(
          str("[features] ", shown(path), " holds features of another model, or of other layers"),
          where);
  const auto keys = file.metadata.find("keys");
  const OwnedArray* rows = file.find("features");
  if (keys == file.metadata.end() || rows == nullptr || keys->second.size() % kKeySize != 0 ||
      rows->shape != Shape{static_cast<Index>(keys->second.size() / kKeySize), width})
    fail<DataError>(str("[features] ", shown(path), " has no fitting rows"), where);
  FeatureRows out;
  for (std::size_t i = 0; i * kKeySize < keys->second.size(); ++i) {
    const float* row = rows->data.data() + static_cast<Index>(i) * width;
    out.emplace(keys->second.substr(i * kKeySize, kKeySize), std::vector<float>(row, row + width));
  }
  return out;
}

inline void write_features(const std::string& path, const FeatureRows& rows,
                           std::map<std::string, std::string> metadata, Index width, Where where) {
  std::string keys;
  std::vector<float> values;
  for (const auto& [key, row] : rows) {
    keys += key;
    values.insert(values.end(), row.begin(), row.end());
  }
  metadata["keys"] = keys;
  const NamedArray array{"features", {static_cast<Index>(rows.size()), width}, values};
  write_checkpoint(path, {&array, 1}, metadata, Previous::Drop, where);
}

}  // namespace detail

/// response_features, of which those in the file at `path` are taken from there. The others join
/// them, some hundred at a time, so that what was interrupted goes on. `fingerprint` is the
/// trunk's; an empty path is no file. `tell` is given a sentence about a file that cannot be used.
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
  detail::FeatureRows known;
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
  constexpr std::size_t kPart = 256;
  for (std::size_t first = 0; first < missing.size(); first += kPart) {
    const std::size_t end = std::min(missing.size(), first + kPart);
    const std::vector<Answered> part(missing.begin() + static_cast<std::ptrdiff_t>(first),
                                     missing.begin() + static_cast<std::ptrdiff_t>(end));
    const auto made = response_features(trunk, part, layers, [&](Index done, Index) {
      if (progress) progress(static_cast<Index>(first) + done, static_cast<Index>(missing.size()));
    });
    for (std::size_t i = 0; i < part.size(); ++i) {
      const float* row = made.at(i, 0);
      known.try_emplace(detail::feature_key(part[i]), row, row + made.width());
    }
    detail::write_features(path, known, metadata, out.width(), where);
  }
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const std::vector<float>& row = known.at(keys[i]);
    out.values.insert(out.values.end(), row.begin(), row.end());
    out.lengths.push_back(sequences[i].response());
  }
  return out;
}

}}  // namespace plumb::v0_1
