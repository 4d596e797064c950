// A model file, opened by its bytes: {policy, tokenizer, stop tokens, chat form}. The one place in
// which a file becomes a model, and a model a file.
//
// A format is a header of this folder with a ModelFormat, and a line in model_formats(). Whatever
// the format, sizes are compared with the file's arrays before anything is allocated, no weight is
// drawn only to be overwritten, and the weights are checked finite. A folder stands for the one
// model in it.
#pragma once

#include <plumb/models/foreign.hpp>
#include <plumb/models/gguf.hpp>
#include <plumb/models/hugging_face.hpp>
#include <plumb/models/llama2c.hpp>
#include <plumb/models/peft.hpp>
#include <plumb/models/plumb_file.hpp>

#include <dirent.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

template <class D>
constexpr std::array<ModelFormat<D>, 4> model_formats() {
  return {hugging_face_format<D>(), plumb_format<D>(), gguf_format<D>(), llama2c_format<D>()};
}

namespace detail {

/// The format of the file at `path`; null if none recognises its bytes.
template <class D>
const ModelFormat<D>* format_of(const std::string& path, Where where) {
  static constexpr auto formats = model_formats<D>();
  const FileHead head = read_head(path, where);
  for (const ModelFormat<D>& format : formats)
    if (format.recognises(head)) return &format;
  return nullptr;
}

template <class D>
std::string format_names() {
  std::string names;
  for (const auto& format : model_formats<D>())
    names += str(names.empty() ? "" : ", ", format.name);
  return names;
}

/// The one model in a folder. DataError naming what there is, if it is not one.
template <class D>
std::string model_in_folder(const std::string& folder, Where where) {
  std::vector<std::string> models;
  DIR* const directory = ::opendir(folder.c_str());
  if (directory == nullptr) fail_io("open", folder, errno, where);
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(directory)) names.emplace_back(entry->d_name);
  ::closedir(directory);
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    const std::string path = str(folder, folder.ends_with('/') ? "" : "/", name);
    struct stat status {};
    if (::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode) &&
        format_of<D>(path, where) != nullptr)
      models.push_back(name);
  }
  if (models.size() != 1) {
    std::string list;
    for (const std::string& name : models) list += str(list.empty() ? ": " : ", ", shown(name));
    fail<DataError>(str("[model] the folder ", shown(folder), " holds ", models.size(),
                        " models where one is expected", list,
                        ". HINT: name a file of it (formats: ", format_names<D>(), ")"),
                    where);
  }
  return str(folder, folder.ends_with('/') ? "" : "/", models[0]);
}

}  // namespace detail

/// Opens a model file, or a folder that holds one. IoError if it cannot be read; DataError if it is
/// of no known format, its sizes do not fit its arrays, a weight is not finite, or its tokenizer is
/// not found or is another.
template <class D>
LanguageModel<D> open_model(const std::string& path, const OpenOptions& options, Where where) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) detail::fail_io("open", path, errno, where);
  static constexpr auto hugging_face = hugging_face_format<D>();
  const bool folder = S_ISDIR(status.st_mode);
  if (folder && detail::is_peft_folder(path)) return detail::open_peft<D>(path, options, where);
  const bool whole = folder && detail::is_hugging_face_folder(path, where);
  const std::string file = whole || !folder ? path : detail::model_in_folder<D>(path, where);
  const ModelFormat<D>* const format = whole ? &hugging_face : detail::format_of<D>(file, where);
  if (format == nullptr)
    fail<DataError>(str("[model] ", shown(file), " is of no known format. HINT: supported are ",
                        detail::format_names<D>(), "; is the file cut short?"),
                    where);
  LanguageModel<D> opened = format->open(file, options, where);
  if (!options.chat.empty()) set_chat_form(opened, chat_form(options.chat, where), where);
  opened.source = path;
  opened.context = opened.model->context();
  try {
    opened.model->parameters().require_finite(str("[model] ", shown(path)).c_str());
  } catch (const NumericError& error) {
    throw DataError(error.what());
  }
  return opened;
}

/// A fresh model of a configuration, with weights drawn from `seed`.
template <class D>
LanguageModel<D> new_model(const TransformerConfig& config, const std::string& tokenizer,
                           std::uint64_t seed, Where where = Where::here()) {
  LanguageModel<D> made;
  made.model = std::make_shared<Model<D>>(config, seed);
  set_tokenizer(made, read_tokenizer(tokenizer, config.vocab, where), tokenizer);
  made.source = "new";
  made.context = config.context;
  return made;
}

/// Writes a model: as a Hugging Face folder, if the path is a folder or ends in /; as GGUF, if it
/// ends in .gguf (.f16.gguf and .q8_0.gguf: matrices in those types); as llama2.c's, if it ends in
/// .bin; else as Plumb's own, which alone takes more arrays and metadata. DataError if the format
/// cannot hold it; NumericError, and nothing is written, if a weight is not finite.
template <class D>
void save_model(const std::string& path, const Model<D>& model, const Language& language,
                const SaveExtras& extras = {}, Where where = Where::here()) {
  model.parameters().require_finite("[model] not saved");
  const bool folder = path.ends_with('/') || detail::is_folder(path);
  check<DataError>(extras.arrays.empty() || !(folder || path.ends_with(".gguf")),
                   "[model] what belongs to training is written in Plumb's own format alone",
                   where);
  const bool own = !folder && !path.ends_with(".gguf") && !path.ends_with(".bin");
  check<DataError>(own || !model.transformer().is_frozen(),
                   "[model] adapters are written in Plumb's own format, or merged()", where);
  if (folder) return save_hugging_face(path, model, language, where);
  if (path.ends_with(".gguf"))
    return save_gguf(path, model, language,
                     path.ends_with(".q8_0.gguf")  ? Dtype::Q8_0
                     : path.ends_with(".f16.gguf") ? Dtype::F16
                                                   : Dtype::F32,
                     where);
  if (path.ends_with(".bin")) return save_llama2c(path, model, language, extras, where);
  save_plumb_file(path, model, language, extras, where);
}

}}  // namespace plumb::v0_1
