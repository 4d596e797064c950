// Folds of a cross-validation: groups, such as all rankings of one prompt, dealt out like cards.
//
// The order of dealing is that of a hash of the group's text and the seed, so it does not depend on
// the order of the file. What this is not: independent of what else is in the file; a group more
// may move others, which is the price of folds of equal size.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/io/hash.hpp>

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// The fold, 0 … folds - 1, of each of `groups`: equal texts share one, and the numbers of distinct
/// texts in two folds differ by at most 1. DataError if there are fewer distinct texts than folds.
inline std::vector<int> deal_folds(std::span<const std::string> groups, int folds,
                                   std::uint64_t seed, Where where = Where::here()) {
  check(folds >= 1, "[deal_folds] folds must be at least 1", where);
  std::set<std::pair<std::uint64_t, std::string_view>> order;
  for (const std::string& group : groups) order.emplace(hash64(group, seed), group);
  if (order.size() < static_cast<std::size_t>(folds))
    fail<DataError>(
        str("[deal_folds] ", groups.size(), " records of ", order.size(),
            " distinct prompts do not make ", folds, " folds. HINT: fewer folds, or more prompts"),
        where);
  std::map<std::string_view, int> fold;
  int next = 0;
  for (const auto& [unused, group] : order) fold[group] = std::exchange(next, (next + 1) % folds);
  std::vector<int> out;
  out.reserve(groups.size());
  for (const std::string& group : groups) out.push_back(fold.at(group));
  return out;
}

}}  // namespace plumb::v0_1
