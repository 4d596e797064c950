// Byte-level BPE: the original implementations' ids of texts that are hard to split and of whole
// files, nothing lost on the way back, and files that do not fit refused by name.
// Golden file: tests/golden/make_tokenizers.py.
#include "support.hpp"
#include "temporary.hpp"

#include <plumb/core/random.hpp>
#include <plumb/data/packing.hpp>
#include <plumb/io/output.hpp>
#include <plumb/models/tokenizers.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace plumb;
using test::contains;
using test::message_of;

namespace {

const std::string kGolden = PLUMB_SOURCE_DIR "/tests/golden/";

Json originals() { return parse_json(read_file(kGolden + "tokenizers.json")); }

std::shared_ptr<const Tokenizer> gpt2() {
  return read_tokenizer(kGolden + "gpt2/encoder.json", 50257);
}

std::shared_ptr<const Tokenizer> small(const std::string& family) {
  return read_tokenizer(kGolden + "models/" + family, 320);
}

// The small tokenizer.json with some of its text replaced.
std::string opening_with(const std::string& from, const std::string& to) {
  const Temporary folder;
  std::string text = read_file(kGolden + "models/gpt2/tokenizer.json");
  const std::size_t at = text.find(from);
  REQUIRE(at != text.npos);
  write_atomically(folder / "tokenizer.json", text.replace(at, from.size(), to));
  return message_of<Error>([&] { read_tokenizer(folder / "tokenizer.json", 320); });
}

}  // namespace

TEST_CASE("ids are the original implementations', text by text") {
  const Json all = originals();
  const auto texts = all["texts"].get<std::vector<std::string>>();
  CHECK(all["ids"].size() == 7);
  for (const auto& item : all["ids"].items()) {
    const std::string& name = item.key();
    const Json& ids = item.value();
    const auto tokenizer = read_tokenizer(kGolden + name, name.starts_with("gpt2") ? 50257 : 320);
    for (std::size_t i = 0; i < texts.size(); ++i) {
      INFO(name, ": \"", texts[i], '"');
      const Tokens mine = tokenizer->encode(texts[i]);
      CHECK(mine == ids[i].get<Tokens>());
      // Nothing is lost, but where the tokenizer composes, or has no token.
      if (name != "models/qwen2" && name != "sparse") CHECK(tokenizer->decode(mine) == texts[i]);
    }
  }
}

TEST_CASE("two tokenizers in turn do not take each other's words") {
  const auto a = small("llama"), b = small("llama3");
  const std::string text = "There was a girl named Lily. There was a girl.";
  const Tokens first = a->encode(text), second = b->encode(text);
  CHECK(first != second);
  for (int i = 0; i < 3; ++i) {
    CHECK(a->encode(text) == first);
    CHECK(b->encode(text) == second);
  }
}

TEST_CASE("ids of whole files are the original's") {
  const auto tokenizer = gpt2();
  const Json files = originals()["files"];
  CHECK(files.size() == 6);
  for (const auto& item : files.items()) {
    const std::string& name = item.key();
    const Json& said = item.value();
    const std::string text = read_file(PLUMB_SOURCE_DIR "/examples/data/" + name);
    const Tokens ids = tokenizer->encode(text);
    std::uint64_t sum = 0;
    for (const std::int32_t id : ids) sum = sum * 1000003 + static_cast<std::uint64_t>(id) + 1;
    INFO(name);
    CHECK(ids.size() == said["count"].get<std::size_t>());
    CHECK(hex64(sum) == said["sum"].get<std::string>());
    CHECK(tokenizer->decode(ids) == text);
  }
}

TEST_CASE("no byte is lost, UTF-8 or not") {
  Rng rng(5);
  for (const char* family : {"gpt2", "llama", "llama3"}) {
    const auto tokenizer = small(family);
    for (int round = 0; round < 200; ++round) {
      std::string text;
      const auto size = static_cast<int>(rng.uniform() * 40);
      for (int i = 0; i < size; ++i) text += static_cast<char>(rng.uniform() * 256);
      CHECK(tokenizer->decode(tokenizer->encode(text)) == text);
    }
  }
}

TEST_CASE("a long word takes no square of its length") {
  const auto tokenizer = gpt2();
  const std::string word(1 << 20, 'a');
  const test::Spent time;
  CHECK(tokenizer->decode(tokenizer->encode(word)) == word);
  CHECK(time.within(20));
}

TEST_CASE("tiktoken's ranks give the same ids") {
  // GPT-2's own, written as ranks: a merge's token has the merge's place.
  const auto tokenizer = std::static_pointer_cast<const BpeTokenizer>(gpt2());
  static constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string ranks;
  for (std::size_t id = 0; id + 1 < tokenizer->vocabulary().tokens.size(); ++id) {
    const std::string& token = tokenizer->vocabulary().tokens[id];
    for (std::size_t at = 0; at < token.size(); at += 3) {
      const std::string_view three = std::string_view(token).substr(at, 3);
      std::uint32_t bits = 0;
      for (std::size_t k = 0; k < 3; ++k)
        bits = bits << 8 | (k < three.size() ? static_cast<unsigned char>(three[k]) : 0U);
      for (std::size_t k = 0; k < 4; ++k)
        ranks += k <= three.size() ? kDigits[bits >> (18 - 6 * k) & 63] : '=';
    }
    ranks += str(' ', id, '\n');
  }
  const Temporary folder;
  write_atomically(folder / "gpt2.tiktoken", ranks);
  const auto same = read_tokenizer(folder / "gpt2.tiktoken", 50257);
  const Json all = originals();
  for (std::size_t i = 0; i < all["texts"].size(); ++i)
    CHECK(same->encode(all["texts"][i].get<std::string>()) ==
          all["ids"]["gpt2/encoder.json"][i].get<Tokens>());
  write_atomically(folder / "few.tiktoken", ranks.substr(0, ranks.find('\n', 5000) + 1));
  CHECK(contains(message_of<Error>([&] { read_tokenizer(folder / "few.tiktoken", 50257); }),
                 "cl100k"));
}

TEST_CASE("special tokens are read in a form and written nowhere") {
  const auto tokenizer = small("llama");
  CHECK(tokenizer->encode_form("<|im_start|>user\n").front() == 1);
  const Tokens typed = tokenizer->encode("<|im_start|>");
  CHECK(typed.size() > 5);
  CHECK(tokenizer->decode(typed) == "<|im_start|>");
  CHECK(tokenizer->decode(std::vector<std::int32_t>{1, 2, 0}).empty());
  CHECK(tokenizer->special_at("<|im_end|> x") == 10);
  CHECK(tokenizer->special_at(" <|im_end|>") == 0);
  CHECK_THROWS_AS(tokenizer->decode(std::vector<std::int32_t>{320}), DataError);
}

TEST_CASE("a model may have more tokens than its tokenizer, never fewer") {
  const auto more = read_tokenizer(kGolden + "models/llama", 400);
  CHECK(more->vocab() == 400);
  CHECK(more->decode(std::vector<std::int32_t>{399, 70}) ==
        more->decode(std::vector<std::int32_t>{70}));
  CHECK(contains(message_of<Error>([] { read_tokenizer(kGolden + "models/llama", 300); }), "300"));
}

TEST_CASE("a tokenizer.json that asks for what is unknown is refused by name") {
  CHECK(opening_with("\"BPE\"", "\"BPE\"").empty());
  CHECK(contains(opening_with("\"type\":\"BPE\"", "\"type\":\"WordPiece\""), "WordPiece"));
  CHECK(contains(
      opening_with("\"type\":\"ByteLevel\",\"add_prefix", "\"type\":\"Metaspace\",\"add_prefix"),
      "Metaspace"));
  CHECK(contains(opening_with("\"normalizer\":null", "\"normalizer\":{\"type\":\"Lowercase\"}"),
                 "Lowercase"));
  CHECK(contains(opening_with("\"dropout\":null", "\"dropout\":0.1"), "dropout"));
  CHECK(contains(opening_with("\"id\":0", "\"id\":4000000000"), "4000000000"));
  CHECK(contains(opening_with("\"merges\":[", "\"merges\":[\"zz qq\","), "merge 0"));
  CHECK(contains(opening_with("\"merges\":[", "\"merges\":[7,"), "merge 0"));
  CHECK(contains(opening_with(R"("pre_tokenizer":)",
                              R"("pre_tokenizer":{"type":"Sequence","pretokenizers":[)"
                              R"({"type":"Split","behavior":"Isolated","pattern":{"Regex":"a(b"}},)"
                              R"({"type":"ByteLevel"}]},"was":)"),
                 R"(tokenizer.json: "a(b" is no regular expression)"));
}

TEST_CASE("a pattern that is none is refused with its place") {
  CHECK(contains(message_of<DataError>([] { Pattern("a(b"); }), "(at 3)"));
}
