// Checkpoints: damage is told, the one before is kept, and there is a whole one at every instant.
#include "files.hpp"

#include <plumb/io/checkpoint.hpp>

#include <chrono>
#include <map>
#include <string>
#include <thread>
#include <vector>

using namespace plumb;

namespace {

const std::string kModelFile = PLUMB_SOURCE_DIR "/examples/data/stories260K.bin";

}  // namespace

TEST_CASE("checkpoint: comes back as written; any safetensors reader opens it") {
  const Temporary directory;
  const std::string path = directory / "c.ckpt";
  const std::map<std::string, std::string> metadata{{"trainer", "{\"step\": 12}"}};
  write_checkpoint(path, views(small_arrays()), metadata);
  const Checkpoint back = read_checkpoint(path);
  CHECK(back.metadata == metadata);
  CHECK(same_bits(back.arrays, small_arrays()));
  REQUIRE(back.find("bias") != nullptr);
  CHECK(back.find("bias")->data[2] == 9.0f);
  CHECK(back.find("absent") == nullptr);
  CHECK(read_safetensors(path).metadata.at("format") == "plumb-checkpoint-2");
  const std::string first = read_file(path);
  write_checkpoint(path, views(back.arrays), back.metadata);
  CHECK(read_file(path) == first);
  CHECK_THROWS_AS(write_checkpoint(path, {}, {{"format", "x"}}), ShapeError);
  CHECK_THROWS_AS(write_checkpoint(path, {}, {{"checksum", "x"}}), ShapeError);
  CHECK(read_file(path) == first);
}

TEST_CASE("checkpoint: truncated anywhere, or any bit flipped, it is refused") {
  const Temporary directory;
  const std::string path = directory / "c.ckpt";
  write_checkpoint(path, views(small_arrays()), {{"step", "12"}});
  const std::string whole = read_file(path);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    write_plainly(path, std::string_view(whole).substr(0, size));
    CAPTURE(size);
    const std::string message = message_of<DataError>([&] { read_checkpoint(path); });
    CHECK(message.find("truncated or corrupt") != std::string::npos);
  }
  write_plainly(path, whole + '\0');
  CHECK_THROWS_AS(read_checkpoint(path), DataError);
  for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::string other = whole;
    other[bit / 8] = static_cast<char>(other[bit / 8] ^ (1 << (bit % 8)));
    write_plainly(path, other);
    CAPTURE(bit);
    const std::string message = message_of<DataError>([&] { read_checkpoint(path); });
    CHECK(message.find("HINT") != std::string::npos);
    CHECK(message.find("c.ckpt") != std::string::npos);
  }
}

TEST_CASE("checkpoint: another file is refused for what it is") {
  const Temporary directory;
  const std::string path = directory / "plain.safetensors";
  write_safetensors(path, views(small_arrays()), {{"format", "pt"}});
  says(message_of<DataError>([&] { read_checkpoint(path); }), "says format 'pt'");
  write_safetensors(path, views(small_arrays()));
  says(message_of<DataError>([&] { read_checkpoint(path); }), "not a plumb-checkpoint-2");
  CHECK_THROWS_AS(read_checkpoint(kModelFile), DataError);
  CHECK_THROWS_AS(read_checkpoint(directory / "absent"), IoError);
}

TEST_CASE("checkpoint: a full disk keeps the previous one") {
  const Temporary directory;
  const std::string path = directory / "c.ckpt";
  write_checkpoint(path, views(small_arrays()), {{"step", "1"}});
  const std::vector<OwnedArray> large{{"weight", {50000}, std::vector<float>(50000, 1.0f)}};
  {
    const FullDisk full(8192);
    CHECK_THROWS_AS(write_checkpoint(path, views(large), {{"step", "2"}}), IoError);
  }
  CHECK(read_checkpoint(path).metadata.at("step") == "1");
  CHECK(directory.files() == 1);
}

TEST_CASE("checkpoint: a file of an older version is refused by its name") {
  const Temporary directory;
  const std::string path = directory / "old.ckpt";
  write_safetensors(path, views(small_arrays()), {{"format", "plumb-checkpoint-1"}});
  const std::string error = message_of<DataError>([&] { CheckpointView{path}; });
  says(error, "says format 'plumb-checkpoint-1'");
  says(error, "another version of Plumb");
}

TEST_CASE("checkpoint: a view verifies in place, and copying verifies in one pass") {
  const Temporary directory;
  const std::string path = directory / "c.ckpt";
  // Some arrays of several blocks, not multiples of them.
  std::vector<OwnedArray> arrays = small_arrays();
  for (int i = 0; i < 3; ++i) {
    std::vector<float> data(200000 + 7 * static_cast<std::size_t>(i));
    for (std::size_t j = 0; j < data.size(); ++j) data[j] = static_cast<float>(j * 31 % 1009);
    arrays.push_back({str("large.", i), {static_cast<Index>(data.size())}, data});
  }
  write_checkpoint(path, views(arrays), {{"step", "12"}});
  const auto copied = [&] {
    const CheckpointView view(path);
    std::vector<OwnedArray> out;
    for (const ArrayView& array : view.arrays())
      out.push_back({array.name, array.shape,
                     std::vector<float>(static_cast<std::size_t>(array.shape.size()), -1.0f)});
    view.copy_to([&](const ArrayView& array) {
      return array.name == "large.1"
                 ? nullptr
                 : out[static_cast<std::size_t>(&array - view.arrays().data())].data.data();
    });
    return out;
  };
  const CheckpointView view(path);
  view.verify();
  CHECK(view.metadata() == std::map<std::string, std::string>{{"step", "12"}});
  CHECK(view.find("bias")->shape == Shape{3});
  std::vector<OwnedArray> expected = read_checkpoint(path).arrays;
  CHECK(same_bits(expected, arrays));
  for (OwnedArray& array : expected)
    if (array.name == "large.1") array.data.assign(array.data.size(), -1.0f);  // not asked for
  CHECK(same_bits(copied(), expected));

  // A bit in the first and in the last block of an array, copied or not.
  const std::string whole = read_file(path);
  for (const ArrayView& array : view.arrays())
    for (const bool last : {false, true}) {
      if (array.bytes.empty()) continue;
      std::string other = whole;
      // The arrays end with the file, in their order.
      const auto to_end = view.arrays().back().bytes.data() + view.arrays().back().bytes.size() -
                          (last ? array.bytes.data() + array.bytes.size() - 1 : array.bytes.data());
      char& byte = other[other.size() - static_cast<std::size_t>(to_end)];
      byte = static_cast<char>(byte ^ 1);
      write_plainly(directory / "bad.ckpt", other);
      const CheckpointView bad(directory / "bad.ckpt");
      CAPTURE(array.name);
      says(message_of<DataError>([&] { bad.verify(); }), "is corrupt");
      says(message_of<DataError>([&] { bad.copy_to([](const ArrayView&) { return nullptr; }); }),
           "is corrupt");
    }
}

TEST_CASE("checkpoint: a shape or a name that changed is told, though every size is right") {
  const Temporary directory;
  const std::string path = directory / "c.ckpt";
  write_checkpoint(path, views(small_arrays()), {{"step", "12"}});
  const std::string whole = read_file(path);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string other = whole;
    other.replace(other.find(from), from.size(), to);
    write_plainly(path, other);
    return message_of<DataError>([&] { read_checkpoint(path); });
  };
  says(with("[2,3]", "[3,2]"), "is corrupt");
  says(with("weight", "weighs"), "is corrupt");
  says(with("\"12\"", "\"13\""), "is corrupt");
  write_plainly(path, whole);
  CHECK(read_checkpoint(path).metadata.at("step") == "12");
}

TEST_CASE(
    "checkpoint: the one before is kept where that is asked, and an error names it if it is "
    "there") {
  const Temporary directory;
  const std::string path = directory / "c.ckpt", previous = path + ".previous";
  const auto write = [&](const char* step, Previous keep) {
    write_checkpoint(path, views(small_arrays()), {{"step", step}}, keep);
  };
  write("1", Previous::Keep);
  const auto spoil = [&] {
    write_plainly(path, read_file(path).substr(0, 100));
    return message_of<DataError>([&] { read_checkpoint(path); });
  };
  const std::string alone = spoil();
  CHECK(alone.find(".previous") == alone.npos);
  says(alone, "HINT: no earlier one is kept");
  write("2", Previous::Drop);
  CHECK(directory.files() == 1);
  write("3", Previous::Keep);
  CHECK(read_checkpoint(previous).metadata.at("step") == "2");
  CHECK(read_checkpoint(path).metadata.at("step") == "3");
  says(spoil(), "HINT: go back to the checkpoint before it: mv " + previous);
  ::unlink(path.c_str());
  const std::string gone = message_of<IoError>([&] { read_checkpoint(path); });
  says(gone, "No such file");
  says(gone, previous);
}

TEST_CASE("checkpoint: through a link, the one before lies beside the target, where errors look") {
  const Temporary directory;
  ::mkdir((directory / "disk").c_str(), 0777);
  REQUIRE(::symlink("disk/c.ckpt", (directory / "link").c_str()) == 0);
  for (const char* step : {"1", "2"})
    write_checkpoint(directory / "link", views(small_arrays()), {{"step", step}}, Previous::Keep);
  CHECK(read_checkpoint(directory / "disk/c.ckpt.previous").metadata.at("step") == "1");
  CHECK(directory.files() == 2);
  write_plainly(directory / "disk/c.ckpt", "x");
  says(message_of<DataError>([&] { read_checkpoint(directory / "link"); }), "disk/c.ckpt.previous");
}

TEST_CASE("checkpoint: a full disk keeps both that were there") {
  const Temporary directory;
  const std::string path = directory / "c.ckpt";
  for (const char* step : {"1", "2"})
    write_checkpoint(path, views(small_arrays()), {{"step", step}}, Previous::Keep);
  const std::vector<OwnedArray> large{{"weight", {50000}, std::vector<float>(50000, 1.0f)}};
  {
    const FullDisk full(8192);
    CHECK_THROWS_AS(write_checkpoint(path, views(large), {{"step", "3"}}, Previous::Keep), IoError);
  }
  CHECK(read_checkpoint(path).metadata.at("step") == "2");
  CHECK(read_checkpoint(path + ".previous").metadata.at("step") == "1");
  CHECK(directory.files() == 2);
}

TEST_CASE("checkpoint: a writer killed at any moment leaves a whole one, and the one before it") {
  const Temporary directory;
  const std::string path = directory / "c.ckpt";
  const std::vector<OwnedArray> arrays{{"weight", {100000}, std::vector<float>(100000, 1.0f)}};
  for (const char* step : {"0", "1"})
    write_checkpoint(path, views(arrays), {{"step", step}}, Previous::Keep);
  Index last = 1;
  for (int kill = 0; kill < 40; ++kill) {
    const pid_t child = ::fork();
    if (child == 0) {
      for (Index step = last + 1;; ++step)
        write_checkpoint(path, views(arrays), {{"step", str(step)}}, Previous::Keep);
    }
    std::this_thread::sleep_for(std::chrono::microseconds(2000 + 397 * kill));
    ::kill(child, SIGKILL);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status));
    const Index now = std::stoll(read_checkpoint(path).metadata.at("step"));
    const Index before = std::stoll(read_checkpoint(path + ".previous").metadata.at("step"));
    CAPTURE(kill);
    CHECK(now >= last);
    CHECK((before == now - 1 || before == now));  // equal between the two renames
    last = now;
  }
  MESSAGE(last, " checkpoints written while being killed");
  CHECK(last > 2);
}
