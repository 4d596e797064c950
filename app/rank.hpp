// `plumb rank`: people rank responses in the terminal, or a stated rule does it in their place. The
// terminal is one face of a RankingSession, which keeps the sitting.
#pragma once

#include "ranking_session.hpp"

#include <functional>
#include <iosfwd>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// How people are asked, at the terminal and on the page.
struct AskingOptions {
  RankingPlan plan;
  bool pairs = false;        // ask about two responses at a time
  std::string instructions;  // a text file, shown on request
};

struct RankOptions {
  std::string candidates;           // JSON Lines with the prompts and their responses
  std::string output;               // rankings are appended to this file
  std::string annotator;            // who ranks; a rule signs with its own name
  std::string labeller = "person";  // or a stated rule, "rule:<name>"
  AskingOptions asking;
  bool finished_too = false;        // where nothing is left to ask, offer to undo
  std::vector<std::string> others;  // more files of rankings, for agreement only
  bool agreement = false;           // report the agreement and ask nothing
  std::string report;               // and write it as HTML here; empty: print only
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

/// The desk of these options. DataError or IoError for files that do not fit.
std::shared_ptr<RankingDesk> desk_of(const std::string& candidates, const std::string& output,
                                     const AskingOptions& asking);
/// The text of the instructions; empty if there are none.
std::string instructions_of(const AskingOptions& asking);

/// An error's message as a person at a prompt needs it: without [place] and (file:line).
std::string plain_reason(std::string_view message);

/// Asks a session's questions until none is left, the person quits, or `over`, which is asked
/// before each question, says so. After the last one it can be undone; with `finished_too` also
/// where nothing was left from the beginning.
void ask_on(RankingSession& session, Screen screen, const std::string& instructions = {},
            bool finished_too = false, const std::function<bool()>& over = {});

}}  // namespace plumb::v0_1
