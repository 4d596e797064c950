// Plumb's own model files: a checkpoint (io/checkpoint.hpp) whose metadata says
//
//   model                  the configuration, as JSON: the names of fields(TransformerConfig&)
//   head                   none, reward or value
//   tokenizer              how to find its file from the model's folder; empty: bytes
//   tokenizer_fingerprint  what its vocabulary must hash to
//   chat                   what stands around a prompt, as JSON {"before", "after", "stops",
//                          "temperature"}, where anything does
//
// beside what a trainer adds, and whose arrays are the model's tensors by name.
#pragma once

#include <plumb/io/checkpoint.hpp>
#include <plumb/io/settings.hpp>
#include <plumb/models/format.hpp>

#include <array>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

constexpr std::array<std::pair<const char*, ScalarHead>, 3> choices(ScalarHead) {
  return {
      {{"none", ScalarHead::None}, {"reward", ScalarHead::Reward}, {"value", ScalarHead::Value}}};
}

/// What a trainer keeps in a model's file beside the model.
struct SaveExtras {
  std::vector<NamedArray> arrays;
  std::map<std::string, std::string> metadata;
  Previous previous = Previous::Drop;  ///< whether the file that is replaced stays beside it
};

namespace detail {

inline bool is_safetensors(const FileHead& head) {
  std::uint64_t length = 0;
  if (head.bytes.size() < 9) return false;
  std::memcpy(&length, head.bytes.data(), 8);
  return head.bytes[8] == '{' && length <= head.size;
}

/// What a metadata key says. DataError if it is not there.
inline std::string said(const std::map<std::string, std::string>& metadata, const char* key,
                        const std::string& path, Where where) {
  const auto found = metadata.find(key);
  if (found == metadata.end())
    fail<DataError>(str("[model] ", shown(path), " says no '", key, "': it is not a model"), where);
  return found->second;
}

template <class D>
LanguageModel<D> open_plumb_file(const std::string& path, const OpenOptions& options, Where where) {
  const CheckpointView file(path, where);
  const auto metadata = file.metadata();
  TransformerConfig config;
  Json said_config = parse_json(said(metadata, "model", path, where), path, where);
  // Files of before rotary frequencies could be lowered say nothing of it.
  const Json usual = settings_json(config);
  for (const auto& [key, value] : usual.items())
    if (key.starts_with("rope_") && key != "rope_base" && said_config.is_object() &&
        !said_config.contains(key))
      said_config[key] = value;
  read_settings(config, said_config, str(shown(path), ", the model's configuration"), true, where);
  ScalarHead head = ScalarHead::None;
  const std::string complaint =
      parse_setting(Field{"head", ""}, head, said(metadata, "head", path, where));
  if (!complaint.empty())
    fail<DataError>(str("[model] ", shown(path), ": its head ", complaint), where);
  LanguageModel<D> opened;
  const auto source = [&](const std::string& name) { return ArraySource{file.find(name)}; };
  opened.model = model_for_arrays<D>(config, head, file.arrays().size(), source, path, where);
  find_tokenizer(opened, path, said(metadata, "tokenizer", path, where),
                 said(metadata, "tokenizer_fingerprint", path, where), config.vocab, options,
                 where);
  if (const auto chat = metadata.find("chat"); chat != metadata.end()) {
    const Json json = parse_json(chat->second, path, where);
    const auto text = [&](const char* key) { return member(json, key); };
    if (text("before") == nullptr || !text("before")->is_string() || text("after") == nullptr ||
        !text("after")->is_string())
      fail<DataError>(str("[model] ", shown(path), ": its chat form is malformed"), where);
    ChatForm form{.before = text_of(text("before")), .after = text_of(text("after"))};
    if (const Json* stops = text("stops"); stops != nullptr && stops->is_array())
      for (const Json& stop : *stops) form.stops.push_back(text_of(&stop));
    if (const Json* t = text("temperature"); t != nullptr && t->is_number())
      form.temperature = t->get<float>();
    set_chat_form(opened, std::move(form), where);
  }
  copy_parameters(file, *opened.model, "", where);
  return opened;
}

}  // namespace detail

/// Sets a model's tensors from the file's arrays of their names after `prefix`. The file is
/// verified whole. DataError if an array is missing or has another shape.
template <class D>
void copy_parameters(const CheckpointView& file, const Model<D>& model, const std::string& prefix,
                     Where where = Where::here()) {
  std::map<std::string, const Tensor<D>*, std::less<>> places;
  for (const auto& entry : model.parameters().entries()) {
    const ArrayView* array = file.find(prefix + entry.name);
    if (array == nullptr)
      fail<DataError>(str("[model] the file has no array '", prefix + entry.name, "'"), where);
    if (array->shape != entry.tensor.shape())
      fail<DataError>(str("[model] '", array->name, "' is ", array->shape, " in the file, ",
                          entry.tensor.shape(), " in the model"),
                      where);
    places[array->name] = &entry.tensor;
  }
  std::map<std::string, std::vector<float>, std::less<>>
      staged;  // for devices that are not the host
  file.copy_to(
      [&](const ArrayView& array) -> float* {
        const auto found = places.find(array.name);
        if (found == places.end()) return nullptr;
        if constexpr (std::is_same_v<D, Cpu>) {
          return found->second->data();
        } else {
          auto& values = staged[array.name];
          values.resize(static_cast<std::size_t>(array.shape.size()));
          return values.data();
        }
      },
      where);
  for (const auto& [name, values] : staged)
    copy_from_host(D{}, places.at(name)->data(), values.data(), places.at(name)->bytes());
}

template <class D>
constexpr ModelFormat<D> plumb_format() {
  return {"Plumb's own (.safetensors)", detail::is_safetensors, detail::open_plumb_file<D>};
}

/// Writes a model in Plumb's own format, atomically.
template <class D>
void save_plumb_file(const std::string& path, const Model<D>& model, const Language& language,
                     const SaveExtras& extras, Where where) {
  std::vector<HostValues<D>> values;
  std::vector<NamedArray> arrays;
  for (const auto& entry : model.parameters().entries()) {
    values.emplace_back(entry.tensor);
    arrays.push_back({entry.name, entry.tensor.shape(), values.back().view});
  }
  arrays.insert(arrays.end(), extras.arrays.begin(), extras.arrays.end());
  auto metadata = extras.metadata;
  metadata["model"] = settings_json(model.config()).dump();
  metadata["head"] = choice_name(model.head_kind());
  metadata["tokenizer"] = language.tokenizer_file.empty()
                              ? std::string()
                              : repaired_utf8(detail::path_from(path, language.tokenizer_file));
  metadata["tokenizer_fingerprint"] = hex64(language.tokenizer->fingerprint());
  if (language.chat != ChatForm{})
    metadata["chat"] = json_text({{"before", language.chat.before},
                                  {"after", language.chat.after},
                                  {"stops", language.chat.stops},
                                  {"temperature", language.chat.temperature}});
  write_checkpoint(path, arrays, metadata, extras.previous, where);
}

}}  // namespace plumb::v0_1
