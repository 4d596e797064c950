// GGUF, the model files of ggml and llama.cpp: typed metadata, then named arrays, some in blocks.
//
//   "GGUF", uint32 version, uint64 arrays, uint64 metadata entries
//   entries: key, uint32 type, value         (strings: uint64 length, bytes; no end)
//   arrays: name, uint32 rank, uint64 extents (the fastest first), uint32 type, uint64 offset
//   the arrays' bytes, each at a multiple of general.alignment (32) from the first
//
// Versions 2 and 3, little-endian; io/gguf_write.hpp writes. Every count, length and offset is
// checked against the file before it is followed; then arrays and texts are views of the mapped
// file. What this is not: an interpreter of what the keys mean (models/gguf.hpp). Source of the
// format: ggml-org/ggml, docs/gguf.md.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/core/shape.hpp>
#include <plumb/io/arrays.hpp>
#include <plumb/io/mapped.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

namespace detail {

/// Types of metadata, by their numbers in the file.
enum class GgufType : std::uint32_t {
  U8,
  I8,
  U16,
  I16,
  U32,
  I32,
  F32,
  Bool,
  Text,
  Array,
  U64,
  I64,
  F64
};

/// Bytes of a value of fixed size; 0: text or array.
constexpr std::size_t gguf_width(GgufType type) {
  constexpr std::array<std::size_t, 13> widths{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return widths[static_cast<std::size_t>(type)];
}

struct GgufDtype {
  std::uint32_t number;
  Dtype dtype;
};
inline constexpr std::array<GgufDtype, 11> kGgufDtypes{{{0, Dtype::F32},
                                                        {1, Dtype::F16},
                                                        {2, Dtype::Q4_0},
                                                        {3, Dtype::Q4_1},
                                                        {6, Dtype::Q5_0},
                                                        {7, Dtype::Q5_1},
                                                        {8, Dtype::Q8_0},
                                                        {12, Dtype::Q4_K},
                                                        {13, Dtype::Q5_K},
                                                        {14, Dtype::Q6_K},
                                                        {30, Dtype::BF16}}};

/// One value of fixed size as a number.
inline double gguf_number(GgufType type, const char* at) {
  const auto as = [&]<class T>(T value) {
    std::memcpy(&value, at, sizeof value);
    return static_cast<double>(value);
  };
  switch (type) {
    case GgufType::U8: return as(std::uint8_t{});
    case GgufType::Bool: return as(std::uint8_t{}) != 0 ? 1 : 0;
    case GgufType::I8: return as(std::int8_t{});
    case GgufType::U16: return as(std::uint16_t{});
    case GgufType::I16: return as(std::int16_t{});
    case GgufType::U32: return as(std::uint32_t{});
    case GgufType::I32: return as(std::int32_t{});
    case GgufType::F32: return as(float{});
    case GgufType::U64: return as(std::uint64_t{});
    case GgufType::I64: return as(std::int64_t{});
    default: return as(double{});
  }
}

}  // namespace detail

/// A GGUF file where it lies. Values are found by their keys; a key that is not there is nothing.
class GgufView {
 public:
  /// DataError if it is no GGUF file, or a size in it disagrees with another.
  explicit GgufView(const std::string& path, Where where = Where::here())
      : path_(path), where_(where), file_(path, where), bytes_(file_.bytes()) {
    read();
  }

  const std::vector<ArrayView>& arrays() const { return arrays_; }
  /// The array of that name, or null.
  const ArrayView* find(std::string_view name) const { return names_.find(arrays_, name); }

  bool has(std::string_view key) const { return values_.contains(key); }

  /// A text. DataError if the key holds something else.
  std::optional<std::string> text(std::string_view key) const {
    const Value* value = value_of(key);
    if (value == nullptr) return std::nullopt;
    if (value->type != detail::GgufType::Text) bad(str("'", key, "' is no text"));
    return std::string(value->bytes);
  }

  /// A number or a truth (0 or 1). DataError if the key holds something else.
  std::optional<double> number(std::string_view key) const {
    const Value* value = value_of(key);
    if (value == nullptr) return std::nullopt;
    if (detail::gguf_width(value->type) == 0) bad(str("'", key, "' is no number"));
    return detail::gguf_number(value->type, value->bytes.data());
  }

  /// Texts, in place. DataError if the key holds something else.
  std::vector<std::string_view> texts(std::string_view key) const {
    std::vector<std::string_view> out;
    const Value* value = value_of(key);
    if (value == nullptr) return out;
    if (value->type != detail::GgufType::Array || value->element != detail::GgufType::Text)
      bad(str("'", key, "' is no list of texts"));
    out.reserve(value->count);
    std::size_t at = static_cast<std::size_t>(value->bytes.data() - bytes_.data());
    for (std::size_t i = 0; i < value->count; ++i) out.push_back(text_at(at));
    return out;
  }

  /// Numbers. DataError if the key holds something else.
  std::vector<double> numbers(std::string_view key) const {
    std::vector<double> out;
    const Value* value = value_of(key);
    if (value == nullptr) return out;
    const std::size_t width =
        value->type == detail::GgufType::Array ? detail::gguf_width(value->element) : 0;
    if (width == 0) bad(str("'", key, "' is no list of numbers"));
    for (std::size_t i = 0; i < value->count; ++i)
      out.push_back(detail::gguf_number(value->element, value->bytes.data() + i * width));
    return out;
  }

  [[noreturn]] void bad(const std::string& what) const {
    fail<DataError>(str("[gguf] ", shown(path_), ": ", what,
                        ". HINT: the file is truncated, corrupt or of another format; fetch or "
                        "write it again"),
                    where_);
  }

 private:
  struct Value {
    detail::GgufType type, element;
    std::size_t count;  ///< of an array's elements
    std::string_view bytes;
  };

  const Value* value_of(std::string_view key) const {
    const auto found = values_.find(key);
    return found == values_.end() ? nullptr : &found->second;
  }

  template <class T>
  T take(std::size_t& at) const {
    T value;
    if (bytes_.size() - at < sizeof value) bad(str("it ends at byte ", bytes_.size()));
    std::memcpy(&value, bytes_.data() + at, sizeof value);
    at += sizeof value;
    return value;
  }
  std::string_view piece(std::size_t& at, std::uint64_t length) const {
    if (length > bytes_.size() - at)
      bad(str("byte ", at, " begins something of ", length, " bytes; the file has ",
              bytes_.size()));
    const std::string_view out = bytes_.substr(at, length);
    at += length;
    return out;
  }
  std::string_view text_at(std::size_t& at) const {
    const auto length = take<std::uint64_t>(at);
    return piece(at, length);
  }
  detail::GgufType type_at(std::size_t& at) const {
    const auto number = take<std::uint32_t>(at);
    if (number > static_cast<std::uint32_t>(detail::GgufType::F64))
      bad(str("byte ", at - 4, " says a type ", number, " of metadata, which does not exist"));
    return static_cast<detail::GgufType>(number);
  }

  Value value_at(std::size_t& at) const {
    Value value{type_at(at), detail::GgufType::U8, 0, {}};
    if (value.type == detail::GgufType::Text) {
      value.bytes = text_at(at);
      return value;
    }
    if (value.type != detail::GgufType::Array) {
      value.bytes = piece(at, detail::gguf_width(value.type));
      return value;
    }
    value.element = type_at(at);
    if (value.element == detail::GgufType::Array) bad(str("byte ", at, " is a list of lists"));
    const auto count = take<std::uint64_t>(at);
    const std::size_t begin = at,
                      least = std::max<std::size_t>(1, detail::gguf_width(value.element));
    if (count > (bytes_.size() - at) / least)
      bad(str("byte ", at, " begins a list of ", count, "; the file has ", bytes_.size(),
              " bytes"));
    value.count = count;
    if (value.element == detail::GgufType::Text)
      for (std::uint64_t i = 0; i < count; ++i) text_at(at);
    else
      piece(at, count * least);
    value.bytes = bytes_.substr(begin, at - begin);
    return value;
  }

  void read() {
    if (!bytes_.starts_with("GGUF")) bad("it does not begin with GGUF");
    std::size_t at = 4;
    const auto version = take<std::uint32_t>(at);
    if (version != 2 && version != 3)
      bad(str("it is of version ", version, "; 2 and 3 can be read"));
    const auto arrays = take<std::uint64_t>(at), entries = take<std::uint64_t>(at);
    for (std::uint64_t i = 0; i < entries; ++i) {
      const std::string key(text_at(at));
      if (!values_.emplace(key, value_at(at)).second) bad(str("it says '", shown(key), "' twice"));
    }
    std::vector<std::uint64_t> offsets;
    for (std::uint64_t i = 0; i < arrays; ++i) offsets.push_back(array_at(at));
    place(offsets, at);
    names_ = NameIndex(arrays_);
  }

  // Reads what the header says of one array; its offset is the result.
  std::uint64_t array_at(std::size_t& at) {
    ArrayView array;
    array.name = std::string(text_at(at));
    const auto rank = take<std::uint32_t>(at);
    if (rank < 1 || rank > Shape::kMaxRank)
      bad(str("array '", shown(array.name), "' has ", rank, " dimensions; 1 to 4 can be read"));
    std::array<std::uint64_t, Shape::kMaxRank> extents{};
    std::uint64_t size = 1;
    for (std::uint32_t d = 0; d < rank; ++d) {
      extents[d] = take<std::uint64_t>(at);
      if (extents[d] > (1ull << 48) || __builtin_mul_overflow(size, extents[d], &size) ||
          size > (1ull << 48))
        bad(str("array '", shown(array.name), "' claims more numbers than can be counted"));
    }
    const auto number = take<std::uint32_t>(at);
    const auto* known = std::find_if(detail::kGgufDtypes.begin(), detail::kGgufDtypes.end(),
                                     [&](const auto& type) { return type.number == number; });
    if (known == detail::kGgufDtypes.end()) {
      std::string names;
      for (const auto& type : detail::kGgufDtypes)
        names += str(names.empty() ? "" : ", ", plumb::name(type.dtype));
      bad(str("array '", shown(array.name), "' is of type number ", number, "; ", names,
              " can be read"));
    }
    array.dtype = known->dtype;
    const DtypeLayout layout = layout_of(array.dtype);
    if (extents[0] % layout.numbers != 0)
      bad(str("array '", shown(array.name), "' has rows of ", extents[0], " numbers, no blocks of ",
              layout.numbers));
    std::array<Index, Shape::kMaxRank> e{};
    for (std::uint32_t d = 0; d < rank; ++d) e[d] = static_cast<Index>(extents[rank - 1 - d]);
    array.shape = detail::shape_of(e.data(), rank);
    arrays_.push_back(std::move(array));
    return take<std::uint64_t>(at);
  }

  // Finds the arrays' bytes after the header, which ends at `end`.
  void place(const std::vector<std::uint64_t>& offsets, std::size_t end) {
    const double said = number("general.alignment").value_or(32);
    if (!(said >= 1 && said <= (1 << 20))) bad(str("an alignment of ", said));
    const auto alignment = static_cast<std::uint64_t>(said);
    const std::uint64_t begin = (end + alignment - 1) / alignment * alignment;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> places;
    for (std::size_t i = 0; i < arrays_.size(); ++i) {
      ArrayView& array = arrays_[i];
      const DtypeLayout layout = layout_of(array.dtype);
      const auto blocks = static_cast<std::uint64_t>(array.shape.size()) / layout.numbers;
      const std::uint64_t bytes = blocks * layout.bytes;
      if (offsets[i] % alignment != 0 || begin > bytes_.size() ||
          offsets[i] > bytes_.size() - begin || bytes > bytes_.size() - begin - offsets[i])
        bad(str("array '", shown(array.name), "' (", bytes, " bytes at ", offsets[i],
                ") lies outside the file's ", bytes_.size(), " bytes, or between two places"));
      array.bytes = bytes_.substr(begin + offsets[i], bytes);
      if (bytes > 0) places.emplace_back(offsets[i], offsets[i] + bytes);
    }
    std::sort(places.begin(), places.end());
    for (std::size_t i = 1; i < places.size(); ++i)
      if (places[i].first < places[i - 1].second)
        bad(str("two arrays lie at byte ", places[i].first, " of the data"));
    std::vector<std::string_view> all;
    for (const ArrayView& array : arrays_) all.push_back(array.name);
    std::sort(all.begin(), all.end());
    const auto twice = std::adjacent_find(all.begin(), all.end());
    if (twice != all.end()) bad(str("there are two arrays '", shown(std::string(*twice)), "'"));
  }

  std::string path_;
  Where where_;
  MappedFile file_;
  std::string_view bytes_;
  std::map<std::string, Value, std::less<>> values_;
  std::vector<ArrayView> arrays_;
  NameIndex names_;
};

}}  // namespace plumb::v0_1
