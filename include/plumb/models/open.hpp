// A model file, opened by its bytes: {policy, tokenizer, stop tokens, chat form}. The one place in
// which a file becomes a model, and a model a file.
//
// A format is a header of this folder with a ModelFormat, and a line in model_formats(). Whatever
// the format, sizes are compared with the file's arrays before anything is allocated, no weight is
// drawn only to be overwritten, and the weights are checked finite. A folder stands for the one
// model in it.
#pragma once

#include <plumb/models/llama2c.hpp>
#include <plumb/models/plumb_file.hpp>

#include <dirent.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

template <class D>
constexpr std::array<ModelFormat<D>, 2> model_formats() {
  return {plumb_format<D>(), llama2c_format<D>()};
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
LanguageModel<D> open_model(const std::string& path, const OpenOptions& options = {},
                            Where where = Where::here()) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) detail::fail_io("open", path, errno, where);
  const std::string file = S_ISDIR(status.st_mode) ? detail::model_in_folder<D>(path, where) : path;
  const ModelFormat<D>* const format = detail::format_of<D>(file, where);
  if (format == nullptr)
    fail<DataError>(str("[model] ", shown(file), " is of no known format. HINT: supported are ",
                        detail::format_names<D>(), "; is the file cut short?"),
                    where);
  LanguageModel<D> opened = format->open(file, options, where);
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

/// Writes a model: as llama2.c's, if the path ends in .bin and that format can hold it, else as
/// Plumb's own, with more arrays and metadata beside it. NumericError, and nothing is written, if a
/// weight is not finite.
template <class D>
void save_model(const std::string& path, const Model<D>& model, const Language& language,
                const SaveExtras& extras = {}, Where where = Where::here()) {
  model.parameters().require_finite("[model] not saved");
  if (path.ends_with(".bin")) return save_llama2c(path, model, language, extras, where);
  save_plumb_file(path, model, language, extras, where);
}

/// Sixteen hexadecimal digits over all weights: which model made a file.
template <class D>
std::string fingerprint(const Model<D>& model) {
  Hash64 hash;
  for (const auto& entry : model.parameters().entries()) {
    const HostValues<D> values(entry.tensor);
    hash.add(as_text(values.view));
  }
  return hex64(hash.value());
}

}}  // namespace plumb::v0_1
