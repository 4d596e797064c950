// Writes GGUF files (io/gguf.hpp), version 3, their arrays as F32, F16 or Q8_0.
#pragma once

#include <plumb/io/gguf.hpp>
#include <plumb/io/output.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace plumb { inline namespace v0_1 {

/// The metadata of a file that is to be written, entry by entry.
class GgufMetadata {
 public:
  void add(std::string_view key, std::string_view value) {
    begin(key, detail::GgufType::Text);
    text(value);
  }
  void add(std::string_view key, const char* value) { add(key, std::string_view(value)); }
  void add(std::string_view key, bool value) {
    begin(key, detail::GgufType::Bool);
    raw(static_cast<std::uint8_t>(value));
  }
  void add(std::string_view key, std::uint32_t value) {
    begin(key, detail::GgufType::U32);
    raw(value);
  }
  void add(std::string_view key, float value) {
    begin(key, detail::GgufType::F32);
    raw(value);
  }
  void add(std::string_view key, std::span<const std::string> values) {
    list(key, detail::GgufType::Text, values.size());
    for (const std::string& value : values) text(value);
  }
  void add(std::string_view key, std::span<const std::int32_t> values) {
    list(key, detail::GgufType::I32, values.size());
    for (const std::int32_t value : values) raw(value);
  }
  void add(std::string_view key, std::span<const float> values) {
    list(key, detail::GgufType::F32, values.size());
    for (const float value : values) raw(value);
  }

  std::uint64_t count() const { return count_; }
  const std::string& bytes() const { return bytes_; }

 private:
  template <class T>
  void raw(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void text(std::string_view value) {
    raw(static_cast<std::uint64_t>(value.size()));
    bytes_ += value;
  }
  void begin(std::string_view key, detail::GgufType type) {
    ++count_;
    text(key);
    raw(static_cast<std::uint32_t>(type));
  }
  void list(std::string_view key, detail::GgufType element, std::size_t count) {
    begin(key, detail::GgufType::Array);
    raw(static_cast<std::uint32_t>(element));
    raw(static_cast<std::uint64_t>(count));
  }

  std::string bytes_;
  std::uint64_t count_ = 0;
};

/// Floats to be written as numbers of `dtype`: F32, F16 or Q8_0.
struct GgufArray {
  NamedArray array;
  Dtype dtype = Dtype::F32;
};

namespace detail {

inline constexpr std::uint64_t kGgufAlignment = 32;
inline std::uint64_t gguf_padded(std::uint64_t n) {
  return (n + kGgufAlignment - 1) / kGgufAlignment * kGgufAlignment;
}
inline std::uint64_t bytes_of(const GgufArray& a) {
  const DtypeLayout layout = layout_of(a.dtype);
  return a.array.data.size() / layout.numbers * layout.bytes;
}

/// What stands before the arrays' bytes.
inline std::string gguf_head(const GgufMetadata& metadata, std::span<const GgufArray> arrays,
                             Where where) {
  std::string head = "GGUF";
  const auto raw = [&](auto value) {
    head.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  raw(std::uint32_t{3});
  raw(static_cast<std::uint64_t>(arrays.size()));
  raw(metadata.count());
  head += metadata.bytes();
  std::uint64_t at = 0;
  for (const GgufArray& a : arrays) {
    const Shape& shape = a.array.shape;
    check<DataError>(a.dtype == Dtype::F32 || a.dtype == Dtype::F16 || a.dtype == Dtype::Q8_0,
                     "[gguf] F32, F16 and Q8_0 can be written", where);
    check<DataError>(
        shape.rank() > 0 && static_cast<Index>(a.array.data.size()) == shape.size() &&
            static_cast<std::size_t>(shape[shape.rank() - 1]) % layout_of(a.dtype).numbers == 0,
        "[gguf] an array's rows are not whole blocks of its type", where);
    raw(static_cast<std::uint64_t>(a.array.name.size()));
    head += a.array.name;
    raw(static_cast<std::uint32_t>(shape.rank()));
    for (int d = shape.rank() - 1; d >= 0; --d) raw(static_cast<std::uint64_t>(shape[d]));
    const auto* known = std::find_if(kGgufDtypes.begin(), kGgufDtypes.end(),
                                     [&](const auto& type) { return type.dtype == a.dtype; });
    raw(known->number);
    raw(at);
    at += gguf_padded(bytes_of(a));
  }
  head.resize(gguf_padded(head.size()));
  return head;
}

/// An array's numbers in its type, and what fills up the last line of 32 bytes.
inline std::string gguf_bytes(const GgufArray& a) {
  const std::span<const float> from = a.array.data;
  std::string bytes(gguf_padded(bytes_of(a)), '\0');
  auto* to = reinterpret_cast<std::uint8_t*>(bytes.data());
  if (a.dtype == Dtype::F32 && !from.empty()) std::memcpy(to, from.data(), from.size_bytes());
  if (a.dtype == Dtype::Q8_0)
    for (std::size_t i = 0; i < from.size() / 32; ++i)
      write_q8_0(from.data() + 32 * i, to + 34 * i);
  if (a.dtype == Dtype::F16)
    for (std::size_t i = 0; i < from.size(); ++i) {
      const std::uint16_t half = half_from_float(from[i]);
      std::memcpy(to + 2 * i, &half, 2);
    }
  return bytes;
}

}  // namespace detail

/// Replaces PATH by a GGUF file, atomically. DataError if a type cannot be written, or a row is not
/// whole blocks.
inline void write_gguf(const std::string& path, const GgufMetadata& metadata,
                       std::span<const GgufArray> arrays, Where where = Where::here()) {
  const std::string head = detail::gguf_head(metadata, arrays, where);
  Output out(path, where);
  out.write(head, where);
  for (const GgufArray& a : arrays) out.write(detail::gguf_bytes(a), where);
  out.commit({}, where);
}

}}  // namespace plumb::v0_1
