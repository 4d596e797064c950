// `plumb rank`: people rank responses in the terminal, or a stated rule does it in their place.
//
// Each answer is on disk before the next question, so a sitting may end at any moment and goes on
// where it stopped. The responses appear in a random order, which is recorded, so that a liking for
// what comes first can be measured.
#pragma once

#include <plumb/data/records.hpp>

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

struct RankOptions {
  std::string candidates;           // JSON Lines with the prompts and their responses
  std::string output;               // rankings are appended to this file
  std::string annotator;            // who ranks; a rule signs with its own name
  std::string labeller = "person";  // or "rule:warm"
  std::uint64_t seed = 0;           // of the order in which responses are shown
  std::vector<std::string> others;  // more files of rankings, for agreement only
  bool agreement = false;           // report the agreement and ask nothing
};

/// Runs the command on the terminal; 0, or 128 + the signal that ended it. DataError or IoError for
/// files that do not fit.
int rank_command(const RankOptions& options);

/// How questions look: `styled` is for a terminal.
struct Screen {
  std::istream& in;
  std::ostream& out;
  int width = 80;
  bool styled = false;
};

/// Ranks on the given streams; the end of the input quits, and a line that no newline ends
/// is no answer.
void rank_on(const RankOptions& options, Screen screen);

/// What the rule `warm` makes of the candidates, signed "rule:warm".
std::vector<Ranking> rank_by_warm(const std::vector<Candidates>& candidates);

/// Prints how far annotators agree pair by pair (Kendall's tau-b and pairwise agreement, means over
/// the prompts that both ranked), and how often people put the response shown first on top.
void print_agreement(const std::vector<Ranking>& rankings, std::ostream& out);

}}  // namespace plumb::v0_1
