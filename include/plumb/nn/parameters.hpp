// Parameters: every weight of a model in one contiguous buffer, and so its gradients in another.
// The optimizer, the gradient norm, a copy or an average of models are each one linear pass.
//
// Layers add named tensors, views of memory that `allocate` then provides and initialises. A
// tensor's initial values depend on the seed and its name alone: not on what else the model holds,
// nor on how many threads draw them. A model that is read from a file or copied draws none
// (`allocate_unset`).
#pragma once

#include <plumb/core/pool.hpp>
#include <plumb/core/random.hpp>
#include <plumb/core/tensor.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
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
  Tensor<D> add(std::string name, const Shape& shape, Init init, Where where = Where::here()) {
    check(size_ == 0 || flat_.shape() == Shape{}, "[parameters] add() after allocate()", where);
    if (!places_.emplace(name, entries_.size()).second)
      fail(str("[parameters] two tensors are named '", name, "'"), where);
    auto tensor = flat_.view_at(size_, shape);
    size_ += padded(shape.size());
    entries_.push_back({std::move(name), tensor, init, shape.rank() > 1});
    return tensor;
  }

  /// Provides the memory and draws the initial values.
  void allocate(std::uint64_t seed) {
    allocate_unset();
    for (const Entry& entry : entries_) draw(entry, seed);
  }

  /// Provides the memory alone: the caller sets every tensor. Only the padding between them is
  /// zero.
  void allocate_unset() {
    flat_.allocate_as({size_});
    for (const Entry& entry : entries_) {
      const Index used = entry.tensor.size(), gap = padded(used) - used;
      if (gap > 0)
        zero(D{}, entry.tensor.data() + used, static_cast<std::size_t>(gap) * sizeof(float));
    }
    flat_.set_requires_grad(true);
  }

  /// Draws the initial values of the tensor of a name, as allocate() does.
  void draw(std::string_view name, std::uint64_t seed) { draw(entry_of(name), seed); }

  const std::vector<Entry>& entries() const { return entries_; }

  /// The tensor of a name. DataError if there is none.
  const Tensor<D>& operator[](std::string_view name) const { return entry_of(name).tensor; }
  /// Whether a tensor has that name.
  bool contains(std::string_view name) const { return places_.contains(name); }

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
  Index copy_common(const Parameters& other, Where where = Where::here()) {
    Index copied = 0;
    for (const Entry& entry : entries_) {
      if (!other.contains(entry.name)) continue;
      const Tensor<D>& source = other[entry.name];
      if (source.shape() != entry.tensor.shape())
        fail(str("[parameters] '", entry.name, "' is ", entry.tensor.shape(), " here and ",
                 source.shape(), " in the source"),
             where);
      copy(D{}, entry.tensor.data(), source.data(), entry.tensor.bytes());
      ++copied;
    }
    return copied;
  }

  /// NumericError naming a tensor that holds a value which is not finite: `what` says whose
  /// weights.
  void require_finite(const char* what) const {
    require_finite(what, sum_of_squares(D{}, flat_.data(), size_));
  }
  /// The same where Σ x² of all values is known: it tells quickly, and only where it is not finite
  /// is each value looked at.
  void require_finite(const char* what, double squares) const {
    if (std::isfinite(squares)) return;
    for (const Entry& entry : entries_)
      for (const float value : entry.tensor.to_vector())
        if (!std::isfinite(value))
          fail<NumericError>(str(what, ": weight '", entry.name, "' holds ", value,
                                 ". HINT: the update diverged; lower the learning rate and go on "
                                 "from the last checkpoint"));
  }

 private:
  static Index padded(Index n) { return (n + 15) / 16 * 16; }

  const Entry& entry_of(std::string_view name) const {
    const auto found = places_.find(name);
    if (found == places_.end())
      fail<DataError>(str("[parameters] no tensor is named '", name, "'"));
    return entries_[found->second];
  }

  // Value i is the stream's i-th normal number, wherever its chunk is drawn.
  static void draw(const Entry& entry, std::uint64_t seed) {
    std::vector<float> values(static_cast<std::size_t>(entry.tensor.size()), entry.init.mean);
    constexpr std::size_t kDraws = 1 << 14;  // even: a block of the stream gives two values
    const std::uint32_t stream = stream_of(entry.name);
    const auto part = [&](Index chunk) {
      const std::size_t first = static_cast<std::size_t>(chunk) * kDraws;
      Rng rng(seed, Stage::Init, stream);
      rng.seek(static_cast<std::uint32_t>(first / 2));
      for (std::size_t i = first; i < std::min(values.size(), first + kDraws); ++i)
        values[i] += entry.init.std * rng.normal();
    };
    if (entry.init.std != 0.0F)
      default_pool().run(static_cast<Index>((values.size() + kDraws - 1) / kDraws), part);
    copy_from_host(D{}, entry.tensor.data(), values.data(), entry.tensor.bytes());
  }

  Tensor<D> flat_;
  Index size_ = 0;
  std::vector<Entry> entries_;
  struct NameHash {  // looks names up without making strings of them
    using is_transparent = void;
    std::size_t operator()(std::string_view name) const {
      return std::hash<std::string_view>{}(name);
    }
  };
  std::unordered_map<std::string, std::size_t, NameHash, std::equal_to<>> places_;
};

}}  // namespace plumb::v0_1
