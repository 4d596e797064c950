// Linear reward heads on disk: a checkpoint (io/checkpoint.hpp) of a few kilobytes whose metadata
// says
//
//   reward_head        fields(HeadConfig&) as JSON
//   trunk              how to find the model it reads, from the head's folder
//   trunk_fingerprint  what that model's weights hash to
//
// and whose arrays are weight (C or 2·C), length (1) and bias (1). A head is worth nothing on
// another trunk, so whoever uses one compares the fingerprints.
#pragma once

#include <plumb/models/plumb_file.hpp>
#include <plumb/rlhf/reward_head.hpp>

#include <map>
#include <string>

namespace plumb { inline namespace v0_1 {

/// A linear head, and the model that it reads.
struct RewardHeadFile {
  LinearHead head;
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
  const LinearHead& h = file.head;
  const NamedArray arrays[] = {{"weight", {static_cast<Index>(h.weight.size())}, h.weight},
                               {"length", {1}, {&h.length, 1}},
                               {"bias", {1}, {&h.bias, 1}}};
  for (const NamedArray& array : arrays)
    for (const float x : array.data)
      if (!std::isfinite(x))
        fail<NumericError>(str("[reward] the head is not saved: its ", array.name, " holds ", x),
                           where);
  write_checkpoint(
      path, arrays,
      {{"reward_head", json_text(settings_json(HeadConfig{h.layer, h.pool, h.length != 0}))},
       {"trunk", repaired_utf8(detail::path_from(path, file.trunk))},
       {"trunk_fingerprint", file.fingerprint}},
      Previous::Drop, where);
}

/// Reads a head. IoError or DataError if the file cannot be read, is damaged or holds another
/// thing.
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
  out.head.layer = config.layer;
  out.head.pool = config.pool;
  const auto numbers = [&](const char* name, Index size) {
    const OwnedArray* array = file.find(name);
    if (array == nullptr || array->shape.rank() != 1 || array->shape.size() < 1 ||
        (size > 0 && array->shape.size() != size))
      bad(str("it has no fitting array '", name, "'"));
    for (const float x : array->data)
      if (!std::isfinite(x)) bad(str("its ", name, " holds ", x));
    return array->data;
  };
  out.head.weight = numbers("weight", 0);
  out.head.length = numbers("length", 1)[0];
  out.head.bias = numbers("bias", 1)[0];
  const std::string trunk = said("trunk");
  out.trunk = detail::real_path(
      trunk.starts_with('/') ? trunk : str(detail::directory_of(path), "/", trunk));
  out.fingerprint = said("trunk_fingerprint");
  return out;
}

}}  // namespace plumb::v0_1
