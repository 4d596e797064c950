// What people said of replies, read into tensors for examples 11 and 14.
#pragma once

#include <plumb/data/jsonl.hpp>
#include <plumb/plumb.hpp>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

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
