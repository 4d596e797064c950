// Named float arrays: what model files and checkpoints hold. What this is not: a tensor; there is
// no device and no gradient here.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/core/shape.hpp>

#include <bit>
#include <span>
#include <string>
#include <string_view>
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

/// The array of that name, or null.
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
