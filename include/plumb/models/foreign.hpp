// Models written for other programs: Hugging Face folders that transformers loads, GGUF files that
// llama.cpp loads. Each is read back by models/open.hpp to the same bits (of F32).
//
// Only what the format can say is written: one of the families, a byte-level BPE tokenizer, a chat
// form that has a template. Anything else is refused, with Plumb's own format as the way out.
#pragma once

#include <plumb/io/gguf_write.hpp>
#include <plumb/models/gguf.hpp>
#include <plumb/models/hugging_face.hpp>
#include <plumb/text/bpe_write.hpp>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

namespace detail {

/// The tokenizer, which must be byte-level BPE.
inline const BpeVocabulary& bpe_of(const Language& language, Where where) {
  const auto* bpe = dynamic_cast<const BpeTokenizer*>(language.tokenizer.get());
  if (bpe == nullptr)
    fail<DataError>(str("[model] the tokenizer '", language.tokenizer->name(),
                        "' is not byte-level BPE, which alone other makers' formats are written "
                        "with. HINT: write Plumb's own format (.safetensors)"),
                    where);
  return bpe->vocabulary();
}

/// Biases on queries, keys and values alone make a Qwen2.
inline bool is_qwen2(const TransformerConfig& c) { return c.family == Family::Qwen2; }

template <class D>
void require_foreign(const Model<D>& model, Where where) {
  const Family& family = model.config().family;
  check<DataError>(model.head_kind() == ScalarHead::None,
                   "[model] a model with a scalar head is written in Plumb's own format alone",
                   where);
  Family gpt2 = Family::Gpt2, llama = Family::Llama;
  gpt2.activation = family.activation;
  llama.qkv_bias = llama.projection_bias = family.projection_bias;
  llama.feed_forward_bias = family.feed_forward_bias;
  check<DataError>(family == llama || family == Family::Qwen2 || family == gpt2,
                   "[model] this model is of no family that other makers have (Llama, Qwen2, "
                   "GPT-2). HINT: write Plumb's own format (.safetensors)",
                   where);
}

/// Rows whose rotary pairs lie side by side, moved D/2 apart in each of `heads`.
inline std::vector<float> in_halves(std::span<const float> values, Index rows, Index heads) {
  std::vector<float> out(values.size());
  const auto columns = static_cast<std::ptrdiff_t>(static_cast<Index>(values.size()) / rows);
  const Index size = rows / heads;
  for (Index r = 0; r < rows; ++r) {
    const Index i = r % size, to = r - i + i / 2 + i % 2 * (size / 2);
    std::copy_n(values.begin() + r * columns, columns, out.begin() + to * columns);
  }
  return out;
}

inline std::vector<float> transposed(std::span<const float> values, Index rows) {
  const Index columns = static_cast<Index>(values.size()) / rows;
  std::vector<float> out(values.size());
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < columns; ++c)
      out[static_cast<std::size_t>(c * rows + r)] =
          values[static_cast<std::size_t>(r * columns + c)];
  return out;
}

/// Arrays on their way into a file. What lies there as it does here is a view, the rest is kept
/// while it is needed.
struct ForeignArrays {
  std::vector<std::shared_ptr<const void>> kept;
  std::vector<NamedArray> arrays;

  void add(const std::string& name, const Shape& shape, std::vector<float> values) {
    const auto owned = std::make_shared<std::vector<float>>(std::move(values));
    arrays.push_back({name, shape, *owned});
    kept.push_back(owned);
  }
  template <class D>
  void add(const std::string& name, const Tensor<D>& tensor) {
    const auto host = std::make_shared<HostValues<D>>(tensor);
    arrays.push_back({name, tensor.shape(), host->view});
    kept.push_back(host);
  }
};

/// Every tensor under its name in the other format, laid out as there. `block_name(layer, part)`
/// names a part of a block without .weight or .bias; `conv`: matrices lie (inputs, outputs);
/// `halves`: rotary pairs lie D/2 apart.
template <class D>
ForeignArrays foreign_arrays(const Model<D>& model, const char* embedding, const char* positions,
                             const char* norm, const char* norm_bias, const char* head,
                             auto&& block_name, bool conv, bool halves) {
  const TransformerConfig& c = model.config();
  ForeignArrays out;
  for (const auto& entry : model.parameters().entries()) {
    const std::size_t dot = entry.name.rfind('.');
    if (dot == std::string::npos) {
      const std::string& n = entry.name;
      out.add(n == "embedding"            ? embedding
              : n == "position_embedding" ? positions
              : n == "final_norm"         ? norm
              : n == "final_norm_bias"    ? norm_bias
                                          : head,
              entry.tensor);
      continue;
    }
    std::string part = entry.name.substr(dot + 1);
    const std::string layer = entry.name.substr(7, dot - 7);
    const bool bias = part.ends_with("_bias");
    if (bias) part.resize(part.size() - 5);
    const bool one_of_three =
        c.family.norm == Norm::Layer && (part == "query" || part == "key" || part == "value");
    if (one_of_three && part != "query") continue;  // all three at once
    const std::string name = str(block_name(layer, part), bias ? ".bias" : ".weight");
    const bool moved = halves && (part == "query" || part == "key");
    const bool turned = conv && entry.tensor.shape().rank() == 2;
    if (!one_of_three && !moved && !turned) {
      out.add(name, entry.tensor);
      continue;
    }
    std::vector<float> values = entry.tensor.to_vector();
    Shape shape = entry.tensor.shape();
    if (one_of_three) {
      for (const char* other : {"key", "value"}) {
        const auto more =
            model.parameters()[str("blocks.", layer, ".", other, bias ? "_bias" : "")].to_vector();
        values.insert(values.end(), more.begin(), more.end());
      }
      shape = bias ? Shape{3 * c.channels} : Shape{3 * c.channels, c.channels};
    } else if (moved) {
      values = in_halves(values, shape[0], part == "query" ? c.heads : c.kv_heads);
    }
    if (turned) {
      values = transposed(values, shape[0]);
      shape = Shape{shape[1], shape[0]};
    }
    out.add(name, shape, std::move(values));
  }
  return out;
}

inline Json hugging_face_json(const TransformerConfig& c, const BpeVocabulary& v) {
  Json json;
  if (c.family.norm == Norm::Layer) {
    const Activation f = c.family.activation;
    json = {{"architectures", {"GPT2LMHeadModel"}},
            {"model_type", "gpt2"},
            {"n_positions", c.context},
            {"n_embd", c.channels},
            {"n_layer", c.layers},
            {"n_head", c.heads},
            {"n_inner", c.hidden},
            {"layer_norm_epsilon", c.norm_eps},
            {"activation_function", f == Activation::GeluErf ? "gelu"
                                    : f == Activation::Relu  ? "relu"
                                                             : "gelu_new"}};
  } else {
    const bool qwen = is_qwen2(c);
    Json rope = {{"rope_type", "default"}, {"rope_theta", c.rope_base}};
    if (c.rope_scaling != RopeScaling::None) {
      rope["rope_type"] = c.rope_scaling == RopeScaling::Linear ? "linear" : "llama3";
      rope["factor"] = c.rope_factor;
    }
    if (c.rope_scaling == RopeScaling::Llama3) {
      rope["low_freq_factor"] = c.rope_low;
      rope["high_freq_factor"] = c.rope_high;
      rope["original_max_position_embeddings"] = c.rope_original;
    }
    json = {{"architectures", {qwen ? "Qwen2ForCausalLM" : "LlamaForCausalLM"}},
            {"model_type", qwen ? "qwen2" : "llama"},
            {"max_position_embeddings", c.context},
            {"hidden_size", c.channels},
            {"num_hidden_layers", c.layers},
            {"num_attention_heads", c.heads},
            {"num_key_value_heads", c.kv_heads},
            {"intermediate_size", c.hidden},
            {"rms_norm_eps", c.norm_eps},
            {"hidden_act", "silu"},
            {"rope_theta", c.rope_base},  // older versions of transformers read these two,
            {"rope_scaling", c.rope_scaling == RopeScaling::None ? Json(nullptr) : rope},
            {"rope_parameters", rope}};  // newer ones this
  }
  if (c.family.projection_bias && c.family.gated) json["attention_bias"] = true;
  if (c.family.feed_forward_bias && c.family.gated) json["mlp_bias"] = true;
  json["vocab_size"] = c.vocab;
  json["tie_word_embeddings"] = c.tied_head;
  json["dtype"] = json["torch_dtype"] = "float32";
  json["bos_token_id"] = v.bos >= 0 ? Json(v.bos) : Json(nullptr);
  json["eos_token_id"] = v.eos >= 0 ? Json(v.eos) : Json(nullptr);
  return json;
}

/// The tokenizer as GGUF's metadata. DataError if llama.cpp has no name for how it splits words.
inline void add_gguf_tokenizer(GgufMetadata& m, const BpeVocabulary& v, Index vocab, Where where) {
  using Patterns = std::vector<std::string>;
  const char* pattern = v.patterns == Patterns{kGpt2Pattern}                  ? "gpt-2"
                        : v.patterns == Patterns{kDigitPattern, kGpt2Pattern} ? "smollm"
                        : v.patterns == Patterns{kLlama3Pattern}              ? "llama-bpe"
                        : v.patterns == Patterns{kQwen2Pattern}               ? "qwen2"
                                                                              : nullptr;
  check<DataError>(pattern != nullptr, "[gguf] the tokenizer's pattern has no name in GGUF", where);
  std::vector<std::string> tokens, merges;
  std::vector<std::int32_t> types;
  constexpr std::int32_t kNormal = 1, kControl = 3, kTyped = 4, kUnused = 5;
  for (std::size_t id = 0; id < static_cast<std::size_t>(vocab); ++id) {
    const bool there = id < v.tokens.size() && !v.tokens[id].empty();
    tokens.push_back(there ? ByteLetters().write(v.tokens[id]) : str("[PAD", id, "]"));
    types.push_back(there ? kNormal : kUnused);
  }
  for (const auto& added : v.added) {
    tokens[static_cast<std::size_t>(added.id)] = added.text;
    types[static_cast<std::size_t>(added.id)] = added.special ? kControl : kTyped;
  }
  for (const auto& merge : v.merges)
    merges.push_back(str(tokens[static_cast<std::size_t>(merge[0])], ' ',
                         tokens[static_cast<std::size_t>(merge[1])]));
  m.add("tokenizer.ggml.model", "gpt2");
  m.add("tokenizer.ggml.pre", pattern);
  m.add("tokenizer.ggml.tokens", std::span<const std::string>(tokens));
  m.add("tokenizer.ggml.token_type", std::span<const std::int32_t>(types));
  m.add("tokenizer.ggml.merges", std::span<const std::string>(merges));
  const auto id = [&](const char* key, std::int32_t token) {
    if (token >= 0) m.add(key, static_cast<std::uint32_t>(token));
  };
  id("tokenizer.ggml.bos_token_id", v.bos);
  id("tokenizer.ggml.eos_token_id", v.eos);
  m.add("tokenizer.ggml.add_bos_token", v.bos >= 0);
  m.add("tokenizer.ggml.add_space_prefix", v.space_first);
}

}  // namespace detail

/// Writes a Hugging Face folder: config.json, model.safetensors, the tokenizer and its settings.
/// DataError if the format cannot hold it.
template <class D>
void save_hugging_face(const std::string& folder, const Model<D>& model, const Language& language,
                       Where where = Where::here()) {
  detail::require_foreign(model, where);
  const BpeVocabulary& v = detail::bpe_of(language, where);
  const TransformerConfig& c = model.config();
  const std::string jinja = chat_template(language.chat, where);
  const bool gpt2 = c.family.norm == Norm::Layer;
  const auto name = [&](const std::string& layer, const std::string& part) {
    return detail::hugging_face_module(str("blocks.", layer, ".", part), gpt2);
  };
  const auto arrays =
      gpt2 ? detail::foreign_arrays(model, "transformer.wte.weight", "transformer.wpe.weight",
                                    "transformer.ln_f.weight", "transformer.ln_f.bias",
                                    "lm_head.weight", name, true, false)
           : detail::foreign_arrays(model, "model.embed_tokens.weight", "", "model.norm.weight", "",
                                    "lm_head.weight", name, false, true);
  if (!detail::is_folder(folder) && ::mkdir(folder.c_str(), 0777) != 0)
    detail::fail_io("make the folder", folder, errno, where);
  const auto put = [&](const char* file, const std::string& text) {
    write_atomically(detail::in_folder(folder, file), text, where);
  };
  put("config.json", detail::hugging_face_json(c, v).dump(2) + "\n");
  put("tokenizer.json", tokenizer_json(v));
  Json settings = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"model_max_length", c.context}};
  const auto token = [&](std::int32_t id) {
    return token_letters(v, static_cast<std::size_t>(id));
  };
  if (v.bos >= 0) settings["bos_token"] = token(v.bos);
  if (v.eos >= 0) settings["eos_token"] = token(v.eos);
  if (!jinja.empty()) settings["chat_template"] = jinja;
  put("tokenizer_config.json", settings.dump(2) + "\n");
  put("generation_config.json",
      Json({{"eos_token_id", language.stops}, {"temperature", language.chat.temperature}}).dump(2) +
          "\n");
  write_safetensors(detail::in_folder(folder, "model.safetensors"), arrays.arrays,
                    {{"format", "pt"}}, where);
}

/// Writes a GGUF file, its matrices as `dtype` (F32, F16 or Q8_0; a matrix whose rows are no whole
/// blocks as F16), everything else as F32. DataError if the format cannot hold it.
template <class D>
void save_gguf(const std::string& path, const Model<D>& model, const Language& language,
               Dtype dtype = Dtype::F32, Where where = Where::here()) {
  detail::require_foreign(model, where);
  const BpeVocabulary& v = detail::bpe_of(language, where);
  const TransformerConfig& c = model.config();
  check<DataError>(c.rope_scaling != RopeScaling::Llama3 && c.family.activation != Activation::Relu,
                   "[gguf] rotary frequencies lowered as Llama 3's, or relu, are not written",
                   where);
  const bool gpt2 = c.family.norm == Norm::Layer, qwen = detail::is_qwen2(c);
  const std::string architecture = gpt2 ? "gpt2" : qwen ? "qwen2" : "llama";
  GgufMetadata m;
  const auto number = [&](const char* key, Index value) {
    m.add(str(architecture, ".", key), static_cast<std::uint32_t>(value));
  };
  m.add("general.architecture", architecture);
  m.add("general.name", "Plumb");
  number("context_length", c.context);
  number("embedding_length", c.channels);
  number("block_count", c.layers);
  number("feed_forward_length", c.hidden);
  number("attention.head_count", c.heads);
  number("attention.head_count_kv", c.kv_heads);
  number("vocab_size", c.vocab);
  m.add(str(architecture,
            gpt2 ? ".attention.layer_norm_epsilon" : ".attention.layer_norm_rms_epsilon"),
        c.norm_eps);
  if (!gpt2) {
    number("rope.dimension_count", c.head_size());
    m.add(str(architecture, ".rope.freq_base"), c.rope_base);
  }
  if (c.rope_scaling == RopeScaling::Linear) {
    m.add(str(architecture, ".rope.scaling.type"), "linear");
    m.add(str(architecture, ".rope.scaling.factor"), c.rope_factor);
  }
  detail::add_gguf_tokenizer(m, v, c.vocab, where);
  const std::string jinja = chat_template(language.chat, where);
  if (!jinja.empty()) m.add("tokenizer.chat_template", jinja);
  const auto name = [&](const std::string& layer, const std::string& part) {
    const bool three = gpt2 && part == "query";
    return str("blk.", layer, ".", three ? "attn_qkv" : detail::kGgufNames.find(part)->second);
  };
  const auto all = detail::foreign_arrays(model, "token_embd.weight", "position_embd.weight",
                                          "output_norm.weight", "output_norm.bias", "output.weight",
                                          name, false, qwen);
  std::vector<GgufArray> arrays;
  for (const NamedArray& array : all.arrays) {
    const bool matrix = array.shape.rank() == 2 && array.name != "position_embd.weight";
    const bool whole = matrix && array.shape[1] % 32 == 0;
    arrays.push_back({array, !matrix                          ? Dtype::F32
                             : dtype == Dtype::Q8_0 && !whole ? Dtype::F16
                                                              : dtype});
  }
  write_gguf(path, m, arrays, where);
}

}}  // namespace plumb::v0_1
