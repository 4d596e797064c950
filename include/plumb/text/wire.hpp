// WireReader: Protocol Buffers' wire format, as much of it as a message's fields one after another.
//
// Numbers (varint), four and eight bytes as they are, and stretches of bytes, which may be messages
// again. Every length is checked against what is left before it is followed. What this is not:
// groups, which nobody writes any more, packed lists, a reader of .proto files. Source of the
// format: protobuf.dev/programming-guides/encoding.
#pragma once

#include <plumb/core/check.hpp>

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

namespace plumb { inline namespace v0_1 {

class WireReader {
 public:
  /// `file`: the whole, of which `message` is a part, so that complaints can say where.
  WireReader(std::string_view message, std::string_view file, std::string name, Where where)
      : rest_(message), file_(file), name_(std::move(name)), where_(where) {}
  /// Of a message within a message.
  WireReader inner() const { return {bytes_, file_, name_, where_}; }

  /// Goes on to the next field; false at the end. DataError if what follows is none.
  bool next() {
    if (rest_.empty()) return false;
    const std::uint64_t key = varint();
    number_ = key >> 3;
    type_ = static_cast<unsigned>(key & 7);
    bytes_ = {};
    value_ = 0;
    if (type_ == 0)
      value_ = varint();
    else if (type_ == 1)
      value_ = fixed<std::uint64_t>();
    else if (type_ == 2)
      bytes_ = take(varint());
    else if (type_ == 5)
      value_ = fixed<std::uint32_t>();
    else
      bad(str("a field of type ", type_));
    return true;
  }

  std::uint64_t number() const { return number_; }
  std::string_view bytes() const { return expect(2), bytes_; }
  bool truth() const { return expect(0), value_ != 0; }
  std::int32_t whole() const { return expect(0), static_cast<std::int32_t>(value_); }
  float real() const { return expect(5), std::bit_cast<float>(static_cast<std::uint32_t>(value_)); }

  [[noreturn]] void bad(const std::string& what) const {
    fail<DataError>(str("[tokenizer] ", name_, ": ", what, " at byte ", rest_.data() - file_.data(),
                        ", where a field of a SentencePiece model was expected. HINT: fetch it "
                        "again"),
                    where_);
  }

 private:
  void expect(unsigned type) const {
    if (type_ != type) bad(str("field ", number_, " has type ", type_, ", not ", type, ", before"));
  }
  std::string_view take(std::uint64_t size) {
    if (size > rest_.size()) bad(str(size, " bytes were announced and ", rest_.size(), " left"));
    const std::string_view out = rest_.substr(0, static_cast<std::size_t>(size));
    rest_.remove_prefix(out.size());
    return out;
  }
  template <class T>
  T fixed() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    bad("a number of more than ten bytes");
  }

  std::string_view rest_, file_, bytes_;
  std::string name_;
  Where where_;
  std::uint64_t number_ = 0, value_ = 0;
  unsigned type_ = 0;
};

}}  // namespace plumb::v0_1
