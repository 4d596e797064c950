// Asks a program of the user's about pairs of responses: JSON Lines to its standard input, a line
// an answer from its standard output. No shell starts it, and it is written to and read from
// together, so neither a program that answers line by line nor one that reads everything first can
// block.
#pragma once

#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// What a program said of a pair: scores, or (not scored) 1 and 0, 0 and 1, or 0 and 0 for a tie.
struct PairAnswer {
  double first = 0.0, second = 0.0;
  bool scored = false;
};

/// One answer for each line of `questions` (which ends with a newline). DataError where the program
/// cannot be started, fails, or answers otherwise than asked; Interrupted, and the program ended,
/// on Ctrl-C: nothing else limits its time.
std::vector<PairAnswer> ask_command(const std::string& command,
                                    const std::vector<std::string>& questions);

}}  // namespace plumb::v0_1
