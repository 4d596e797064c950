// The small data sets of examples 11 to 14, read into tensors.
#pragma once

#include <plumb/data/jsonl.hpp>
#include <plumb/plumb.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

using Ids = plumb::Tensor<plumb::Cpu, std::int32_t>;

// How the first reply differs from the second, and which was preferred: 1, or -1.
struct Votes {
  plumb::Tensor<plumb::Cpu> x, y;  // (N, 3), (N, 1)
};

inline const char* const kFeatures[] = {"length", "lines", "words of the prompt"};

inline double feature(int which, const std::string& prompt, const std::string& reply) {
  if (which == 0) return plumb::real::log1p(static_cast<double>(reply.size()));
  if (which == 1)
    return plumb::real::log1p(static_cast<double>(std::count(reply.begin(), reply.end(), '\n')));
  double words = 0, shared = 0;
  for (std::size_t i = 0; i + 1 < reply.size();
       i += std::min(reply.find(' ', i), reply.size()) - i + 1) {
    const std::size_t end = std::min(reply.find(' ', i), reply.size());
    words += 1;
    shared += prompt.find(reply.substr(i, end - i)) != std::string::npos ? 1 : 0;
  }
  return words > 0 ? shared / words : 0;
}

inline Votes read_votes(bool held_out) {
  std::ifstream file(PLUMB_SOURCE_DIR "/examples/data/pandalm_votes_train.jsonl");
  std::vector<float> x, y;
  std::string line, prompt;
  for (int prompts = -1; std::getline(file, line);) {
    const auto record = nlohmann::json::parse(line);
    if (record["prompt"] != prompt) ++prompts, prompt = record["prompt"];
    int first = 0;
    for (const int vote : record["votes"]) first += vote == 1 ? 1 : vote == 2 ? -1 : 0;
    if (first == 0 || (prompts % 5 == 0) != held_out) continue;  // a prompt is on one side
    for (int i = 0; i < 3; ++i)
      x.push_back(static_cast<float>(feature(i, prompt, record["response1"]) -
                                     feature(i, prompt, record["response2"])));
    y.push_back(first > 0 ? 1.0F : -1.0F);
  }
  const auto n = static_cast<plumb::Index>(y.size());
  return {plumb::Tensor<plumb::Cpu>::from(x, {n, 3}), plumb::Tensor<plumb::Cpu>::from(y, {n, 1})};
}

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

// Texts as the numbers of their words, one behind the other, and where each begins.
struct Texts {
  std::vector<std::int32_t> words, offsets{0};
  void add(const std::string& text, plumb::Index buckets) {
    std::string word;
    for (const char c : text + " ") {
      if (c != ' ') word += c;
      if (c != ' ' || word.empty()) continue;
      words.push_back(
          static_cast<std::int32_t>(plumb::stream_of(word) % static_cast<std::uint32_t>(buckets)));
      word.clear();
    }
    if (words.size() == static_cast<std::size_t>(offsets.back())) words.push_back(0);  // no words
    offsets.push_back(static_cast<std::int32_t>(words.size()));
  }
};

// Pairs (better, worse) of replies to the prompts, which are as many as the replies.
struct Pairs {
  Texts prompts, replies;
  std::vector<std::int32_t> better, worse;
};

inline Pairs read_pairs(bool held_out, plumb::Index buckets) {
  Pairs pairs;
  for (const plumb::Ranking& ranking :
       plumb::read_rankings(PLUMB_SOURCE_DIR "/examples/data/oasst_kway_rankings_train.jsonl")
           .records) {
    if ((plumb::stream_of(ranking.group) % 5 == 0) != held_out) continue;  // a tree is on one side
    const auto first = static_cast<std::int32_t>(pairs.replies.offsets.size()) - 1;
    for (const std::string& reply : ranking.responses) {
      pairs.prompts.add(ranking.prompt, buckets);
      pairs.replies.add(reply, buckets);
    }
    for (std::size_t i = 0; i < ranking.rank.size(); ++i)
      for (std::size_t j = 0; j < ranking.rank.size(); ++j)
        if (ranking.rank[i] >= 0 && ranking.rank[i] < ranking.rank[j]) {
          pairs.better.push_back(first + static_cast<std::int32_t>(i));
          pairs.worse.push_back(first + static_cast<std::int32_t>(j));
        }
  }
  return pairs;
}
