// Metrics as TensorBoard reads them: a file of events in a folder, one file a process.
//
// A file is TFRecords: length (8 bytes, little-endian), its masked CRC-32C, the bytes, their masked
// CRC-32C. A record is an Event of protocol buffers: the first says "brain.Event:2", each row is
// one with a value a metric, as float. Events are only ever added: where a run is taken up at an
// earlier step, a SessionLog START says from which step on what was written before is void, and
// TensorBoard drops it. What this is not: a reader, or a writer of images and histograms. Sources:
// TensorFlow, record_writer.h, event.proto, summary.proto; TensorBoard, event_accumulator.py.
#pragma once

#include <plumb/io/file.hpp>
#include <plumb/run/metrics.hpp>

#include <array>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>

#include <sys/stat.h>
#include <unistd.h>

namespace plumb { inline namespace v0_1 {

namespace detail {

/// CRC-32C (Castagnoli; reflected polynomial 0x82F63B78) of `bytes`.
inline std::uint32_t crc32c(std::string_view bytes) {
  static constexpr std::array<std::uint32_t, 256> kTable = [] {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t c = i;
      for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ ((c & 1) != 0 ? 0x82F63B78U : 0U);
      table[i] = c;
    }
    return table;
  }();
  std::uint32_t crc = ~std::uint32_t{0};
  for (const char c : bytes) crc = (crc >> 8) ^ kTable[(crc ^ static_cast<unsigned char>(c)) & 255];
  return ~crc;
}

/// A CRC as TFRecords have it, turned and shifted, so that the CRC of data with CRCs in it is none.
inline std::uint32_t masked_crc(std::string_view bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xA282EAD8U;
}

/// The few fields of protocol buffers that events have.
class ProtoText {
 public:
  void varint(std::uint64_t value) {
    for (; value >= 128; value >>= 7) bytes_ += static_cast<char>((value & 127) | 128);
    bytes_ += static_cast<char>(value);
  }
  void number(unsigned field, std::uint64_t value) { tag(field, 0), varint(value); }
  void real(unsigned field, double value) {
    tag(field, 1), fixed(std::bit_cast<std::uint64_t>(value));
  }
  void real(unsigned field, float value) {
    tag(field, 5), fixed(std::bit_cast<std::uint32_t>(value));
  }
  void text(unsigned field, std::string_view value) {
    tag(field, 2), varint(value.size());
    bytes_ += value;
  }
  /// Little-endian.
  template <class T>
  void fixed(T value) {
    for (std::size_t i = 0; i < sizeof value; ++i) bytes_ += static_cast<char>(value >> (8 * i));
  }
  const std::string& bytes() const { return bytes_; }

 private:
  void tag(unsigned field, unsigned wire) { varint(field << 3 | wire); }
  std::string bytes_;
};

/// One record: its length and bytes, each with its CRC.
inline std::string tf_record(std::string_view data) {
  ProtoText length, out;
  length.fixed(std::uint64_t{data.size()});
  out.fixed(std::uint64_t{data.size()});
  out.fixed(masked_crc(length.bytes()));
  ProtoText end;
  end.fixed(masked_crc(data));
  return out.bytes() + std::string(data) + end.bytes();
}

}  // namespace detail

/// Adds a run's rows to a folder of events, which is made if it is not there.
class TensorBoardWriter : public MetricsSink {
 public:
  using Clock = double (*)();  ///< seconds since 1970

  /// Begins a new file. IoError if it cannot be written.
  explicit TensorBoardWriter(const std::string& folder, Clock clock = now)
      : clock_(clock), file_(new_file(folder, clock)) {
    detail::ProtoText version;
    version.text(3, "brain.Event:2");
    add(-1, version);
  }

  /// A number that is not finite is left out.
  void write(Index step, const Metrics& values) override {
    detail::ProtoText summary;
    for (const auto& [name, value] : values) {
      if (!std::isfinite(value)) continue;
      detail::ProtoText one;
      one.text(1, name);
      one.real(2, static_cast<float>(value));
      summary.text(1, one.bytes());
    }
    detail::ProtoText event;
    event.text(5, summary.bytes());
    add(step, event);
  }

  /// What was written of later steps, by whom ever, is void.
  void truncate_after(Index step) override {
    detail::ProtoText session, event;
    session.number(1, 1);  // SessionLog.START
    event.text(7, session.bytes());
    add(step + 1, event);
  }
  void sync() override { file_.sync(); }

  const std::string& path() const { return file_.path(); }

 private:
  static double now() {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch())
        .count();
  }

  // Files are read in the order of their names: the time comes first in them.
  static std::string new_file(const std::string& folder, Clock clock) {
    if (::mkdir(folder.c_str(), 0777) != 0 && errno != EEXIST)
      detail::fail_io("make the folder", folder, errno, Where::here());
    const std::string stem =
        str(folder, "/events.out.tfevents.", static_cast<std::uint64_t>(clock()), '.');
    for (int number = 0;; ++number) {
      const std::string digits = std::to_string(number);
      std::string path = str(stem, std::string(6 - std::min<std::size_t>(6, digits.size()), '0'),
                             digits, ".plumb");
      if (!detail::file_exists(path)) return path;
    }
  }

  void add(Index step, const detail::ProtoText& what) {
    detail::ProtoText event;
    event.real(1, clock_());
    if (step > 0) event.number(2, static_cast<std::uint64_t>(step));
    file_.append(detail::tf_record(event.bytes() + what.bytes()));
  }

  Clock clock_;
  detail::RowFile file_;
};

}}  // namespace plumb::v0_1
