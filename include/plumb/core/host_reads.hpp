// What the host reads of a device's results, several at a time: kernels leave their numbers on the
// device, and one wait fetches them all. A wait costs a GPU more than most kernels take, since
// nothing is queued meanwhile. Where the memory is the host's own nothing is moved.
#pragma once

#include <plumb/core/tensor.hpp>

#include <algorithm>
#include <cstring>
#include <deque>
#include <type_traits>
#include <vector>

namespace plumb { inline namespace v0_1 {

template <class D>
class HostReads {
 public:
  HostReads() = default;
  HostReads(const HostReads&) = delete;
  HostReads& operator=(const HostReads&) = delete;

  /// Where on the device kernels that are queued from here on may leave `count` values, which
  /// fetch() brings to `to`: until then `to` must stay.
  template <class T>
  T* room(T* to, Index count = 1) {
    if constexpr (on_host<D>) {
      return to;
    } else {
      static_assert(std::is_trivially_copyable_v<T>);
      const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
      if (chunk_ < chunks_.size() && used_ + bytes > chunks_[chunk_].bytes()) ++chunk_, used_ = 0;
      if (chunk_ == chunks_.size())
        chunks_.push_back(
            Tensor<D, std::int8_t>::empty({static_cast<Index>(std::max(bytes, kChunk))}));
      std::int8_t* const from = chunks_[chunk_].data() + used_;
      awaited_.push_back({to, chunk_, used_, bytes});
      used_ += (bytes + 15) / 16 * 16;
      return reinterpret_cast<T*>(from);
    }
  }
  /// *to becomes what is at `from` on the device once that is computed.
  template <class T>
  void later(T* to, const T* from, Index count = 1) {
    copy(D{}, room(to, count), from, static_cast<std::size_t>(count) * sizeof(T));
  }
  /// Waits, and brings what was asked for since the last call.
  void fetch() {
    if constexpr (!on_host<D>) {
      const std::size_t chunks = awaited_.empty() ? 0 : awaited_.back().chunk + 1;
      for (std::size_t c = 0; c < chunks; ++c) {
        std::size_t end = 0;
        for (const Awaited& one : awaited_)
          if (one.chunk == c) end = one.at + one.bytes;
        host_.resize(end);
        copy_to_host(D{}, host_.data(), chunks_[c].data(), end);
        for (const Awaited& one : awaited_)
          if (one.chunk == c) std::memcpy(one.to, host_.data() + one.at, one.bytes);
      }
      forget();
    }
  }
  /// What was asked for is not wanted any more.
  void forget() {
    awaited_.clear();
    chunk_ = used_ = 0;
  }

 private:
  static constexpr std::size_t kChunk = std::size_t{1} << 14;  // statistics of some 50 losses

  struct Awaited {
    void* to;
    std::size_t chunk, at, bytes;
  };
  std::deque<Tensor<D, std::int8_t>> chunks_;  // kept: after the first step nothing is allocated
  std::size_t chunk_ = 0, used_ = 0;
  std::vector<Awaited> awaited_;
  std::vector<std::int8_t> host_;
};

}}  // namespace plumb::v0_1
