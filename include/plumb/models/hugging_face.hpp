// Hugging Face folders as models: config.json, safetensors (one file, or shards with an index), the
// tokenizer and what lies beside it. LlamaForCausalLM, Qwen2ForCausalLM and GPT2LMHeadModel.
//
// transformers turns rotary pairs D/2 apart: rows of queries and keys are moved to stand side by
// side, as Plumb has them; GPT-2's matrices are (inputs, outputs) there. Source: huggingface/
// transformers, models/{llama,qwen2,gpt2}/ configuration and modeling.
#pragma once

#include <plumb/io/safetensors.hpp>
#include <plumb/models/plumb_file.hpp>

#include <array>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace plumb { inline namespace v0_1 {

namespace detail {

/// Whether a folder's config.json is a model's: a run of Plumb has one, too.
inline bool is_hugging_face_folder(const std::string& folder, Where where) {
  return member(json_beside(folder, "config.json", where), "architectures") != nullptr;
}
/// A safetensors file is one of a Hugging Face folder if its configuration lies beside it.
inline bool is_hugging_face(const FileHead& head) {
  return is_safetensors(head) && head.bytes.find("plumb-checkpoint-") == head.bytes.npos &&
         is_hugging_face_folder(directory_of(head.path), Where::here());
}

/// config.json, read with its name in every complaint.
class HuggingFaceConfig {
 public:
  HuggingFaceConfig(const std::string& folder, Where where)
      : path_(in_folder(folder, "config.json")),
        where_(where),
        json_(parse_json(read_file(path_, where), shown(path_), where)) {}

  [[noreturn]] void bad(const std::string& what) const {
    fail<DataError>(str("[model] ", shown(path_), ": ", what), where_);
  }
  const Json* find(const char* key) const { return member(json_, key); }
  std::string text(const char* key) const { return text_of(find(key)); }
  bool truth(const char* key, bool otherwise) const { return true_in(json_, key, otherwise); }

  Index size(const char* key) const {
    if (find(key) == nullptr) bad(str("it says no '", key, "'"));
    return size(key, 0);
  }
  Index size(const char* key, Index otherwise) const {
    const Json* said = find(key);
    if (said == nullptr) return otherwise;
    if (!said->is_number_integer() || *said < 1 || *said > (1 << 30))
      bad(str("'", key, "' is ", said->dump().substr(0, 40), ", no size"));
    return said->get<Index>();
  }
  float real(const char* key, float otherwise) const { return real_in(json_, key, otherwise); }
  float real_in(const Json& object, const char* key, float otherwise) const {
    const Json* said = member(object, key);
    if (said == nullptr) return otherwise;
    if (!said->is_number()) bad(str("'", key, "' is no number"));
    return said->get<float>();
  }

 private:
  std::string path_;
  Where where_;
  Json json_;
};

inline void read_rope(TransformerConfig& c, const HuggingFaceConfig& said) {
  // Newer files keep all of it in one object, older ones the base beside the scaling.
  const Json* scaling = said.find("rope_parameters");
  if (scaling == nullptr) scaling = said.find("rope_scaling");
  c.rope_base = said.real("rope_theta", 10000.0F);
  if (scaling == nullptr) return;
  c.rope_base = said.real_in(*scaling, "rope_theta", c.rope_base);
  std::string kind = text_of(member(*scaling, "rope_type"));
  if (kind.empty()) kind = text_of(member(*scaling, "type"));
  if (kind.empty() || kind == "default") return;
  c.rope_factor = said.real_in(*scaling, "factor", 1.0F);
  if (kind == "linear") {
    c.rope_scaling = RopeScaling::Linear;
  } else if (kind == "llama3") {
    c.rope_scaling = RopeScaling::Llama3;
    c.rope_low = said.real_in(*scaling, "low_freq_factor", 1.0F);
    c.rope_high = said.real_in(*scaling, "high_freq_factor", 4.0F);
    const float original = said.real_in(*scaling, "original_max_position_embeddings", 8192.0F);
    if (!(original >= 1 && original <= (1 << 20))) said.bad("its original context is no size");
    c.rope_original = static_cast<Index>(original);
  } else {
    said.bad(
        str("its rotary scaling is '", shown(kind), "'; default, linear and llama3 can be opened"));
  }
}

inline TransformerConfig hugging_face_config(const HuggingFaceConfig& said) {
  std::string name;
  if (const Json* all = said.find("architectures"); all != nullptr && !all->empty())
    name = text_of(&(*all)[0]);
  TransformerConfig c;
  c.vocab = said.size("vocab_size");
  if (name == "GPT2LMHeadModel") {
    c.family = Family::Gpt2;
    c.context = said.size("n_positions");
    c.channels = said.size("n_embd");
    c.layers = said.size("n_layer");
    c.heads = c.kv_heads = said.size("n_head");
    c.hidden = said.size("n_inner", 4 * c.channels);
    c.norm_eps = said.real("layer_norm_epsilon", 1e-5F);
    const std::string f = said.text("activation_function");
    if (f == "gelu")
      c.family.activation = Activation::GeluErf;
    else if (f == "relu")
      c.family.activation = Activation::Relu;
    else if (!f.empty() && f != "gelu_new" && f != "gelu_pytorch_tanh")
      said.bad(str("its activation '", shown(f), "' is unknown; gelu_new, gelu, relu are known"));
    if (said.truth("scale_attn_by_inverse_layer_idx", false) ||
        !said.truth("scale_attn_weights", true))
      said.bad("it scales attention in a way of its own");
    c.tied_head = said.truth("tie_word_embeddings", true);
    return c;
  }
  if (name != "LlamaForCausalLM" && name != "Qwen2ForCausalLM")
    said.bad(str("its architecture is '", shown(name),
                 "'; LlamaForCausalLM, Qwen2ForCausalLM and GPT2LMHeadModel can be opened"));
  c.context = said.size("max_position_embeddings");
  c.channels = said.size("hidden_size");
  c.layers = said.size("num_hidden_layers");
  c.heads = said.size("num_attention_heads");
  c.kv_heads = said.size("num_key_value_heads", c.heads);
  c.hidden = said.size("intermediate_size");
  c.norm_eps = said.real("rms_norm_eps", 1e-6F);
  c.tied_head = said.truth("tie_word_embeddings", false);
  const std::string f = said.text("hidden_act");
  if (!f.empty() && f != "silu") said.bad(str("its activation '", shown(f), "' is not silu"));
  if (c.heads > 0 && said.size("head_dim", c.channels / c.heads) * c.heads != c.channels)
    said.bad(str("head_dim is ", said.size("head_dim"), ", not hidden_size / num_attention_heads"));
  if (name == "Qwen2ForCausalLM") {
    c.family = Family::Qwen2;
    if (said.truth("use_sliding_window", false)) said.bad("it attends to a sliding window");
  } else {
    c.family.qkv_bias = c.family.projection_bias = said.truth("attention_bias", false);
    c.family.feed_forward_bias = said.truth("mlp_bias", false);
  }
  read_rope(c, said);
  return c;
}

/// The arrays of a folder, whichever file each lies in.
class HuggingFaceArrays {
 public:
  HuggingFaceArrays(const std::string& folder, Where where) {
    const Json index = json_beside(folder, "model.safetensors.index.json", where);
    std::set<std::string> files;
    if (const Json* map = member(index, "weight_map"); map != nullptr && map->is_object()) {
      for (const auto& [array, file] : map->items()) {
        const std::string name = text_of(&file);
        if (name.empty() || name.find('/') != name.npos)
          fail<DataError>(str("[model] ", shown(folder), ": the index names a file '", shown(name),
                              "', which is none of the folder"),
                          where);
        files.insert(name);
      }
    } else {
      files.insert("model.safetensors");
    }
    for (const std::string& file : files) {
      files_.push_back(view_safetensors(in_folder(folder, file.c_str()), where));
      for (const ArrayView& array : files_.back().arrays)
        if (!arrays_.emplace(array.name, array).second)
          fail<DataError>(
              str("[model] ", shown(folder), ": two files have an array '", shown(array.name), "'"),
              where);
    }
  }

  const ArrayView* find(const std::string& name) const {
    const auto found = arrays_.find(name);
    return found == arrays_.end() ? nullptr : &found->second;
  }
  const std::map<std::string, ArrayView>& all() const { return arrays_; }

 private:
  std::vector<SafetensorsView> files_;
  std::map<std::string, ArrayView> arrays_;
};

/// What transformers calls a tensor, the parts of a block without .weight or .bias.
inline const TensorNames kLlamaNames{{"embedding", "embed_tokens.weight"},
                                     {"final_norm", "norm.weight"},
                                     {"norm1", "input_layernorm"},
                                     {"query", "self_attn.q_proj"},
                                     {"key", "self_attn.k_proj"},
                                     {"value", "self_attn.v_proj"},
                                     {"projection", "self_attn.o_proj"},
                                     {"norm2", "post_attention_layernorm"},
                                     {"gate", "mlp.gate_proj"},
                                     {"up", "mlp.up_proj"},
                                     {"down", "mlp.down_proj"}};
inline const TensorNames kGpt2Names{{"embedding", "wte.weight"},
                                    {"position_embedding", "wpe.weight"},
                                    {"final_norm", "ln_f.weight"},
                                    {"final_norm_bias", "ln_f.bias"},
                                    {"norm1", "ln_1"},
                                    {"query", "attn.c_attn"},
                                    {"key", "attn.c_attn"},
                                    {"value", "attn.c_attn"},
                                    {"projection", "attn.c_proj"},
                                    {"norm2", "ln_2"},
                                    {"up", "mlp.c_fc"},
                                    {"down", "mlp.c_proj"}};

/// What transformers calls the layer of a block's tensor, its bias or its norm, such as
/// model.layers.0.self_attn.q_proj; empty if the tensor is of no block.
inline std::string hugging_face_module(const std::string& name, bool gpt2) {
  const std::size_t dot = name.rfind('.');
  if (dot == name.npos) return {};
  std::string part = name.substr(dot + 1);
  if (part.ends_with("_bias")) part.resize(part.size() - 5);
  const TensorNames& names = gpt2 ? kGpt2Names : kLlamaNames;
  const auto known = names.find(part);
  if (known == names.end()) return {};
  return str(gpt2 ? "transformer.h." : "model.layers.", name.substr(7, dot - 7), ".",
             known->second);
}

/// How a block's tensor lies in its array there: of the source all but the array.
inline ArraySource hugging_face_layout(const std::string& name, const TransformerConfig& c,
                                       bool gpt2) {
  const std::string part = name.substr(name.rfind('.') + 1);
  const bool q = part.starts_with("query"), k = part.starts_with("key"),
             v = part.starts_with("value");
  ArraySource source;
  if (gpt2) {
    source.transposed = !part.ends_with("_bias") && !part.starts_with("norm");
    if (q || k || v) {
      source.first = q ? 0 : k ? c.channels : 2 * c.channels;
      source.rows = c.channels;
    }
  } else if (q || k) {
    source.halves = q ? c.heads : c.kv_heads;
  }
  return source;
}

/// Where transformers keeps the tensor of a name.
inline ArraySource hugging_face_source(const HuggingFaceArrays& arrays, const TransformerConfig& c,
                                       bool gpt2, const std::string& name) {
  if (name == "head") return {arrays.find("lm_head.weight")};
  const std::string trunk = gpt2 ? "transformer." : "model.";
  const auto find = [&](const std::string& theirs) {
    const ArrayView* array = arrays.find(theirs);
    // Of the trunk saved alone.
    return array != nullptr ? array : arrays.find(theirs.substr(trunk.size()));
  };
  if (name.find('.') == name.npos) {
    const TensorNames& names = gpt2 ? kGpt2Names : kLlamaNames;
    const auto known = names.find(name);
    return {known == names.end() ? nullptr : find(trunk + known->second)};
  }
  const std::string module = hugging_face_module(name, gpt2);
  if (module.empty()) return {};
  ArraySource source = hugging_face_layout(name, c, gpt2);
  source.array = find(module + (name.ends_with("_bias") ? ".bias" : ".weight"));
  return source;
}

/// The chat template of a folder, as text; empty if it says none.
inline std::string template_in(const std::string& folder, Where where) {
  if (const std::string file = in_folder(folder, "chat_template.jinja"); file_exists(file))
    return read_file(file, where);
  const Json settings = json_beside(folder, "tokenizer_config.json", where);
  const Json* said = member(settings, "chat_template");
  if (said != nullptr && said->is_array())
    for (const Json& one : *said)
      if (text_of(member(one, "name")) == "default") return text_of(member(one, "template"));
  return text_of(said);
}

template <class D>
LanguageModel<D> open_hugging_face(const std::string& path, const OpenOptions& options,
                                   Where where) {
  const std::string folder = is_folder(path) ? path : directory_of(path);
  const HuggingFaceConfig said(folder, where);
  const TransformerConfig c = hugging_face_config(said);
  const bool gpt2 = c.family.norm == Norm::Layer;
  const HuggingFaceArrays arrays(folder, where);
  const auto source = [&](const std::string& name) {
    return hugging_face_source(arrays, c, gpt2, name);
  };
  LanguageModel<D> opened;
  opened.model = model_for_arrays<D>(c, ScalarHead::None, arrays.all().size(), source, path, where);
  std::set<const ArrayView*> used;
  for (const auto& entry : opened.model->parameters().entries())
    used.insert(source(entry.name).array);
  for (const auto& [name, array] : arrays.all())
    // Masks and frequencies, which are made; and a tied head written out.
    if (!used.contains(&array) && !name.ends_with(".attn.bias") &&
        !name.ends_with(".attn.masked_bias") && !name.ends_with("rotary_emb.inv_freq") &&
        !(name == "lm_head.weight" && c.tied_head))
      said.bad(str("the array '", shown(name),
                   "' belongs to no part of such a model that Plumb "
                   "has"));
  if (options.tokenizer.empty())
    set_tokenizer(opened, read_tokenizer(folder, c.vocab, where), folder);
  else
    find_tokenizer(opened, path, {}, {}, c.vocab, options, where);
  if (options.chat.empty())
    set_chat_form(opened, recognised_form(template_in(folder, where), where), where);
  copy_arrays(*opened.model, source);
  return opened;
}

}  // namespace detail

template <class D>
constexpr ModelFormat<D> hugging_face_format() {
  return {"Hugging Face (config.json and safetensors)", detail::is_hugging_face,
          detail::open_hugging_face<D>};
}

}}  // namespace plumb::v0_1
