#include "files.hpp"
#include "support.hpp"

#include <plumb/io/file.hpp>
#include <plumb/io/hash.hpp>
#include <plumb/io/json.hpp>
#include <plumb/io/llama.hpp>
#include <plumb/io/safetensors.hpp>
#include <plumb/io/utf8.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

using namespace plumb;

namespace {

const std::string kStories = PLUMB_SOURCE_DIR "/examples/data/stories260K.bin";

/// A safetensors file of this header and data.
std::string safetensors_file(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
}

}  // namespace

TEST_CASE("hash: XXH3's published values; parts and fields") {
  // xxHash's specification gives XXH3_64bits of the empty input; the others are of its tool, xxhsum
  // -H3.
  CHECK(hash64("") == 0x2d06800538d394c2u);
  CHECK(hash64("a") == 0xe6c632b61e964e1fu);
  CHECK(hash64("abc") == 0x78af5f94892f3950u);
  CHECK(hash64("abc", 1) != hash64("abc"));
  std::string bytes;
  for (int i = 0; i < 3000; ++i) bytes += static_cast<char>(i * 37 + i / 256);
  for (const std::size_t cut : {0u, 1u, 100u, 1024u, 2999u, 3000u}) {
    CHECK(Hash64().add(bytes.substr(0, cut)).add(bytes.substr(cut)).value() == hash64(bytes));
    CHECK(Hash64(7).add(bytes.substr(0, cut)).add(bytes.substr(cut)).value() == hash64(bytes, 7));
  }
  CHECK(Hash64().field("ab").field("c").value() != Hash64().field("a").field("bc").value());
  CHECK(Hash64().field("").field("a").value() != Hash64().field("a").value());
  CHECK(Hash64().add(std::uint64_t{0x6261}).value() == hash64(std::string("ab\0\0\0\0\0\0", 8)));
  CHECK(hex64(0x0123456789abcdefu) == "0123456789abcdef");
  CHECK(hex64(0) == "0000000000000000");
}

TEST_CASE("hash: it sees every flipped bit, two flipped signs and swapped words") {
  std::string bytes(61, '\0');
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 37 + 1);
  const std::uint64_t whole = hash64(bytes);
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string other = bytes;
    other[bit / 8] = static_cast<char>(other[bit / 8] ^ (1 << (bit % 8)));
    CHECK(hash64(other) != whole);
  }
  std::string signs = bytes;
  signs[7] = static_cast<char>(signs[7] ^ 0x80);
  signs[15] = static_cast<char>(signs[15] ^ 0x80);
  CHECK(hash64(signs) != whole);
  CHECK(hash64(bytes.substr(8, 8) + bytes.substr(0, 8) + bytes.substr(16)) != whole);
  CHECK(hash64(bytes + '\0') != whole);
}

TEST_CASE("utf8: well-formed text is known, and stays as it is") {
  for (const std::string& text :
       {std::string(), std::string("plain"), std::string("a\0b", 3), std::string("é€😀"),
        std::string("\xdf\xbf \xe0\xa0\x80 \xed\x9f\xbf \xee\x80\x80 \xef\xbf\xbf \xf0\x90\x80\x80 "
                    "\xf4\x8f\xbf\xbf")}) {
    CHECK(is_utf8(text));
    CHECK(repaired_utf8(text) == text);
  }
}

TEST_CASE("utf8: what is not is found, and replaced as the JSON printer does it") {
  const std::string r = "\xef\xbf\xbd";
  // The Unicode Standard's own example, table 3-8, and what each rule of table 3-7 keeps out.
  CHECK(repaired_utf8("a\xf1\x80\x80\xe1\x80\xc2"
                      "b\x80"
                      "c\x80\xbf"
                      "d") == "a" + r + r + r + "b" + r + "c" + r + r + "d");
  CHECK(find_not_utf8("ab\xff") == 2);
  for (const char* bad :
       {"\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf",
        "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\x80", "\xe2\x82", "\xc3"})
    CHECK_FALSE(is_utf8(bad));
  std::uint32_t state = 1;
  for (int trial = 0; trial < 20000; ++trial) {
    constexpr unsigned char kBytes[] = {'a',  0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc2, 0xdf,
                                        0xe0, 0xe1, 0xed, 0xef, 0xf0, 0xf1, 0xf4, 0xf5, 0xff};
    std::string text;
    for (int i = 0; i < 6; ++i) {
      state = state * 1664525u + 1013904223u;
      text += static_cast<char>(kBytes[(state >> 16) % sizeof kBytes]);
    }
    CAPTURE(trial);
    CHECK('"' + repaired_utf8(text) + '"' == json_text(Json(text)));
    CHECK(is_utf8(repaired_utf8(text)));
    CHECK(is_utf8(text) == (repaired_utf8(text) == text));
  }
}

TEST_CASE("json: values come back, keys in their order") {
  const std::string text =
      R"({"b":[1,-2,2.5,1e300,true,null,"é\n"],"a":{"c":{}},"n":18446744073709551615})";
  CHECK(json_text(parse_json(text)) ==
        R"({"b":[1,-2,2.5,1e+300,true,null,"é\n"],"a":{"c":{}},"n":18446744073709551615})");
  CHECK(parse_json("\xef\xbb\xbf 3 ") == 3);
  CHECK(json_text(parse_json("[1]"), 2) == "[\n  1\n]");
  CHECK(json_text(Json("\xff")) == "\"\xef\xbf\xbd\"");
}

TEST_CASE("json: numbers do not depend on the locale") {
  const CommaLocale comma;
  char text[8];
  std::snprintf(text, sizeof text, "%.1f", 0.5);
  if (comma.is_set) CHECK(std::string(text) == "0,5");
  CHECK(parse_json("[2.5]")[0] == 2.5);
  CHECK(json_text(Json(2.5)) == "2.5");
}

TEST_CASE("json: what is not JSON, or says something twice, or too deep, is refused by name") {
  const auto error = [](const std::string& text) {
    const std::string message = message_of<DataError>([&] { parse_json(text, "file"); });
    says(message, "[json] file is not JSON: ");
    CHECK(message.size() < 500);
    return message;
  };
  for (const char* text : {"", " ", "{", "[1,]", "nul", "NaN", "Infinity", "-Infinity", "[1] 2",
                           "'a'", "\"\xff\"", "\"\\ud800\"", "{\"a\":1,}", "01", "1.", "\"\n\""})
    error(text);
  says(error("1e999"), "overflow");
  says(error("[-1e999]"), "overflow");
  says(error(std::string("1\0", 2)), "zero byte");
  says(error(R"({"a":1,"b":{"a":2,"c":3,"c":4}})"), "\"c\" twice");
  says(error(R"({"a":1,"\u0061":2})"), "\"a\" twice");
  error("\"" + std::string(100000, 'x'));
  const auto nested = [](std::size_t n) { return std::string(n, '[') + std::string(n, ']'); };
  CHECK(parse_json(nested(64)).is_array());
  says(error(nested(65)), "more than 64 deep");
  says(error(nested(300000)), "more than 64 deep");
  std::string objects;
  for (int i = 0; i < 300000; ++i) objects += "{\"a\":";
  says(error(objects), "more than 64 deep");
  says(message_of<DataError>([] { parse_json("x"); }), "not JSON: ");
}

TEST_CASE("json: the members of an object one by one") {
  std::string said;
  parse_json_members(R"({"b":[1,{"x":2}],"a":{"b":3,"c":null},"c":4})",
                     [&](const std::string& key, const Json& value) {
                       said += key + "=" + json_text(value) + ";";
                     });
  CHECK(said == R"(b=[1,{"x":2}];a={"b":3,"c":null};c=4;)");
  const auto error = [](const std::string& text) {
    return message_of<DataError>([&] {
      parse_json_members(
          text, [](const std::string&, const Json&) {}, "file");
    });
  };
  CHECK(error("{}").empty());
  says(error("[1]"), "[json] file is not a JSON object");
  says(error("3"), "not a JSON object");
  says(error(R"({"a":1,"b":2,"a":3})"), "\"a\" twice");
  says(error(R"({"a":1)"), "not JSON");
  // What the taker throws passes through.
  CHECK(message_of<std::runtime_error>([] {
          parse_json_members("{\"a\":1}", [](const std::string&, const Json&) {
            throw std::runtime_error("stop");
          });
        }) == "stop");
  // The same keys, few and many, with the repeated one early or late.
  for (const int n : {2, 15, 16, 17, 40})
    for (int twice = 0; twice < n; ++twice) {
      std::string text = "{";
      for (int i = 0; i < n; ++i) text += str("\"k", i, "\":", i, ",");
      CHECK(parse_json(text + "\"other\":0}").size() == static_cast<std::size_t>(n) + 1);
      says(error(text + str("\"k", twice, "\":0}")), str("\"k", twice, "\" twice"));
      says(message_of<DataError>([&] { parse_json(text + str("\"k", twice, "\":0}")); }), "twice");
    }
}

TEST_CASE("json: an object of very many keys takes no longer than its length") {
  std::string text = "{";
  for (int i = 0; i < 200000; ++i) text += str(i ? "," : "", "\"k", i, "\":", i);
  const test::Spent time;
  CHECK(parse_json(text + "}").size() == 200000);
  MESSAGE(time.seconds(), " s");
  // Comparing every key with every other takes minutes.
  CHECK(time.within(10));
}

TEST_CASE("safetensors: arrays and metadata come back bit for bit") {
  const Temporary directory;
  const std::string path = directory / "a.safetensors";
  const std::map<std::string, std::string> metadata{{"key", "value"},
                                                    {"json", "{\"a\": [1, \"é\n\"]}"}};
  write_safetensors(path, views(small_arrays()), metadata);
  const Safetensors back = read_safetensors(path);
  CHECK(back.metadata == metadata);
  CHECK(same_bits(back.arrays, small_arrays()));
  // The data begins at a multiple of 8.
  std::uint64_t header = 0;
  std::memcpy(&header, read_file(path).data(), 8);
  CHECK(header % 8 == 0);
  write_safetensors(path, {});
  CHECK(read_safetensors(path).arrays.empty());
}

TEST_CASE("safetensors: F16 and BF16 become float exactly; foreign order of keys is fine") {
  const Temporary directory;
  const std::string path = directory / "h.safetensors";
  const std::uint16_t halves[] = {0x3c00, 0xc000, 0x7bff, 0x0001, 0x8000, 0x7c00, 0xfc00, 0x03ff};
  const std::uint16_t brains[] = {0x3f80, 0xc049};
  std::string data(reinterpret_cast<const char*>(brains), sizeof brains);
  data.append(reinterpret_cast<const char*>(halves), sizeof halves);
  write_plainly(
      path, safetensors_file("{\"h\":{\"data_offsets\":[4,20],\"shape\":[2,4],\"dtype\":\"F16\"},"
                             "\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]}}  ",
                             data));
  const Safetensors back = read_safetensors(path);
  REQUIRE(back.arrays.size() == 2);
  CHECK(back.arrays[0].name == "b");
  CHECK(back.arrays[0].data == std::vector<float>{1.0f, -3.140625f});
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(back.arrays[1].data == std::vector<float>{1.0f, -2.0f, 65504.0f, 0x1p-24f, -0.0f, infinity,
                                                  -infinity, 0x1p-14f - 0x1p-24f});
  CHECK(std::signbit(back.arrays[1].data[4]));
  CHECK(std::isnan(detail::float_from_half(0x7e00)));
}

TEST_CASE("safetensors: every half and every bf16 becomes the float of its value") {
  std::vector<std::uint16_t> bits(65536);
  for (std::size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<std::uint16_t>(i);
  std::vector<float> half(65536), brain(65536);
  const std::string_view bytes = as_text(std::span<const std::uint16_t>(bits));
  to_floats({"h", Dtype::F16, {65536}, bytes}, half.data());
  to_floats({"b", Dtype::BF16, {65536}, bytes}, brain.data());
  for (std::size_t i = 0; i < bits.size(); ++i) {
    const int exponent = static_cast<int>(i >> 10 & 31), mantissa = static_cast<int>(i & 1023);
    const double sign = i & 0x8000 ? -1.0 : 1.0;
    const double value = exponent == 31  ? (mantissa ? NAN : sign * INFINITY)
                         : exponent == 0 ? sign * std::ldexp(mantissa, -24)
                                         : sign * std::ldexp(1024 + mantissa, exponent - 25);
    CAPTURE(i);
    CHECK((std::isnan(value) ? std::isnan(half[i]) : half[i] == static_cast<float>(value)));
    CHECK(std::signbit(half[i]) == (sign < 0));
    std::uint32_t word = 0;
    std::memcpy(&word, &brain[i], 4);
    CHECK(word == static_cast<std::uint32_t>(i) << 16);
  }
}

TEST_CASE("safetensors: a view holds the file's own bytes, found by name, and moves with them") {
  const Temporary directory;
  const std::string path = directory / "a.safetensors";
  write_safetensors(path, views(small_arrays()), {{"key", "value"}});
  SafetensorsView first = view_safetensors(path);
  const char* begin = first.file.bytes().data();
  const SafetensorsView view = std::move(first);
  CHECK(view.metadata.at("key") == "value");
  REQUIRE(view.arrays.size() == 4);
  for (const OwnedArray& array : small_arrays()) {
    const ArrayView* found = view.find(array.name);
    REQUIRE(found != nullptr);
    CHECK(found->shape == array.shape);
    CHECK(found->dtype == Dtype::F32);
    CHECK(found->bytes == as_text(std::span<const float>(array.data)));
    CHECK(found->bytes.data() >= begin);
    CHECK(found->bytes.data() <= begin + view.file.bytes().size());
  }
  CHECK(view.find("absent") == nullptr);
  CHECK(view.find("__metadata__") == nullptr);
}

TEST_CASE("safetensors: ten thousand layers open within a second") {
  const Temporary directory;
  const std::string path = directory / "deep.safetensors";
  const float one[] = {1.0f};
  std::vector<NamedArray> arrays;
  for (int i = 0; i < 10000; ++i)
    for (const char* name :
         {"norm1", "query", "key", "value", "projection", "norm2", "gate", "down", "up"})
      arrays.push_back({str("blocks.", i, ".", name), {1}, one});
  const test::Spent time;
  write_safetensors(path, arrays);
  const double written = time.seconds();
  const SafetensorsView view = view_safetensors(path);
  std::size_t found = 0;
  for (const NamedArray& array : arrays) found += view.find(array.name) != nullptr;
  MESSAGE("90000 arrays: written in ", written, " s, opened and found in ",
          time.seconds() - written, " s");
  CHECK(found == arrays.size());
  // Looking through all names for each takes minutes.
  CHECK(time.within(10));
}

TEST_CASE("safetensors: every inconsistency is refused") {
  const Temporary directory;
  const std::string path = directory / "bad.safetensors";
  const auto error = [&](const std::string& bytes) {
    write_plainly(path, bytes);
    const std::string message = message_of<DataError>([&] { read_safetensors(path); });
    says(message, "bad.safetensors");
    says(message, "HINT");
    return message;
  };
  const auto with = [&](const std::string& header, std::size_t data = 8) {
    return error(safetensors_file(header, std::string(data, '\0')));
  };
  const auto array = [](const std::string& fields) { return "{\"x\":{" + fields + "}}"; };
  says(error(""), "at least 8 bytes");
  says(error(std::string(8, '\xff')), "claims 18446744073709551615 bytes");
  says(error(std::string("\x05\0\0\0\0\0\0\0{}  ", 12)), "claims 5 bytes");
  says(with("not json"), "not JSON");
  says(with(std::string("{}\0", 3)), "zero byte");
  says(with("[]"), "not a JSON object");
  says(with("{}"), "describes 0 bytes of data; the file has 8");
  says(with(R"({"x":3})"), "lacks 'shape'");
  says(with(array(R"("dtype":"F32","shape":[2])")), "lacks 'data_offsets'");
  says(with(array(R"("dtype":7,"shape":[2],"data_offsets":[0,8])")), "lacks 'dtype'");
  says(with(array(R"("dtype":"I64","shape":[1],"data_offsets":[0,8])")), "of type I64");
  says(with(array(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])")), "other than sizes");
  says(with(array(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])")), "other than sizes");
  says(with(array(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])")), "3 elements of 4 bytes");
  says(with(array(R"("dtype":"F16","shape":[3],"data_offsets":[0,7])"), 7),
       "7 bytes by its offsets");
  says(with(array(R"("dtype":"F32","shape":[2],"data_offsets":[0,16])")), "outside");
  says(with(array(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])")), "outside");
  says(with(array(R"("dtype":"F32","shape":[2],"data_offsets":[0,8,8])")), "outside");
  says(with(array(R"("dtype":"F32","shape":[1,1,1,1,2],"data_offsets":[0,8])")), "5 dimensions");
  says(with(array(R"("dtype":"F32","shape":[4294967296,4294967296,1],"data_offsets":[0,8])")),
       "more elements");
  says(with(array(R"("dtype":"F32","shape":[9223372036854775809],"data_offsets":[0,8])")),
       "more elements");
  says(with(array(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])")), "overlap or leave a hole");
  says(with(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
            R"("y":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})"),
       "overlap");
  says(with(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})"), "describes 4 bytes");
  says(with(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
            R"("x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})"),
       "twice");
  says(with(R"({"__metadata__":{"a":1}})", 0), "is not a string");
  says(with(R"({"__metadata__":[]})", 0), "not an object");
  says(with("{\"\xff\":{}}", 0), "not JSON");
}

TEST_CASE("safetensors: arrays that contradict themselves are not written") {
  const Temporary directory;
  const std::string path = directory / "x.safetensors";
  const std::vector<float> two{1, 2};
  const auto write = [&](std::vector<NamedArray> arrays) { write_safetensors(path, arrays); };
  CHECK_THROWS_AS(write({{"a", {3}, two}}), ShapeError);
  CHECK_THROWS_AS(write({{"a", {2}, two}, {"a", {2}, two}}), ShapeError);
  CHECK_THROWS_AS(write({{"__metadata__", {2}, two}}), ShapeError);
  CHECK_THROWS_AS(write({{"\xff", {2}, two}}), DataError);
  CHECK(directory.files() == 0);
}

TEST_CASE("llama: stories260K is read with its sizes and names") {
  const LlamaFile m = read_llama(kStories);
  CHECK(m.channels == 64);
  CHECK(m.hidden == 172);
  CHECK(m.layers == 5);
  CHECK(m.heads == 8);
  CHECK(m.kv_heads == 4);
  CHECK(m.vocab == 512);
  CHECK(m.context == 512);
  CHECK(m.tied);
  CHECK(m.arrays.size() == 1 + 5 * 9 + 1);
  const auto shape = [&](const char* name) {
    REQUIRE(m.find(name) != nullptr);
    return m.find(name)->shape;
  };
  CHECK(shape("embedding") == Shape{512, 64});
  CHECK(shape("blocks.0.norm1") == Shape{64});
  CHECK(shape("blocks.0.query") == Shape{64, 64});
  CHECK(shape("blocks.4.key") == Shape{32, 64});
  CHECK(shape("blocks.4.value") == Shape{32, 64});
  CHECK(shape("blocks.2.projection") == Shape{64, 64});
  CHECK(shape("blocks.2.norm2") == Shape{64});
  CHECK(shape("blocks.3.gate") == Shape{172, 64});
  CHECK(shape("blocks.3.down") == Shape{64, 172});
  CHECK(shape("blocks.3.up") == Shape{172, 64});
  CHECK(shape("final_norm") == Shape{64});
  CHECK(m.find("head") == nullptr);
  Index parameters = 0;
  for (const OwnedArray& array : m.arrays) parameters += array.shape.size();
  CHECK(parameters == 264128 - 512 * 8);  // without the RoPE tables
}

TEST_CASE("llama: a view has the bytes of the file that is read") {
  const LlamaFile owned = read_llama(kStories);
  const LlamaView view = view_llama(kStories);
  CHECK(view.channels == owned.channels);
  CHECK(view.context == owned.context);
  REQUIRE(view.arrays.size() == owned.arrays.size());
  for (std::size_t i = 0; i < view.arrays.size(); ++i) {
    CHECK(view.arrays[i].name == owned.arrays[i].name);
    CHECK(view.arrays[i].shape == owned.arrays[i].shape);
    CHECK(view.arrays[i].bytes == as_text(std::span<const float>(owned.arrays[i].data)));
    CHECK(view.find(view.arrays[i].name) == &view.arrays[i]);
  }
  CHECK(view.find("head") == nullptr);
}

TEST_CASE("llama: stories260K is written as it was, RoPE tables to the last bit") {
  // The exporter computed the legacy tables in single precision, by a polynomial of its own; every
  // other byte must be equal.
  const Temporary directory;
  const std::string path = directory / "out.bin";
  write_llama(path, read_llama(kStories));
  const std::string before = read_file(kStories), after = read_file(path);
  REQUIRE(after.size() == before.size());
  const std::size_t tables = before.size() - 512 * 8 * sizeof(float);
  CHECK(after.substr(0, tables) == before.substr(0, tables));
  float worst = 0.0f;
  for (std::size_t at = tables; at < before.size(); at += sizeof(float)) {
    float x, y;
    std::memcpy(&x, before.data() + at, sizeof x);
    std::memcpy(&y, after.data() + at, sizeof y);
    worst = std::max(worst, std::abs(x - y));
  }
  CHECK(worst <= 0x1p-23f);  // two units in the last place of a cosine near 1
}

TEST_CASE("llama: an untied model comes back") {
  const Temporary directory;
  const std::string path = directory / "m.bin";
  LlamaFile m{{4, 6, 2, 2, 1, 5, 3, false}, {}};
  float value = 0.0f;
  detail::for_each_llama_array(
      m,
      [&](std::string name, const Shape& shape) {
        std::vector<float> data;
        for (Index i = 0; i < shape.size(); ++i) data.push_back(value += 1.0f);
        m.arrays.push_back({std::move(name), shape, std::move(data)});
      },
      [] {});
  write_llama(path, m);
  const LlamaFile back = read_llama(path);
  CHECK_FALSE(back.tied);
  CHECK(back.vocab == 5);
  CHECK(same_bits(back.arrays, m.arrays));
  REQUIRE(back.find("head") != nullptr);

  SUBCASE("truncated anywhere, or too long, it is refused") {
    const std::string whole = read_file(path);
    for (std::size_t size = 0; size < whole.size(); ++size) {
      write_plainly(path, std::string_view(whole).substr(0, size));
      CHECK_THROWS_AS(read_llama(path), DataError);
    }
    write_plainly(path, whole + '\0');
    CHECK_THROWS_AS(read_llama(path), DataError);
  }
  SUBCASE("a missing or misshapen array is not written, and the old file stays") {
    const std::string whole = read_file(path);
    LlamaFile other = m;
    other.arrays[3].shape = {8, 2};
    CHECK_THROWS_AS(write_llama(path, other), ShapeError);
    other = m;
    other.arrays.pop_back();
    says(message_of<ShapeError>([&] { write_llama(path, other); }), "'head'");
    other = m;
    other.heads = 3;
    CHECK_THROWS_AS(write_llama(path, other), ShapeError);
    CHECK(read_file(path) == whole);
    CHECK(directory.files() == 1);
  }
}

TEST_CASE("llama: absurd sizes are refused without allocating or overflowing") {
  const Temporary directory;
  const std::string path = directory / "m.bin";
  const std::string whole = read_file(kStories);
  const auto error = [&](std::size_t field, std::int32_t value) {
    std::string bytes = whole;
    std::memcpy(bytes.data() + 4 * field, &value, 4);
    write_plainly(path, bytes);
    return message_of<DataError>([&] { read_llama(path); });
  };
  constexpr std::int32_t kMax = std::numeric_limits<std::int32_t>::max();
  for (std::size_t field = 0; field < 7; ++field)
    for (const std::int32_t value :
         {kMax, kMax - 7, -kMax, -kMax - 1, 0, -1, 1, 1 << 16, 1 << 30}) {
      CAPTURE(field);
      CAPTURE(value);
      CHECK_FALSE(error(field, value).empty());
    }
  says(error(3, 7), "dim is not a multiple of heads");
  says(error(4, 3), "heads is not a multiple of kv_heads");
  says(error(3, 64), "odd");
  says(error(2, 6), "layers 6");
  says(error(5, -512), "do not give the file's");
  std::string all(28, '\xff');
  for (std::size_t i = 0; i < 7; ++i) std::memcpy(all.data() + 4 * i, &kMax, 4);
  write_plainly(path, all);
  CHECK_THROWS_AS(read_llama(path), DataError);
  write_plainly(path, "{\"json\": 1}");
  says(message_of<DataError>([&] { read_llama(path); }), "expected a header of 28 bytes");
}
