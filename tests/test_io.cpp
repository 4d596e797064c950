#include "temporary.hpp"

#include <plumb/io/checkpoint.hpp>
#include <plumb/io/file.hpp>
#include <plumb/io/hash.hpp>
#include <plumb/io/llama.hpp>
#include <plumb/io/safetensors.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include <signal.h>
#include <sys/resource.h>

using namespace plumb;

namespace {

const std::string kStories = PLUMB_SOURCE_DIR "/examples/data/stories260K.bin";

bool says(const std::string& message, const std::string& what) {
  INFO(message, " should say: ", what);
  const bool ok = message.find(what) != std::string::npos;
  CHECK(ok);
  return ok;
}

/// While alive, no file of this process may grow beyond `bytes`: a disk that is full.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    handler_ = ::signal(SIGXFSZ, SIG_IGN);
    const struct rlimit limit { bytes, before_.rlim_max };
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;
  ~FullDisk() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    ::signal(SIGXFSZ, handler_);
  }

 private:
  struct rlimit before_ {};
  sighandler_t handler_;
};

/// A safetensors file of this header and data.
std::string safetensors_file(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
}

std::vector<OwnedArray> small_arrays() {
  return {{"weight", {2, 3}, {1.5f, -2.0f, 0.0f, -0.0f, 1e-42f, 3e38f}},
          {"empty", {0, 4}, {}},
          {"scalar", {}, {std::numeric_limits<float>::quiet_NaN()}},
          {"bias", {3}, {7.0f, 8.0f, 9.0f}}};
}

bool same_bits(const std::vector<OwnedArray>& a, const std::vector<OwnedArray>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (a[i].name != b[i].name || a[i].shape != b[i].shape ||
        as_text(std::span<const float>(a[i].data)) != as_text(std::span<const float>(b[i].data)))
      return false;
  return true;
}

}  // namespace

TEST_CASE("hash: FNV-1a's published values") {
  CHECK(fnv1a("") == 0xcbf29ce484222325u);
  CHECK(fnv1a("a") == 0xaf63dc4c8601ec8cu);
  CHECK(fnv1a("foobar") == 0x85944171f73967e8u);
  CHECK(hex64(0x0123456789abcdefu) == "0123456789abcdef");
  CHECK(hex64(0) == "0000000000000000");
}

TEST_CASE("hash: the checksum sees every flipped bit, two flipped signs and swapped words") {
  std::string bytes(61, '\0');
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 37 + 1);
  const std::uint64_t whole = checksum64(bytes);
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string other = bytes;
    other[bit / 8] = static_cast<char>(other[bit / 8] ^ (1 << (bit % 8)));
    CHECK(checksum64(other) != whole);
  }
  std::string signs = bytes;
  signs[7] = static_cast<char>(signs[7] ^ 0x80);
  signs[15] = static_cast<char>(signs[15] ^ 0x80);
  CHECK(checksum64(signs) != whole);
  CHECK(checksum64(bytes.substr(8, 8) + bytes.substr(0, 8) + bytes.substr(16)) != whole);
  CHECK(checksum64(bytes + '\0') != whole);
}

TEST_CASE("file: what is written is read, whole, and nothing else is left") {
  const Temporary directory;
  const std::string path = directory / "file";
  for (const std::size_t size : {0u, 1u, 4095u, 4096u, 100000u}) {
    const std::string bytes(size, 'x');
    write_atomically(path, bytes);
    CHECK(read_file(path) == bytes);
  }
  write_atomically(path, [](auto put) {
    put("one ");
    put("two");
  });
  CHECK(read_file(path) == "one two");
  CHECK(directory.files() == 1);
  CHECK_FALSE(read_file("/proc/self/stat").empty());  // says it has 0 bytes
}

TEST_CASE("file: a failure names the file and the system's reason") {
  const Temporary directory;
  says(message_of<IoError>([&] { read_file(directory / "absent"); }), "absent: No such file");
  says(message_of<IoError>([&] { read_file(directory / ""); }), "Is a directory");
  says(message_of<IoError>([&] { write_atomically(directory / "no/such", "x"); }), "HINT");
  CHECK_THROWS_AS(write_atomically("/proc/plumb", "x"), IoError);
}

TEST_CASE("file: a full disk leaves the previous file whole and no other") {
  const Temporary directory;
  const std::string path = directory / "file";
  write_atomically(path, "the previous contents");
  std::string error;
  {
    const FullDisk full(4096);
    error = message_of<IoError>([&] { write_atomically(path, std::string(100000, 'x')); });
  }
  says(error, "File too large");
  says(error, "HINT: free some space");
  CHECK(read_file(path) == "the previous contents");
  CHECK(directory.files() == 1);
}

TEST_CASE("file: an exception while writing leaves the previous file whole and no other") {
  const Temporary directory;
  const std::string path = directory / "file";
  write_atomically(path, "before");
  CHECK_THROWS_AS(write_atomically(path,
                                   [](auto put) {
                                     put("half");
                                     throw std::runtime_error("stop");
                                   }),
                  std::runtime_error);
  CHECK(read_file(path) == "before");
  CHECK(directory.files() == 1);
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

TEST_CASE("checkpoint: comes back as written; any safetensors reader opens it") {
  const Temporary directory;
  const std::string path = directory / "c.ckpt";
  const std::map<std::string, std::string> metadata{{"trainer", "{\"step\": 12}"}};
  write_checkpoint(path, views(small_arrays()), metadata);
  const Checkpoint back = read_checkpoint(path);
  CHECK(back.metadata == metadata);
  CHECK(same_bits(back.arrays, small_arrays()));
  REQUIRE(back.find("bias") != nullptr);
  CHECK(back.find("bias")->data[2] == 9.0f);
  CHECK(back.find("absent") == nullptr);
  CHECK(read_safetensors(path).metadata.at("format") == "plumb-checkpoint-1");
  const std::string first = read_file(path);
  write_checkpoint(path, views(back.arrays), back.metadata);
  CHECK(read_file(path) == first);
  CHECK_THROWS_AS(write_checkpoint(path, {}, {{"format", "x"}}), ShapeError);
  CHECK_THROWS_AS(write_checkpoint(path, {}, {{"checksum", "x"}}), ShapeError);
  CHECK(read_file(path) == first);
}

TEST_CASE("checkpoint: truncated anywhere, or any bit flipped, it is refused") {
  const Temporary directory;
  const std::string path = directory / "c.ckpt";
  write_checkpoint(path, views(small_arrays()), {{"step", "12"}});
  const std::string whole = read_file(path);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    write_plainly(path, std::string_view(whole).substr(0, size));
    CAPTURE(size);
    const std::string message = message_of<DataError>([&] { read_checkpoint(path); });
    CHECK(message.find("truncated or corrupt") != std::string::npos);
  }
  write_plainly(path, whole + '\0');
  CHECK_THROWS_AS(read_checkpoint(path), DataError);
  for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::string other = whole;
    other[bit / 8] = static_cast<char>(other[bit / 8] ^ (1 << (bit % 8)));
    write_plainly(path, other);
    CAPTURE(bit);
    const std::string message = message_of<DataError>([&] { read_checkpoint(path); });
    CHECK(message.find("HINT") != std::string::npos);
    CHECK(message.find("c.ckpt") != std::string::npos);
  }
}

TEST_CASE("checkpoint: another file is refused for what it is") {
  const Temporary directory;
  const std::string path = directory / "plain.safetensors";
  write_safetensors(path, views(small_arrays()), {{"format", "pt"}});
  says(message_of<DataError>([&] { read_checkpoint(path); }), "says format 'pt'");
  write_safetensors(path, views(small_arrays()));
  says(message_of<DataError>([&] { read_checkpoint(path); }), "not a plumb-checkpoint-1");
  CHECK_THROWS_AS(read_checkpoint(kStories), DataError);
  CHECK_THROWS_AS(read_checkpoint(directory / "absent"), IoError);
}

TEST_CASE("checkpoint: a full disk keeps the previous one") {
  const Temporary directory;
  const std::string path = directory / "c.ckpt";
  write_checkpoint(path, views(small_arrays()), {{"step", "1"}});
  const std::vector<OwnedArray> large{{"weight", {50000}, std::vector<float>(50000, 1.0f)}};
  {
    const FullDisk full(8192);
    CHECK_THROWS_AS(write_checkpoint(path, views(large), {{"step", "2"}}), IoError);
  }
  CHECK(read_checkpoint(path).metadata.at("step") == "1");
  CHECK(directory.files() == 1);
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
  LlamaFile m{4, 6, 2, 2, 1, 5, 3, false, {}};
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
