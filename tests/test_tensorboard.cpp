// TensorBoard's events: byte for byte what TensorBoard's own writer gives (golden/
// make_tensorboard.py), CRCs against published ones, and what a reader sees of a resumed run.
#include "files.hpp"

#include <plumb/io/json.hpp>
#include <plumb/run/tensorboard.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include <dirent.h>

using namespace plumb;

namespace {

// 2023-11-14 and a quarter of a second; a second later each time.
double seconds_of_test = 0.0;
double ticking() { return seconds_of_test++; }

std::string hex(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) {
    out += "0123456789abcdef"[static_cast<unsigned char>(c) >> 4];
    out += "0123456789abcdef"[static_cast<unsigned char>(c) & 15];
  }
  return out;
}

template <class T>
T number_at(std::string_view bytes, std::size_t at) {
  T out;
  REQUIRE(at + sizeof out <= bytes.size());
  std::memcpy(&out, bytes.data() + at, sizeof out);
  return out;
}

// The data of all records, after their CRCs are checked.
std::vector<std::string> records_of(std::string_view file) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at < file.size();) {
    const auto size = number_at<std::uint64_t>(file, at);
    CHECK(number_at<std::uint32_t>(file, at + 8) == detail::masked_crc(file.substr(at, 8)));
    const std::string_view data = file.substr(at + 12, size);
    CHECK(number_at<std::uint32_t>(file, at + 12 + size) == detail::masked_crc(data));
    out.emplace_back(data);
    at += 16 + size;
  }
  return out;
}

std::uint64_t varint_at(std::string_view bytes, std::size_t& at) {
  std::uint64_t out = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<unsigned char>(bytes.at(at++));
    out |= static_cast<std::uint64_t>(byte & 127) << shift;
    if (byte < 128) return out;
  }
}

// Fields of a message by number: varints as their value, all else as bytes; the last of each.
using Fields = std::map<std::uint64_t, std::vector<std::string>>;
Fields fields_of(std::string_view message) {
  Fields out;
  for (std::size_t at = 0; at < message.size();) {
    const std::uint64_t tag = varint_at(message, at);
    std::string value;
    if ((tag & 7) == 0) {
      value = std::to_string(varint_at(message, at));
    } else {
      const std::size_t size = (tag & 7) == 1   ? 8
                               : (tag & 7) == 5 ? 4
                                                : static_cast<std::size_t>(varint_at(message, at));
      value = message.substr(at, size);
      at += size;
    }
    out[tag >> 3].push_back(value);
  }
  return out;
}

// What TensorBoard shows of a folder: files in the order of their names; a START voids what was
// read before of its step and later ones (event_accumulator.py).
std::map<std::string, std::map<Index, std::vector<float>>> shown_of(const std::string& folder) {
  std::vector<std::string> files;
  DIR* const open = ::opendir(folder.c_str());
  REQUIRE(open != nullptr);
  while (const dirent* entry = ::readdir(open))
    if (std::string(entry->d_name).find("tfevents") != std::string::npos)
      files.push_back(folder + "/" + entry->d_name);
  ::closedir(open);
  std::sort(files.begin(), files.end());
  std::map<std::string, std::map<Index, std::vector<float>>> out;
  for (const std::string& file : files) {
    const std::vector<std::string> records = records_of(read_file(file));
    REQUIRE(!records.empty());
    CHECK(fields_of(records[0])[3].at(0) == "brain.Event:2");
    for (const std::string& record : records) {
      Fields event = fields_of(record);
      const Index step = event.contains(2) ? std::stoll(event[2][0]) : 0;
      if (event.contains(7) && fields_of(event[7][0])[1].at(0) == "1")
        for (auto& metric : out)
          metric.second.erase(metric.second.lower_bound(step), metric.second.end());
      Fields summary = event.contains(5) ? fields_of(event[5][0]) : Fields();
      for (const std::string& value : summary[1]) {
        Fields v = fields_of(value);
        out[v[1].at(0)][step].push_back(number_at<float>(v[2].at(0), 0));
      }
    }
  }
  return out;
}

}  // namespace

TEST_CASE("tensorboard: CRC-32C of published strings") {
  CHECK(detail::crc32c("") == 0);
  CHECK(detail::crc32c("123456789") == 0xE3069283U);
  // RFC 3720, B.4: 32 bytes of zeros, of ones, ascending.
  std::string bytes(32, '\0');
  CHECK(detail::crc32c(bytes) == 0x8A9136AAU);
  CHECK(detail::crc32c(std::string(32, '\xff')) == 0x62A8AB43U);
  for (int i = 0; i < 32; ++i) bytes[static_cast<std::size_t>(i)] = static_cast<char>(i);
  CHECK(detail::crc32c(bytes) == 0x46DD794EU);
}

TEST_CASE("tensorboard: the bytes of TensorBoard's own writer") {
  const Temporary directory;
  const Json golden =
      parse_json(read_file(PLUMB_SOURCE_DIR "/tests/golden/tensorboard.json"), "tensorboard.json");
  seconds_of_test = 1700000000.25 - 1.0;  // the name takes a time, too
  TensorBoardWriter writer(directory / "events", ticking);
  writer.truncate_after(-1);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  writer.write(0, {{"loss", 0.1}, {"unknown", nan}, {"objective/kl", -2.5}});
  writer.write(1, {{"loss", 3e-40}, {"x", std::numeric_limits<double>::infinity()}});
  writer.write(300, {});
  writer.truncate_after(1);
  writer.write(Index{1} << 40, {{std::string(200, 'x'), 1e30}});
  writer.sync();
  CHECK(writer.path() == directory / "events" + "/events.out.tfevents.1699999999.000000.plumb");
  CHECK(hex(read_file(writer.path())) == golden.at("events"));
}

TEST_CASE("tensorboard: a resumed run shows each step once, and its own values") {
  const Temporary directory;
  const std::string run = directory / "run", folder = directory / "events";
  REQUIRE(::mkdir(run.c_str(), 0777) == 0);
  {
    MetricsWriter metrics(run, std::make_unique<TensorBoardWriter>(folder));
    for (Index step = 0; step < 5; ++step)
      metrics.write(step, {{"score", static_cast<double>(step)}, {"time/step", 1.5}});
  }
  CHECK(shown_of(folder)["score"].size() == 5);
  {  // taken up at a checkpoint of two steps
    MetricsWriter metrics(run, std::make_unique<TensorBoardWriter>(folder));
    metrics.truncate_after(1);
    for (Index step = 2; step < 4; ++step)
      metrics.write(step, {{"score", 10.0 + static_cast<double>(step)}});
  }
  auto shown = shown_of(folder);
  const std::map<Index, std::vector<float>> once{{0, {0}}, {1, {1}}, {2, {12}}, {3, {13}}};
  CHECK(shown["score"] == once);
  CHECK(shown["time/step"].size() == 2);
  {  // a process that died between the rows' files and the events: what it left beyond is void
    TensorBoardWriter torn(folder);
    torn.write(4, {{"score", 99}});
  }
  { MetricsWriter metrics(run, std::make_unique<TensorBoardWriter>(folder)); }
  CHECK(shown_of(folder)["score"] == once);
}

TEST_CASE("tensorboard: a folder that cannot be is refused") {
  const Temporary directory;
  CHECK_THROWS_AS(TensorBoardWriter(directory / "none/events"), IoError);
  write_plainly(directory / "file", "");
  CHECK_THROWS_AS(TensorBoardWriter(directory / "file"), IoError);
}
