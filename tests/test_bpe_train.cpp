// Training a BPE vocabulary: the package tokenizers' result on the same texts, token for token, and
// a tokenizer that reads back. Golden file: tests/golden/make_bpe_train.py.
#include "support.hpp"
#include "temporary.hpp"

#include <plumb/data/packing.hpp>
#include <plumb/io/output.hpp>
#include <plumb/models/tokenizers.hpp>
#include <plumb/text/bpe_train.hpp>
#include <plumb/text/bpe_write.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace plumb;
using test::contains;
using test::message_of;

namespace {

BpeTrainConfig training_as(const Json& said) {
  BpeTrainConfig c;
  c.vocab = said["vocab"];
  c.min_frequency = said["min_frequency"];
  c.all_bytes = said["all_bytes"];
  for (const auto& [name, family] : choices(BpeFamily{}))
    if (said["words"] == name) c.words = family;
  c.special = {"<|endoftext|>", "<|im_start|>"};
  return c;
}

BpeVocabulary trained_on(std::string_view text, const BpeTrainConfig& config) {
  BpeTrainer trainer(config);
  while (!text.empty()) {
    const std::string_view line = text.substr(0, std::min(text.find('\n'), text.size() - 1) + 1);
    trainer.add(line);
    text.remove_prefix(line.size());
  }
  return trainer.train();
}

void check_equal(const BpeVocabulary& v, const Json& said) {
  INFO(said.dump());
  std::uint64_t sum = 0;
  for (const auto& merge : v.merges)
    for (const std::int32_t id : merge) sum = sum * 1000003 + static_cast<std::uint64_t>(id) + 1;
  CHECK(v.tokens.size() == said["tokens"].get<std::size_t>());
  CHECK(v.merges.size() == said["merges"].get<std::size_t>());
  CHECK(hex64(sum) == said["sum"].get<std::string>());
}

}  // namespace

TEST_CASE("BPE training: the package tokenizers' vocabulary") {
  const Json all = parse_json(read_file(PLUMB_SOURCE_DIR "/tests/golden/bpe_train.json"));
  std::string texts;
  for (const Json& name : all["files"]) {
    texts += read_file(PLUMB_SOURCE_DIR "/examples/data/" + name.get<std::string>());
    CHECK(texts.ends_with('\n'));
  }
  CHECK(all["trained"].size() == 12);
  for (const Json& said : all["trained"]) {
    if (test::sanitized() && said["vocab"] > 1000) continue;
    const test::Spent time;
    const BpeVocabulary v = trained_on(texts, training_as(said));
    MESSAGE(said["words"].get<std::string>(), ", ", v.tokens.size(),
            " tokens: ", static_cast<double>(texts.size()) / 1e6 / time.seconds(), " MB/s");
    check_equal(v, said);
  }
  for (const Json& said : all["of_text"])
    check_equal(trained_on(all["text"].get<std::string>(), training_as(said)), said);
}

TEST_CASE("BPE training: what was trained is written, read and encodes") {
  BpeTrainConfig config;
  config.vocab = 300;
  config.special = {"<|end|>"};
  const std::string text = "one two two three three three \xff <|end|>\n";
  const BpeVocabulary v = trained_on(text, config);
  CHECK(v.tokens.size() == 271);  // no pair is left
  const Temporary folder;
  write_atomically(folder / "tokenizer.json", tokenizer_json(v));
  // The package tokenizers looks for an added token's id there.
  CHECK(parse_json(tokenizer_json(v))["model"]["vocab"]["<|end|>"] == 0);
  const auto tokenizer = read_tokenizer(folder / "tokenizer.json", 271);
  CHECK(tokenizer->encode(" three").size() == 1);
  CHECK(tokenizer->encode_form("<|end|>") == Tokens{0});
  for (const std::string& any : {text, std::string("\0\x80\xf0", 3)})
    CHECK(tokenizer->decode(tokenizer->encode(any)) == any);
}

TEST_CASE("BPE training: the smallest vocabularies, and settings that make none") {
  BpeTrainConfig config;
  config.vocab = 1;
  CHECK(trained_on("abab", config).tokens.size() == 256);
  config.all_bytes = false;
  CHECK(trained_on("abab", config).tokens.size() == 2);
  CHECK(trained_on("", config).tokens.empty());
  config.vocab = 0;
  CHECK(contains(message_of<DataError>([&] { BpeTrainer{config}; }), "vocab"));
}
