// Shape: up to four run-time extents, no heap. Tensors are contiguous and row-major, so a shape is
// all there is to know of a layout: there are no strides.
#pragma once

#include <plumb/core/check.hpp>

#include <initializer_list>
#include <string>

namespace plumb { inline namespace v0_1 {

class Shape {
 public:
  static constexpr int kMaxRank = 4;

  /// () is a scalar: rank 0, one element.
  constexpr Shape() = default;

  constexpr Shape(std::initializer_list<Index> extents, Where where = Where::here()) {
    if (extents.size() > kMaxRank)
      fail(str("[shape] at most 4 dimensions; got ", extents.size()), where);
    for (const Index extent : extents) {
      if (extent < 0) fail(str("[shape] no extent may be negative; got ", extent), where);
      extents_[rank_++] = extent;
    }
  }

  constexpr int rank() const { return rank_; }

  /// Extent of a dimension; negative counts from the last: shape[-1] is the row length.
  constexpr Index operator[](int dimension) const { return at(dimension, Where::here()); }
  constexpr Index at(int dimension, Where where = Where::here()) const {
    const int i = dimension < 0 ? dimension + rank_ : dimension;
    if (i < 0 || i >= rank_)
      fail(str("[shape] there are ", rank_, " dimensions; got ", dimension), where);
    return extents_[i];
  }

  /// Number of elements.
  constexpr Index size() const {
    Index n = 1;
    for (int i = 0; i < rank_; ++i) n *= extents_[i];
    return n;
  }

  constexpr bool operator==(const Shape& other) const = default;

 private:
  Index extents_[kMaxRank] = {};
  int rank_ = 0;
};

inline void append(std::string& out, const Shape& shape) {
  out += '(';
  for (int i = 0; i < shape.rank(); ++i) {
    if (i > 0) out += ", ";
    out += std::to_string(shape[i]);
  }
  out += ')';
}

}}  // namespace plumb::v0_1
