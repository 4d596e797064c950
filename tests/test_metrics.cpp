// Metrics files that were lost, shortened, linked elsewhere or are of something else: nothing of
// others is touched, and nothing crashes. What they hold is in test_run.cpp.
#include "files.hpp"

#include <plumb/run/metrics.hpp>

#include <filesystem>
#include <string>

using namespace plumb;

namespace {

void write_rows(const std::string& directory, Index first, Index last) {
  MetricsWriter writer(directory);
  for (Index step = first; step <= last; ++step)
    writer.write(step, {{"loss", 0.5 * static_cast<double>(step)}, {"time/s", 1.5}});
}

}  // namespace

TEST_CASE("metrics: files that are gone, empty or only a header are no rows") {
  const Temporary directory;
  CHECK_THROWS_AS(read_metrics(directory / "metrics.csv"), IoError);
  write_plainly(directory / "metrics.csv", "");
  CHECK(read_metrics(directory / "metrics.csv").empty());
  write_plainly(directory / "metrics.csv", "step,loss\n");
  CHECK(read_metrics(directory / "metrics.csv").empty());
  write_plainly(directory / "metrics.csv", "step,lo");
  CHECK(read_metrics(directory / "metrics.csv").empty());
}

TEST_CASE("metrics: a run goes on where any of its files is gone, empty or torn anywhere") {
  for (const char* name : {"metrics.csv", "metrics.jsonl", "timing.jsonl"}) {
    const Temporary whole;
    write_rows(whole / "", 1, 3);
    const std::string text = read_file(whole / name);
    for (std::size_t size = 0; size <= text.size() + 2; ++size) {
      const Temporary directory;
      write_rows(directory / "", 1, 3);
      if (size > text.size() + 1)
        std::filesystem::remove(directory / name);
      else if (size > text.size())
        write_plainly(directory / name, text + std::string(50, '\0'));  // as a crash may leave it
      else
        write_plainly(directory / name, text.substr(0, size));
      CAPTURE(name);
      CAPTURE(size);
      write_rows(directory / "", 4, 4);
      const std::string after = read_file(directory / name);
      CHECK(after.find("\n4,") + after.find(":4,") != 2 * after.npos);
      CHECK(after.find('\0') == after.npos);
      CHECK(read_metrics(directory / "metrics.csv").back().step == 4);
    }
  }
}

TEST_CASE("metrics: a file of something else is refused, and stays as it was") {
  for (const char* name : {"metrics.csv", "metrics.jsonl", "timing.jsonl"})
    for (const char* text : {"my notes", "my notes\nin two lines\n", "stepping stones",
                             "{\"a\":1}\n", "{\"stop\"", "-1,2\n", "\xff\xfe"}) {
      const Temporary directory;
      write_rows(directory / "", 1, 2);
      const std::string csv = read_file(directory / "metrics.csv");
      write_plainly(directory / name, text);
      CAPTURE(name);
      CAPTURE(text);
      const std::string error =
          message_of<DataError>([&] { MetricsWriter writer(directory / ""); });
      says(error, name);
      CHECK(is_utf8(error));
      CHECK(read_file(directory / name) == text);
      if (std::string(name) != "metrics.csv") CHECK(read_file(directory / "metrics.csv") == csv);
    }
}

TEST_CASE("metrics: a second header in the middle is an edited file") {
  const Temporary directory;
  write_plainly(directory / "metrics.csv", "step,loss\n1,2\nstep,loss\n2,3\n");
  CHECK_THROWS_AS(MetricsWriter(directory / ""), DataError);
  CHECK(read_file(directory / "metrics.csv") == "step,loss\n1,2\nstep,loss\n2,3\n");
}

TEST_CASE("metrics: neither a link nor a device nor a pipe is followed or shortened") {
  const Temporary directory;
  write_plainly(directory / "other", "step,loss\n9,1\n");
  REQUIRE(::symlink("other", (directory / "metrics.csv").c_str()) == 0);
  says(message_of<IoError>([&] { MetricsWriter writer(directory / ""); }), "no plain file");
  CHECK(read_file(directory / "other") == "step,loss\n9,1\n");
  ::unlink((directory / "metrics.csv").c_str());
  REQUIRE(::mkfifo((directory / "metrics.csv").c_str(), 0666) == 0);
  says(message_of<IoError>([&] { MetricsWriter writer(directory / ""); }), "no plain file");
  ::unlink((directory / "metrics.csv").c_str());
  ::mkdir((directory / "metrics.csv").c_str(), 0777);
  CHECK_THROWS_AS(MetricsWriter(directory / ""), IoError);
}

TEST_CASE("metrics: numbers do not depend on the locale") {
  const CommaLocale comma;
  char text[8];
  std::snprintf(text, sizeof text, "%.1f", 0.5);
  if (comma.is_set) CHECK(std::string(text) == "0,5");
  const Temporary directory;
  write_rows(directory / "", 1, 1);
  CHECK(read_file(directory / "metrics.csv") == "step,loss\n1,0.5\n");
  CHECK(read_metrics(directory / "metrics.csv").at(0).values.at(0).second == 0.5);
}
