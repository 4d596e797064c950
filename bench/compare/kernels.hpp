// What the peers' files and kernels.cpp share: a matrix product, and an engine that computes it. No
// header of Plumb here: each peer's file is compiled on its own, with flags of its own.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace compare {

using Index = std::int64_t;

enum class Form { NN, NT, TN };  // the values of plumb::Form

/// C (m, n) = A·B, or += if accumulate; row-major. NN: A (m, k), B (k, n); NT: B (n, k); TN: A (k,
/// m).
struct Product {
  float* c;
  const float* a;
  const float* b;
  Index m, n, k;
  Form form;
  bool accumulate;
};

/// A weight (n, k) in an engine's own order, made once for many products C (m, n) = A·Bᵀ.
class PackedWeight {
 public:
  virtual ~PackedWeight() = default;
  virtual void multiply(float* c, const float* a) const = 0;
};

struct Engine {
  std::string name;
  std::string version;
  void (*set_threads)(int threads);
  void (*multiply)(const Product& product);
  /// For products of m rows; null if the library cannot.
  std::unique_ptr<PackedWeight> (*pack)(const float* b, Index m, Index n, Index k);
};

/// Each is defined where its library was found when CMake ran.
Engine openblas();
Engine onednn();
Engine eigen();

}  // namespace compare
