// llama2.c's model files (io/llama.hpp) as models. The file names no tokenizer: it is
// tok<vocab>.bin, or tokenizer.bin, beside it.
#pragma once

#include <plumb/io/llama.hpp>
#include <plumb/models/plumb_file.hpp>

#include <climits>
#include <cstring>
#include <string>
#include <type_traits>

namespace plumb { inline namespace v0_1 {

namespace detail {

inline bool is_llama2c(const FileHead& head) {
  LlamaSizes sizes;
  std::int32_t h[7];
  if (head.bytes.size() < sizeof h) return false;
  std::memcpy(h, head.bytes.data(), sizeof h);
  if (h[5] == INT_MIN) return false;
  sizes = {h[0], h[1], h[2], h[3], h[4], std::abs(h[5]), h[6], h[5] > 0};
  return llama_complaint(sizes).empty();  // whether the file is whole is its reader's question
}

template <class D>
LanguageModel<D> open_llama2c(const std::string& path, const OpenOptions& options, Where where) {
  const LlamaView file = view_llama(path, where);
  TransformerConfig c;
  c.vocab = file.vocab;
  c.context = file.context;
  c.channels = file.channels;
  c.layers = file.layers;
  c.heads = file.heads;
  c.kv_heads = file.kv_heads;
  c.hidden = file.hidden;
  c.tied_head = file.tied;
  const auto source = [&](const std::string& name) { return ArraySource{file.find(name)}; };
  LanguageModel<D> opened;
  opened.model = model_for_arrays<D>(c, ScalarHead::None, file.arrays.size(), source, path, where);
  const std::string named = str("tok", c.vocab, ".bin");
  find_tokenizer(opened, path,
                 file_exists(directory_of(path) + named) ? named : std::string("tokenizer.bin"), {},
                 c.vocab, options, where);
  copy_arrays(*opened.model, source);
  return opened;
}

}  // namespace detail

template <class D>
constexpr ModelFormat<D> llama2c_format() {
  return {"llama2.c (version 0)", detail::is_llama2c, detail::open_llama2c<D>};
}

/// Writes a model in llama2.c's format. DataError if the format cannot hold it.
template <class D>
void save_llama2c(const std::string& path, const Model<D>& model, const Language& language,
                  const SaveExtras& extras, Where where) {
  const TransformerConfig& c = model.config();
  check<DataError>(c.family == Family::Llama && c.rope_base == 10000.0F && c.norm_eps == 1e-5F &&
                       model.head_kind() == ScalarHead::None && extras.arrays.empty() &&
                       language.chat == ChatForm{},
                   "[model] llama2.c's format (.bin) holds a policy of the Llama family, with its "
                   "usual constants, and nothing else. HINT: name a .safetensors file",
                   where);
  LlamaFile file;
  file.channels = static_cast<int>(c.channels);
  file.hidden = static_cast<int>(c.hidden);
  file.layers = static_cast<int>(c.layers);
  file.heads = static_cast<int>(c.heads);
  file.kv_heads = static_cast<int>(c.kv_heads);
  file.vocab = static_cast<int>(c.vocab);
  file.context = static_cast<int>(c.context);
  file.tied = c.tied_head;
  for (const auto& entry : model.parameters().entries())
    file.arrays.push_back({entry.name, entry.tensor.shape(), entry.tensor.to_vector()});
  write_llama(path, file, where);
}

}}  // namespace plumb::v0_1
