// What reads files, given damaged ones by libFuzzer: each is read, or refused by a plumb::Error
// that names the file; never a crash, a hang, or memory beyond libFuzzer's limits. PLUMB_FUZZ names
// the reader. Started with seeds by run.sh.
#include <plumb/data/jsonl.hpp>
#include <plumb/data/prompts.hpp>
#include <plumb/io/checkpoint.hpp>
#include <plumb/io/llama.hpp>
#include <plumb/models/tokenizers.hpp>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include <unistd.h>

using namespace plumb;

namespace {

constexpr const char* kName = "damaged-file";

void use(const Tokenizer& tokenizer) {
  for (const char* text : {"Once upon a time \xE2\x91\xA0 \xff", "<s>[INST] x"}) {
    tokenizer.decode(tokenizer.encode(text));
    tokenizer.decode(tokenizer.encode_form(text));
  }
}
void tokenizer(const std::string& path) { use(*read_tokenizer(path, 1 << 20)); }

void gguf(const std::string& path) {
  const GgufView file(path);
  if (file.has("tokenizer.ggml.model"))
    use(*detail::read_gguf_tokenizer(file, kName, 1 << 20, Where::here()));
}
void safetensors(const std::string& path) { read_safetensors(path); }
void checkpoint(const std::string& path) { read_checkpoint(path); }
void llama2c(const std::string& path) { read_llama(path); }
void data(const std::string& path) {
  read_candidates(path, BadLine::Skip);
  read_rankings(path, BadLine::Skip);
  read_demonstrations(path, BadLine::Skip);
  read_prompt_file(path);
}

struct Reader {
  std::string_view name;
  void (*read)(const std::string& path);
};
constexpr std::array<Reader, 6> kReaders{{{"tokenizer", tokenizer},
                                          {"gguf", gguf},
                                          {"safetensors", safetensors},
                                          {"checkpoint", checkpoint},
                                          {"llama2c", llama2c},
                                          {"data", data}}};

const Reader& chosen_reader() {
  const char* name = std::getenv("PLUMB_FUZZ");
  for (const Reader& reader : kReaders)
    if (name != nullptr && reader.name == name) return reader;
  std::fprintf(stderr, "PLUMB_FUZZ names none of the readers in %s\n", __FILE__);
  std::exit(1);
}

// A file that is written again for each input.
const std::string& path_of_input() {
  static const std::string path = [] {
    const char* folder = std::getenv("PLUMB_FUZZ_FOLDER");
    return str(folder != nullptr ? folder : "/tmp", "/", ::getpid(), "-", kName);
  }();
  return path;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  static const Reader& reader = chosen_reader();
  const std::string& path = path_of_input();
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr || std::fwrite(bytes, 1, size, file) != size || std::fclose(file) != 0)
    std::abort();
  try {
    reader.read(path);
  } catch (const Error& error) {
    if (std::string_view(error.what()).find(kName) == std::string_view::npos) {
      std::fprintf(stderr, "no file is named in: %s\n", error.what());
      std::abort();
    }
  }
  return 0;
}

// Seeds that no file of the tree is: called with --seeds FOLDER.
extern "C" int LLVMFuzzerInitialize(int* count, char*** arguments) {
  if (*count != 3 || std::string_view((*arguments)[1]) != "--seeds") return 0;
  const std::string folder = (*arguments)[2];
  const std::vector<float> values{1, 2, 3, 4, 5, 6};
  const std::array<NamedArray, 1> arrays{{{"weights", {2, 3}, values}}};
  write_checkpoint(folder + "/checkpoint", arrays, {{"step", "7"}});
  std::exit(0);
}
