// SentencePiece: the original's ids of texts that are hard to normalise and of whole files, from
// its own files and from GGUF; what comes back; files that are damaged or ask for what is unknown.
// Golden file: tests/golden/make_pieces.py.
#include "support.hpp"
#include "temporary.hpp"

#include <plumb/core/random.hpp>
#include <plumb/data/packing.hpp>
#include <plumb/io/gguf_write.hpp>
#include <plumb/io/output.hpp>
#include <plumb/models/tokenizers.hpp>

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <vector>

using namespace plumb;
using test::contains;
using test::message_of;

namespace {

const std::string kPieces = PLUMB_SOURCE_DIR "/tests/golden/pieces/";

Json piece_originals() {
  return parse_json(read_file(PLUMB_SOURCE_DIR "/tests/golden/pieces.json"));
}

std::shared_ptr<const PieceTokenizer> pieces_of(const std::string& path, Index vocab = 700) {
  return std::dynamic_pointer_cast<const PieceTokenizer>(read_tokenizer(path, vocab));
}

// The text that the tokens of a whole sequence stand for.
std::string whole_text(const Tokenizer& tokenizer, Tokens ids) {
  ids.insert(ids.begin(), tokenizer.bos());
  return tokenizer.decode(ids);
}

std::string wire_field(int number, std::string_view bytes) {
  return str(static_cast<char>(number << 3 | 2), static_cast<char>(bytes.size()), bytes);
}
// A model of few pieces, with more fields behind them.
std::string two_pieces(const std::string& more = "") {
  return wire_field(1, wire_field(1, "<unk>") + "\x18\x02") +
         wire_field(1, wire_field(1, "a") + "\x18\x01") + more;
}
std::string complaint_about(const std::string& bytes) {
  return message_of<Error>([&] { PieceTokenizer(read_sentencepiece(bytes, "tiny.model"), 10); });
}

// Ids of one of the shipped files, and how fast they come.
void check_sum(const Tokenizer& tokenizer, const std::string& name, const Json& said) {
  const std::string text = read_file(PLUMB_SOURCE_DIR "/examples/data/" + name);
  const test::Spent time;
  const Tokens ids = tokenizer.encode(text);
  std::uint64_t sum = 0;
  for (const std::int32_t id : ids) sum = sum * 1000003 + static_cast<std::uint64_t>(id) + 1;
  if (text.size() > 1'000'000)
    MESSAGE(tokenizer.name(), ": ", static_cast<double>(text.size()) / time.seconds() / 1e6,
            " MB/s");
  CHECK(ids.size() == said["count"].get<std::size_t>());
  CHECK(hex64(sum) == said["sum"].get<std::string>());
}

}  // namespace

TEST_CASE("pieces: ids and texts are the original's") {
  const Json all = piece_originals();
  const auto texts = all["texts"].get<std::vector<std::string>>();
  CHECK(all["models"].size() == 3);
  for (const auto& item : all["models"].items()) {
    const auto tokenizer = pieces_of(kPieces + item.key());
    REQUIRE(tokenizer != nullptr);
    for (std::size_t i = 0; i < texts.size(); ++i) {
      INFO(item.key(), ": ", texts[i]);
      const Tokens mine = tokenizer->encode(texts[i]);
      CHECK(mine == item.value()["ids"][i].get<Tokens>());
      CHECK(whole_text(*tokenizer, mine) == item.value()["decoded"][i].get<std::string>());
      // Nothing is lost where nothing is normalised, but that ▁ is how a space is written.
      if (item.key() != "unigram.model" && !contains(texts[i], "\xE2\x96\x81"))
        CHECK(whole_text(*tokenizer, mine) == texts[i]);
    }
  }
}

TEST_CASE("pieces: ids of whole files are the original's") {
  const Json models = piece_originals()["models"];
  for (const auto& item : models.items()) {
    const auto tokenizer = pieces_of(kPieces + item.key());
    CHECK(item.value()["files"].size() == 6);
    for (const auto& file : item.value()["files"].items()) {
      INFO(item.key(), " ", file.key());
      check_sum(*tokenizer, file.key(), file.value());
    }
  }
}

TEST_CASE("pieces: a GGUF file gives the ids of the tokenizer.model that it was made of") {
  const Temporary folder;
  const Json all = piece_originals();
  for (const char* name : {"bpe", "unigram"}) {
    const bool unigram = std::string(name) == "unigram";
    const auto original = pieces_of(str(kPieces, name, ".model"));
    GgufMetadata m;
    std::vector<std::string> tokens;
    std::vector<float> scores;
    std::vector<std::int32_t> types;
    for (const auto& [text, score, kind] : original->vocabulary().pieces) {
      tokens.push_back(text);
      scores.push_back(static_cast<float>(score));
      types.push_back(static_cast<std::int32_t>(kind));
    }
    m.add("tokenizer.ggml.model", unigram ? "t5" : "llama");
    m.add("tokenizer.ggml.tokens", std::span<const std::string>(tokens));
    m.add("tokenizer.ggml.scores", std::span<const float>(scores));
    m.add("tokenizer.ggml.token_type", std::span<const std::int32_t>(types));
    m.add("tokenizer.ggml.bos_token_id", 1U);
    m.add("tokenizer.ggml.eos_token_id", 2U);
    if (unigram) {
      std::vector<std::int32_t> rules;
      for (const char c : original->vocabulary().rules)
        rules.push_back(static_cast<unsigned char>(c));
      m.add("tokenizer.ggml.precompiled_charsmap", std::span<const std::int32_t>(rules));
    }
    const std::string path = folder / "tokenizer.gguf";
    write_gguf(path, m, {});
    const auto same = pieces_of(path);
    REQUIRE(same != nullptr);
    CHECK(same->bos() == (unigram ? -1 : 1));
    CHECK(same->stops() == Tokens{2});
    const auto texts = all["texts"].get<std::vector<std::string>>();
    for (const std::string& text : texts) CHECK(same->encode(text) == original->encode(text));
  }
}

TEST_CASE("pieces: a tokenizer.json gives the package tokenizers' ids") {
  const Json all = piece_originals();
  CHECK(all["json"].size() == 4);
  for (const auto& item : all["json"].items()) {
    const auto tokenizer = pieces_of(kPieces + item.key());
    REQUIRE(tokenizer != nullptr);
    for (std::size_t i = 0; i < all["texts"].size(); ++i) {
      const Json& ids = item.value()["ids"][i];
      INFO(item.key(), ": ", all["texts"][i].dump());
      if (!ids.is_null())
        CHECK(tokenizer->encode(all["texts"][i].get<std::string>()) == ids.get<Tokens>());
    }
    for (const auto& file : item.value()["files"].items()) {
      INFO(item.key(), " ", file.key());
      check_sum(*tokenizer, file.key(), file.value());
    }
  }
  const auto llama = pieces_of(kPieces + "llama.json");
  CHECK(llama->encode_form("<s>x").front() == 1);
  for (const std::string& text : {std::string("a\xff\xfe z"), std::string("  Лily\0 你 ", 14)})
    CHECK(llama->decode(llama->encode(text)) == " " + text);
}

TEST_CASE("pieces: a tokenizer.json that asks for what is unknown is refused by name") {
  const auto opening = [](const char* file, const std::string& from, const std::string& to) {
    const Temporary folder;
    std::string text = read_file(kPieces + file);
    const std::size_t at = text.find(from);
    REQUIRE(at != text.npos);
    write_atomically(folder / "tokenizer.json", text.replace(at, from.size(), to));
    return message_of<Error>([&] { read_tokenizer(folder / "tokenizer.json", 700); });
  };
  CHECK(opening("llama.json", "\"BPE\"", "\"BPE\"").empty());
  CHECK(contains(opening("llama.json", "\"Prepend\"", "\"Lowercase\""), "Lowercase"));
  CHECK(contains(opening("llama-later.json", "\"Metaspace\"", "\"Punctuation\""), "Punctuation"));
  CHECK(contains(opening("llama.json", "\"dropout\":null", "\"dropout\":0.5"), "dropout"));
  CHECK(contains(opening("llama.json", "\"merges\":[", "\"merges\":[[\"q\",\"qq\"],"), "merge 0"));
  CHECK(contains(opening("llama.json", "\"merges\":[", "\"merges\":[7,"), "merge 0"));
  CHECK(contains(opening("llama.json", "\"id\":0", "\"id\":4000000000"), "4000000000"));
  CHECK(contains(opening("t5.json", "\"unk_id\":0", "\"unk_id\":9999"), "9999"));
  CHECK(contains(opening("t5.json", "\"precompiled_charsmap\":\"", "\"precompiled_charsmap\":\"?"),
                 "base64"));
  CHECK(
      contains(opening("t5-later.json", "\"strip_right\":true", "\"strip_right\":false"), "Strip"));
}

TEST_CASE("pieces: what is no UTF-8 is repaired, as in the original") {
  const auto tokenizer = pieces_of(kPieces + "bpe.model");
  const auto repaired = [&](std::string_view text) {
    return whole_text(*tokenizer, tokenizer->encode(text));
  };
  CHECK(repaired("a\xff z") == "a\xEF\xBF\xBD z");
  CHECK(repaired("\xe2\x96") == "\xEF\xBF\xBD\xEF\xBF\xBD");
  CHECK(repaired(std::string("a\0b", 3)) == std::string("a\0b", 3));
  Rng rng(7);
  for (int round = 0; round < 200; ++round) {
    std::string text;
    for (auto size = static_cast<int>(rng.uniform() * 40); size > 0; --size)
      text += static_cast<char>(rng.uniform() * 256);
    CHECK(is_utf8(repaired(text)));
  }
}

TEST_CASE("pieces: a response keeps its space, a text that goes on gets none") {
  const auto tokenizer = pieces_of(kPieces + "bpe.model");
  const Tokens ids = tokenizer->encode("Once upon");
  CHECK(tokenizer->decode(ids) == " Once upon");
  CHECK(whole_text(*tokenizer, ids) == "Once upon");
  CHECK(tokenizer->encode_more(" Once upon") == ids);
  CHECK(tokenizer->decode(tokenizer->encode_more("nce")) == "nce");
  CHECK(tokenizer->encode_form("</s>x").front() == tokenizer->eos());
  CHECK(tokenizer->encode("</s>x").front() != tokenizer->eos());
  CHECK(tokenizer->special_at("<|end|> x") == 7);
  CHECK(tokenizer->decode(Tokens{1, 2}).empty());
  CHECK(tokenizer->decode(Tokens{0}) == " \xE2\x81\x87 ");
  CHECK(tokenizer->fingerprint() == pieces_of(kPieces + "bpe.model")->fingerprint());
  CHECK(tokenizer->fingerprint() != pieces_of(kPieces + "plain.model")->fingerprint());
  CHECK(contains(message_of<Error>([] { pieces_of(kPieces + "bpe.model", 699); }), "699"));
}

TEST_CASE("pieces: a folder with a tokenizer.model, and what lies beside it says of the ends") {
  const Temporary folder;
  write_atomically(folder / "tokenizer.model", read_file(kPieces + "bpe.model"));
  CHECK(pieces_of(folder / "")->bos() == 1);
  CHECK(pieces_of(folder / "")->stops() == Tokens{2});
  write_atomically(folder / "tokenizer_config.json",
                   R"({"add_bos_token": false, "eos_token": {"content": "<|end|>"}})");
  const auto said = pieces_of(folder / "");
  CHECK(said->bos() == -1);
  CHECK(said->stops() == Tokens{2, said->eos()});
  CHECK(said->vocabulary().pieces[static_cast<std::size_t>(said->eos())].text == "<|end|>");
}

TEST_CASE("pieces: an unused piece is taken apart again, and none is met by a longer way") {
  PieceVocabulary v;
  v.space_first = v.collapse = false;
  using Kind = PieceVocabulary::Kind;
  v.pieces = {{"<unk>", 0, Kind::Unknown},
              {"a", -4, Kind::Normal},
              {"b", -5, Kind::Normal},
              {"ab", -1, Kind::Unused},
              {"abb", -2, Kind::Normal}};
  const PieceTokenizer bpe(v, 5);
  CHECK(bpe.encode("abab") == Tokens{1, 2, 1, 2});
  CHECK(bpe.encode("abb") == Tokens{4});
  CHECK(bpe.encode("xyax") == Tokens{0, 1, 0});
  v.unigram = true;
  CHECK(PieceTokenizer(v, 5).encode("ababb") == Tokens{1, 2, 4});
}

TEST_CASE("pieces: a long word takes no square of its length") {
  const test::Spent time;
  const std::string word(1 << 20, 'a');
  for (const char* name : {"bpe.model", "unigram.model"}) {
    const auto tokenizer = pieces_of(kPieces + name);
    CHECK(whole_text(*tokenizer, tokenizer->encode(word)) == word);
  }
  CHECK(time.within(20));
}

TEST_CASE("pieces: a trie finds the keys that it was made of, and no others") {
  Rng rng(3);
  std::vector<std::string> words;
  for (int i = 0; i < 3000; ++i) {
    std::string word;
    for (auto n = 1 + static_cast<int>(rng.uniform() * 6); n > 0; --n)
      word += static_cast<char>(i % 3 == 0 ? 1 + rng.uniform() * 254 : 'a' + rng.uniform() * 3);
    words.push_back(word);
  }
  std::sort(words.begin(), words.end());
  words.erase(std::unique(words.begin(), words.end()), words.end());
  std::vector<DoubleArray::Key> keys;
  for (std::size_t i = 0; i < words.size(); i += 2)
    keys.emplace_back(words[i], static_cast<std::int32_t>(i));
  const DoubleArray trie(keys);
  for (std::size_t i = 0; i < words.size(); ++i) {
    std::int32_t whole = -1;
    trie.prefixes(words[i], [&](std::int32_t value, std::size_t length) {
      CHECK(words[i].substr(0, length) == words[static_cast<std::size_t>(value)]);
      if (length == words[i].size()) whole = value;
    });
    CHECK(whole == (i % 2 == 0 ? static_cast<std::int32_t>(i) : -1));
  }
}

TEST_CASE(
    "pieces: a file cut short or changed anywhere is refused with its place, or is a tokenizer") {
  const std::string whole = read_file(kPieces + "unigram.model");
  std::size_t refused = 0;
  for (std::size_t size = 1; size < whole.size(); size += 97) {
    const std::string error = message_of<Error>(
        [&] { PieceTokenizer(read_sentencepiece(whole.substr(0, size), "cut.model"), 600); });
    refused += error.empty() ? 0 : 1;
    if (!error.empty()) CHECK(contains(error, "cut.model"));
  }
  CHECK(refused > 90);
  Rng rng(9);
  for (int round = 0; round < 300; ++round) {
    std::string bytes = whole;
    for (int i = 0; i < 3; ++i)
      bytes[static_cast<std::size_t>(rng.uniform() * static_cast<double>(bytes.size()))] =
          static_cast<char>(rng.uniform() * 256);
    const std::string error = message_of<Error>([&] {
      const PieceTokenizer changed(read_sentencepiece(bytes, "changed.model"), 600);
      changed.encode("Once upon ½ ① time");
    });
    if (!error.empty()) CHECK(contains(error, "changed.model"));
  }
}

TEST_CASE("pieces: what a file asks for that is unknown is refused by name") {
  CHECK(complaint_about(two_pieces()).empty());
  CHECK(contains(complaint_about(two_pieces(wire_field(2, "\x18\x03"))), "words"));
  CHECK(contains(complaint_about(two_pieces(wire_field(2, "\x18\x04"))), "characters"));
  CHECK(
      contains(complaint_about(two_pieces(wire_field(2, "\xC0\x01\x01"))), "whitespace_as_suffix"));
  CHECK(contains(complaint_about(two_pieces(wire_field(2, std::string("\x98\x02\x01", 3)))),
                 "bytes"));
  CHECK(contains(complaint_about(two_pieces(wire_field(3, std::string("\x28\x00", 2)))), "escape"));
  CHECK(contains(complaint_about(two_pieces(wire_field(3, wire_field(2, "abcdefgh")))),
                 "normalisation"));
  CHECK(contains(complaint_about(two_pieces("\x0B")), "type 3"));
  CHECK(contains(complaint_about(two_pieces("\x0A\x7F")), "127 bytes"));
  CHECK(contains(complaint_about(two_pieces(wire_field(1, wire_field(1, "b") + "\x18\x09"))),
                 "kind 9"));
  CHECK(contains(complaint_about(wire_field(1, wire_field(1, "a") + "\x18\x01")), "unknown piece"));
}
