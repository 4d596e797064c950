// PackedBatch: sequences of any length as one flat token array and offsets. No padding, no mask.
//
//   tokens (N), offsets (B + 1): sequence b is tokens[offsets[b]] … tokens[offsets[b + 1] - 1]
//
// In a batch made with PackedBatch(true) a beginning that several sequences share is there once: a
// sequence continues another's, and has only its own tokens in `tokens`. Several answers to one
// prompt, dialogues with one system prompt, turns upon turns: each is found as it is added.
#pragma once

#include <plumb/core/check.hpp>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// Token ids of a text.
using Tokens = std::vector<std::int32_t>;

/// Batches of at most `budget` tokens of sequences that come one by one, nothing shared: how many,
/// and how full they are. A sequence longer than that is a batch of its own.
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
  /// Sequence b continues the first prefixes[b] tokens of sequence parents[b], which comes before
  /// it; 0: it stands alone. Its own tokens are at least one.
  std::vector<std::int32_t> prefixes, parents;
  bool shared;

  /// `shared`: whether beginnings that sequences have in common are kept once.
  explicit PackedBatch(bool share = false) : shared(share) {}

  /// B, the number of sequences.
  Index sequences() const { return static_cast<Index>(offsets.size()) - 1; }

  /// N, the number of tokens to compute.
  Index size() const { return static_cast<Index>(tokens.size()); }

  /// Tokens of sequence b, shared ones included.
  Index length(Index b) const {
    const auto i = static_cast<std::size_t>(b);
    return prefixes[i] + offsets[i + 1] - offsets[i];
  }

  /// Where token number `position` of sequence b is in `tokens`, and what a network makes of it in
  /// its results.
  std::int32_t row(Index b, Index position) const {
    auto i = static_cast<std::size_t>(b);
    while (position < prefixes[i]) i = static_cast<std::size_t>(parents[i]);
    return offsets[i] + static_cast<std::int32_t>(position) - prefixes[i];
  }

  /// Appends one sequence. ShapeError if it is empty, or if N would no longer fit the offsets.
  void add(std::span<const std::int32_t> sequence, Where where = Where::here()) {
    check(!sequence.empty(),
          "[packing] a sequence has no tokens. HINT: begin it with a BOS or give it a prompt",
          where);
    check(sequence.size() <= std::numeric_limits<std::int32_t>::max() - tokens.size(),
          "[packing] a batch holds at most 2^31 - 1 tokens", where);
    const auto [parent, prefix] = shared ? longest_prefix(sequence) : Prefix{};
    parents.push_back(parent);
    prefixes.push_back(prefix);
    tokens.insert(tokens.end(), sequence.begin() + prefix, sequence.end());
    offsets.push_back(static_cast<std::int32_t>(tokens.size()));
  }

  /// Takes back what was added after the first `count` sequences.
  void keep(Index count) {
    const auto n = static_cast<std::size_t>(count);
    offsets.resize(n + 1);
    prefixes.resize(n);
    parents.resize(n);
    tokens.resize(static_cast<std::size_t>(offsets[n]));
  }

  /// Tokens of sequence b that are its own: all, where nothing is shared.
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
      for (std::int32_t t = 0; t < offsets[b + 1] - offsets[b]; ++t) out.push_back(prefixes[b] + t);
    return out;
  }

  /// Rows that sequence after sequence sees, its own last: sequence b's are rows[offsets[b]] … .
  struct Keys {
    std::vector<std::int32_t> offsets{0}, rows;
  };
  /// Both empty where nothing is shared: a sequence then sees its own rows.
  Keys keys() const {
    if (std::all_of(prefixes.begin(), prefixes.end(), [](auto n) { return n == 0; }))
      return {{}, {}};
    Keys all;
    for (std::size_t b = 0; b + 1 < offsets.size(); ++b) {
      const auto parent = static_cast<std::size_t>(parents[b]);
      const auto first = static_cast<std::size_t>(all.offsets[parent]);
      for (std::size_t t = 0; t < static_cast<std::size_t>(prefixes[b]); ++t)
        all.rows.push_back(all.rows[first + t]);
      for (std::int32_t row = offsets[b]; row < offsets[b + 1]; ++row) all.rows.push_back(row);
      all.offsets.push_back(static_cast<std::int32_t>(all.rows.size()));
    }
    return all;
  }

 private:
  struct Prefix {
    std::int32_t parent = 0, length = 0;
  };

  // The sequence that has most of another's beginning, the first of several. None where that is
  // less than a sixteenth of it: attention copies all its keys and values, which costs as much.
  Prefix longest_prefix(std::span<const std::int32_t> sequence) const {
    Prefix best;
    const auto most = static_cast<std::int32_t>(sequence.size()) - 1;
    std::vector<std::int32_t> common;  // with each sequence
    for (std::size_t b = 0; b < prefixes.size(); ++b) {
      // Up to where it continues another, what it has in common is what that one has.
      const std::int32_t own = prefixes[b];
      std::int32_t n = own > 0 ? std::min(common[static_cast<std::size_t>(parents[b])], own) : 0;
      if (n == own)
        while (n < most && n < own + offsets[b + 1] - offsets[b] &&
               tokens[static_cast<std::size_t>(offsets[b] + n - own)] ==
                   sequence[static_cast<std::size_t>(n)])
          ++n;
      common.push_back(n);
      if (n > best.length) best = {static_cast<std::int32_t>(b), n};
    }
    return 16 * static_cast<std::size_t>(best.length) >= sequence.size() ? best : Prefix{};
  }
};

/// Which of a batch's rows have results that somebody reads: the last of each sequence's own.
struct ReadRows {
  std::vector<std::int32_t> offsets;  ///< (B+1); empty: all rows are read
  std::vector<std::int32_t> rows, positions;
};

/// From lists of rows that are read. The lists then say places among these rows. All rows, and the
/// lists as they are, where a batch is not shared (its policy may not know of this), or where less
/// than an eighth is not read.
inline ReadRows read_rows(const PackedBatch& packed, std::initializer_list<Tokens*> lists) {
  if (!packed.shared) return {};
  const auto& offsets = packed.offsets;
  Tokens first(offsets.begin() + 1, offsets.end());
  const auto sequence_of = [&](std::int32_t row) {
    const auto after = std::upper_bound(offsets.begin(), offsets.end(), row);
    return static_cast<std::size_t>(after - offsets.begin()) - 1;
  };
  for (const Tokens* list : lists)
    for (const std::int32_t row : *list) {
      std::int32_t& least = first[sequence_of(row)];
      least = std::min(least, row);
    }
  ReadRows read{{0}, {}, {}};
  for (std::size_t b = 0; b < first.size(); ++b) {
    for (std::int32_t row = first[b]; row < offsets[b + 1]; ++row) {
      read.rows.push_back(row);
      read.positions.push_back(packed.prefixes[b] + row - offsets[b]);
    }
    read.offsets.push_back(static_cast<std::int32_t>(read.rows.size()));
  }
  if (8 * read.rows.size() > 7 * packed.tokens.size()) return {};
  for (Tokens* list : lists)
    for (std::int32_t& row : *list) {
      const std::size_t b = sequence_of(row);
      row += read.offsets[b] - first[b];
    }
  return read;
}

/// Packs items 0 … count - 1 in order: add(batch, i) appends one's sequences to a batch; each batch
/// of at most `budget` tokens goes to body(batch, first, last), with the items in it. An item that
/// takes more alone is a batch alone.
template <class Add, class Body>
void for_packed_runs(bool share, std::size_t count, Index budget, Add add, Body body) {
  for (std::size_t first = 0; first < count;) {
    PackedBatch packed(share);
    std::size_t last = first;
    for (; last < count; ++last) {
      const Index before = packed.sequences();
      add(packed, last);
      if (last > first && packed.size() > budget) {
        packed.keep(before);
        break;
      }
    }
    body(packed, first, last);
    first = last;
  }
}

}}  // namespace plumb::v0_1
