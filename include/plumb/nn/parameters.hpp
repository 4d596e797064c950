// Parameters: every weight of a model in one contiguous buffer, and so its gradients in another. The
// optimizer, the gradient norm, a copy or an average of models are each one linear pass.
//
// Layers add named tensors, views of memory that `allocate` then provides and initialises. A tensor's
// initial values depend on the seed and its name alone, not on what else the model holds.
#pragma once

#include <plumb/core/random.hpp>
#include <plumb/core/tensor.hpp>

#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// Initial values: normal of mean `mean` and standard deviation `std`.
struct Init {
  float mean = 0.0F;
  float std = 0.0F;
};

template <class D>
class Parameters {
 public:
  struct Entry {
    std::string name;
    Tensor<D> tensor;
    Init init;
    bool decay;  ///< whether weight decay applies: matrices yes; norms and biases no
  };

  Parameters() : flat_(Tensor<D>::unallocated()) {}
  Parameters(Parameters&&) noexcept = default;
  Parameters& operator=(Parameters&&) noexcept = default;

  /// Lays out a tensor; it holds memory after allocate(). Begins on a 64-byte boundary.
  Tensor<D> add(std::string name, const Shape& shape, Init init) {
    check(size_ == 0 || flat_.shape() == Shape{}, "[parameters] add() after allocate()");
    for (const Entry& entry : entries_)
      if (entry.name == name) fail(str("[parameters] two tensors are named '", name, "'"));
    auto tensor = flat_.view_at(size_, shape);
    size_ += (shape.size() + 15) / 16 * 16;
    entries_.push_back({std::move(name), tensor, init, shape.rank() > 1});
    return tensor;
  }

  /// Provides the memory and draws the initial values.
  void allocate(std::uint64_t seed) {
    flat_.allocate_as({size_});
    zero(D{}, flat_.data(), flat_.bytes());
    for (const Entry& entry : entries_) {
      Rng rng(seed, Stage::Init, name_hash(entry.name));
      std::vector<float> values(static_cast<std::size_t>(entry.tensor.size()), entry.init.mean);
      if (entry.init.std != 0.0F)
        for (float& value : values) value += entry.init.std * rng.normal();
      copy_from_host(D{}, entry.tensor.data(), values.data(), entry.tensor.bytes());
    }
    flat_.set_requires_grad(true);
  }

  const std::vector<Entry>& entries() const { return entries_; }

  /// The tensor of a name. DataError if there is none.
  const Tensor<D>& operator[](std::string_view name) const {
    for (const Entry& entry : entries_)
      if (entry.name == name) return entry.tensor;
    fail<DataError>(str("[parameters] no tensor is named '", name, "'"));
  }

  /// All values, with the padding between tensors: (size). Its gradient is that of the model.
  const Tensor<D>& flat() const { return flat_; }
  /// Elements of the flat buffer.
  Index size() const { return size_; }
  /// Number of weights, padding not counted.
  Index count() const {
    Index n = 0;
    for (const Entry& entry : entries_) n += entry.tensor.size();
    return n;
  }

  /// Takes the values of the tensors of `other` that exist here too, by name. ShapeError where a
  /// shape differs. Returns how many were taken.
  Index copy_common(const Parameters& other) {
    Index copied = 0;
    for (const Entry& entry : entries_)
      for (const Entry& source : other.entries())
        if (source.name == entry.name) {
          if (source.tensor.shape() != entry.tensor.shape())
            fail(str("[parameters] '", entry.name, "' is ", entry.tensor.shape(), " here and ",
                     source.tensor.shape(), " in the source"));
          copy(D{}, entry.tensor.data(), source.tensor.data(), entry.tensor.bytes());
          ++copied;
        }
    return copied;
  }

 private:
  static std::uint32_t name_hash(std::string_view name) {  // FNV-1a
    std::uint32_t hash = 2166136261U;
    for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619U;
    return hash;
  }

  Tensor<D> flat_;
  Index size_ = 0;
  std::vector<Entry> entries_;
};

}}  // namespace plumb::v0_1
