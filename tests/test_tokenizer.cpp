#include "support.hpp"
#include "temporary.hpp"

#include <plumb/io/file.hpp>
#include <plumb/text/bytes.hpp>
#include <plumb/text/sentencepiece.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

using namespace plumb;

namespace {

using Ids = std::vector<std::int32_t>;

const std::string kVocabulary = PLUMB_SOURCE_DIR "/examples/data/tok512.bin";

Ids after_bos(Ids tokens) {
  tokens.insert(tokens.begin(), SentencePieceTokenizer::kBos);
  return tokens;
}

/// The naive algorithm: rescan all pairs after each merge.
Ids encode_by_rescan(Ids ids, const std::vector<std::string>& pieces,
                     const std::vector<float>& scores) {
  for (;;) {
    float best = -1e10f;
    std::size_t at = 0, merged = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      const std::string joined =
          pieces[static_cast<std::size_t>(ids[i])] + pieces[static_cast<std::size_t>(ids[i + 1])];
      for (std::size_t p = 0; p < pieces.size(); ++p)
        if (pieces[p] == joined && scores[p] > best) {
          best = scores[p];
          at = i;
          merged = p;
        }
    }
    if (best == -1e10f) return ids;
    ids[at] = static_cast<std::int32_t>(merged);
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

/// A tokenizer file of 3 control and 256 byte pieces, then the given ones.
std::string file_of(const std::vector<std::string>& pieces, const std::vector<float>& scores) {
  std::string out;
  const auto put = [&](auto value) {
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    out.append(bytes, sizeof value);
  };
  put(std::int32_t{7});
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    put(scores[i]);
    put(static_cast<std::int32_t>(pieces[i].size()));
    out += pieces[i];
  }
  return out;
}

std::vector<std::string> base_pieces() {
  std::vector<std::string> pieces{"<unk>", "\n<s>\n", "\n</s>\n"};
  for (int byte = 0; byte < 256; ++byte)
    pieces.push_back(str("<0x", "0123456789ABCDEF"[byte / 16], "0123456789ABCDEF"[byte % 16], '>'));
  return pieces;
}

}  // namespace

TEST_CASE("bytes: every byte is its own token") {
  const ByteTokenizer bytes;
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  const Ids ids = bytes.encode(all);
  REQUIRE(ids.size() == 256);
  for (int i = 0; i < 256; ++i) CHECK(ids[static_cast<std::size_t>(i)] == i);
  CHECK(bytes.decode(ids) == all);
  CHECK(bytes.vocab() == 256);
  CHECK(bytes.bos() == -1);
  CHECK(bytes.stops() == Ids{0});
  CHECK(bytes.encode("").empty());
  CHECK_THROWS_AS(bytes.decode(Ids{256}), DataError);
  CHECK_THROWS_AS(bytes.decode(Ids{-1}), DataError);
}

TEST_CASE("sentencepiece: ids and text equal an independent llama2.c") {
  const SentencePieceTokenizer tokenizer(kVocabulary, 512);
  const auto cases =
      nlohmann::json::parse(read_file(PLUMB_SOURCE_DIR "/tests/golden/tokenizer_stories260k.json"));
  REQUIRE(cases.size() >= 40);
  for (const auto& c : cases) {
    const std::string text = c["text"];
    const Ids ids = c["ids"];
    const std::vector<std::uint8_t> decoded = c["decoded"];
    CAPTURE(text);
    CHECK(tokenizer.encode(text) == ids);
    CHECK(tokenizer.decode(after_bos(ids)) == std::string(decoded.begin(), decoded.end()));
    CHECK(tokenizer.decode(after_bos(tokenizer.encode(text))) == text);
  }
}

TEST_CASE("sentencepiece: what it says of itself") {
  const SentencePieceTokenizer tokenizer(kVocabulary, 512);
  CHECK(tokenizer.vocab() == 512);
  CHECK(tokenizer.bos() == 1);
  CHECK(tokenizer.stops() == Ids{1, 2});
  CHECK(tokenizer.name() == "tok512.bin");
  CHECK(tokenizer.fingerprint() == SentencePieceTokenizer(kVocabulary, 512).fingerprint());
  CHECK(tokenizer.fingerprint() != ByteTokenizer().fingerprint());
  const SentencePieceTokenizer copy = tokenizer;
  CHECK(copy.encode("Once upon a time") == Ids{403, 407, 261, 378});
}

TEST_CASE(
    "sentencepiece: a response by itself keeps its leading space; control tokens print nothing") {
  const SentencePieceTokenizer tokenizer(kVocabulary, 512);
  CHECK(tokenizer.decode(Ids{403, 407}) == " Once upon");
  CHECK(tokenizer.decode(Ids{1, 403, 407}) == "Once upon");
  CHECK(tokenizer.decode(Ids{403, 407, 2}) == " Once upon");
  CHECK(tokenizer.decode(Ids{403, 1, 403}) == " OnceOnce");
  CHECK(tokenizer.decode({}).empty());
  CHECK(tokenizer.piece(1, 403) == "Once");
  CHECK(tokenizer.piece(403, 403) == " Once");
  CHECK(tokenizer.piece(0, 13) == "\n");
  CHECK_THROWS_AS(tokenizer.decode(Ids{512}), DataError);
  CHECK_THROWS_AS(tokenizer.decode(Ids{-1}), DataError);
}

TEST_CASE("sentencepiece: bytes that are not UTF-8, and zero bytes, come back") {
  const SentencePieceTokenizer tokenizer(kVocabulary, 512);
  for (const std::string& text :
       {std::string("\x80"), std::string("\xff\xfe"), std::string("a\xe2\x80"),
        std::string("a\0b", 3), std::string("\xe2\x80\x80\x80\x80\x80\x80"),
        std::string("\xf0\x9f\x98 x")})
    CHECK(tokenizer.decode(after_bos(tokenizer.encode(text))) == text);
  CHECK(tokenizer.encode(std::string("\0", 1)) == Ids{410, 3});
}

TEST_CASE("sentencepiece: the heap merges as the rescan does, ties leftmost") {
  // Many pieces over two letters with few distinct scores, so that ties and overlaps abound.
  std::vector<std::string> pieces = base_pieces();
  std::vector<float> scores(pieces.size(), 0.0f);
  std::uint32_t state = 1;
  const auto random = [&](std::uint32_t n) {
    state = state * 1664525u + 1013904223u;
    return (state >> 16) % n;
  };
  pieces.insert(pieces.end(), {" ", "a", "b"});
  scores.insert(scores.end(), {-9.0f, -9.0f, -9.0f});
  for (const char* piece : {"aa", "ab", "ba", "bb", " a", "aab", "aba", "bba", "abab", " ab", "aaa",
                            "bbb", "baab", "aaaa"}) {
    pieces.emplace_back(piece);
    scores.push_back(-static_cast<float>(random(3)));
  }
  const Temporary directory;
  const std::string path = directory / "tok.bin";
  write_plainly(path, file_of(pieces, scores));
  const SentencePieceTokenizer tokenizer(path, static_cast<Index>(pieces.size()));
  for (int trial = 0; trial < 300; ++trial) {
    std::string text;
    Ids characters{259};
    for (std::uint32_t n = 1 + random(40); n > 0; --n) {
      const std::uint32_t which = random(9);
      text += which == 0 ? ' ' : which < 5 ? 'a' : 'b';
      characters.push_back(which == 0 ? 259 : which < 5 ? 260 : 261);
    }
    CAPTURE(text);
    CHECK(tokenizer.encode(text) == encode_by_rescan(characters, pieces, scores));
  }
}

TEST_CASE("sentencepiece: a megabyte of text takes seconds at most") {
  const SentencePieceTokenizer tokenizer(kVocabulary, 512);
  const std::string text = read_file(PLUMB_SOURCE_DIR "/examples/data/tinystories_train.txt");
  REQUIRE(text.size() > 1'000'000);
  const test::Spent time;
  const Ids ids = tokenizer.encode(text);
  MESSAGE(ids.size(), " tokens in ", time.seconds(), " s");
  CHECK(tokenizer.decode(after_bos(ids)) == text);
  CHECK(time.within(60));  // a quadratic encoder would take hours
}

TEST_CASE("sentencepiece: a file cut short anywhere is refused, named, with a hint") {
  const std::string whole = read_file(kVocabulary);
  const Temporary directory;
  const std::string path = directory / "cut.bin";
  for (std::size_t size = 0; size < whole.size(); size += size < 5600 ? 37 : 5) {
    write_plainly(path, std::string_view(whole).substr(0, size));
    const std::string error = message_of<DataError>([&] { SentencePieceTokenizer(path, 512); });
    CAPTURE(size);
    CHECK(error.find("cut.bin") != std::string::npos);
    CHECK(error.find("HINT") != std::string::npos);
  }
}

TEST_CASE("sentencepiece: absurd contents are refused, each for its reason") {
  const Temporary directory;
  const std::string path = directory / "bad.bin";
  const auto error = [&](const std::string& bytes, Index vocab) {
    write_plainly(path, bytes);
    return message_of<DataError>([&] { SentencePieceTokenizer(path, vocab); });
  };
  const auto with = [](std::size_t at, auto value) {
    std::string bytes = read_file(kVocabulary);
    std::memcpy(bytes.data() + at, &value, sizeof value);
    return bytes;
  };
  const auto says = [](const std::string& message, const char* what) {
    INFO(message);
    return message.find(what) != std::string::npos;
  };
  const std::string whole = read_file(kVocabulary);
  CHECK(error(whole, 512).empty());
  CHECK(says(error(whole, 511), "bytes are left over after 511 pieces"));
  CHECK(says(error(whole, 513), "ends at byte 6227 within piece 512"));
  CHECK(says(error(whole, 32000), "tok*.bin) of 32000 pieces"));
  CHECK(says(error(whole, 256), "at least 259"));
  CHECK(says(error(whole, -1), "at least 259"));
  // The first piece's length lies after the longest length and its score.
  for (const std::int32_t length : {-1, 0, 8, 1 << 30, -2147483647 - 1})
    CHECK(says(error(with(8, length), 512), "piece 0 claims"));
  CHECK(says(error(with(0, std::int32_t{-5}), 512), "piece 0 claims"));
  CHECK(says(error(with(4, std::numeric_limits<float>::quiet_NaN()), 512), "no finite score"));
  // Byte pieces out of place: the wrong vocabulary, though every size is right.
  const std::size_t byte_a = whole.find("<0x41>");
  CHECK(says(error(with(byte_a + 4, 'F'), 512), "does not stand for byte 65"));
  CHECK_THROWS_AS(SentencePieceTokenizer(directory / "absent.bin", 512), IoError);

  std::vector<std::string> pieces = base_pieces();
  pieces.emplace_back("a");
  CHECK(says(error(file_of(pieces, std::vector<float>(260, 0.0f)), 260), "no piece for the space"));
}
