// Lines that people's work is in: none that was acknowledged is lost, whatever happens to the file.
#include "files.hpp"

#include <plumb/data/appender.hpp>

#include <filesystem>
#include <string>
#include <vector>

using namespace plumb;

namespace {

bool take_back(JsonlAppender& file) {
  return file.remove_last([](const Json&) { return true; }).has_value();
}

}  // namespace

TEST_CASE("appender: it adds lines, undoes its own, and goes on where a file ends") {
  const Temporary directory;
  const std::string path = directory / "a.jsonl";
  {
    JsonlAppender file(path);
    CHECK(file.discarded() == 0);
    CHECK_FALSE(take_back(file));
    file.append({{"n", 1}});
    CHECK(read_file(path) == "{\"n\":1}\n");  // on disk before the object goes
    file.append({{"n", 2}});
    CHECK(take_back(file));
    CHECK(read_file(path) == "{\"n\":1}\n");
    file.append({{"n", 3}});
    says(message_of<IoError>([&] { JsonlAppender second(path); }), "another program");
  }
  {
    JsonlAppender file(path);
    CHECK_FALSE(file.remove_last([](const Json& line) { return line.at("n") == 2; }));
    file.append({{"n", 4}});
  }
  CHECK(read_file(path) == "{\"n\":1}\n{\"n\":3}\n{\"n\":4}\n");
}

TEST_CASE(
    "appender: a line is withdrawn from wherever it stands, and the others keep their bytes") {
  const Temporary directory;
  const std::string path = directory / "a.jsonl";
  write_plainly(path, "{\"n\":1}\n\n{ \"n\" : 2 }\n{\"n\":2,\"last\":true}\n{\"n\":3}\n");
  JsonlAppender file(path);
  file.append({{"n", 4}});
  const auto withdraw = [&](int n) {
    return file.remove_last([n](const Json& line) { return line.at("n") == n; });
  };
  const std::optional<Json> line = withdraw(2);  // the later of two
  REQUIRE(line);
  CHECK(line->at("last") == true);
  CHECK(read_file(path) == "{\"n\":1}\n\n{ \"n\" : 2 }\n{\"n\":3}\n{\"n\":4}\n");
  // The file is another one now, and the lock is on it.
  says(message_of<IoError>([&] { JsonlAppender second(path); }), "another program");
  file.append({{"n", 5}});
  CHECK(withdraw(2));
  CHECK(withdraw(1));
  CHECK_FALSE(withdraw(1));
  CHECK(withdraw(5));
  CHECK(read_file(path) == "\n{\"n\":3}\n{\"n\":4}\n");
  // What was withdrawn is not saved as lost; what was not, is.
  file.append({{"n", 6}});
  CHECK(withdraw(4));
  std::filesystem::remove(path);
  CHECK_THROWS_AS(file.append({{"n", 7}}), IoError);
  CHECK(read_file(path + ".saved-1") == "{\"n\":6}\n");
}

TEST_CASE("appender: it repairs the end that a crash left, at whichever byte") {
  const Temporary directory;
  const std::string path = directory / "a.jsonl";
  const std::string first = "{\"n\":1}\n", second = "{\"text\":\"a \\\"}\\\" b\",\"m\":[{},2]}";
  for (std::size_t size = 0; size <= second.size(); ++size) {
    CAPTURE(size);
    write_plainly(path, first + second.substr(0, size));
    JsonlAppender file(path);
    const bool whole = size == second.size();  // only the newline is missing
    CHECK(file.discarded() == static_cast<Index>(whole ? 0 : size));
    file.append({{"n", 2}});
    CHECK(read_file(path) == first + (whole ? second + "\n" : "") + "{\"n\":2}\n");
  }
  write_plainly(path, first + std::string(5, '\0'));
  CHECK(JsonlAppender(path).discarded() == 5);
  CHECK(read_file(path) == first);
  write_plainly(path, first + "{}" + std::string(5, '\0'));
  CHECK(JsonlAppender(path).discarded() == 7);
  CHECK(read_file(path) == first);
}

TEST_CASE("appender: it touches no file that is not its kind") {
  const Temporary directory;
  const std::string path = directory / "notes.txt";
  for (const char* text : {"my notes", "{\"n\":1}\nmy notes", "\x1f\x8b compressed"}) {
    write_plainly(path, text);
    CHECK_THROWS_AS(JsonlAppender{path}, DataError);
    CHECK(read_file(path) == text);
  }
  CHECK_THROWS_AS(JsonlAppender(directory / "no/such"), IoError);
}

TEST_CASE("appender: a full disk leaves only whole lines") {
  const Temporary directory;
  const std::string path = directory / "a.jsonl";
  JsonlAppender file(path);
  file.append({{"n", 1}});
  std::string error;
  {
    const FullDisk full(100);
    error = message_of<IoError>([&] { file.append({{"text", std::string(500, 'x')}}); });
  }
  says(error, "HINT: free some space");
  CHECK(read_file(path) == "{\"n\":1}\n");
  file.append({{"n", 2}});
  CHECK(read_file(path) == "{\"n\":1}\n{\"n\":2}\n");
}

TEST_CASE(
    "appender: a file deleted or replaced meanwhile ends the sitting, and no answer is lost") {
  for (const bool replaced : {false, true}) {
    const Temporary directory;
    const std::string path = directory / "a.jsonl";
    write_plainly(path, "{\"n\":0}\n");
    JsonlAppender file(path);
    file.append({{"n", 1}});
    file.append({{"n", 2}});
    if (replaced) {
      // As an editor saves what it had read before the second answer.
      write_plainly(directory / "new", "{\"n\":0}\n{\"n\":1}\n");
      std::filesystem::rename(directory / "new", path);
    } else {
      std::filesystem::remove(path);
    }
    const std::string error = message_of<IoError>([&] { file.append({{"n", 3}}); });
    says(error, "a.jsonl was deleted or replaced");
    says(error, "a.jsonl.saved-1");
    CHECK(read_file(path + ".saved-1") == (replaced ? "{\"n\":2}\n" : "{\"n\":1}\n{\"n\":2}\n"));
    CHECK_THROWS_AS(take_back(file), IoError);
    if (replaced) {
      CHECK(read_file(path) == "{\"n\":0}\n{\"n\":1}\n");
    } else {
      CHECK_FALSE(std::filesystem::exists(path));
    }
    // A second loss does not take the place of the first.
    CHECK_THROWS_AS(file.append({{"n", 3}}), IoError);
    CHECK(std::filesystem::exists(path + ".saved-2"));
    CHECK(read_file(path + ".saved-1") == (replaced ? "{\"n\":2}\n" : "{\"n\":1}\n{\"n\":2}\n"));
  }
}

TEST_CASE(
    "appender: a file replaced before anything was added, or by one that has all, needs no "
    "saving") {
  const Temporary directory;
  const std::string path = directory / "a.jsonl";
  JsonlAppender file(path);
  std::filesystem::remove(path);
  const std::string error = message_of<IoError>([&] { file.append({{"n", 1}}); });
  says(error, "a.jsonl was deleted or replaced");
  CHECK(error.find("saved") == error.npos);
  CHECK(directory.files() == 0);

  JsonlAppender second(path);
  second.append({{"n", 1}});
  std::filesystem::copy_file(path, directory / "copy");
  std::filesystem::rename(directory / "copy", path);
  CHECK_THROWS_AS(second.append({{"n", 2}}), IoError);
  CHECK(read_file(path) == "{\"n\":1}\n");
  CHECK(directory.files() == 1);
}

TEST_CASE("appender: a file emptied or added to by a program that asks nobody is told") {
  const Temporary directory;
  const std::string path = directory / "a.jsonl";
  {
    JsonlAppender file(path);
    file.append({{"n", 1}});
    std::ofstream(path, std::ios::app) << "{\"x\":";  // no newline: our line would be torn
    says(message_of<IoError>([&] { file.append({{"n", 2}}); }), "a.jsonl was changed");
    CHECK(read_file(path) == "{\"n\":1}\n{\"x\":");
    CHECK(directory.files() == 1);
  }
  JsonlAppender file(path);
  file.append({{"n", 3}});
  write_plainly(path, "");
  says(message_of<IoError>([&] { file.append({{"n", 4}}); }), "a.jsonl.saved-1");
  CHECK(read_file(path + ".saved-1") == "{\"n\":3}\n");
  CHECK(read_file(path).empty());
}

TEST_CASE("appender: records together, after what others added, under the same lock") {
  const Temporary directory;
  const std::string path = directory / "r.jsonl";
  const auto ranking = [](const char* id) {
    Ranking r;
    r.id = id;
    r.prompt = "p";
    r.responses = {"a", "b"};
    r.finished = {true, true};
    r.rank = {0, 1};
    return r;
  };
  {
    JsonlAppender file(path);
    file.append_all(std::vector<Ranking>{ranking("1"), ranking("2")});
    file.append_all(std::vector<Ranking>{});
    file.append(to_json(ranking("3")));
    says(message_of<IoError>([&] { write_jsonl(path, std::vector<Ranking>{ranking("9")}); }),
         "another program adds to");
    CHECK(read_rankings(path).records.size() == 3);
    CHECK(take_back(file));
    CHECK(read_rankings(path).records.size() == 2);
  }
  JsonlAppender file(path);
  file.append_all(std::vector<Ranking>{ranking("4")});
  const auto all = read_rankings(path).records;
  REQUIRE(all.size() == 3);
  CHECK(all[0].id == "1");
  CHECK(all[2].id == "4");
}

TEST_CASE("appender: whoever takes the lock adds to the file that has the name") {
  // A child replaces the file, under its lock, over and over. Whoever opened the old file before
  // and got its lock after must notice; nobody who asked for the lock ever finds the file replaced.
  const Temporary directory;
  const std::string path = directory / "a.jsonl";
  const auto record = [](const std::string& id) {
    return Candidates{id, "p", {"a"}, {true}, "", ""};
  };
  write_jsonl(path, std::vector<Candidates>{record("first")});
  const pid_t child = ::fork();
  if (child == 0) {
    for (;;) try {
        write_jsonl(path, std::vector<Candidates>{record("again")});
      } catch (const Error&) {  // the other one has the lock
      }
  }
  int done = 0, replaced = 0;
  for (int i = 0; i < 20000 && done < 1500; ++i) try {
      JsonlAppender file(path);
      file.append(to_json(record(str(i))));
      ++done;
    } catch (const IoError& e) {
      replaced += std::string(e.what()).find("deleted or replaced") != std::string::npos;
    }
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  MESSAGE(done, " lines added between replacements");
  CHECK(done > 0);
  CHECK(replaced == 0);
}

TEST_CASE("appender: only a regular file is added to") {
  const Temporary directory;
  REQUIRE(::mkfifo((directory / "pipe").c_str(), 0666) == 0);
  says(message_of<IoError>([&] { JsonlAppender file(directory / "pipe"); }), "no regular file");
  CHECK_THROWS_AS(JsonlAppender(directory / ""), IoError);
  // Through a link, to its target.
  write_plainly(directory / "target", "{}\n");
  REQUIRE(::symlink("target", (directory / "link").c_str()) == 0);
  JsonlAppender(directory / "link").append({{"n", 1}});
  CHECK(read_file(directory / "target") == "{}\n{\"n\":1}\n");
}
