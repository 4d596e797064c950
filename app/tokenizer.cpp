// `plumb tokenizer train`: a byte-level BPE vocabulary of one's own texts.
#include "commands.hpp"
#include "format.hpp"
#include "screen.hpp"

#include <plumb/io/mapped.hpp>
#include <plumb/io/output.hpp>
#include <plumb/models/tokenizers.hpp>
#include <plumb/text/bpe_train.hpp>
#include <plumb/text/bpe_write.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>

#include <sys/stat.h>

namespace plumb { inline namespace v0_1 {

namespace {

// Where the vocabulary is written: a file of JSON, or tokenizer.json in a folder, which is made.
std::string tokenizer_path(const std::string& out) {
  if (out.ends_with(".json")) return out;
  if (::mkdir(out.c_str(), 0777) != 0 && errno != EEXIST)
    detail::fail_io("make", out, errno, Where::here());
  return detail::in_folder(out, "tokenizer.json");
}

}  // namespace

void tokenizer_command(const TokenizerCommand& c, Json& results) {
  using Seconds = std::chrono::duration<double>;
  const auto start = std::chrono::steady_clock::now();
  const std::string path = tokenizer_path(c.out);
  check_output(path, c.files);
  BpeTrainer trainer(c.settings);
  double bytes = 0;
  for (const std::string& name : c.files) {
    const MappedFile file(name);
    std::string_view text = file.bytes();
    bytes += static_cast<double>(text.size());
    while (!text.empty()) {  // line by line, as the package tokenizers trains on files
      const std::string_view line = text.substr(0, std::min(text.find('\n'), text.size() - 1) + 1);
      trainer.add(line);
      text.remove_prefix(line.size());
    }
  }
  check<DataError>(bytes > 0, "[tokenizer] the files hold no text");
  const BpeVocabulary v = trainer.train();
  write_atomically(path, tokenizer_json(v));
  const double seconds = Seconds(std::chrono::steady_clock::now() - start).count();
  results = {{"tokens", v.tokens.size()},
             {"merges", v.merges.size()},
             {"bytes", bytes},
             {"seconds", seconds}};
  std::printf("%zu tokens, %zu merges of %s MB in %s s (%s MB/s) -> %s\n", v.tokens.size(),
              v.merges.size(), fixed(bytes / 1e6, 1).c_str(), fixed(seconds, 1).c_str(),
              fixed(bytes / 1e6 / seconds, 1).c_str(), harmless(path).c_str());
}

}}  // namespace plumb::v0_1
