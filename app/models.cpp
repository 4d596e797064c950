#include "models.hpp"

#include <plumb/data/jsonl.hpp>
#include <plumb/io/llama.hpp>
#include <plumb/text/bytes.hpp>
#include <plumb/text/sentencepiece.hpp>

#include <sys/stat.h>
#include <unistd.h>

namespace plumb { inline namespace v0_1 {

namespace {

Json config_json(const TransformerConfig& c) {
  return {{"family", c.family == Family::Gpt2 ? "gpt2" : "llama"},
          {"vocab", c.vocab},
          {"context", c.context},
          {"channels", c.channels},
          {"layers", c.layers},
          {"heads", c.heads},
          {"kv_heads", c.kv_heads},
          {"hidden", c.hidden},
          {"tied_head", c.tied_head},
          {"norm_eps", c.norm_eps},
          {"rope_base", c.rope_base}};
}

TransformerConfig config_from(const Json& j) {
  TransformerConfig c;
  c.family = j.at("family") == "gpt2" ? Family::Gpt2 : Family::Llama;
  c.vocab = j.at("vocab");
  c.context = j.at("context");
  c.channels = j.at("channels");
  c.layers = j.at("layers");
  c.heads = j.at("heads");
  c.kv_heads = j.at("kv_heads");
  c.hidden = j.at("hidden");
  c.tied_head = j.at("tied_head");
  c.norm_eps = j.at("norm_eps");
  c.rope_base = j.at("rope_base");
  return c;
}

std::shared_ptr<const Tokenizer> open_tokenizer(const std::string& path, Index vocab) {
  if (path.empty() || path == "bytes") {
    if (vocab != 256)
      fail<DataError>(str("[model] the byte tokenizer has 256 tokens, the model ", vocab,
                          ". HINT: name the model's tokenizer with --tokenizer"));
    return std::make_shared<ByteTokenizer>();
  }
  return std::make_shared<SentencePieceTokenizer>(path, vocab);
}

bool exists(const std::string& path) {
  struct stat status = {};
  return ::stat(path.c_str(), &status) == 0;
}

std::string beside(const std::string& path, const char* name) {
  const auto slash = path.rfind('/');
  return (slash == std::string::npos ? std::string() : path.substr(0, slash + 1)) + name;
}

Loaded load_llama(const std::string& path, std::string tokenizer) {
  const LlamaFile file = read_llama(path);
  TransformerConfig c;
  c.vocab = file.vocab;
  c.context = file.context;
  c.channels = file.channels;
  c.layers = file.layers;
  c.heads = file.heads;
  c.kv_heads = file.kv_heads;
  c.hidden = file.hidden;
  c.tied_head = file.tied;
  if (tokenizer.empty()) tokenizer = beside(path, "tok512.bin");
  if (tokenizer != "bytes" && !exists(tokenizer))
    fail<IoError>(str("[model] there is no tokenizer ", tokenizer, " for ", path,
                      ". HINT: name it with --tokenizer"));
  Loaded loaded{std::make_shared<DeviceModel>(c, 0), open_tokenizer(tokenizer, c.vocab), tokenizer,
                path};
  load_parameters(*loaded.model, Checkpoint{{}, file.arrays});
  return loaded;
}

Loaded load_checkpoint(const std::string& path, std::string tokenizer) {
  const Checkpoint checkpoint = read_checkpoint(path);
  const auto said = [&](const char* key) {
    const auto found = checkpoint.metadata.find(key);
    if (found == checkpoint.metadata.end())
      fail<DataError>(str("[model] ", path, " says no '", key, "': it is not a model"));
    return found->second;
  };
  TransformerConfig config;
  try {
    config = config_from(parse_json(said("model"), path + ": its configuration"));
  } catch (const Json::exception& e) {
    fail<DataError>(str("[model] ", path, ": its configuration is malformed: ", e.what()));
  }
  const std::string head = said("head");
  const ScalarHead kind = head == "reward"  ? ScalarHead::Reward
                          : head == "value" ? ScalarHead::Value
                                            : ScalarHead::None;
  if (tokenizer.empty()) tokenizer = said("tokenizer");
  Loaded loaded{std::make_shared<DeviceModel>(config, 0, kind),
                open_tokenizer(tokenizer, config.vocab), tokenizer, path};
  const std::string made_with = said("tokenizer_fingerprint");
  if (made_with != hex64(loaded.tokenizer->fingerprint()))
    fail<DataError>(str("[model] ", path, " was made with another tokenizer (fingerprint ",
                        made_with, ", ", tokenizer, " has ", hex64(loaded.tokenizer->fingerprint()),
                        "). HINT: name the right one with --tokenizer"));
  load_parameters(*loaded.model, checkpoint);
  return loaded;
}

}  // namespace

std::string data_path(const std::string& name) {
  std::string program(4096, '\0');
  const ssize_t length = ::readlink("/proc/self/exe", program.data(), program.size());
  program.resize(length > 0 ? static_cast<std::size_t>(length) : 0);
  std::string installed = beside(program, PLUMB_DATA_FROM_PROGRAM "/") + name;
  return exists(installed) ? installed : PLUMB_SOURCE_DIR "/examples/data/" + name;
}

Loaded load_model(const std::string& path, const std::string& tokenizer) {
  return path.ends_with(".safetensors") ? load_checkpoint(path, tokenizer)
                                        : load_llama(path, tokenizer);
}

Loaded new_model(const TransformerConfig& config, const std::string& tokenizer,
                 std::uint64_t seed) {
  return {std::make_shared<DeviceModel>(config, seed), open_tokenizer(tokenizer, config.vocab),
          tokenizer, "new"};
}

void save_model(const std::string& path, const DeviceModel& model, const Loaded& like,
                std::vector<OwnedArray> more, std::map<std::string, std::string> metadata) {
  const TransformerConfig& c = model.config();
  if (path.ends_with(".bin")) {
    check<DataError>(c.family == Family::Llama && c.rope_base == 10000.0F && c.norm_eps == 1e-5F,
                     "[model] llama2.c's format holds the Llama family only. HINT: name a "
                     ".safetensors file");
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
    return write_llama(path, file);
  }
  auto arrays = parameter_arrays(model);
  arrays.insert(arrays.end(), more.begin(), more.end());
  metadata["model"] = config_json(c).dump();
  metadata["head"] = model.head_kind() == ScalarHead::Reward  ? "reward"
                     : model.head_kind() == ScalarHead::Value ? "value"
                                                              : "none";
  metadata["tokenizer"] = like.tokenizer_path;
  metadata["tokenizer_fingerprint"] = hex64(like.tokenizer->fingerprint());
  write_checkpoint(path, views(arrays), metadata);
}

std::vector<OwnedArray> parameter_arrays(const DeviceModel& model, const std::string& prefix) {
  std::vector<OwnedArray> arrays;
  for (const auto& entry : model.parameters().entries())
    arrays.push_back({prefix + entry.name, entry.tensor.shape(), entry.tensor.to_vector()});
  return arrays;
}

void load_parameters(DeviceModel& model, const Checkpoint& checkpoint, const std::string& prefix) {
  for (const auto& entry : model.parameters().entries()) {
    const OwnedArray* array = checkpoint.find(prefix + entry.name);
    if (array == nullptr)
      fail<DataError>(str("[model] the file has no array '", prefix + entry.name, "'"));
    if (array->shape != entry.tensor.shape())
      fail<DataError>(str("[model] '", array->name, "' is ", array->shape, " in the file, ",
                          entry.tensor.shape(), " in the model"));
    copy_from_host(Device{}, entry.tensor.data(), array->data.data(), entry.tensor.bytes());
  }
}

std::string fingerprint(const DeviceModel& model) {
  Hash64 hash;
  for (const auto& entry : model.parameters().entries())
    hash.field(as_text(std::span<const float>(entry.tensor.to_vector())));
  return hex64(hash.value());
}

Tokens encode_prompt(const Loaded& loaded, const std::string& prompt, Index room) {
  Tokens tokens;
  if (loaded.tokenizer->bos() >= 0) tokens.push_back(loaded.tokenizer->bos());
  const auto text = loaded.tokenizer->encode(prompt);
  tokens.insert(tokens.end(), text.begin(), text.end());
  const Index context = loaded.model->config().context;
  if (static_cast<Index>(tokens.size()) + room > context)
    fail<DataError>(str("[prompt] \"", prompt.substr(0, 40), "…\" has ", tokens.size(),
                        " tokens; with ", room, " new ones it exceeds the context of ", context,
                        ". HINT: shorten it, or ask for fewer new tokens"));
  return tokens;
}

std::string response_text(const Loaded& loaded, const Tokens& prompt, const Tokens& response) {
  Tokens all = prompt;
  const auto stops = loaded.tokenizer->stops();
  for (const std::int32_t token : response)
    if (std::find(stops.begin(), stops.end(), token) == stops.end()) all.push_back(token);
  const std::string before = loaded.tokenizer->decode(prompt);
  return loaded.tokenizer->decode(all).substr(before.size());
}

Tokens encode_pair(const Loaded& loaded, const std::string& prompt, const std::string& response,
                   bool finished) {
  const auto context = static_cast<std::size_t>(loaded.model->config().context);
  const std::int32_t bos = loaded.tokenizer->bos();
  const auto before = loaded.tokenizer->encode(prompt).size();
  Tokens tokens = loaded.tokenizer->encode(prompt + response);
  const std::size_t extra = (bos >= 0 ? 1U : 0U) + (finished ? 1U : 0U);
  if (tokens.size() + extra > context) {
    const std::size_t over = tokens.size() + extra - context;
    const std::size_t front = std::min(over, std::min(before, tokens.size()));
    tokens.erase(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(front));
    if (over > front) tokens.resize(tokens.size() - (over - front));
  }
  if (bos >= 0) tokens.insert(tokens.begin(), bos);
  if (finished) tokens.push_back(loaded.tokenizer->stops().front());
  return tokens;
}

RankedPrompt ranked_prompt(const Loaded& loaded, const Ranking& ranking) {
  RankedPrompt result;
  for (std::size_t i = 0; i < ranking.responses.size(); ++i) {
    const bool finished = ranking.finished.empty() || ranking.finished[i];
    result.sequences.push_back(encode_pair(loaded, ranking.prompt, ranking.responses[i], finished));
    result.lengths.push_back(static_cast<Index>(ranking.responses[i].size()));
    result.rank.push_back(ranking.rank[i]);
  }
  return result;
}

std::vector<Tokens> encode_stories(const Loaded& loaded, const std::vector<std::string>& stories) {
  std::vector<Tokens> sequences;
  for (const std::string& story : stories) {
    Tokens tokens = encode_pair(loaded, "", story, false);
    sequences.push_back(std::move(tokens));
  }
  return sequences;
}

}}  // namespace plumb::v0_1
