// Rankings written in the forms of others, for `plumb data --export`. What is written is read again
// before it counts: what a form cannot say so that the same comes back is left out, and counted.
#pragma once

#include <plumb/data/records.hpp>
#include <plumb/io/json.hpp>

#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// Rankings: Plumb's own lines. Trl: "prompt", "chosen", "rejected"; messages where the prompt is a
/// dialogue. HhRlhf: "chosen", "rejected", two transcripts; a prompt that is no dialogue is what
/// the human says, and a blank comes before a response that begins with none.
enum class ExportForm { Rankings, Trl, HhRlhf };

/// The form of a name: rankings, trl or hh-rlhf. DataError for another.
ExportForm export_form(const std::string& name);

struct Exported {
  ExportForm form = ExportForm::Rankings;
  std::vector<std::string> lines;                     ///< JSON, each with its end
  std::size_t rankings = 0;                           ///< that were given
  std::size_t ties = 0, identical = 0, unranked = 0;  ///< pairs that decide nothing
  std::size_t unsaid = 0;                             ///< that the form cannot say
  std::string first_unsaid;                           ///< the id of the first of them, and why

  std::string said() const;
  Json json() const;
};

/// Of each ranking itself, or each pair of its responses that it decides, the better one first.
Exported export_rankings(const std::vector<Ranking>& rankings, ExportForm form);

}}  // namespace plumb::v0_1
