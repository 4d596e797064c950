// safetensors: an 8-byte header length, a JSON header, then the arrays' bytes without holes.
//
// Writes F32; reads F32, F16 and BF16. Every size and offset of the header is checked against the
// file before use, and then the arrays are views of the mapped file. What this is not: a reader of
// integer arrays. Source of the format: huggingface/safetensors, README "Format".
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/core/shape.hpp>
#include <plumb/io/arrays.hpp>
#include <plumb/io/json.hpp>
#include <plumb/io/mapped.hpp>
#include <plumb/io/output.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// What a safetensors file holds; arrays in the order in which their bytes lie.
struct Safetensors {
  std::map<std::string, std::string> metadata;
  std::vector<OwnedArray> arrays;
};

/// The same where it lies: the arrays' bytes are the mapped file's and live as long as this object.
struct SafetensorsView {
  std::map<std::string, std::string> metadata;
  std::vector<ArrayView> arrays;
  NameIndex names;
  MappedFile file;

  /// The array of that name, or null.
  const ArrayView* find(std::string_view name) const { return names.find(arrays, name); }
};

namespace detail {

/// Reads and checks the header of one file; `bad` throws with the file's name.
class SafetensorsReader {
 public:
  SafetensorsReader(std::string_view bytes, const std::string& path, Where where)
      : bytes_(bytes), path_(path), where_(where) {}

  /// Fills in what the header says.
  void read(SafetensorsView& out) {
    const std::string_view text = header();
    bool parsing = true;  // rather than complaining of what the JSON says
    try {
      parse_json_members(text, [&](const std::string& key, const Json& value) {
        parsing = false;
        if (key == "__metadata__")
          out.metadata = metadata(value);
        else
          out.arrays.push_back(array(key, value));
        parsing = true;
      });
    } catch (const DataError& e) {
      if (!parsing) throw;
      bad(str("the header is ", e.what()));
    }
    // An empty array lies at the same place as what follows it.
    std::stable_sort(out.arrays.begin(), out.arrays.end(), [](const auto& a, const auto& b) {
      return std::pair(a.bytes.data(), a.bytes.size()) < std::pair(b.bytes.data(), b.bytes.size());
    });
    std::uint64_t at = 0;
    for (const ArrayView& a : out.arrays) {
      const auto begin = static_cast<std::uint64_t>(a.bytes.data() - data_.data());
      if (begin != at)
        bad(str("array '", a.name, "' begins at byte ", begin, " of the data where ", at,
                " is due: arrays overlap or leave a hole"));
      at = begin + a.bytes.size();
    }
    if (at != data_.size())
      bad(str("the header describes ", at, " bytes of data; the file has ", data_.size()));
    out.names = NameIndex(out.arrays);
  }

 private:
  [[noreturn]] void bad(const std::string& what) const {
    fail<DataError>(str("[safetensors] ", shown(path_), ": ", what,
                        ". HINT: the file is truncated, corrupt or of another format; fetch or "
                        "write it again"),
                    where_);
  }

  // The header's text; data_ becomes what follows it.
  std::string_view header() {
    constexpr std::uint64_t kMaxHeader = 100'000'000;  // the format's own limit
    std::uint64_t length = 0;
    if (bytes_.size() < 8) bad(str("expected at least 8 bytes; the file has ", bytes_.size()));
    std::memcpy(&length, bytes_.data(), 8);
    if (length > bytes_.size() - 8 || length > kMaxHeader)
      bad(str("the header claims ", length, " bytes; the file has ", bytes_.size()));
    data_ = bytes_.substr(8 + length);
    return bytes_.substr(8, length);
  }

  std::map<std::string, std::string> metadata(const Json& value) const {
    std::map<std::string, std::string> out;
    if (!value.is_object()) bad("__metadata__ is not an object");
    for (const auto& item : value.items()) {
      if (!item.value().is_string()) bad(str("metadata '", item.key(), "' is not a string"));
      out[item.key()] = item.value().get<std::string>();
    }
    return out;
  }

  ArrayView array(const std::string& name, const Json& value) const {
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
    const std::string type = value["dtype"].get<std::string>();
    if (type != "F32" && type != "F16" && type != "BF16")
      bad(str("array '", name, "' is of type ", type, "; F32, F16 and BF16 can be read"));
    const Dtype dtype = type == "F32" ? Dtype::F32 : type == "F16" ? Dtype::F16 : Dtype::BF16;
    const std::uint64_t width = layout_of(dtype).bytes;
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
    return {name, dtype, shape_of(shape, extents.size()),
            data_.substr(offsets[0], offsets[1] - offsets[0])};
  }

  std::string_view bytes_;
  std::string_view data_;
  const std::string& path_;
  Where where_;
};

}  // namespace detail

/// Opens a safetensors file. DataError if any size in it disagrees with another.
inline SafetensorsView view_safetensors(const std::string& path, Where where = Where::here()) {
  SafetensorsView out;
  out.file = MappedFile(path, where);
  detail::SafetensorsReader(out.file.bytes(), path, where).read(out);
  return out;
}

/// Reads a whole safetensors file, as above, into floats of its own.
inline Safetensors read_safetensors(const std::string& path, Where where = Where::here()) {
  SafetensorsView view = view_safetensors(path, where);
  Safetensors out{std::move(view.metadata), {}};
  out.arrays.reserve(view.arrays.size());
  for (const ArrayView& array : view.arrays) out.arrays.push_back(to_owned(array));
  return out;
}

namespace detail {

/// The length and the text of the header for these arrays.
inline std::string safetensors_header(const std::string& path, std::span<const NamedArray> arrays,
                                      const std::map<std::string, std::string>& metadata,
                                      Where where) {
  const auto quoted = [&](const std::string& text) {
    if (!is_utf8(text))
      fail<DataError>(str("[safetensors] ", shown(path),
                          ": a name or metadata is not UTF-8: ", shown(text).substr(0, 60)),
                      where);
    return Json(text).dump();
  };
  std::string text = "{";
  if (!metadata.empty()) {
    text += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata)
      text += str(text.back() == '{' ? "" : ",", quoted(key), ":", quoted(value));
    text += '}';
  }
  std::unordered_set<std::string_view> names{"__metadata__"};
  std::uint64_t at = 0;
  for (const NamedArray& array : arrays) {
    if (static_cast<Index>(array.data.size()) != array.shape.size())
      fail(str("[safetensors] array '", array.name, "' has shape ", array.shape, " but ",
               array.data.size(), " elements"),
           where);
    if (!names.insert(array.name).second)
      fail(str("[safetensors] the array name '", array.name, "' is taken"), where);
    text += str(text.size() == 1 ? "" : ",", quoted(array.name), ":{\"dtype\":\"F32\",\"shape\":[");
    for (int i = 0; i < array.shape.rank(); ++i) text += str(i ? "," : "", array.shape[i]);
    const std::uint64_t end = at + array.data.size_bytes();
    text += str("],\"data_offsets\":[", at, ",", end, "]}");
    at = end;
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');  // so that the data is aligned
  const std::uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + text;
}

}  // namespace detail

/// Writes float arrays and string metadata to an output that is not yet committed, in the order
/// given. ShapeError if an array's data does not match its shape or two share a name.
inline void put_safetensors(Output& out, std::span<const NamedArray> arrays,
                            const std::map<std::string, std::string>& metadata,
                            Where where = Where::here()) {
  out.write(detail::safetensors_header(out.path(), arrays, metadata, where), where);
  for (const NamedArray& array : arrays) out.write(as_text(array.data), where);
}

/// Replaces PATH by such a file, atomically; IoError if the disk refuses.
inline void write_safetensors(const std::string& path, std::span<const NamedArray> arrays,
                              const std::map<std::string, std::string>& metadata = {},
                              Where where = Where::here()) {
  Output out(path, where);
  put_safetensors(out, arrays, metadata, where);
  out.commit({}, where);
}

}}  // namespace plumb::v0_1
