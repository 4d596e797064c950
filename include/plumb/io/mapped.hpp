// MappedFile: a file's bytes without a copy. A pipe, or anything else that cannot be mapped, is
// read.
//
// What this is not: safe against a file that another program shortens meanwhile (the system then
// ends the reader by SIGBUS). Plumb's own writers never shorten a model file; they replace it.
#pragma once

#include <plumb/io/file.hpp>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/mman.h>

namespace plumb { inline namespace v0_1 {

class MappedFile {
 public:
  MappedFile() = default;

  /// Maps the file at `path`. IoError if it cannot be opened or read.
  explicit MappedFile(const std::string& path, Where where = Where::here()) {
    const detail::Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (fd.get() < 0) detail::fail_io("open", path, errno, where);
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) detail::fail_io("examine", path, errno, where);
    const auto size = static_cast<std::size_t>(status.st_size);
    if (S_ISREG(status.st_mode) && size > 0) {
      void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
      if (data != MAP_FAILED) {
        data_ = data;
        size_ = size;
        ::madvise(data, size, MADV_WILLNEED);  // only advice: a failure costs time
        return;
      }
    }
    const std::string bytes = detail::read_all(fd.get(), path, where);
    read_.assign(bytes.begin(), bytes.end());
  }

  MappedFile(MappedFile&& other) noexcept { swap(other); }
  MappedFile& operator=(MappedFile&& other) noexcept {
    swap(other);
    return *this;
  }
  ~MappedFile() {
    if (data_ != nullptr) ::munmap(data_, size_);
  }

  /// The bytes; valid while this object lives, also when it is moved.
  std::string_view bytes() const {
    return data_ != nullptr ? std::string_view(static_cast<const char*>(data_), size_)
                            : std::string_view(read_.data(), read_.size());
  }

 private:
  void swap(MappedFile& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    read_.swap(other.read_);
  }

  void* data_ = nullptr;
  std::size_t size_ = 0;
  std::vector<char>
      read_;  // a vector's bytes stay where they are when it is moved; a string's may not
};

}}  // namespace plumb::v0_1
