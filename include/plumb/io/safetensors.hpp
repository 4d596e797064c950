// safetensors: an 8-byte header length, a JSON header, then the arrays' bytes without holes.
//
// Writes F32; reads F32, F16 and BF16, all into float. Every size and offset of the header is
// checked against the file before use. What this is not: memory mapping, or a reader of integer
// arrays. Source of the format: huggingface/safetensors, README "Format".
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/core/shape.hpp>
#include <plumb/io/arrays.hpp>
#include <plumb/io/file.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// What a safetensors file holds; arrays in the order in which their bytes lie.
struct Safetensors {
  std::map<std::string, std::string> metadata;
  std::vector<OwnedArray> arrays;
};

namespace detail {

/// IEEE 754 binary16 to float, exactly.
inline float float_from_half(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t exponent = (half >> 10) & 31u;
  const std::uint32_t mantissa = half & 1023u;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent > 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return sign != 0 ? -magnitude : magnitude;
}

inline std::size_t bytes_per_element(std::string_view dtype) {
  if (dtype == "F32") return 4;
  if (dtype == "F16" || dtype == "BF16") return 2;
  return 0;
}

inline std::vector<float> floats_from_bytes(std::string_view bytes, std::string_view dtype) {
  std::vector<float> out(bytes.size() / bytes_per_element(dtype));
  if (dtype == "F32") {
    if (!out.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }
  for (std::size_t i = 0; i < out.size(); ++i) {
    std::uint16_t bits;
    std::memcpy(&bits, bytes.data() + 2 * i, 2);
    out[i] = dtype == "F16" ? float_from_half(bits)
                            : std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
  return out;
}

/// One array's line of the header, checked by itself.
struct SafetensorsEntry {
  std::string name, dtype;
  Shape shape;
  std::uint64_t begin, end;
};

/// Reads and checks the header of one file; `bad` throws with the file's name.
class SafetensorsReader {
 public:
  SafetensorsReader(std::string_view bytes, const std::string& path, Where where)
      : bytes_(bytes), path_(path), where_(where) {}

  Safetensors read() {
    const nlohmann::ordered_json header = parse_header();
    Safetensors out;
    std::vector<SafetensorsEntry> entries;
    for (const auto& item : header.items()) {
      if (item.key() == "__metadata__")
        out.metadata = metadata(item.value());
      else
        entries.push_back(entry(item.key(), item.value()));
    }
    std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
      return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
    std::uint64_t at = 0;
    for (const SafetensorsEntry& e : entries) {
      if (e.begin != at)
        bad(str("array '", e.name, "' begins at byte ", e.begin, " of the data where ", at,
                " is due: arrays overlap or leave a hole"));
      at = e.end;
    }
    if (at != data_.size())
      bad(str("the header describes ", at, " bytes of data; the file has ", data_.size()));
    for (SafetensorsEntry& e : entries)
      out.arrays.push_back({std::move(e.name), e.shape,
                            floats_from_bytes(data_.substr(e.begin, e.end - e.begin), e.dtype)});
    return out;
  }

 private:
  [[noreturn]] void bad(const std::string& what) const {
    fail<DataError>(str("[safetensors] ", path_, ": ", what,
                        ". HINT: the file is truncated, corrupt or of another format; fetch or "
                        "write it again"),
                    where_);
  }

  nlohmann::ordered_json parse_header() {
    constexpr std::uint64_t kMaxHeader = 100'000'000;  // the format's own limit
    std::uint64_t length = 0;
    if (bytes_.size() < 8) bad(str("expected at least 8 bytes; the file has ", bytes_.size()));
    std::memcpy(&length, bytes_.data(), 8);
    if (length > bytes_.size() - 8 || length > kMaxHeader)
      bad(str("the header claims ", length, " bytes; the file has ", bytes_.size()));
    data_ = bytes_.substr(8 + length);
    const std::string_view text = bytes_.substr(8, length);
    // The parser takes a zero byte for the end.
    if (text.find('\0') != text.npos) bad("the header holds a zero byte");
    // Of two equal keys the parser would keep one in silence.
    std::vector<std::set<std::string>> keys;
    bool repeated = false;
    const auto watch = [&](int, nlohmann::ordered_json::parse_event_t event,
                           const nlohmann::ordered_json& parsed) {
      using E = nlohmann::ordered_json::parse_event_t;
      if (event == E::object_start) keys.emplace_back();
      if (event == E::object_end) keys.pop_back();
      if (event == E::key) repeated |= !keys.back().insert(parsed.get<std::string>()).second;
      return true;
    };
    nlohmann::ordered_json header;
    try {
      header = nlohmann::ordered_json::parse(text, watch);
    } catch (const nlohmann::json::exception& e) {
      bad(str("the header is not JSON: ", e.what()));
    }
    if (repeated) bad("the header names something twice");
    if (!header.is_object()) bad("the header is not a JSON object");
    return header;
  }

  std::map<std::string, std::string> metadata(const nlohmann::ordered_json& value) const {
    std::map<std::string, std::string> out;
    if (!value.is_object()) bad("__metadata__ is not an object");
    for (const auto& item : value.items()) {
      if (!item.value().is_string()) bad(str("metadata '", item.key(), "' is not a string"));
      out[item.key()] = item.value().get<std::string>();
    }
    return out;
  }

  SafetensorsEntry entry(const std::string& name, const nlohmann::ordered_json& value) const {
    const auto list_of_sizes = [&](const char* key) {
      std::vector<std::uint64_t> out;
      if (!value.is_object() || !value.contains(key) || !value[key].is_array())
        bad(str("array '", name, "' lacks '", key, "'"));
      for (const auto& number : value[key]) {
        if (!number.is_number_unsigned())
          bad(str("array '", name, "': '", key, "' holds something other than sizes"));
        out.push_back(number.template get<std::uint64_t>());
      }
      return out;
    };
    const std::vector<std::uint64_t> extents = list_of_sizes("shape");
    const std::vector<std::uint64_t> offsets = list_of_sizes("data_offsets");
    if (!value.contains("dtype") || !value["dtype"].is_string())
      bad(str("array '", name, "' lacks 'dtype'"));
    const std::string dtype = value["dtype"].get<std::string>();
    const std::uint64_t width = bytes_per_element(dtype);
    if (width == 0)
      bad(str("array '", name, "' is of type ", dtype, "; F32, F16 and BF16 can be read"));
    if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > data_.size())
      bad(str("array '", name, "' lies outside the file's ", data_.size(), " bytes of data"));
    if (extents.size() > Shape::kMaxRank)
      bad(str("array '", name, "' has ", extents.size(), " dimensions; at most 4 can be read"));
    const std::uint64_t held = (offsets[1] - offsets[0]) / width;
    std::uint64_t size = 1;
    Index shape[Shape::kMaxRank] = {};
    for (std::size_t i = 0; i < extents.size(); ++i) {
      // An extent beyond 2^62 fits no file; the product is checked, since it may wrap.
      if (extents[i] > (1ull << 62) || __builtin_mul_overflow(size, extents[i], &size))
        bad(str("array '", name, "' claims more elements than can be counted"));
      shape[i] = static_cast<Index>(extents[i]);
    }
    if (size != held || (offsets[1] - offsets[0]) % width != 0)
      bad(str("array '", name, "' has ", size, " elements of ", width, " bytes by its shape but ",
              offsets[1] - offsets[0], " bytes by its offsets"));
    return {name, dtype, make_shape(shape, extents.size()), offsets[0], offsets[1]};
  }

  static Shape make_shape(const Index* e, std::size_t rank) {
    switch (rank) {
      case 0: return {};
      case 1: return {e[0]};
      case 2: return {e[0], e[1]};
      case 3: return {e[0], e[1], e[2]};
      default: return {e[0], e[1], e[2], e[3]};
    }
  }

  std::string_view bytes_;
  std::string_view data_;
  const std::string& path_;
  Where where_;
};

}  // namespace detail

/// Reads a whole safetensors file. DataError if any size in it disagrees with another.
inline Safetensors read_safetensors(const std::string& path, Where where = Where::here()) {
  const std::string bytes = read_file(path, where);
  return detail::SafetensorsReader(bytes, path, where).read();
}

/// Writes float arrays and string metadata, atomically, in the order given. ShapeError if an
/// array's data does not match its shape or two share a name; IoError if the disk refuses.
inline void write_safetensors(const std::string& path, std::span<const NamedArray> arrays,
                              const std::map<std::string, std::string>& metadata = {},
                              Where where = Where::here()) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t at = 0;
  for (const NamedArray& array : arrays) {
    if (static_cast<Index>(array.data.size()) != array.shape.size())
      fail(str("[safetensors] array '", array.name, "' has shape ", array.shape, " but ",
               array.data.size(), " elements"),
           where);
    if (array.name == "__metadata__" || header.contains(array.name))
      fail(str("[safetensors] the array name '", array.name, "' is taken"), where);
    nlohmann::ordered_json shape = nlohmann::ordered_json::array();
    for (int i = 0; i < array.shape.rank(); ++i) shape.push_back(array.shape[i]);
    const std::uint64_t end = at + array.data.size_bytes();
    header[array.name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {at, end}}};
    at = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception& e) {
    fail<DataError>(str("[safetensors] ", path, ": a name or metadata is not UTF-8: ", e.what()),
                    where);
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');  // so that the data is aligned
  const std::uint64_t length = text.size();
  write_atomically(
      path,
      [&](auto put) {
        put(std::string_view(reinterpret_cast<const char*>(&length), 8));
        put(text);
        for (const NamedArray& array : arrays) put(as_text(array.data));
      },
      where);
}

}}  // namespace plumb::v0_1
