// Adapters in the files of PEFT, huggingface/peft: adapter_config.json and
// adapter_model.safetensors, in which base_model.model.MODULE.lora_A.weight is (r, in) and
// MODULE.lora_B.weight (out, r), MODULE being what transformers calls the layer. Read and merged
// into the model that they stand beside; written from a model that still has them apart. GPT-2 has
// its queries, keys and values in one layer: its adapter is read for all three, and not written.
//
// Source of the format: huggingface/peft, tuners/lora/config.py and utils/save_and_load.py.
#pragma once

#include <plumb/models/foreign.hpp>

#include <cmath>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>

namespace plumb { inline namespace v0_1 {

namespace detail {

inline bool is_peft_folder(const std::string& folder) {
  return file_exists(in_folder(folder, "adapter_config.json"));
}

/// α/r of every adapter. DataError naming what the file asks for and Plumb does not compute.
inline float peft_scale(const Json& said, const std::string& path, Where where) {
  const auto bad = [&](const std::string& what) {
    fail<DataError>(str("[peft] ", shown(path), ": ", what), where);
  };
  const auto set = [&](const char* key) {
    const Json* value = member(said, key);
    return value != nullptr && !value->is_null() && !value->empty() && *value != Json(false);
  };
  if (text_of(member(said, "peft_type")) != "LORA")
    bad(str("peft_type is '", shown(text_of(member(said, "peft_type"))), "'; LORA can be opened"));
  for (const char* key : {"use_dora", "modules_to_save", "rank_pattern", "alpha_pattern",
                          "layer_replication", "trainable_token_indices", "target_parameters"})
    if (set(key)) bad(str("it sets ", key, ", which Plumb does not compute"));
  if (const std::string bias = text_of(member(said, "bias")); !bias.empty() && bias != "none")
    bad("it trains biases, which Plumb does not keep apart");
  const Json* rank = member(said, "r");
  const Json* alpha = member(said, "lora_alpha");
  if (rank == nullptr || !rank->is_number_integer() || *rank < 1 || *rank > kChunk)
    bad(str("its rank r is no number from 1 to ", kChunk));
  if (alpha == nullptr || !alpha->is_number()) bad("it says no number lora_alpha");
  const float r = rank->get<float>();
  return alpha->get<float>() / (set("use_rslora") ? std::sqrt(r) : r);
}

/// Adds scale·B·A to a matrix of `model`.
template <class D>
void merge_adapter(const Tensor<D>& matrix, const ArraySource& a, const ArraySource& b, float s,
                   const std::string& path, Where where) {
  const Index out = matrix.dim(0), in = matrix.dim(1);
  const auto fits = [](const ArraySource& source, const Shape& shape) {
    return source.array->shape.rank() == 2 &&
           source.first + source.rows <= source.array->shape[0] && source.shape() == shape;
  };
  const Index r = a.array->shape.rank() == 2 ? a.array->shape[0] : 0;
  if (!fits(a, {r, in}) || !fits(b, {out, r}))
    fail<DataError>(
        str("[peft] ", shown(path), ": '", shown(a.array->name), "' is ", a.array->shape, " and '",
            shown(b.array->name), "' ", b.array->shape, "; the layer is ", matrix.shape()),
        where);
  const auto down = Tensor<D>::empty({r, in}), up = Tensor<D>::empty({out, r});
  copy_array(a, down);
  copy_array(b, up);
  matmul(D{}, matrix.data(), scale(up, s).data(), down.data(), out, in, r, Form::NN, true);
}

/// Opens the model that a folder's adapters stand beside, and merges them into it.
template <class D>
LanguageModel<D> open_peft(const std::string& folder, const OpenOptions& options, Where where) {
  const std::string config = in_folder(folder, "adapter_config.json");
  const Json said = parse_json(read_file(config, where), shown(config), where);
  const float s = peft_scale(said, config, where);
  const std::string weights = in_folder(folder, "adapter_model.safetensors");
  check<DataError>(!options.keep_adapters,
                   "[peft] adapters of PEFT are opened merged into their model", where);
  const SafetensorsView file = view_safetensors(weights, where);
  LanguageModel<D> opened =
      open_base<D>(config, text_of(member(said, "base_model_name_or_path")), {}, options, where);
  const TransformerConfig& c = opened.model->config();
  const bool gpt2 = c.family.norm == Norm::Layer;
  std::set<const ArrayView*> used;
  const auto find = [&](const std::string& name) -> const ArrayView* {
    for (const ArrayView& array : file.arrays)
      if (array.name == name) {
        used.insert(&array);
        return &array;
      }
    return nullptr;
  };
  for (const auto& entry : opened.model->parameters().entries()) {
    const std::string module = hugging_face_module(entry.name, gpt2);
    if (module.empty() || entry.tensor.shape().rank() != 2) continue;
    ArraySource a{find(str("base_model.model.", module, ".lora_A.weight"))};
    ArraySource b{find(str("base_model.model.", module, ".lora_B.weight"))};
    if (a.array == nullptr && b.array == nullptr) continue;
    if (a.array == nullptr || b.array == nullptr)
      fail<DataError>(
          str("[peft] ", shown(weights), ": '", shown(module), "' has one matrix of two"), where);
    const ArraySource layout = hugging_face_layout(entry.name, c, gpt2);
    b.first = layout.first;
    b.rows = layout.rows;
    b.halves = layout.halves;
    merge_adapter(entry.tensor, a, b, s, weights, where);
  }
  for (const ArrayView& array : file.arrays)
    if (!used.contains(&array))
      fail<DataError>(str("[peft] ", shown(weights), ": the array '", shown(array.name),
                          "' belongs to no layer of ", shown(opened.source)),
                      where);
  opened.source = folder;
  opened.model->parameters().require_finite(str("[peft] ", shown(folder)).c_str());
  return opened;
}

}  // namespace detail

/// Writes the adapters of a model beside a frozen trunk as PEFT's folder. DataError if that has no
/// place for them. A value head belongs to training and is left out.
template <class D>
void save_peft(const std::string& folder, const Model<D>& model, const Language& language,
               Where where = Where::here()) {
  const LoraConfig& lora = model.transformer().lora();
  const TransformerConfig& c = model.config();
  check<DataError>(lora.rank > 0, "[peft] this model has no adapters", where);
  check<DataError>(model.head_kind() != ScalarHead::Reward,
                   "[peft] a reward model's head has no place in PEFT's files", where);
  check<DataError>(c.family.norm != Norm::Layer,
                   "[peft] GPT-2's queries, keys and values are one layer in PEFT. HINT: convert "
                   "without --adapters, which merges them",
                   where);
  model.parameters().require_finite("[peft] not saved");
  detail::ForeignArrays out;
  std::set<std::string> modules;
  std::set<Index> layers;
  for (const auto& entry : model.parameters().entries()) {
    const bool a = entry.name.ends_with(".lora_a"), b = entry.name.ends_with(".lora_b");
    if (!a && !b) continue;
    const std::string matrix = entry.name.substr(0, entry.name.size() - 7);
    const std::string module = detail::hugging_face_module(matrix, false);
    modules.insert(module.substr(module.rfind('.') + 1));
    layers.insert(std::stoll(matrix.substr(7)));
    std::vector<float> values = entry.tensor.to_vector();
    if (const Index heads = detail::hugging_face_layout(matrix, c, false).halves; b && heads > 0)
      values = detail::in_halves(values, entry.tensor.dim(0), heads);
    out.add(str("base_model.model.", module, a ? ".lora_A.weight" : ".lora_B.weight"),
            entry.tensor.shape(), std::move(values));
  }
  if (!detail::is_folder(folder) && ::mkdir(folder.c_str(), 0777) != 0)
    detail::fail_io("make the folder", folder, errno, where);
  Json config = {
      {"peft_type", "LORA"},
      {"task_type", "CAUSAL_LM"},
      {"base_model_name_or_path",
       repaired_utf8(detail::path_from(detail::in_folder(folder, "x"), language.base_file))},
      {"r", lora.rank},
      {"lora_alpha", lora.alpha},
      {"lora_dropout", 0.0},
      {"bias", "none"},
      {"fan_in_fan_out", false},
      {"inference_mode", true},
      {"target_modules", modules}};
  if (static_cast<Index>(layers.size()) < c.layers) config["layers_to_transform"] = layers;
  write_atomically(detail::in_folder(folder, "adapter_config.json"), config.dump(2) + "\n", where);
  write_safetensors(detail::in_folder(folder, "adapter_model.safetensors"), out.arrays,
                    {{"format", "pt"}}, where);
}

}}  // namespace plumb::v0_1
