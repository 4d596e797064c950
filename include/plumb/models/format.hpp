// What model formats share: an opened model, its tokenizer, and reading arrays into a model whose
// sizes were compared with them first.
#pragma once

#include <plumb/io/arrays.hpp>
#include <plumb/io/hash.hpp>
#include <plumb/io/mapped.hpp>
#include <plumb/models/chat.hpp>
#include <plumb/models/language.hpp>
#include <plumb/models/tokenizers.hpp>
#include <plumb/nn/model.hpp>

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
  LoraConfig lora{};   ///< adapters that training adds; rank 0: every weight is trained
};

struct OpenOptions {
  std::string tokenizer = {};             ///< its file, or "bytes"; empty: what the model says
  std::vector<std::string> folders = {};  ///< where else a tokenizer may lie
  std::string chat = {};                  ///< its chat form's name; empty: what the model says
  std::string base = {};       ///< what adapters stand beside; empty: what their file says
  bool keep_adapters = false;  ///< beside their frozen trunk; else they are merged into it
  int depth = 0;               ///< files of adapters that led here
};

/// Opens a model file or folder: models/open.hpp.
template <class D>
LanguageModel<D> open_model(const std::string& path, const OpenOptions& options = {},
                            Where where = Where::here());

/// The beginning of a file, and its size: what a format is recognised by.
struct FileHead {
  std::string path;
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
    if constexpr (on_host<D>) {
      kept = tensor;
      view = {tensor.data(), static_cast<std::size_t>(tensor.size())};
    } else {
      kept = tensor.to_vector();
      view = kept;
    }
  }
  std::conditional_t<on_host<D>, Tensor<D>, std::vector<float>> kept;
  std::span<const float> view;
};

/// Sixteen hexadecimal digits over all trained weights: which model made a file.
template <class D>
std::string fingerprint(const Model<D>& model) {
  Hash64 hash;
  for (const auto& entry : model.parameters().entries()) {
    const HostValues<D> values(entry.tensor);
    hash.add(as_text(values.view));
  }
  return hex64(hash.value());
}

/// The same, of a model and what it stands beside.
template <class D>
std::string fingerprint(const LanguageModel<D>& model) {
  if (model.base_fingerprint.empty()) return fingerprint(*model.model);
  Hash64 hash;
  hash.add(model.base_fingerprint + fingerprint(*model.model));
  return hex64(hash.value());
}

/// The fingerprint of a model's weights without adapters.
template <class D>
std::string trunk_fingerprint(const LanguageModel<D>& model) {
  return model.base_fingerprint.empty() ? fingerprint(*model.model) : model.base_fingerprint;
}

/// Freezes an opened model, if there are to be adapters (rank above 0): training then adds these to
/// it. The memory of its plain weights is given back. Once is enough.
template <class D>
void prepare_adapters(LanguageModel<D>& opened, const LoraConfig& lora,
                      Where where = Where::here()) {
  if (lora.rank == 0 || !opened.base_fingerprint.empty()) return;
  check_fields(lora, "lora", where);
  opened.base_file = opened.source;
  opened.base_fingerprint = fingerprint(*opened.model);
  opened.lora = lora;
  opened.model = std::make_shared<Model<D>>(opened.model->frozen(lora.frozen));
}

/// A model to train, as `from` is now: fresh adapters beside its frozen trunk, a copy of those that
/// it has, or a copy of it all.
template <class D>
std::shared_ptr<Model<D>> trainable(const LanguageModel<D>& from, ScalarHead head,
                                    std::uint64_t seed, Where where = Where::here()) {
  const bool bare = from.lora.rank > 0 && from.model->transformer().lora().rank == 0;
  return std::make_shared<Model<D>>(bare ? from.model->adapted(from.lora, head, seed, where)
                                         : from.model->clone(head, seed));
}

namespace detail {

inline FileHead read_head(const std::string& path, Where where) {
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) fail_io("open", path, errno, where);
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) fail_io("examine", path, errno, where);
  FileHead head{path, std::string(4096, '\0'), static_cast<std::uint64_t>(status.st_size)};
  const ssize_t n = ::pread(fd.get(), head.bytes.data(), head.bytes.size(), 0);
  if (n < 0) fail_io("read", path, errno, where);
  head.bytes.resize(static_cast<std::size_t>(n));
  return head;
}

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

/// Gives a language its chat form, and the ends of a response that belong to it. DataError if its
/// tokenizer lacks one of them: then the form is another model's.
inline void set_chat_form(Language& language, ChatForm form, Where where = Where::here()) {
  for (const std::string& stop : form.stops) {
    const Tokens token = language.tokenizer->encode_form(stop);
    if (token.size() != 1)
      fail<DataError>(
          str("[chat] the chat form ends a turn with '", stop, "', which is no token of '",
              language.tokenizer->name(),
              "'. HINT: the form is another model's; name one with --chat: ", chat_form_names()),
          where);
    if (!detail::is_stop(language, token[0])) language.stops.push_back(token[0]);
  }
  language.chat = std::move(form);
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

/// Our names of tensors and another format's.
using TensorNames = std::map<std::string, const char*, std::less<>>;

/// Where a tensor's numbers lie: an array of a file, or some rows of it, and how they lie in it.
struct ArraySource {
  const ArrayView* array = nullptr;  ///< null: there is none
  Index first = 0, rows = 0;         ///< which rows; no number: all
  bool transposed = false;           ///< (inputs, outputs) in the file; then `first` is a column
  Index halves = 0;  ///< heads whose rotary pairs lie D/2 apart in the file, here side by side

  /// The tensor's shape.
  Shape shape() const {
    const Shape& s = array->shape;
    const Index n = rows > 0 ? rows : s[transposed ? 1 : 0];
    return s.rank() == 2 ? Shape{n, s[transposed ? 0 : 1]} : rows > 0 ? Shape{n} : s;
  }
};

/// DataError unless a file that has `source(name)` for a tensor's name holds exactly the tensors of
/// this configuration: before memory is provided for them. `arrays`: how many the file has.
template <class D, class Source>
std::shared_ptr<Model<D>> model_for_arrays(const TransformerConfig& config, ScalarHead head,
                                           std::size_t arrays, Source source,
                                           const std::string& path, Where where) {
  const auto expect = [&](const std::string& name, const Shape& shape) {
    const ArraySource found = source(name);
    if (found.array == nullptr)
      fail<DataError>(str("[model] ", shown(path), " has no array '", name, "'"), where);
    const Shape& whole = found.array->shape;
    const int along = found.transposed ? 1 : 0;
    if (whole.rank() <= along || whole.rank() > 2 || found.first + found.rows > whole[along])
      fail<DataError>(str("[model] ", shown(path), ": '", found.array->name, "' is ", whole,
                          ", too little for '", name, "'"),
                      where);
    if (found.shape() != shape)
      fail<DataError>(str("[model] ", shown(path), ": '", found.array->name, "' is ", found.shape(),
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

namespace detail {

/// Some rows of `source`, begin to end of the tensor's, into `out`, which is where row 0 belongs.
inline void read_rows(const ArraySource& source, Index begin, Index end, float* out) {
  const ArrayView& array = *source.array;
  const DtypeLayout layout = layout_of(array.dtype);
  const Shape shape = source.shape();
  const Index columns = shape.rank() == 2 ? shape[1] : 1;
  const auto bytes_of = [&](Index numbers) {
    return static_cast<std::size_t>(numbers) / layout.numbers * layout.bytes;
  };
  const auto part = [&](Index first, Index numbers, float* to) {
    to_floats({{}, array.dtype, {}, array.bytes.substr(bytes_of(first), bytes_of(numbers))}, to);
  };
  if (source.transposed) {
    // Row r of the tensor is column first + r of the array: read by the array's rows.
    const Index width = array.shape[1];
    std::vector<float> row(static_cast<std::size_t>(width));
    for (Index c = 0; c < columns; ++c) {
      part(c * width, width, row.data());
      for (Index r = begin; r < end; ++r)
        out[r * columns + c] = row[static_cast<std::size_t>(source.first + r)];
    }
    return;
  }
  if (source.halves == 0)
    return part((source.first + begin) * columns, (end - begin) * columns, out + begin * columns);
  const Index size = shape[0] / source.halves;  // of a head
  for (Index r = begin; r < end; ++r) {
    const Index head = r / size, i = r % size;
    part((source.first + head * size + i / 2 + i % 2 * (size / 2)) * columns, columns,
         out + r * columns);
  }
}

}  // namespace detail

/// A tensor's numbers from where they lie; the shapes were compared.
template <class D>
void copy_array(const ArraySource& source, const Tensor<D>& tensor) {
  if constexpr (on_host<D>) {
    detail::read_rows(source, 0, tensor.dim(0), tensor.data());
  } else {
    std::vector<float> values(static_cast<std::size_t>(tensor.size()));
    detail::read_rows(source, 0, tensor.dim(0), values.data());
    copy_from_host(D{}, tensor.data(), values.data(), tensor.bytes());
  }
}

/// Sets every tensor of a model from its source, whose shapes were compared. On the host the work
/// is shared out in rows, so that one large array keeps no thread waiting.
template <class D, class Source>
void copy_arrays(const Model<D>& model, Source source) {
  const auto& entries = model.parameters().entries();
  if constexpr (on_host<D>) {
    constexpr Index kNumbers = 1 << 20;
    struct Task {
      ArraySource source;
      Index begin, end;
      float* out;
    };
    std::vector<Task> tasks;
    for (const auto& entry : entries) {
      const Index n = entry.tensor.dim(0);
      // A vector is not divided: of a type in blocks its numbers belong together.
      const bool matrix = entry.tensor.shape().rank() == 2;
      const Index step = matrix ? std::max<Index>(1, kNumbers / entry.tensor.dim(1)) : n;
      for (Index begin = 0; begin < n; begin += step)
        tasks.push_back(
            {source(entry.name), begin, std::min(n, begin + step), entry.tensor.data()});
    }
    default_pool().run(static_cast<Index>(tasks.size()), [&](Index i) {
      const Task& task = tasks[static_cast<std::size_t>(i)];
      detail::read_rows(task.source, task.begin, task.end, task.out);
    });
  } else {
    // A device copies in the order of the thread that asks: only the host may share the work out.
    for (const auto& entry : entries) copy_array(source(entry.name), entry.tensor);
  }
}

}}  // namespace plumb::v0_1
