// Models as files, and text as tokens, for the commands. A model file is either llama2.c's .bin (its
// tokenizer is named beside it) or a Plumb checkpoint (.safetensors), whose metadata says the
// configuration, the head and the tokenizer, and whose checksum tells damage.
#pragma once

#include "device.hpp"

#include <plumb/data/records.hpp>
#include <plumb/io/checkpoint.hpp>
#include <plumb/text/tokenizer.hpp>

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

using DeviceModel = Model<Device>;

/// A model with what is needed to speak to it.
struct Loaded {
  std::shared_ptr<DeviceModel> model;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::string tokenizer_path;  ///< empty: bytes
  std::string source;          ///< the file it came from
};

/// The shipped model and data: examples/data of the source tree.
std::string data_path(const std::string& name);

/// Reads a model. `tokenizer` names its tokenizer file ("bytes" for the 256-byte vocabulary); empty:
/// what the checkpoint says, or tok512.bin beside a .bin. DataError if the two do not fit.
Loaded load_model(const std::string& path, const std::string& tokenizer = {});

/// A fresh model of a configuration.
Loaded new_model(const TransformerConfig& config, const std::string& tokenizer, std::uint64_t seed);

/// Writes a model as a Plumb checkpoint (or, if the path ends in .bin, in llama2.c's format), with
/// more arrays and metadata beside it.
void save_model(const std::string& path, const DeviceModel& model, const Loaded& like,
                std::vector<OwnedArray> more = {},
                std::map<std::string, std::string> metadata = {});

/// Arrays of a model's parameters, under their names after `prefix`.
std::vector<OwnedArray> parameter_arrays(const DeviceModel& model, const std::string& prefix = {});
/// The inverse. DataError if one is missing or has another shape.
void load_parameters(DeviceModel& model, const Checkpoint& checkpoint, const std::string& prefix = {});

/// Sixteen hexadecimal digits over all weights: which model made a file.
std::string fingerprint(const DeviceModel& model);

/// BOS and the tokens of a prompt. DataError unless `room` more tokens fit the context.
Tokens encode_prompt(const Loaded& loaded, const std::string& prompt, Index room);

/// What a response's tokens say after their prompt, without the stop token.
std::string response_text(const Loaded& loaded, const Tokens& prompt, const Tokens& response);

/// BOS, prompt and response as one sequence, with an end token if the response ended by itself. Longer
/// than the context: tokens are dropped from the front of the prompt, then from the response's end.
Tokens encode_pair(const Loaded& loaded, const std::string& prompt, const std::string& response,
                   bool finished);

/// Rankings as a reward model reads them; those that decide nothing are kept (they decide no pair).
RankedPrompt ranked_prompt(const Loaded& loaded, const Ranking& ranking);

/// Stories cut to the context, BOS first: for perplexity.
std::vector<Tokens> encode_stories(const Loaded& loaded, const std::vector<std::string>& stories);

}}  // namespace plumb::v0_1
