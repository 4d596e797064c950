// GGUF files (io/gguf.hpp) as models: architectures llama, qwen2 and gpt2, weights of every type
// that io/arrays.hpp reads, the tokenizer and the chat form from the metadata.
//
// ggml turns a llama's rotary pairs side by side, as Plumb does, and a qwen2's D/2 apart. Llama 3's
// lowered frequencies are in an array of divisors; its settings, which are not in the file, are
// found by it. Sources: ggml-org/ggml, docs/gguf.md; ggml-org/llama.cpp, gguf-py/gguf/constants.py.
#pragma once

#include <plumb/io/gguf.hpp>
#include <plumb/models/plumb_file.hpp>

#include <array>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace plumb { inline namespace v0_1 {

namespace detail {

inline bool is_gguf(const FileHead& head) { return head.bytes.starts_with("GGUF"); }

/// A size in the metadata. DataError if it is missing, no whole number, or out of any bound.
inline Index gguf_size(const GgufView& file, const std::string& key) {
  const auto said = file.number(key);
  if (!said) file.bad(str("it says no '", key, "'"));
  if (!(*said >= 1 && *said <= (1 << 30)) || *said != std::floor(*said))
    file.bad(str("'", key, "' is ", *said, ", no size"));
  return static_cast<Index>(*said);
}

/// Llama 3's settings, told by the divisors that the file has in their place.
inline void find_llama3_scaling(TransformerConfig& c, const GgufView& file) {
  const ArrayView* array = file.find("rope_freqs.weight");
  if (array == nullptr) return;
  const OwnedArray divisors = to_owned(*array);
  TransformerConfig plain = c;
  plain.rope_scaling = RopeScaling::None;
  const std::vector<double> before = rotary_frequencies(plain);
  for (const float factor : {8.0F, 32.0F}) {  // of Llama 3.1 and 3.2
    c.rope_scaling = RopeScaling::Llama3;
    c.rope_factor = factor;
    const std::vector<double> after = rotary_frequencies(c);
    bool equal = divisors.data.size() == after.size();
    for (std::size_t i = 0; equal && i < after.size(); ++i)
      equal = std::fabs(before[i] / after[i] / static_cast<double>(divisors.data[i]) - 1) < 1e-5;
    if (equal) return;
  }
  file.bad("its rotary frequencies are lowered in a way that is not Llama 3.1's nor Llama 3.2's");
}

inline TransformerConfig gguf_config(const GgufView& file) {
  const std::string architecture = file.text("general.architecture").value_or("");
  TransformerConfig c;
  if (architecture == "gpt2")
    c.family = Family::Gpt2;
  else if (architecture == "qwen2")
    c.family = Family::Qwen2;
  else if (architecture != "llama")
    file.bad(str("its architecture is '", shown(architecture),
                 "'; llama, qwen2 and gpt2 can be opened"));
  const auto key = [&](const char* name) { return str(architecture, ".", name); };
  const auto size = [&](const char* name) { return gguf_size(file, key(name)); };
  const auto real = [&](const char* name, double otherwise) {
    return static_cast<float>(file.number(key(name)).value_or(otherwise));
  };
  const ArrayView* embedding = file.find("token_embd.weight");
  if (embedding == nullptr || embedding->shape.rank() != 2)
    file.bad("there is no array 'token_embd.weight'");
  c.vocab = embedding->shape[0];
  c.context = size("context_length");
  c.channels = size("embedding_length");
  c.layers = size("block_count");
  c.hidden = size("feed_forward_length");
  c.heads = size("attention.head_count");
  c.kv_heads = file.has(key("attention.head_count_kv")) ? size("attention.head_count_kv") : c.heads;
  const auto* norm = c.family.norm == Norm::Rms ? "attention.layer_norm_rms_epsilon"
                                                : "attention.layer_norm_epsilon";
  c.norm_eps = real(norm, 1e-5);
  c.rope_base = real("rope.freq_base", 10000.0);
  c.tied_head = file.find("output.weight") == nullptr;
  if (c.family.positions == Positions::Learned) return c;
  const double turned = real("rope.dimension_count", static_cast<double>(c.head_size()));
  if (turned != static_cast<double>(c.head_size()))
    file.bad(str("it turns ", turned, " of a head's ", c.head_size(), " channels; all or none"));
  const std::string scaling = file.text(key("rope.scaling.type")).value_or("none");
  if (scaling == "linear") {
    c.rope_scaling = RopeScaling::Linear;
    c.rope_factor = real("rope.scaling.factor", 1.0);
  } else if (scaling != "none") {
    file.bad(str("its rotary scaling is '", shown(scaling),
                 "'; none, linear and Llama 3's can be "
                 "opened"));
  }
  find_llama3_scaling(c, file);
  return c;
}

/// What ggml calls the parts of a block, without .weight or .bias.
inline const TensorNames kGgufNames{
    {"norm1", "attn_norm"}, {"query", "attn_q"},   {"key", "attn_k"},
    {"value", "attn_v"},    {"norm2", "ffn_norm"}, {"projection", "attn_output"},
    {"gate", "ffn_gate"},   {"up", "ffn_up"},      {"down", "ffn_down"}};

/// Where ggml keeps the tensor of a name.
inline ArraySource gguf_source(const GgufView& file, const TransformerConfig& c,
                               const std::string& name) {
  static const TensorNames kWhole{{"embedding", "token_embd.weight"},
                                  {"position_embedding", "position_embd.weight"},
                                  {"final_norm", "output_norm.weight"},
                                  {"final_norm_bias", "output_norm.bias"},
                                  {"head", "output.weight"}};
  if (const auto whole = kWhole.find(name); whole != kWhole.end())
    return {file.find(whole->second)};
  const std::size_t dot = name.rfind('.');
  std::string part = name.substr(dot + 1);
  const bool bias = part.ends_with("_bias");
  if (bias) part.resize(part.size() - 5);
  const auto known = kGgufNames.find(part);
  if (dot == name.npos || known == kGgufNames.end()) return {};
  const auto array = [&](const char* theirs) {
    // "blocks.3" is their "blk.3".
    return file.find(str("blk.", name.substr(7, dot - 7), ".", theirs, bias ? ".bias" : ".weight"));
  };
  const Index kv = c.kv_heads * c.head_size();
  const bool q = part == "query", k = part == "key", v = part == "value";
  if ((q || k || v) && c.family == Family::Gpt2)  // the three in one
    return {array("attn_qkv"), q ? 0 : k ? c.channels : c.channels + kv, q ? c.channels : kv};
  ArraySource source{array(known->second)};
  if ((q || k) && c.family == Family::Qwen2) source.halves = q ? c.heads : c.kv_heads;
  return source;
}

template <class D>
LanguageModel<D> open_gguf(const std::string& path, const OpenOptions& options, Where where) {
  const GgufView file(path, where);
  const TransformerConfig c = gguf_config(file);
  const auto source = [&](const std::string& name) { return gguf_source(file, c, name); };
  LanguageModel<D> opened;
  opened.model =
      model_for_arrays<D>(c, ScalarHead::None, file.arrays().size(), source, path, where);
  // What is in the file and no tensor has is a part of the model that would be left out.
  std::map<const ArrayView*, bool> used{{file.find("rope_freqs.weight"), true}};
  for (const auto& entry : opened.model->parameters().entries())
    used[source(entry.name).array] = true;
  for (const ArrayView& array : file.arrays())
    if (!used.contains(&array))
      file.bad(str("its array '", shown(array.name),
                   "' belongs to no part of such a model that "
                   "Plumb has"));
  if (options.tokenizer.empty())
    set_tokenizer(opened, read_gguf_tokenizer(file, shown(last_name(path)), c.vocab, where), path);
  else
    find_tokenizer(opened, path, {}, {}, c.vocab, options, where);
  if (options.chat.empty())
    set_chat_form(opened, recognised_form(file.text("tokenizer.chat_template").value_or(""), where),
                  where);
  copy_arrays(*opened.model, source);
  return opened;
}

}  // namespace detail

template <class D>
constexpr ModelFormat<D> gguf_format() {
  return {"GGUF", detail::is_gguf, detail::open_gguf<D>};
}

}}  // namespace plumb::v0_1
