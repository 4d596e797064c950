// Models for the commands: the layer models/ on this program's device, and the shipped data.
#pragma once

#include "device.hpp"

#include <plumb/models/open.hpp>

#include <string>

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

/// A reward model; one of adapters shares the frozen trunk of `like`, if they were trained beside
/// it. DataError if the file holds none, or one of another tokenizer than `like` has.
Loaded load_reward_model(const std::string& path, const Loaded& like);

/// What the process may take, bytes; kept from the next model that is opened on.
void set_memory(double bytes);

/// A chat form's own temperature, unless the user said another (`said`).
inline void take_temperature_of_form(SamplingSettings& sampling, bool said, const Loaded& loaded) {
  if (!said && loaded.chat != ChatForm{}) sampling.temperature = loaded.chat.temperature;
}

}}  // namespace plumb::v0_1
