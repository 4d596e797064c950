// The small data sets of examples 12 and 13, read into tensors.
#pragma once

#include <plumb/plumb.hpp>

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

using Ids = plumb::Tensor<plumb::Cpu, std::int32_t>;

// Stories as bytes, in batches of texts from anywhere.
struct Stories {
  std::string text;
  Stories() {
    std::ifstream file(PLUMB_SOURCE_DIR "/examples/data/tinystories_train.txt");
    text.assign(std::istreambuf_iterator<char>(file), {});
  }
  // `batch` texts of `length` bytes below 128, given by time: (length · batch).
  Ids batch(plumb::Rng& rng, plumb::Index length, plumb::Index batch) const {
    std::vector<std::int32_t> bytes(static_cast<std::size_t>(length * batch));
    const auto places = static_cast<std::uint32_t>(static_cast<plumb::Index>(text.size()) - length);
    for (plumb::Index b = 0; b < batch; ++b) {
      const std::size_t from = rng.below(places);
      for (plumb::Index t = 0; t < length; ++t)
        bytes[static_cast<std::size_t>(t * batch + b)] = text[from + static_cast<std::size_t>(t)];
    }
    return Ids::from(bytes, {length * batch});
  }
};

// One of the classes of these probabilities (1, V).
inline std::int32_t drawn(const plumb::Tensor<plumb::Cpu>& p, plumb::Rng& rng) {
  const auto shares = p.to_vector();
  float left = rng.uniform();
  std::size_t i = 0;
  while (i + 1 < shares.size() && (left -= shares[i]) > 0) ++i;
  return static_cast<std::int32_t>(i);
}

struct Digits {
  plumb::Tensor<plumb::Cpu> x;  // (N · 64, 1), pixels in [0, 1]
  Ids labels;                   // (N)
};

inline Digits read_digits(plumb::Index first, plumb::Index last) {
  std::ifstream file(PLUMB_SOURCE_DIR "/examples/data/digits.txt");
  std::vector<float> x;
  std::vector<std::int32_t> labels;
  std::string line;
  for (plumb::Index i = 0; i < last && std::getline(file, line); ++i) {
    if (i < first) continue;
    labels.push_back(line[0] - '0');
    for (const char c : line.substr(2))
      x.push_back(static_cast<float>(c <= '9' ? c - '0' : c - 'a' + 10) / 16.0F);
  }
  const plumb::Index n = last - first;
  return {plumb::Tensor<plumb::Cpu>::from(x, {n * 64, 1}), Ids::from(labels, {n})};
}
