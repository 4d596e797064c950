// Models for the commands: the layer models/ on this program's device, and the shipped data.
#pragma once

#include "device.hpp"

#include <plumb/models/open.hpp>
#include <plumb/models/reward_file.hpp>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

using DeviceModel = Model<Device>;
using Loaded = LanguageModel<Device>;

/// A file of the shipped data: beside the installed program, or in the source tree.
std::string data_path(const std::string& name);

/// Opens a model; empty: the shipped stories260K; smollm2: fetched (fetch.hpp). `tokenizer` names
/// its tokenizer's file, or "bytes", `chat` its chat form, `base` what its adapters stand beside;
/// empty: what the model says.
Loaded load_model(const std::string& path, const std::string& tokenizer = {},
                  const std::string& chat = {}, const std::string& base = {},
                  bool keep_adapters = false);

/// A reward model: a network with a head of its own, or linear heads, or one, on a frozen trunk.
struct Reward {
  Loaded loaded;                     ///< the network, or the trunk
  std::optional<HeadEnsemble> head;  ///< on the trunk

  bool ensemble() const { return head && head->heads.size() > 1; }
  std::vector<float> scores(const std::vector<Answered>& sequences) const;
};

/// Opens a reward model. The trunk of a linear head, or of adapters, is that of `like`, where it is
/// the one that they were fitted on, else it is opened where their file says. DataError if the file
/// holds no reward model, its trunk is not the one it was fitted on, or its tokenizer is another
/// than `like` has.
Reward load_reward(const std::string& path, const Loaded* like = nullptr,
                   const std::string& tokenizer = {});

/// Writes a reward model whose trunk, or whose network's first weights, are those of `base`.
void save_reward(const std::string& path, const Reward& reward, const Loaded& base);

/// What the process may take, bytes; kept from the next model that is opened on.
void set_memory(double bytes);

/// A chat form's own temperature, unless the user said another (`said`).
inline void take_temperature_of_form(SamplingSettings& sampling, bool said, const Loaded& loaded) {
  if (!said && loaded.chat != ChatForm{}) sampling.temperature = loaded.chat.temperature;
}

/// The bytes that a token adds to the one before it, which need not be whole characters; none of a
/// token that ends. A space after the first token is no text, so what a token says hangs on that.
inline std::string bytes_after(const Language& language, std::int32_t before, std::int32_t token) {
  if (detail::is_stop(language, token)) return {};
  const Tokenizer& tokenizer = *language.tokenizer;
  const std::int32_t both[] = {before, token};
  return tokenizer.decode(both).substr(tokenizer.decode(std::span(both, 1)).size());
}

}}  // namespace plumb::v0_1
