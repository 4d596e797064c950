// Named arrays of numbers: what model files and checkpoints hold. An OwnedArray has its floats, a
// NamedArray points at floats to be written, an ArrayView at the bytes of a file as they lie there.
// What this is not: a tensor; there is no device and no gradient here.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/core/shape.hpp>
#include <plumb/io/quantized.hpp>

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

/// How a file holds the numbers of an array: each by itself, or in the blocks of io/quantized.hpp.
enum class Dtype { F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K };

/// A type's name, how many numbers share a block, and the block's bytes.
struct DtypeLayout {
  const char* name;
  std::size_t numbers, bytes;
};
constexpr DtypeLayout layout_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::F32: return {"F32", 1, 4};
    case Dtype::F16: return {"F16", 1, 2};
    case Dtype::BF16: return {"BF16", 1, 2};
    case Dtype::Q8_0: return {"Q8_0", 32, 34};
    case Dtype::Q4_0: return {"Q4_0", 32, 18};
    case Dtype::Q4_1: return {"Q4_1", 32, 20};
    case Dtype::Q5_0: return {"Q5_0", 32, 22};
    case Dtype::Q5_1: return {"Q5_1", 32, 24};
    case Dtype::Q4_K: return {"Q4_K", 256, 144};
    case Dtype::Q5_K: return {"Q5_K", 256, 176};
    default: return {"Q6_K", 256, 210};
  }
}
inline const char* name(Dtype dtype) { return layout_of(dtype).name; }

/// One array of a file, where it lies, in whole blocks of its type. The bytes live as long as the
/// file's view, and need not be aligned.
struct ArrayView {
  std::string name;
  Dtype dtype = Dtype::F32;
  Shape shape;
  std::string_view bytes;

  /// As many numbers as its bytes hold.
  std::size_t size() const {
    return bytes.size() / layout_of(dtype).bytes * layout_of(dtype).numbers;
  }
};

namespace detail {

/// The shape of as many extents as a file says: at most Shape::kMaxRank.
inline Shape shape_of(const Index* e, std::size_t rank) {
  switch (rank) {
    case 0: return {};
    case 1: return {e[0]};
    case 2: return {e[0], e[1]};
    case 3: return {e[0], e[1], e[2]};
    default: return {e[0], e[1], e[2], e[3]};
  }
}

}  // namespace detail

/// Writes the numbers of `array` to out[0 … array.size() - 1]; every type becomes float exactly.
inline void to_floats(const ArrayView& array, float* out) {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(array.bytes.data());
  const DtypeLayout layout = layout_of(array.dtype);
  const std::size_t blocks = array.bytes.size() / layout.bytes;
  const auto convert = [&](auto&& read) {
    for (std::size_t i = 0; i < blocks; ++i)
      read(bytes + i * layout.bytes, out + i * layout.numbers);
  };
  const auto brain = [](const std::uint8_t* at, float* number) {
    std::uint16_t bits;
    std::memcpy(&bits, at, 2);
    *number = std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  };
  switch (array.dtype) {
    case Dtype::F32:
      if (blocks > 0) std::memcpy(out, bytes, array.bytes.size());
      return;
    case Dtype::F16: return convert([](auto* at, float* number) { *number = detail::half_at(at); });
    case Dtype::BF16: return convert(brain);
    case Dtype::Q8_0: return convert(detail::read_q8_0);
    case Dtype::Q4_0: return convert(detail::read_q4_0);
    case Dtype::Q4_1: return convert(detail::read_q4_1);
    case Dtype::Q5_0: return convert(detail::read_q5_0);
    case Dtype::Q5_1: return convert(detail::read_q5_1);
    case Dtype::Q4_K: return convert(detail::read_q4_k);
    case Dtype::Q5_K: return convert(detail::read_q5_k);
    case Dtype::Q6_K: return convert(detail::read_q6_k);
  }
}

inline OwnedArray to_owned(const ArrayView& array) {
  OwnedArray out{array.name, array.shape, std::vector<float>(array.size())};
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
