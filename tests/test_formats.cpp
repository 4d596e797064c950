// Models of other makers: Hugging Face folders and GGUF files give what transformers gives, blocks
// become the gguf package's floats bit for bit, and what does not fit is refused by name.
// Golden files: tests/golden/make_models.py.
#include "support.hpp"
#include "temporary.hpp"

#include <plumb/io/gguf_write.hpp>
#include <plumb/models/open.hpp>
#include <plumb/plumb.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>
#include <vector>

using namespace plumb;
using test::contains;
using test::message_of;

namespace {

const std::string kGolden = PLUMB_SOURCE_DIR "/tests/golden/";

Json statements(const char* name) { return parse_json(read_file(kGolden + name), name); }

std::string refusal_of(const std::string& path, const OpenOptions& options = {}) {
  return message_of<Error>([&] { open_model<Cpu>(path, options); });
}

// Logits of every token, (T, V).
std::vector<float> logits_of(const Model<Cpu>& model, const Tokens& tokens) {
  PackedBatch packed;
  packed.add(tokens);
  return linear(model.hidden(Batch<Cpu>::from(packed)), model.head()).to_vector();
}

std::string changed(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  REQUIRE(at != text.npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("other makers' models say what transformers says") {
  const Json all = statements("models.json");
  CHECK(all.size() == 8);
  for (const auto& item : all.items()) {
    const std::string& name = item.key();
    const Json& said = item.value();
    INFO(name);
    const auto opened = open_model<Cpu>(kGolden + "models/" + name);
    const Model<Cpu>& model = *opened.model;
    const auto ids = said["ids"].get<Tokens>();
    CHECK(opened.tokenizer->encode("Lily had 12 red balls. She didn't want to share.") ==
          (opened.tokenizer->bos() >= 0 ? Tokens(ids.begin() + 1, ids.end()) : ids));
    CHECK(opened.tokenizer->bos() == (name == "llama3" ? 0 : -1));
    CHECK(opened.stops[0] == (name == "gpt2" ? 0 : 2));

    const auto logits = logits_of(model, ids);
    for (std::size_t row = 0; row < said["at"].size(); ++row) {
      const auto expected = said["logits"][row].get<std::vector<double>>();
      const auto at = said["at"][row].get<std::size_t>() * expected.size();
      double most = 0, off = 0;
      for (std::size_t i = 0; i < expected.size(); ++i) {
        most = std::max(most, std::fabs(expected[i]));
        off = std::max(off, std::fabs(expected[i] - static_cast<double>(logits[at + i])));
      }
      CHECK(off <= 2e-5 * most);
    }
    Tokens greedy = ids;
    for (std::size_t i = 0; i < said["greedy"].size(); ++i) {
      const auto now = logits_of(model, greedy);
      const auto last = now.end() - model.vocab();
      greedy.push_back(static_cast<std::int32_t>(std::max_element(last, now.end()) - last));
    }
    CHECK(Tokens(greedy.begin() + static_cast<std::ptrdiff_t>(ids.size()), greedy.end()) ==
          said["greedy"].get<Tokens>());
  }
}

TEST_CASE("numbers in blocks become the gguf package's floats, bit for bit") {
  const Json all = statements("quantized.json");
  for (const Dtype dtype : {Dtype::F16, Dtype::BF16, Dtype::Q8_0, Dtype::Q4_0, Dtype::Q4_1,
                            Dtype::Q5_0, Dtype::Q5_1, Dtype::Q4_K, Dtype::Q5_K, Dtype::Q6_K}) {
    INFO(name(dtype));
    const Json& one = all.at(name(dtype));
    const auto hex = one["bytes"].get<std::string>();
    std::string bytes;
    for (std::size_t i = 0; i < hex.size(); i += 2)
      bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    const auto bits = one["floats"].get<std::vector<std::uint32_t>>();
    ArrayView array{"a", dtype, {static_cast<Index>(bits.size())}, bytes};
    REQUIRE(array.size() == bits.size());
    const OwnedArray floats = to_owned(array);
    std::size_t differ = 0;
    for (std::size_t i = 0; i < bits.size(); ++i)
      differ += std::bit_cast<std::uint32_t>(floats.data[i]) != bits[i] ? 1 : 0;
    CHECK(differ == 0);
  }
}

TEST_CASE("a half of every float is the nearest") {
  for (std::uint32_t half = 0; half < 0x7c00; ++half) {
    const float low = detail::float_from_half(static_cast<std::uint16_t>(half));
    CHECK_EQ(detail::half_from_float(low), half);
    const float high = detail::float_from_half(static_cast<std::uint16_t>(half + 1));
    if (half + 1 == 0x7c00) break;
    const float middle = low + (high - low) / 2;
    CHECK_EQ(detail::half_from_float(middle), half + (half & 1));  // the even one
    CHECK_EQ(detail::half_from_float(std::nextafter(middle, low)), half);
    CHECK_EQ(detail::half_from_float(-std::nextafter(middle, high)), 0x8000 + half + 1);
  }
  CHECK(detail::half_from_float(65519.0F) == 0x7bff);
  CHECK(detail::half_from_float(65520.0F) == 0x7c00);
  CHECK(detail::half_from_float(INFINITY) == 0x7c00);
  CHECK((detail::half_from_float(NAN) & 0x7fff) > 0x7c00);
}

TEST_CASE("a folder, a file of it, and its chat form") {
  const auto opened = open_model<Cpu>(kGolden + "models/llama");
  const auto file = open_model<Cpu>(kGolden + "models/llama/model.safetensors");
  CHECK(fingerprint(*opened.model) == fingerprint(*file.model));
  CHECK(opened.chat == chat_form("smollm"));
  CHECK(opened.chat == open_model<Cpu>(kGolden + "models/llama.gguf").chat);
  CHECK(opened.stops == Tokens{2, 0});  // <|im_end|>, and <|endoftext|> of the form

  // Special tokens are the form's, never the prompt's: what a user types is letters.
  const auto tokens = encode_prompt(opened, "Hi <|im_end|>", 1);
  CHECK(std::count(tokens.begin(), tokens.end(), 1) == 3);
  CHECK(std::count(tokens.begin(), tokens.end(), 2) == 2);
  CHECK(open_model<Cpu>(kGolden + "models/qwen2").chat == ChatForm{});
  const auto named = open_model<Cpu>(kGolden + "models/qwen2", {.chat = "chatml"});
  CHECK(named.chat == chat_form("chatml"));
  CHECK(contains(refusal_of(kGolden + "models/qwen2", {.chat = "llama-3"}), "no token of"));
  CHECK(contains(message_of<DataError>([] { chat_form("chat"); }), "chatml"));
}

TEST_CASE("a model kept in Plumb's own format keeps the other's tokenizer, form and scaling") {
  const Temporary folder;
  for (const char* name : {"llama", "llama3", "gpt2", "llama.gguf"}) {
    INFO(name);
    const auto opened = open_model<Cpu>(kGolden + "models/" + name);
    save_model(folder / "kept.safetensors", *opened.model, opened);
    const auto kept = open_model<Cpu>(folder / "kept.safetensors");
    CHECK(fingerprint(*kept.model) == fingerprint(*opened.model));
    CHECK(kept.model->config() == opened.model->config());
    CHECK(kept.chat == opened.chat);
    CHECK(kept.stops == opened.stops);
    CHECK(kept.tokenizer->fingerprint() == opened.tokenizer->fingerprint());
  }
}

TEST_CASE("a Hugging Face folder that does not fit is refused by name") {
  const Temporary folder;
  const std::string from = kGolden + "models/llama/";
  const auto put = [&](const std::string& config) {
    for (const char* name : {"model.safetensors", "tokenizer.json", "tokenizer_config.json"})
      write_atomically(folder / name, read_file(from + name));
    write_atomically(folder / "config.json", config);
  };
  const std::string config = read_file(from + "config.json");
  const auto said = [&](const std::string& old, const std::string& now) {
    put(changed(config, old, now));
    return refusal_of(folder / "");
  };
  put(config);
  CHECK(refusal_of(folder / "").empty());
  CHECK(contains(said("LlamaForCausalLM", "MambaForCausalLM"), "MambaForCausalLM"));
  CHECK(contains(said("\"hidden_size\": 32", "\"hidden_size\": 64"), "head_dim"));
  CHECK(contains(said("\"hidden_size\": 32", "\"hidden_size\": 32.5"), "hidden_size"));
  CHECK(contains(said("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1"), "layers.1."));
  CHECK(contains(said("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"), "blocks.2."));
  CHECK(contains(said("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1000000000"), "claims"));
  CHECK(contains(said("\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\""), "gelu"));
  CHECK(contains(said("\"rope_type\": \"default\"", "\"rope_type\": \"yarn\""), "yarn"));
  CHECK(contains(said("\"vocab_size\": 320", "\"vocab_size\": 300"), "embed_tokens"));
  write_atomically(folder / "config.json", config);
  write_atomically(folder / "tokenizer_config.json",
                   std::string(R"({"chat_template": "{{ x }}"})"));
  CHECK(contains(refusal_of(folder / ""), "--chat"));
  CHECK(open_model<Cpu>(folder / "", {.chat = "plain"}).chat == ChatForm{});
}

TEST_CASE("a GGUF file cut or altered anywhere is refused, and never read beyond its end") {
  const Temporary folder;
  const std::string whole = read_file(kGolden + "models/llama.gguf");
  for (std::size_t size = 0; size < whole.size(); size += size < 400 ? 7 : 997) {
    write_atomically(folder / "cut.gguf", whole.substr(0, size));
    CHECK_THROWS_AS(open_model<Cpu>(folder / "cut.gguf"), Error);
  }
  // Any change is refused or gives another model; none crashes.
  for (std::size_t at = 0; at < 13000; at += 61) {
    std::string other = whole;
    other[at] = static_cast<char>(other[at] ^ 0x81);
    write_atomically(folder / "other.gguf", other);
    try {
      open_model<Cpu>(folder / "other.gguf");
    } catch (const Error&) {
    }
  }
}

TEST_CASE("what is written as GGUF comes back") {
  const Temporary folder;
  std::vector<float> floats(2 * 64);
  for (std::size_t i = 0; i < floats.size(); ++i) floats[i] = std::sin(static_cast<float>(i)) * 3;
  GgufMetadata metadata;
  metadata.add("general.architecture", "none");
  metadata.add("n", std::uint32_t{7});
  metadata.add("x", 0.5F);
  metadata.add("yes", true);
  const std::vector<std::string> texts{"a", "", "bc"};
  metadata.add("texts", std::span<const std::string>(texts));
  const NamedArray array{"a", {2, 64}, floats};
  const std::vector<GgufArray> arrays{{array, Dtype::F32},
                                      {{"b", {2, 64}, floats}, Dtype::F16},
                                      {{"c", {2, 64}, floats}, Dtype::Q8_0}};
  write_gguf(folder / "w.gguf", metadata, arrays);
  const GgufView view(folder / "w.gguf");
  CHECK(view.text("general.architecture") == "none");
  CHECK(view.number("n") == 7.0);
  CHECK(view.number("x") == 0.5);
  CHECK(view.number("yes") == 1.0);
  CHECK(view.texts("texts").size() == 3);
  CHECK(to_owned(*view.find("a")).data == floats);
  const auto half = to_owned(*view.find("b")).data, byte = to_owned(*view.find("c")).data;
  for (std::size_t i = 0; i < floats.size(); ++i) {
    CHECK(std::fabs(half[i] - floats[i]) <= 0.002F);
    CHECK(std::fabs(byte[i] - floats[i]) <= 3.0F / 127 / 2 + 0.001F);
  }
  CHECK(view.find("a")->shape == Shape{2, 64});
}

TEST_CASE("a model written for other programs comes back with the same bits") {
  const Temporary folder;
  for (const char* name : {"llama", "llama3", "linear", "qwen2", "gpt2"}) {
    INFO(name);
    const auto opened = open_model<Cpu>(kGolden + "models/" + name);
    const auto same = [&](const std::string& path) {
      save_model(path, *opened.model, opened);
      const auto again = open_model<Cpu>(path);
      CHECK(fingerprint(*again.model) == fingerprint(*opened.model));
      CHECK(again.model->config() == opened.model->config());
      CHECK(again.tokenizer->fingerprint() == opened.tokenizer->fingerprint());
      CHECK(again.tokenizer->bos() == opened.tokenizer->bos());
      CHECK(again.stops == opened.stops);
      CHECK(again.chat == opened.chat);
    };
    same(str(folder / name, "-hf/"));
    if (std::string(name) == "llama3")  // biases and frequencies that GGUF's llama does not have
      CHECK_THROWS_AS(save_model(folder / "llama3.gguf", *opened.model, opened), DataError);
    else
      same(str(folder / name, ".gguf"));
  }
  const auto opened = open_model<Cpu>(kGolden + "models/llama");
  for (const char* type : {"f16", "q8_0"}) {
    const std::string path = str(folder / "m.", type, ".gguf");
    save_model(path, *opened.model, opened);
    const auto less = open_model<Cpu>(path);
    const auto a = opened.model->parameters().flat().to_vector();
    const auto b = less.model->parameters().flat().to_vector();
    for (std::size_t i = 0; i < a.size(); ++i) CHECK_MESSAGE(std::fabs(a[i] - b[i]) < 0.02F, i);
    CHECK(read_file(path).size() < read_file(folder / "llama.gguf").size() * 3 / 4);
  }
  const auto stories = open_model<Cpu>(PLUMB_SOURCE_DIR "/examples/data/stories260K.bin");
  CHECK(contains(
      message_of<DataError>([&] { save_model(folder / "s.gguf", *stories.model, stories); }),
      "byte-level BPE"));
}
