// PackedBatch: sequences of any length as one flat token array and offsets. No padding, no mask.
//
//   tokens (N), offsets (B + 1): sequence b is tokens[offsets[b]] … tokens[offsets[b + 1] - 1]
#pragma once

#include <plumb/core/check.hpp>

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// Token ids of a text.
using Tokens = std::vector<std::int32_t>;

/// Calls body(first, last) on runs of consecutive items of at most `budget` tokens together; an
/// item longer than that is a run of its own.
template <class Length, class Body>
void for_token_runs(std::size_t count, Index budget, Length length, Body body) {
  for (std::size_t first = 0; first < count;) {
    Index tokens = 0;
    std::size_t last = first;
    while (last < count && (last == first || tokens + length(last) <= budget))
      tokens += length(last++);
    body(first, last);
    first = last;
  }
}

/// The runs of for_token_runs over items that come one by one: how many, and how full they are.
class TokenRuns {
 public:
  explicit TokenRuns(Index budget) : budget_(budget) {}
  void add(Index tokens) {
    if (runs_ == 0 || open_ + tokens > budget_) {
      ++runs_;
      open_ = 0;
    }
    open_ += tokens;
    tokens_ += tokens;
  }
  Index budget() const { return budget_; }
  Index runs() const { return runs_; }
  /// Share of the runs' budgets that is used; above 1 if items are longer than the budget.
  double fill() const {
    return runs_ > 0 ? static_cast<double>(tokens_) / static_cast<double>(runs_ * budget_) : 0.0;
  }

 private:
  Index budget_, runs_ = 0, open_ = 0, tokens_ = 0;
};

struct PackedBatch {
  std::vector<std::int32_t> tokens;
  std::vector<std::int32_t> offsets{0};

  /// B, the number of sequences.
  Index sequences() const { return static_cast<Index>(offsets.size()) - 1; }

  /// N, the number of tokens of all sequences together.
  Index size() const { return static_cast<Index>(tokens.size()); }

  /// Appends one sequence. ShapeError if it is empty, or if N would no longer fit the offsets.
  void add(std::span<const std::int32_t> sequence, Where where = Where::here()) {
    check(!sequence.empty(),
          "[packing] a sequence has no tokens. HINT: begin it with a BOS or give it a prompt",
          where);
    check(sequence.size() <= std::numeric_limits<std::int32_t>::max() - tokens.size(),
          "[packing] a batch holds at most 2^31 - 1 tokens", where);
    tokens.insert(tokens.end(), sequence.begin(), sequence.end());
    offsets.push_back(static_cast<std::int32_t>(tokens.size()));
  }

  /// Tokens of sequence b.
  std::span<const std::int32_t> sequence(Index b, Where where = Where::here()) const {
    check(b >= 0 && b < sequences(), "[packing] no such sequence in this batch", where);
    const auto i = static_cast<std::size_t>(b);
    const auto begin = static_cast<std::size_t>(offsets[i]);
    return std::span(tokens).subspan(begin, static_cast<std::size_t>(offsets[i + 1]) - begin);
  }

  /// Position (N) of each token within its sequence, from 0.
  std::vector<std::int32_t> positions() const {
    std::vector<std::int32_t> out;
    out.reserve(tokens.size());
    for (std::size_t b = 0; b + 1 < offsets.size(); ++b)
      for (std::int32_t t = 0; t < offsets[b + 1] - offsets[b]; ++t) out.push_back(t);
    return out;
  }
};

}}  // namespace plumb::v0_1
