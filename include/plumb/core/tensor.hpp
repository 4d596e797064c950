// Tensor: a shape, a place in reference-counted storage, and a gradient of the same size.
//
// Always contiguous and row-major; `reshape` and `rows` are views of the same storage, and so of
// the same gradient. Copying a Tensor copies the handle. What this is not: there are no strides, no
// broadcasting, no lazy evaluation, no run-time device tag.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/core/device.hpp>
#include <plumb/core/memory.hpp>
#include <plumb/core/shape.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

namespace detail {

// One block of device memory and, once somebody asks for it, its gradient. A model's parameters
// share a single Storage, so its gradients lie in a single block too.
template <class D>
struct Storage {
  std::atomic<int> references{1};
  bool requires_grad = false;
  Index elements = 0;
  std::size_t bytes = 0;
  void* data = nullptr;
  void* grad = nullptr;       // as many elements, of the same size
  Storage* lender = nullptr;  // whose data this is, if it is not its own

  static Storage* create() { return new (kernels::allocate(Cpu{}, sizeof(Storage))) Storage; }

  void allocate_data(Index count, std::size_t element_size) {
    elements = count;
    bytes = static_cast<std::size_t>(count) * element_size;
    data = allocate(D{}, bytes);
  }
  void allocate_grad() { grad = allocate(D{}, bytes); }

  // The same data, without its gradient.
  static Storage* borrow(Storage* lender) {
    lender->references.fetch_add(1, std::memory_order_relaxed);
    Storage* storage = create();
    storage->elements = lender->elements;
    storage->bytes = lender->bytes;
    storage->data = lender->data;
    storage->lender = lender;
    return storage;
  }

  static void drop(Storage* storage) {
    if (storage == nullptr || storage->references.fetch_sub(1, std::memory_order_acq_rel) > 1)
      return;
    if (storage->lender != nullptr)
      drop(storage->lender);
    else if (storage->data != nullptr)
      release(D{}, storage->data, storage->bytes);
    if (storage->grad != nullptr) release(D{}, storage->grad, storage->bytes);
    storage->~Storage();
    kernels::release(Cpu{}, storage, sizeof(Storage));
  }
};

}  // namespace detail

/// Where a backward kernel puts a gradient: adds to it if `accumulate`, else overwrites it.
template <class T>
struct GradTarget {
  T* data;
  bool accumulate;
};

template <class D, class T = float>
class Tensor {
 public:
  using Device = D;

  Tensor() = default;
  Tensor(const Tensor& other)
      : storage_(other.storage_), offset_(other.offset_), shape_(other.shape_) {
    if (storage_ != nullptr) storage_->references.fetch_add(1, std::memory_order_relaxed);
  }
  Tensor(Tensor&& other) noexcept
      : storage_(std::exchange(other.storage_, nullptr)),
        offset_(other.offset_),
        shape_(other.shape_) {}
  Tensor& operator=(Tensor other) noexcept {
    std::swap(storage_, other.storage_);
    offset_ = other.offset_;
    shape_ = other.shape_;
    return *this;
  }
  ~Tensor() { detail::Storage<D>::drop(storage_); }

  /// Uninitialised memory of a shape.
  static Tensor empty(const Shape& shape) {
    Tensor tensor;
    tensor.storage_ = detail::Storage<D>::create();
    tensor.shape_ = shape;
    tensor.storage_->allocate_data(shape.size(), sizeof(T));
    return tensor;
  }

  static Tensor zeros(const Shape& shape) {
    Tensor tensor = empty(shape);
    zero(D{}, tensor.data(), tensor.bytes());
    return tensor;
  }

  /// A copy of host values, row-major. ShapeError unless there are shape.size() of them.
  static Tensor from(std::span<const T> values, const Shape& shape, Where where = Where::here()) {
    if (static_cast<Index>(values.size()) != shape.size())
      fail(str("[tensor] ", values.size(), " values do not fill the shape ", shape), where);
    Tensor tensor = empty(shape);
    copy_from_host(D{}, tensor.data(), values.data(), tensor.bytes());
    return tensor;
  }
  static Tensor from(std::initializer_list<T> values, const Shape& shape,
                     Where where = Where::here()) {
    return from(std::span<const T>(values.begin(), values.size()), shape, where);
  }

  static Tensor full(const Shape& shape, T value) {
    return from(std::vector<T>(static_cast<std::size_t>(shape.size()), value), shape);
  }
  static Tensor ones(const Shape& shape) { return full(shape, T{1}); }
  /// 0, 1, …, n - 1.
  static Tensor arange(Index n) {
    std::vector<T> values;
    for (Index i = 0; i < n; ++i) values.push_back(static_cast<T>(i));
    return from(values, {n});
  }
  /// Normal with this standard deviation, from an Rng (core/random.hpp).
  template <class Generator>
  static Tensor randn(const Shape& shape, Generator& rng, T std = T{1}) {
    std::vector<T> values(static_cast<std::size_t>(shape.size()));
    for (T& value : values) value = std * static_cast<T>(rng.normal());
    return from(values, shape);
  }

  explicit operator bool() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  /// Extent of a dimension, negative from the last.
  Index dim(int dimension, Where where = Where::here()) const {
    return shape_.at(dimension, where);
  }
  Index size() const { return shape_.size(); }
  std::size_t bytes() const { return static_cast<std::size_t>(size()) * sizeof(T); }

  /// Device memory of the elements.
  T* data() const { return static_cast<T*>(storage_->data) + offset_; }

  /// The same elements under another shape of equal size: a view.
  Tensor reshape(const Shape& shape, Where where = Where::here()) const {
    if (shape.size() != size())
      fail(str("[reshape] ", shape_, " has ", size(), " elements, ", shape, " has ", shape.size()),
           where);
    Tensor view = *this;
    view.shape_ = shape;
    return view;
  }

  /// Rows [first, last) of the leading dimension: a view.
  Tensor rows(Index first, Index last, Where where = Where::here()) const {
    if (shape_.rank() == 0 || first < 0 || last < first || last > shape_[0])
      fail(str("[rows] [", first, ", ", last, ") is not within the rows of ", shape_), where);
    Tensor view = *this;
    const Index row = shape_[0] == 0 ? 0 : size() / shape_[0];
    view.offset_ += first * row;
    switch (shape_.rank()) {
      case 1: view.shape_ = {last - first}; break;
      case 2: view.shape_ = {last - first, shape_[1]}; break;
      case 3: view.shape_ = {last - first, shape_[1], shape_[2]}; break;
      default: view.shape_ = {last - first, shape_[1], shape_[2], shape_[3]};
    }
    return view;
  }

  /// The same elements, which no gradient flows to: a view.
  Tensor detach() const {
    Tensor view;
    view.storage_ = detail::Storage<D>::borrow(storage_);
    view.offset_ = offset_;
    view.shape_ = shape_;
    return view;
  }

  /// A copy in memory of its own, without gradient.
  Tensor clone() const {
    Tensor result = empty(shape_);
    copy(D{}, result.data(), data(), bytes());
    return result;
  }

  std::vector<T> to_vector() const {
    std::vector<T> values(static_cast<std::size_t>(size()));
    copy_to_host(D{}, values.data(), data(), bytes());
    return values;
  }

  /// The one element of a tensor that holds one.
  T item(Where where = Where::here()) const {
    if (size() != 1) fail(str("[item] one element expected, the shape is ", shape_), where);
    T value;
    copy_to_host(D{}, &value, data(), sizeof(T));
    return value;
  }

  bool requires_grad() const { return storage_ != nullptr && storage_->requires_grad; }
  /// Whether ops that read this tensor are recorded. Shared by all views of the same storage.
  void set_requires_grad(bool value) const { storage_->requires_grad = value; }

  bool has_grad() const { return storage_ != nullptr && storage_->grad != nullptr; }

  /// The gradient's memory, zero at first.
  T* grad() const {
    if (storage_->grad == nullptr) {
      storage_->allocate_grad();
      zero(D{}, storage_->grad, storage_->bytes);
    }
    return static_cast<T*>(storage_->grad) + offset_;
  }

  /// The gradient for a kernel that fills it whole: the first writer of a tensor that is no view
  /// overwrites, and the memory need not be cleared first.
  GradTarget<T> grad_target() const {
    const bool first = storage_->grad == nullptr && size() == storage_->elements;
    if (first) storage_->allocate_grad();
    return {grad(), !first};
  }

  /// The gradient as a tensor (a copy).
  Tensor grad_tensor() const {
    auto result = empty(shape_);
    copy(D{}, result.data(), grad(), bytes());
    return result;
  }

  /// Sets the gradient to zero.
  void zero_grad() const {
    if (has_grad()) zero(D{}, grad(), bytes());
  }

  /// Storage whose memory comes later, and views into it: how Parameters lays a model out in one
  /// flat buffer.
  static Tensor unallocated() {
    Tensor tensor;
    tensor.storage_ = detail::Storage<D>::create();
    return tensor;
  }
  Tensor view_at(Index offset, const Shape& shape) const {
    Tensor view = *this;
    view.offset_ = offset;
    view.shape_ = shape;
    return view;
  }
  void allocate_as(const Shape& shape) {
    storage_->allocate_data(shape.size(), sizeof(T));
    shape_ = shape;
  }

 private:
  detail::Storage<D>* storage_ = nullptr;
  Index offset_ = 0;
  Shape shape_;
};

/// A copy on another device.
template <class To, class From, class T>
Tensor<To, T> to(const Tensor<From, T>& x) {
  return Tensor<To, T>::from(x.to_vector(), x.shape());
}

/// The shape, and the numbers a row to a line, at most eight of each at either end: what str() and
/// print() show.
template <class D, class T>
void append(std::string& out, const Tensor<D, T>& x) {
  constexpr Index kShown = 8;
  if (!x) {
    out += "no tensor";
    return;
  }
  append(out, x.shape());
  const auto values = x.to_vector();
  const Index c = x.shape().rank() == 0 ? 1 : x.dim(-1), n = c == 0 ? 0 : x.size() / c;
  const auto each = [](Index count, auto&& body, auto&& gap) {
    for (Index i = 0; i < count; ++i) {
      if (count <= 2 * kShown || i < kShown || i >= count - kShown)
        body(i);
      else if (i == kShown)
        gap();
    }
  };
  each(
      n,
      [&](Index i) {
        out += "\n ";
        each(
            c,
            [&](Index j) {
              char text[32];
              std::snprintf(text, sizeof text, " %10.5g",
                            static_cast<double>(values[static_cast<std::size_t>(i * c + j)]));
              out += text;
            },
            [&] { out += " …"; });
      },
      [&] { out += "\n  …"; });
}

/// Prints a tensor on the standard output, for a look.
template <class D, class T>
void print(const Tensor<D, T>& x) {
  std::puts(str(x).c_str());
}

}}  // namespace plumb::v0_1
