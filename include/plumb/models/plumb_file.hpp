// Plumb's own model files: a checkpoint (io/checkpoint.hpp) whose metadata says
//
//   model                  the configuration, as JSON: the names of fields(TransformerConfig&)
//   head                   none, reward or value
//   tokenizer              how to find its file from the model's folder; empty: bytes
//   tokenizer_fingerprint  what its vocabulary must hash to
//   chat                   what stands around a prompt, as JSON {"before", "after", "stops",
//                          "temperature", "next", "system", "after_system"}, where anything does
//   lora, base, base_fingerprint
//                          of adapters: which, how to find the file of the weights that they stand
//                          beside, and what these must hash to; the arrays are the adapters alone
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
        if constexpr (on_host<D>) {
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

inline ScalarHead said_head(const std::map<std::string, std::string>& metadata,
                            const std::string& path, Where where) {
  ScalarHead head = ScalarHead::None;
  const std::string complaint =
      parse_setting(Field{"head", ""}, head, said(metadata, "head", path, where));
  if (!complaint.empty())
    fail<DataError>(str("[model] ", shown(path), ": its head ", complaint), where);
  return head;
}

/// Which adapters a file says that it holds.
inline LoraConfig said_lora(const std::map<std::string, std::string>& metadata,
                            const std::string& path, Where where) {
  LoraConfig lora;
  read_settings(lora, parse_json(said(metadata, "lora", path, where), path, where),
                str(shown(path), ", its adapters"), true, where);
  return lora;
}

/// The chat form that a file says, if it says one.
inline void read_chat_form(Language& language, const std::map<std::string, std::string>& metadata,
                           const std::string& path, Where where) {
  const auto chat = metadata.find("chat");
  if (chat == metadata.end()) return;
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
  const ChatForm known = form_like(form);  // older files do not say how dialogues stand in it
  form.next = text("next") == nullptr ? known.next : text_of(text("next"));
  form.system = text("system") == nullptr ? known.system : text_of(text("system"));
  form.after_system =
      text("after_system") == nullptr ? known.after_system : text_of(text("after_system"));
  set_chat_form(language, std::move(form), where);
}

/// The model that the adapters at `path` stand beside: options.base, or where `said` leads from
/// their folder. DataError if its weights are not those that they were trained beside.
template <class D>
LanguageModel<D> open_base(const std::string& path, const std::string& said,
                           const std::string& made_with, const OpenOptions& options, Where where) {
  check<DataError>(options.depth < 8, "[model] adapters beside adapters, over and over", where);
  const std::string& name = options.base.empty() ? said : options.base;
  const std::string beside = directory_of(path) + name;
  const bool from_folder = options.base.empty() && !name.starts_with('/');
  const std::string file = from_folder && file_exists(beside) ? beside : name;
  if (name.empty() || !file_exists(file))
    fail<IoError>(str("[model] the model that the adapters ", shown(path),
                      " stand beside is not there: ", shown(name), ". HINT: name it with --base"),
                  where);
  OpenOptions of_base = options;
  of_base.base.clear();
  of_base.keep_adapters = false;
  ++of_base.depth;
  LanguageModel<D> base = open_model<D>(file, of_base, where);
  if (!made_with.empty() && fingerprint(*base.model) != made_with)
    fail<DataError>(
        str("[model] the adapters ", shown(path),
            " were trained beside other weights (fingerprint ", made_with, ", ", shown(file),
            " has ", fingerprint(*base.model), "). HINT: name the right model with --base"),
        where);
  return base;
}

}  // namespace detail

/// Whether a file holds adapters that were trained beside the frozen trunk of `base`.
template <class D>
bool holds_adapters(const LanguageModel<D>& base, const std::string& path,
                    Where where = Where::here()) {
  if (base.base_fingerprint.empty() || detail::is_folder(path)) return false;
  if (!detail::is_safetensors(detail::read_head(path, where))) return false;
  const auto metadata = CheckpointView(path, where).metadata();
  const auto made_with = metadata.find("base_fingerprint");
  return made_with != metadata.end() && made_with->second == base.base_fingerprint;
}

/// The adapters of a Plumb file, beside the frozen trunk of `base`, which they share.
template <class D>
std::shared_ptr<Model<D>> open_adapters(const LanguageModel<D>& base, const std::string& path,
                                        Where where = Where::here()) {
  const CheckpointView file(path, where);
  const auto metadata = file.metadata();
  if (detail::said(metadata, "base_fingerprint", path, where) != base.base_fingerprint)
    fail<DataError>(str("[model] the adapters ", shown(path),
                        " were trained beside other weights than those of ", shown(base.base_file)),
                    where);
  auto model = std::make_shared<Model<D>>(
      base.model->adapted(detail::said_lora(metadata, path, where),
                          detail::said_head(metadata, path, where), 0, where));
  copy_parameters(file, *model, "", where);
  return model;
}

namespace detail {

template <class D>
LanguageModel<D> open_plumb_adapters(const std::string& path, const CheckpointView& file,
                                     const OpenOptions& options, Where where) {
  const auto metadata = file.metadata();
  LanguageModel<D> opened =
      open_base<D>(path, said(metadata, "base", path, where),
                   said(metadata, "base_fingerprint", path, where), options, where);
  prepare_adapters(opened, said_lora(metadata, path, where), where);
  opened.model = open_adapters(opened, path, where);
  if (!options.keep_adapters) {
    opened.model = std::make_shared<Model<D>>(opened.model->merged());
    opened.base_file.clear();
    opened.base_fingerprint.clear();
    opened.lora = {};
  }
  read_chat_form(opened, metadata, path, where);
  return opened;
}

template <class D>
LanguageModel<D> open_plumb_file(const std::string& path, const OpenOptions& options, Where where) {
  const CheckpointView file(path, where);
  const auto metadata = file.metadata();
  if (metadata.contains("lora")) return open_plumb_adapters<D>(path, file, options, where);
  TransformerConfig config;
  Json said_config = parse_json(said(metadata, "model", path, where), path, where);
  // Files of before rotary frequencies could be lowered say nothing of it.
  const Json usual = settings_json(config);
  for (const auto& [key, value] : usual.items())
    if (key.starts_with("rope_") && key != "rope_base" && said_config.is_object() &&
        !said_config.contains(key))
      said_config[key] = value;
  read_settings(config, said_config, str(shown(path), ", the model's configuration"), true, where);
  const ScalarHead head = said_head(metadata, path, where);
  LanguageModel<D> opened;
  const auto source = [&](const std::string& name) { return ArraySource{file.find(name)}; };
  opened.model = model_for_arrays<D>(config, head, file.arrays().size(), source, path, where);
  find_tokenizer(opened, path, said(metadata, "tokenizer", path, where),
                 said(metadata, "tokenizer_fingerprint", path, where), config.vocab, options,
                 where);
  read_chat_form(opened, metadata, path, where);
  copy_parameters(file, *opened.model, "", where);
  return opened;
}

}  // namespace detail

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
  if (model.transformer().is_frozen()) {
    metadata["lora"] = settings_json(model.transformer().lora()).dump();
    metadata["base"] = repaired_utf8(detail::path_from(path, language.base_file));
    metadata["base_fingerprint"] = language.base_fingerprint;
  }
  metadata["head"] = choice_name(model.head_kind());
  metadata["tokenizer"] = language.tokenizer_file.empty()
                              ? std::string()
                              : repaired_utf8(detail::path_from(path, language.tokenizer_file));
  metadata["tokenizer_fingerprint"] = hex64(language.tokenizer->fingerprint());
  if (language.chat != ChatForm{})
    metadata["chat"] = json_text({{"before", language.chat.before},
                                  {"after", language.chat.after},
                                  {"stops", language.chat.stops},
                                  {"temperature", language.chat.temperature},
                                  {"next", language.chat.next},
                                  {"system", language.chat.system},
                                  {"after_system", language.chat.after_system}});
  write_checkpoint(path, arrays, metadata, extras.previous, where);
}

}}  // namespace plumb::v0_1
