// Linear reward heads on disk: a checkpoint (io/checkpoint.hpp) of a few kilobytes whose metadata
// says
//
//   reward_head        fields(HeadConfig&) as JSON
//   trunk              how to find the model it reads, from the head's folder
//   trunk_fingerprint  what that model's weights hash to
//
// and whose arrays are weight (C or 2·C), length (1) and bias (1). An ensemble of M heads says
// besides
//
//   ensemble           fields(EnsembleConfig&) as JSON
//
// and its arrays have a row for each: weight (M, …), length (M), bias (M). A head is worth nothing
// on another trunk, so whoever uses one compares the fingerprints.
#pragma once

#include <plumb/models/plumb_file.hpp>
#include <plumb/rlhf/head_ensemble.hpp>

#include <map>
#include <string>

namespace plumb { inline namespace v0_1 {

/// Linear heads of one kind, mostly one, and the model that they read.
struct RewardHeadFile {
  HeadEnsemble ensemble;
  std::string trunk;        ///< its path
  std::string fingerprint;  ///< of its weights
};

/// Whether the file at `path` holds a linear reward head, rather than a model or anything else.
inline bool is_reward_head(const std::string& path, Where where = Where::here()) {
  if (detail::is_folder(path) || !detail::is_safetensors(detail::read_head(path, where)))
    return false;
  return view_safetensors(path, where).metadata.contains("reward_head");
}

inline void save_reward_head(const std::string& path, const RewardHeadFile& file,
                             Where where = Where::here()) {
  const std::vector<LinearHead>& heads = file.ensemble.heads;
  check(!heads.empty(), "[reward] an ensemble without a head", where);
  const LinearHead& first = heads[0];
  const auto m = static_cast<Index>(heads.size()), n = static_cast<Index>(first.weight.size());
  std::vector<float> weight, length, bias;
  for (const LinearHead& h : heads) {
    check(h.layer == first.layer && h.pool == first.pool && h.weight.size() == first.weight.size(),
          "[reward] the heads of an ensemble read other features than each other", where);
    weight.insert(weight.end(), h.weight.begin(), h.weight.end());
    length.push_back(h.length);
    bias.push_back(h.bias);
  }
  const NamedArray arrays[] = {{"weight", m == 1 ? Shape{n} : Shape{m, n}, weight},
                               {"length", {m}, length},
                               {"bias", {m}, bias}};
  for (const NamedArray& array : arrays)
    for (const float x : array.data)
      if (!std::isfinite(x))
        fail<NumericError>(str("[reward] the head is not saved: its ", array.name, " holds ", x),
                           where);
  std::map<std::string, std::string> metadata{
      {"reward_head",
       json_text(settings_json(HeadConfig{first.layer, first.pool, first.length != 0}))},
      {"trunk", repaired_utf8(detail::path_from(path, file.trunk))},
      {"trunk_fingerprint", file.fingerprint}};
  if (m > 1)
    metadata["ensemble"] = json_text(settings_json(EnsembleConfig{m, file.ensemble.pessimism}));
  write_checkpoint(path, arrays, std::move(metadata), Previous::Drop, where);
}

/// Reads a head, or an ensemble of them. IoError or DataError if the file cannot be read, is
/// damaged or holds another thing.
inline RewardHeadFile open_reward_head(const std::string& path, Where where = Where::here()) {
  const Checkpoint file = read_checkpoint(path, where);
  const auto bad = [&](const std::string& what) {
    fail<DataError>(str("[reward] ", shown(path), ": ", what,
                        ". HINT: `plumb reward --head linear --out …` makes a head"),
                    where);
  };
  const auto said = [&](const char* key) {
    const auto found = file.metadata.find(key);
    if (found == file.metadata.end()) bad(str("it says no '", key, "', as a linear head does"));
    return found->second;
  };
  RewardHeadFile out;
  HeadConfig config;
  read_settings(config, parse_json(said("reward_head"), path, where),
                str(shown(path), ", the head's settings"), true, where);
  check_fields(config, "reward", where);
  EnsembleConfig several;
  if (file.metadata.contains("ensemble"))
    read_settings(several, parse_json(said("ensemble"), path, where),
                  str(shown(path), ", the ensemble's settings"), true, where);
  check_fields(several, "reward", where);
  const Index m = several.heads;
  // One number of each head, or a row of them.
  const auto numbers = [&](const char* name, bool row) {
    const OwnedArray* array = file.find(name);
    if (array == nullptr || array->shape.rank() != (row && m > 1 ? 2 : 1) ||
        array->shape.size() < 1 || (row ? m > 1 && array->shape[0] != m : array->shape.size() != m))
      bad(str("it has no fitting array '", name, "'"));
    for (const float x : array->data)
      if (!std::isfinite(x)) bad(str("its ", name, " holds ", x));
    return array->data;
  };
  const std::vector<float> weight = numbers("weight", true), length = numbers("length", false),
                           bias = numbers("bias", false);
  const auto heads = static_cast<std::size_t>(m), size = weight.size() / heads;
  for (std::size_t i = 0; i < heads; ++i) {
    const auto row = weight.begin() + static_cast<std::ptrdiff_t>(i * size);
    out.ensemble.heads.push_back({config.layer,
                                  config.pool,
                                  {row, row + static_cast<std::ptrdiff_t>(size)},
                                  length[i],
                                  bias[i]});
  }
  out.ensemble.pessimism = several.pessimism;
  const std::string trunk = said("trunk");
  out.trunk = detail::real_path(
      trunk.starts_with('/') ? trunk : str(detail::directory_of(path), "/", trunk));
  out.fingerprint = said("trunk_fingerprint");
  return out;
}

}}  // namespace plumb::v0_1
