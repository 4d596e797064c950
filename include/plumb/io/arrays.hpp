// Named arrays of numbers: what model files and checkpoints hold. An OwnedArray has its floats, a
// NamedArray points at floats to be written, an ArrayView at the bytes of a file as they lie there.
// What this is not: a tensor; there is no device and no gradient here.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/core/shape.hpp>

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace plumb { inline namespace v0_1 {

static_assert(std::endian::native == std::endian::little,
              "model files are little-endian and are copied into memory as they are");

/// A view of one array that is to be written: data.size() == shape.size().
struct NamedArray {
  std::string name;
  Shape shape;
  std::span<const float> data;
};

/// One array that was read.
struct OwnedArray {
  std::string name;
  Shape shape;
  std::vector<float> data;
};

/// How a file holds the numbers of an array.
enum class Dtype { F32, F16, BF16 };

inline std::size_t bytes_of(Dtype dtype) { return dtype == Dtype::F32 ? 4 : 2; }
inline const char* name(Dtype dtype) {
  return dtype == Dtype::F32 ? "F32" : dtype == Dtype::F16 ? "F16" : "BF16";
}

/// One array of a file, where it lies: bytes.size() == shape.size() * bytes_of(dtype). The bytes
/// live as long as the file's view, and need not be aligned.
struct ArrayView {
  std::string name;
  Dtype dtype = Dtype::F32;
  Shape shape;
  std::string_view bytes;
};

namespace detail {

/// IEEE 754 binary16 to float, exactly, and without a branch, so that a loop of them is vectors.
inline float float_from_half(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t magnitude = half & 0x7fffu;
  const std::uint32_t bias = magnitude >= 0x7c00u ? 224u : 112u;  // infinity and NaN stay such
  const std::uint32_t normal = (magnitude << 13) + (bias << 23);
  const auto small = static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24f;
  return std::bit_cast<float>(sign |
                              (magnitude < 0x400u ? std::bit_cast<std::uint32_t>(small) : normal));
}

}  // namespace detail

/// Writes the numbers of `array` to out[0 … shape.size() - 1]; all three types become float
/// exactly.
inline void to_floats(const ArrayView& array, float* out) {
  const char* bytes = array.bytes.data();
  const std::size_t n = array.bytes.size() / bytes_of(array.dtype);
  if (n == 0) return;
  if (array.dtype == Dtype::F32) {
    std::memcpy(out, bytes, array.bytes.size());
    return;
  }
  const auto convert = [&](auto&& to_float) {
    for (std::size_t i = 0; i < n; ++i) {
      std::uint16_t bits;
      std::memcpy(&bits, bytes + 2 * i, 2);
      out[i] = to_float(bits);
    }
  };
  if (array.dtype == Dtype::F16)
    convert([](std::uint16_t bits) { return detail::float_from_half(bits); });
  else
    convert([](std::uint16_t bits) {
      return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
    });
}

inline OwnedArray to_owned(const ArrayView& array) {
  OwnedArray out{array.name, array.shape,
                 std::vector<float>(array.bytes.size() / bytes_of(array.dtype))};
  to_floats(array, out.data.data());
  return out;
}

/// Finds arrays by their names, in constant time. It holds places and copies of the names, so the
/// arrays may move but must not change.
class NameIndex {
 public:
  NameIndex() = default;
  template <class Arrays>
  explicit NameIndex(const Arrays& arrays) {
    places_.reserve(arrays.size());
    for (const auto& array : arrays) places_.emplace(array.name, places_.size());
  }

  /// The array of that name among `arrays`, from which the index was made; null if there is none.
  template <class Array>
  const Array* find(const std::vector<Array>& arrays, std::string_view name) const {
    const auto found = places_.find(std::string(name));
    return found == places_.end() ? nullptr : &arrays[found->second];
  }

 private:
  std::unordered_map<std::string, std::size_t> places_;
};

/// The array of that name, or null. Looks through all: for many names make a NameIndex.
template <class Array>
const Array* find_array(const std::vector<Array>& arrays, std::string_view name) {
  for (const Array& array : arrays)
    if (array.name == name) return &array;
  return nullptr;
}

/// Views of owned arrays, in their order.
inline std::vector<NamedArray> views(const std::vector<OwnedArray>& arrays) {
  std::vector<NamedArray> out;
  for (const OwnedArray& array : arrays) out.push_back({array.name, array.shape, array.data});
  return out;
}

}}  // namespace plumb::v0_1
