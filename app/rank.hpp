// `plumb rank`: people rank responses in the terminal, or a stated rule does it in their place. The
// terminal is one face of a RankingSession, which keeps the sitting.
#pragma once

#include "ranking_session.hpp"

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

struct RankOptions {
  std::string candidates;           // JSON Lines with the prompts and their responses
  std::string output;               // rankings are appended to this file
  std::string annotator;            // who ranks; a rule signs with its own name
  std::string labeller = "person";  // or a stated rule, "rule:<name>"
  std::uint64_t seed = 0;           // of the order in which responses are shown
  std::vector<std::string> others;  // more files of rankings, for agreement only
  bool agreement = false;           // report the agreement and ask nothing
};

/// How questions look: `styled` is for a terminal.
struct Screen {
  std::istream& in;
  std::ostream& out;
  int width = 80;
  bool styled = false;
};

/// The terminal: standard input and output.
Screen terminal_screen();

/// Runs the command on the terminal. Results: "status" (0, or 128 + the signal that ended it) and
/// what rank_on returns. DataError or IoError for files that do not fit.
Json rank_command(const RankOptions& options);

/// Ranks on the given streams; the end of the input quits, and a line that no newline ends
/// is no answer. Results: "ranked" by this annotator, of "candidates", and the agreement.
Json rank_on(const RankOptions& options, Screen screen);

struct Rule;

/// Appends a rule's rankings of the candidates that the file has none of by it.
void append_by_rule(const Rule& rule, const std::vector<Candidates>& candidates,
                    RankingsFile& file);

/// Asks a session's questions until none is left, or the person quits.
void ask_on(RankingSession& session, Screen screen);

}}  // namespace plumb::v0_1
