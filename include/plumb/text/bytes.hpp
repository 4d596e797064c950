// ByteTokenizer: every byte is a token. No file, no merges, any input; byte 0 ends a response.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/io/hash.hpp>
#include <plumb/text/tokenizer.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace plumb { inline namespace v0_1 {

class ByteTokenizer final : public Tokenizer {
 public:
  Index vocab() const override { return 256; }

  std::vector<std::int32_t> encode(std::string_view text) const override {
    std::vector<std::int32_t> out;
    out.reserve(text.size());
    for (const char c : text) out.push_back(static_cast<unsigned char>(c));
    return out;
  }

  std::string decode(std::span<const std::int32_t> tokens) const override {
    std::string out;
    for (const std::int32_t token : tokens) out += static_cast<char>(index(token));
    return out;
  }

  std::int32_t bos() const override { return -1; }
  std::int32_t eos() const override { return 0; }
  std::vector<std::int32_t> stops() const override { return {0}; }
  std::string name() const override { return "bytes"; }
  std::uint64_t fingerprint() const override { return hash64(name()); }
};

}}  // namespace plumb::v0_1
