// `plumb next`: rlhf/active.hpp on files of candidates. What it writes is what `plumb rank` asks,
// those sets first whose answers would tell most, each with the probability that it was chosen.
#include "commands.hpp"
#include "format.hpp"
#include "screen.hpp"

#include <plumb/io/output.hpp>

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

namespace plumb { inline namespace v0_1 {

namespace {

// A file's name without folders and ending: what its responses are called.
std::string stem_of(const std::string& path) {
  const std::string name = path.substr(path.rfind('/') + 1);
  return name.substr(0, name.find('.'));
}

// The candidates of one file; or of several, those to one prompt together, in the first one's
// order, each response with its file's name as its system.
std::vector<Candidates> pooled(const std::vector<std::string>& files) {
  std::vector<Candidates> all;
  std::map<std::string, std::size_t> places;  // of prompts
  std::set<std::string> systems;
  for (const std::string& file : files) {
    std::vector<Candidates> own = noted(file, read_candidates(file));
    if (files.size() == 1) return own;
    const std::string system = stem_of(file);
    if (!systems.insert(system).second)
      fail<DataError>(str("[next] two files are called ", shown(system),
                          ", and responses are known by their file's name. HINT: rename one"));
    for (Candidates& c : own) {
      const auto [found, first] = places.try_emplace(c.prompt, all.size());
      const std::size_t k = c.responses.size();
      if (first) {
        all.push_back(std::move(c));
        all.back().model.clear();
        all.back().sampling.clear();
        all.back().systems.assign(k, system);
        continue;
      }
      Candidates& to = all[found->second];
      if (to.tokens.empty() || c.tokens.empty())
        to.tokens.clear();
      else
        to.tokens.insert(to.tokens.end(), c.tokens.begin(), c.tokens.end());
      to.responses.insert(to.responses.end(), c.responses.begin(), c.responses.end());
      to.finished.insert(to.finished.end(), c.finished.begin(), c.finished.end());
      to.systems.insert(to.systems.end(), k, system);
    }
  }
  return all;
}

// What can be asked: two responses or more, and not ranked yet.
std::vector<Candidates> open_sets(const NextCommand& c) {
  std::set<std::string> ranked, ids;
  for (const std::string& file : c.ranked)
    for (const Ranking& r : read_rankings(file).records) ranked.insert(r.id);
  std::vector<Candidates> out;
  for (Candidates& one : pooled(c.files)) {
    if (!ids.insert(one.id).second)
      fail<DataError>(str("[next] two sets have the id ", shown(one.id),
                          ". HINT: generate all prompts in one file a system"));
    if (one.responses.size() >= 2 && !ranked.contains(one.id)) out.push_back(std::move(one));
  }
  check<DataError>(!out.empty(),
                   "[next] there is nothing left to ask: no set of two responses or more that is "
                   "not ranked yet. HINT: plumb generate with --responses 4");
  return out;
}

}  // namespace

void next_command(const NextCommand& c, Json& results) {
  check_fields(c.settings, "next");
  std::vector<std::string> inputs = c.files;
  inputs.insert(inputs.end(), c.ranked.begin(), c.ranked.end());
  inputs.push_back(c.judge);
  check_output(c.out, inputs);
  std::vector<Candidates> sets = open_sets(c);
  std::vector<double> information(sets.size());
  if (!c.judge.empty()) {
    std::vector<std::size_t> sizes;
    for (const Candidates& one : sets) sizes.push_back(one.responses.size());
    information =
        set_information(judge_by_heads(load_reward(c.judge, nullptr, c.tokenizer), sets), sizes);
  }
  const std::vector<NextSet> chosen = choose_next(information, c.settings);
  std::vector<Candidates> out;
  double told = 0.0;
  for (const NextSet& one : chosen) {
    out.push_back(std::move(sets[one.set]));
    out.back().probability = one.probability;
    told += information[one.set] / static_cast<double>(chosen.size());
  }
  write_jsonl(c.out, out);
  std::FILE* const to = c.out == "-" ? stderr : stdout;
  std::fprintf(to, "%zu of %zu sets chosen%s -> %s\n", out.size(), sets.size(),
               c.judge.empty() ? ", all with the same chance"
                               : str(": an answer would tell ", fixed(told, 3),
                                     " nats, and of all sets ", fixed(mean(information), 3))
                                     .c_str(),
               harmless(c.out).c_str());
  results.update({{"sets", sets.size()}, {"chosen", out.size()}});
  if (!c.judge.empty())
    results.update({{"information", told}, {"information_of_all", mean(information)}});
}

}}  // namespace plumb::v0_1
