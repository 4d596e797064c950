// What model formats share: an opened model, its tokenizer, and reading arrays into a model whose
// sizes were compared with them first.
#pragma once

#include <plumb/io/arrays.hpp>
#include <plumb/io/hash.hpp>
#include <plumb/io/mapped.hpp>
#include <plumb/models/language.hpp>
#include <plumb/nn/model.hpp>
#include <plumb/text/bytes.hpp>
#include <plumb/text/sentencepiece.hpp>

#include <sys/stat.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// A model with what is needed to speak to it.
template <class D>
struct LanguageModel : Language {
  std::shared_ptr<Model<D>> model;
  std::string source;  ///< the path that it was opened by
};

struct OpenOptions {
  std::string tokenizer;             ///< its file, or "bytes"; empty: what the model says
  std::vector<std::string> folders;  ///< where else a tokenizer may lie
};

/// The beginning of a file, and its size: what a format is recognised by.
struct FileHead {
  std::string bytes;  ///< up to 4096
  std::uint64_t size = 0;
};

template <class D>
struct ModelFormat {
  const char* name;
  bool (*recognises)(const FileHead& head);
  LanguageModel<D> (*open)(const std::string& path, const OpenOptions& options, Where where);
};

/// The values of a tensor on the host: where they lie, on the CPU; a copy, elsewhere.
template <class D>
struct HostValues {
  explicit HostValues(const Tensor<D>& tensor) {
    if constexpr (std::is_same_v<D, Cpu>) {
      kept = tensor;
      view = {tensor.data(), static_cast<std::size_t>(tensor.size())};
    } else {
      kept = tensor.to_vector();
      view = kept;
    }
  }
  std::conditional_t<std::is_same_v<D, Cpu>, Tensor<D>, std::vector<float>> kept;
  std::span<const float> view;
};

namespace detail {

inline FileHead read_head(const std::string& path, Where where) {
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) fail_io("open", path, errno, where);
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) fail_io("examine", path, errno, where);
  FileHead head{std::string(4096, '\0'), static_cast<std::uint64_t>(status.st_size)};
  const ssize_t n = ::pread(fd.get(), head.bytes.data(), head.bytes.size(), 0);
  if (n < 0) fail_io("read", path, errno, where);
  head.bytes.resize(static_cast<std::size_t>(n));
  return head;
}

inline std::string last_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

/// `path` with all links followed and made absolute; as it is, if it does not exist.
inline std::string real_path(const std::string& path) {
  char* const resolved = ::realpath(path.c_str(), nullptr);
  std::string out = resolved != nullptr ? resolved : path;
  std::free(resolved);
  return out;
}

/// How one finds `to` from the folder of `from`: both are followed to where they really are.
inline std::string path_from(const std::string& from, const std::string& to) {
  const std::string a = real_path(directory_of(from)) + "/", b = real_path(to);
  std::size_t common = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()) && a[i] == b[i]; ++i)
    if (a[i] == '/') common = i + 1;
  std::string out;
  for (std::size_t i = common; i < a.size(); ++i)
    if (a[i] == '/') out += "../";
  return out + b.substr(common);
}

}  // namespace detail

/// Opens a tokenizer: a file, or "bytes" (or nothing) for the 256 bytes.
inline std::shared_ptr<const Tokenizer> read_tokenizer(const std::string& file, Index vocab,
                                                       Where where = Where::here()) {
  if (!file.empty() && file != "bytes")
    return std::make_shared<SentencePieceTokenizer>(file, vocab, where);
  if (vocab != 256)
    fail<DataError>(str("[model] the byte tokenizer has 256 tokens, the model ", vocab,
                        ". HINT: name the model's tokenizer with --tokenizer"),
                    where);
  return std::make_shared<ByteTokenizer>();
}

inline void set_tokenizer(Language& language, std::shared_ptr<const Tokenizer> tokenizer,
                          const std::string& file) {
  language.stops = tokenizer->stops();
  language.tokenizer = std::move(tokenizer);
  language.tokenizer_file = file == "bytes" ? std::string() : file;
}

/// Finds and opens the tokenizer of the model at `path`. Looked for, in this order: where the
/// options say; where `said` leads from the model's folder; its last name beside the model; the
/// options' folders. With a fingerprint, DataError if what is found first is another tokenizer.
inline void find_tokenizer(Language& language, const std::string& path, const std::string& said,
                           const std::string& made_with, Index vocab, const OpenOptions& options,
                           Where where) {
  std::vector<std::string> places;
  if (!options.tokenizer.empty()) {
    places = {options.tokenizer};
  } else if (said.empty()) {
    places = {"bytes"};
  } else {
    const std::string folder = detail::directory_of(path), name = detail::last_name(said);
    places = {said.starts_with('/') ? said : folder + said, folder + name};
    for (const std::string& more : options.folders) places.push_back(more + "/" + name);
  }
  const auto there = std::find_if(places.begin(), places.end(), [](const std::string& place) {
    return place == "bytes" || detail::file_exists(place);
  });
  if (there == places.end()) {
    std::string list;
    for (const std::string& place : places) list += str(list.empty() ? "" : ", ", shown(place));
    fail<IoError>(str("[model] the tokenizer of ", shown(path), " is not there; looked for: ", list,
                      ". HINT: put it beside the model, or name it with --tokenizer"),
                  where);
  }
  auto tokenizer = read_tokenizer(*there, vocab, where);
  const std::string is = hex64(tokenizer->fingerprint());
  if (!made_with.empty() && is != made_with)
    fail<DataError>(
        str("[model] ", shown(path), " was made with another tokenizer (fingerprint ", made_with,
            ", ", shown(*there), " has ", is, "). HINT: name the right one with --tokenizer"),
        where);
  set_tokenizer(language, std::move(tokenizer), *there);
}

/// DataError unless a file whose arrays `find` finds by name holds exactly the tensors of this
/// configuration: before memory is provided for them.
template <class D, class Find>
std::shared_ptr<Model<D>> model_for_arrays(const TransformerConfig& config, ScalarHead head,
                                           std::size_t arrays, Find find, const std::string& path,
                                           Where where) {
  const auto expect = [&](std::string_view name, const Shape& shape) {
    const ArrayView* array = find(name);
    if (array == nullptr)
      fail<DataError>(str("[model] ", shown(path), " has no array '", name, "'"), where);
    if (array->shape != shape)
      fail<DataError>(str("[model] ", shown(path), ": '", name, "' is ", array->shape,
                          " in the file, ", shape, " by its configuration"),
                      where);
  };
  check_config(config, where);
  if (config.layers > static_cast<Index>(arrays))
    fail<DataError>(str("[model] ", shown(path), " claims ", config.layers, " layers and holds ",
                        arrays, " arrays"),
                    where);
  expect("embedding", {config.vocab, config.channels});
  // Rotary tables are made, not read: they may not outgrow what the file itself holds.
  const Index most = std::max<Index>(config.vocab * config.channels, Index{1} << 24);
  if (config.family.positions == Positions::Rotary &&
      config.context * (config.head_size() / 2) > most)
    fail<DataError>(str("[model] ", shown(path), " claims a context of ", config.context,
                        " tokens, too much for a model of its size"),
                    where);
  return std::make_shared<Model<D>>(
      Model<D>::unset(config, head, [&](const Parameters<D>& parameters) {
        for (const auto& entry : parameters.entries()) expect(entry.name, entry.tensor.shape());
      }));
}

/// One array's numbers into a tensor of its shape.
template <class D>
void copy_array(const ArrayView& array, const Tensor<D>& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.size()));
  to_floats(array, values.data());
  copy_from_host(D{}, tensor.data(), values.data(), tensor.bytes());
}
template <>
inline void copy_array(const ArrayView& array, const Tensor<Cpu>& tensor) {
  to_floats(array, tensor.data());
}

}}  // namespace plumb::v0_1
