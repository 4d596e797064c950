// Files of adapters: Plumb's own come back to the bit beside the weights that they were trained
// beside, and beside no others; PEFT's say with their model what PEFT says.
// Golden files: tests/golden/make_adapters.py.
#include "temporary.hpp"
#include "tiny.hpp"

#include <plumb/io/settings.hpp>
#include <plumb/models/open.hpp>

#include <doctest/doctest.h>

#include <sys/stat.h>

#include <cmath>
#include <memory>

using namespace plumb;
using namespace test;

namespace {

const std::string kAdapters = PLUMB_SOURCE_DIR "/tests/golden/adapters/";
const std::string kBases = PLUMB_SOURCE_DIR "/tests/golden/models/";

std::vector<float> last_logits(const Model<Cpu>& model, const Tokens& tokens) {
  PackedBatch packed;
  packed.add(tokens);
  const auto hidden = model.hidden(Batch<Cpu>::from(packed));
  return linear(hidden.rows(hidden.dim(0) - 1, hidden.dim(0)), model.head()).to_vector();
}

double far_apart(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0, most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    worst = std::max(worst, std::abs(double{a[i]} - double{b[i]}));
    most = std::max(most, std::abs(double{b[i]}));
  }
  return worst / most;
}

/// A golden model, frozen, with adapters that are not zero.
LanguageModel<Cpu> adapted_golden(const char* name, LoraConfig lora,
                                  ScalarHead head = ScalarHead::None) {
  auto opened = open_model<Cpu>(kBases + name);
  prepare_adapters(opened, lora);
  opened.model = trainable(opened, head, 3);
  for (const auto& entry : opened.model->parameters().entries()) {
    const auto noise = random_vector(entry.tensor.size(), entry.name.size(), 0.2F);
    for (std::size_t i = 0; i < noise.size(); ++i) entry.tensor.data()[i] += noise[i];
  }
  return opened;
}

const Tokens kText{5, 90, 17, 260, 33, 34, 8, 300, 2, 41};

}  // namespace

TEST_CASE("PEFT's adapters, with their model, say what PEFT says") {
  const Json all =
      parse_json(read_file(PLUMB_SOURCE_DIR "/tests/golden/adapters.json"), "adapters.json");
  CHECK(all.size() == 3);
  for (const auto& item : all.items()) {
    INFO(item.key());
    const auto opened = open_model<Cpu>(kAdapters + item.key());
    const auto logits = last_logits(*opened.model, item.value()["ids"].get<Tokens>());
    CHECK(far_apart(logits, item.value()["logits"].get<std::vector<float>>()) < 2e-5);
    // Without them it says something else.
    const auto bare = open_model<Cpu>(kBases + item.key());
    CHECK(far_apart(last_logits(*bare.model, kText), logits) > 1e-3);
  }
}

TEST_CASE("adapters written for PEFT are read as they were") {
  const Temporary folder;
  for (const char* name : {"llama", "qwen2"})
    for (const Index top : {0, 1}) {
      const auto opened = adapted_golden(name, {.rank = 3, .alpha = 5.0F, .top_layers = top});
      const std::string path = folder / (std::string("peft") + name + std::to_string(top));
      save_peft(path, *opened.model, opened);
      const auto again = open_model<Cpu>(path);
      CHECK(far_apart(last_logits(*again.model, kText), last_logits(*opened.model, kText)) < 1e-5);
      CHECK(
          same_bits(last_logits(*again.model, kText), last_logits(opened.model->merged(), kText)));
      const Json config = parse_json(read_file(path + "/adapter_config.json"), path);
      CHECK(config["r"] == 3);
      CHECK(config.contains("layers_to_transform") == (top == 1));
    }
  const auto gpt2 = adapted_golden("gpt2", {.rank = 3});
  CHECK(contains(message_of<DataError>([&] { save_peft(folder / "x", *gpt2.model, gpt2); }),
                 "are one layer in PEFT"));
}

TEST_CASE("Plumb's adapters: apart to the bit, merged, and beside the trunk of others") {
  const Temporary folder;
  for (const char* name : {"llama", "gpt2"})
    for (const Storage storage : {Storage::Float, Storage::Bf16}) {
      const auto opened =
          adapted_golden(name, {.rank = 3, .alpha = 5.0F, .frozen = storage}, ScalarHead::Value);
      const std::string path = folder / "policy.safetensors";
      save_model(path, *opened.model, opened);
      CHECK(read_file(path).size() < 100000);  // the adapters alone
      const auto expected = last_logits(*opened.model, kText);

      const auto apart = open_model<Cpu>(path, {.keep_adapters = true});
      CHECK(apart.model->transformer().lora() == opened.model->transformer().lora());
      CHECK(same_bits(last_logits(*apart.model, kText), expected));
      CHECK(fingerprint(apart) == fingerprint(opened));
      const auto merged = open_model<Cpu>(path);
      CHECK(!merged.model->transformer().is_frozen());
      CHECK(merged.model->head_kind() == ScalarHead::Value);
      CHECK(
          same_bits(last_logits(*merged.model, kText), last_logits(opened.model->merged(), kText)));

      // On a trunk that is in memory already.
      auto base = open_model<Cpu>(kBases + name);
      CHECK(!holds_adapters(base, path));
      prepare_adapters(base, {.rank = 3, .alpha = 5.0F, .frozen = storage});
      REQUIRE(holds_adapters(base, path));
      const auto beside = open_adapters(base, path);
      CHECK(same_bits(last_logits(*beside, kText), expected));
      CHECK(beside->head().data() == base.model->head().data());
    }
}

TEST_CASE("what adapters stand beside is found, and is what it was, or is refused") {
  const Temporary folder;
  const auto opened = adapted_golden("llama", {.rank = 2});
  const std::string path = folder / "a.safetensors";
  save_model(path, *opened.model, opened);
  const auto refusal = [&](const OpenOptions& options = {}) {
    return message_of<Error>([&] { open_model<Cpu>(path, options); });
  };
  CHECK(refusal(OpenOptions{.base = kBases + "llama"}).empty());
  CHECK(contains(refusal(OpenOptions{.base = kBases + "linear"}), "beside other weights"));
  CHECK(contains(refusal(OpenOptions{.base = folder / "none"}), "HINT: name it with --base"));
  // A file that stands beside itself.
  CHECK(contains(refusal(OpenOptions{.base = path}), "beside"));
  // Adapters beside adapters.
  auto second = open_model<Cpu>(path);
  prepare_adapters(second, {.rank = 2});
  second.model = trainable(second, ScalarHead::None, 9);
  const std::string upper = folder / "b.safetensors";
  save_model(upper, *second.model, second);
  CHECK(same_bits(last_logits(*open_model<Cpu>(upper).model, kText),
                  last_logits(*open_model<Cpu>(path).model, kText)));
  // Other formats have no place for adapters that stand apart.
  CHECK(
      contains(message_of<DataError>([&] { save_model(folder / "c.gguf", *opened.model, opened); }),
               "or merged()"));
}

TEST_CASE("what PEFT can say and Plumb does not compute is refused by name") {
  const Temporary folder;
  const std::string from = kAdapters + "llama/", to = folder / "peft";
  REQUIRE(::mkdir(to.c_str(), 0777) == 0);
  const std::string weights = read_file(from + "adapter_model.safetensors");
  const Json config = parse_json(read_file(from + "adapter_config.json"), from);
  const auto refusal = [&](const char* key, const Json& value) {
    Json other = config;
    other["base_model_name_or_path"] = kBases + "llama";
    if (*key != '\0') other[key] = value;
    write_atomically(to + "/adapter_config.json", other.dump());
    write_atomically(to + "/adapter_model.safetensors", weights);
    return message_of<Error>([&] { open_model<Cpu>(to); });
  };
  CHECK(refusal("", {}).empty());
  CHECK(contains(refusal("peft_type", "LOHA"), "peft_type is 'LOHA'"));
  CHECK(contains(refusal("use_dora", true), "sets use_dora"));
  CHECK(contains(refusal("modules_to_save", Json::array({"lm_head"})), "sets modules_to_save"));
  CHECK(contains(refusal("rank_pattern", Json{{"q_proj", 8}}), "sets rank_pattern"));
  CHECK(contains(refusal("bias", "all"), "trains biases"));
  CHECK(contains(refusal("r", 0), "rank r is no number"));
  CHECK(contains(refusal("r", "3"), "rank r is no number"));
  CHECK(contains(refusal("lora_alpha", Json()), "no number lora_alpha"));
  CHECK(contains(refusal("base_model_name_or_path", "org/a-model-elsewhere"),
                 "HINT: name it with --base"));
  CHECK(contains(refusal("base_model_name_or_path", kBases + "gpt2"), "belongs to no layer"));
}
