// ByteSource: the bytes of a file one block after another, decompressed on the way where it is
// gzip's or Zstandard's. Which it is, is told by its first bytes, never by its name.
//
// Memory does not grow with the file: a block of input, and what the decompressor needs (zlib 40
// KB, Zstandard its window, which is at most 128 MiB and as a rule 8). Several compressed streams
// one behind the other are one text, as gzip and zstd take them. What this is not: a reader of
// archives. The libraries are zlib and zstd (link with -lz -lzstd); this header is their only user.
#pragma once

#include <plumb/io/file.hpp>

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

enum class Compression { None, Gzip, Zstd };

class ByteSource {
 public:
  /// Opens a file or a pipe. IoError if it cannot be read.
  explicit ByteSource(std::string path, Where where = Where::here())
      : path_(std::move(path)),
        where_(where),
        file_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC)),
        in_(kBlock) {
    if (file_.get() < 0) detail::fail_io("open", path_, errno, where);
    struct stat status {};
    if (::fstat(file_.get(), &status) != 0) detail::fail_io("examine", path_, errno, where);
    size_ = S_ISREG(status.st_mode) ? static_cast<Index>(status.st_size) : 0;
    while (have_ < 4 && refill()) {
    }
    const std::string_view first(in_.data(), have_);
    if (first.starts_with("\x1f\x8b")) {
      kind_ = Compression::Gzip;
      gzip_ = std::make_unique<z_stream>();
      if (inflateInit2(gzip_.get(), kGzipWindow) != Z_OK)
        fail<IoError>("[gzip] there is no memory to decompress", where);
    } else if (first.starts_with("\x28\xb5\x2f\xfd")) {
      kind_ = Compression::Zstd;
      zstd_.reset(ZSTD_createDStream());
      check<IoError>(zstd_ != nullptr, "[zstd] there is no memory to decompress", where);
    }
  }
  ByteSource(const ByteSource&) = delete;
  ByteSource& operator=(const ByteSource&) = delete;
  ~ByteSource() {
    if (gzip_) inflateEnd(gzip_.get());
  }

  /// Puts the next bytes into `to`, at least one unless there are no more: how many. IoError if the
  /// file cannot be read, DataError if its compressed data is damaged or cut short.
  std::size_t read(char* to, std::size_t room) {
    if (room == 0) return 0;
    if (kind_ == Compression::Gzip) return inflate_some(to, room);
    if (kind_ == Compression::Zstd) return decompress_some(to, room);
    if (at_ == have_ && !refill()) return 0;
    const std::size_t n = std::min(room, have_ - at_);
    std::memcpy(to, in_.data() + at_, n);
    at_ += n;
    return n;
  }

  Compression compression() const { return kind_; }
  /// Bytes of the file, compressed as it may be; 0 for a pipe.
  Index file_size() const { return size_; }
  /// How many of them have been read and used.
  Index position() const { return read_ - static_cast<Index>(have_ - at_); }
  const std::string& path() const { return path_; }

 private:
  static constexpr std::size_t kBlock = std::size_t{1} << 17;
  static constexpr int kGzipWindow = 15 + 16;  // the largest there is, and a gzip header

  struct FreeZstd {
    void operator()(ZSTD_DStream* stream) const { ZSTD_freeDStream(stream); }
  };

  /// More input behind what is there; false at the end of the file.
  bool refill() {
    if (at_ == have_) at_ = have_ = 0;
    for (;;) {
      const ssize_t n = ::read(file_.get(), in_.data() + have_, in_.size() - have_);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) detail::fail_io("read", path_, errno, where_);
      have_ += static_cast<std::size_t>(n);
      read_ += n;
      return n > 0;
    }
  }

  std::size_t inflate_some(char* to, std::size_t room) {
    z_stream& z = *gzip_;
    const std::size_t most = std::min<std::size_t>(room, std::size_t{1} << 30);
    z.next_out = reinterpret_cast<Bytef*>(to);
    z.avail_out = static_cast<uInt>(most);
    while (z.avail_out == most) {
      if (at_ == have_ && !refill()) {
        if (between_) return 0;
        fail_compressed("gzip", "is cut short");
      }
      if (between_ && !next_member()) continue;
      z.next_in = reinterpret_cast<Bytef*>(in_.data() + at_);
      z.avail_in = static_cast<uInt>(have_ - at_);
      const int status = ::inflate(&z, Z_NO_FLUSH);
      at_ = have_ - z.avail_in;
      between_ = status == Z_STREAM_END;
      if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
        fail_compressed("gzip", z.msg != nullptr ? str("is damaged, ", z.msg) : "is damaged");
    }
    return most - z.avail_out;
  }

  /// Between two members of a gzip file, which zeros may pad; false if that used up the input.
  bool next_member() {
    while (at_ < have_ && in_[at_] == '\0') ++at_;
    if (at_ == have_) return false;
    if (in_[at_] != '\x1f') fail_compressed("gzip", "ends, and something else follows it");
    inflateReset(gzip_.get());
    between_ = false;
    return true;
  }

  std::size_t decompress_some(char* to, std::size_t room) {
    ZSTD_outBuffer out{to, room, 0};
    while (out.pos == 0) {
      // It may have more to give without more input.
      if (at_ == have_ && !refill() && between_) return 0;
      const bool at_end = at_ == have_;
      ZSTD_inBuffer in{in_.data() + at_, have_ - at_, 0};
      const std::size_t status = ZSTD_decompressStream(zstd_.get(), &out, &in);
      if (ZSTD_isError(status) != 0)
        fail_compressed("zstd", str("is damaged, ", ZSTD_getErrorName(status)));
      between_ = status == 0;
      at_ += in.pos;
      if (at_end && out.pos == 0 && !between_) fail_compressed("zstd", "is cut short");
    }
    return out.pos;
  }

  [[noreturn]] void fail_compressed(const char* op, const std::string& what) const {
    fail<DataError>(str("[", op, "] ", shown(path_), ", byte ", position(),
                        ": the compressed data ", what, ". HINT: fetch or make the file again"),
                    where_);
  }

  std::string path_;
  Where where_;
  detail::Descriptor file_;
  Index size_ = 0, read_ = 0;
  std::vector<char> in_;
  std::size_t at_ = 0, have_ = 0;  ///< what of in_ is input not yet used
  Compression kind_ = Compression::None;
  bool between_ = false;  ///< one compressed stream has ended, and no other begun
  std::unique_ptr<z_stream> gzip_;
  std::unique_ptr<ZSTD_DStream, FreeZstd> zstd_;
};

}}  // namespace plumb::v0_1
