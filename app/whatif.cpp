#include "whatif.hpp"

#include "commands.hpp"
#include "episodes.hpp"
#include "format.hpp"
#include "ranking_session.hpp"
#include "run_directory.hpp"
#include "screen.hpp"

#include <plumb/data/records.hpp>
#include <plumb/io/output.hpp>

#include <algorithm>
#include <cstdio>
#include <filesystem>

namespace plumb { inline namespace v0_1 {

namespace {

// The settings that a run was begun with, and the hashes of its inputs.
struct Manifest {
  AlignSettings settings;
  Json inputs;
};

Manifest manifest_of(const std::string& run) {
  const std::string path = run + "/config.json";
  if (!detail::file_exists(path))
    fail<DataError>(
        str("[whatif] ", shown(path), " is not there. HINT: name a run of plumb align"));
  Json config = parse_json(read_file(path), shown(path));
  if (!config.is_object() || !config.contains("inputs") || !config.contains("rounds"))
    fail<DataError>(str("[whatif] ", shown(path),
                        " is not of plumb align: only its rounds begin with rankings"));
  Manifest out;
  out.inputs = config["inputs"];
  read_align(out.settings, std::move(config), shown(path));
  return out;
}

std::string policy_of(const std::string& run, Index round) {
  return round_directory(run, round) + "/policy.safetensors";
}

// DataError unless the round has ended: its policy is the one that the next one began with.
void require_ended(const std::string& run, const AlignSettings& s, Index round) {
  const std::string path = policy_of(run, round);
  bool ended = detail::file_exists(path);
  if (ended && !s.directly()) {
    const auto metadata = CheckpointView(path).metadata();
    const auto found = metadata.find("ppo");
    ended = found != metadata.end() &&
            parse_json(found->second, shown(path)).value("iteration", Index{-1}) >=
                s.ppo.config.iterations;
  }
  if (!ended)
    fail<DataError>(str("[whatif] round ", round, " of ", shown(run),
                        " has not ended. HINT: rounds count from 0; the command that began the "
                        "run goes on with it"));
}

void copy(const std::string& from, const std::string& to) {
  if (!detail::file_exists(from)) return;
  std::error_code error;
  std::filesystem::copy_file(from, to, error);
  if (error)
    fail<IoError>(
        str("[whatif] cannot copy ", shown(from), " to ", shown(to), ": ", error.message()));
}

// What a round begins with, in a directory of its own, with these rankings.
void begin_again(const Manifest& manifest, const std::string& run, const AlignSettings& s,
                 Index round, const std::string& rankings) {
  make_directory(s.run);
  Json config = settings_json(s);
  config["inputs"] = manifest.inputs;  // which are looked at as the run goes on
  write_atomically(s.run + "/config.json", json_text(config, 2) + "\n");
  for (const char* name :
       {"metrics.csv", "metrics.jsonl", "timing.jsonl", "features.safetensors", "sft.safetensors"})
    copy(str(run, '/', name), str(s.run, '/', name));
  for (Index r = 0; r <= round; ++r) {
    make_directory(round_directory(s.run, r));
    for (const char* name : {"candidates.jsonl", "rankings.jsonl", "reward.safetensors",
                             "reward.json", "policy.safetensors"})
      if (r < round || std::string_view(name) == "candidates.jsonl")
        copy(str(round_directory(run, r), '/', name), str(round_directory(s.run, r), '/', name));
  }
  write_atomically(round_directory(s.run, round) + "/rankings.jsonl", rankings);
}

// A directory that goes with the work that fails or is stopped.
struct Unfinished {
  std::string directory;
  ~Unfinished() {
    std::error_code ignored;
    if (!directory.empty()) std::filesystem::remove_all(directory, ignored);
  }
};

// The lines of a file of rankings.
std::vector<std::string> lines_of(const std::string& path) {
  const std::string text = read_file(path);
  std::vector<std::string> lines;
  for (const std::string_view line : detail::whole_lines(text))
    if (line.find_first_not_of(" \t\r") != line.npos) lines.emplace_back(line);
  return lines;
}

// Rows of metrics from a step on, as they stand in the file.
std::string rows_from(const std::string& run, Index step) {
  std::string out;
  const std::string text = read_file(run + "/metrics.jsonl");
  for (const std::string_view line : detail::whole_lines(text))
    if (step_of_line(line) >= step) out += str(line, '\n');
  return out;
}

std::vector<double> scores_by_model(const std::string& path, const Loaded& reference,
                                    const AlignSettings& s,
                                    const std::vector<Candidates>& candidates) {
  return judge_candidates(load_reward(path, &reference, s.tokenizer), candidates).scores;
}

// DataError unless a round of two runs is the same in every bit. (Files of models say where their
// tokenizer lies, too, so it is weights and scores that are compared.)
void require_same(const std::string& run, const std::string& again, const AlignSettings& s,
                  Index round, const Loaded& reference) {
  const auto differs = [&](const std::string& what) {
    fail<DataError>(str("[whatif] without a change the round is not the run's own: ", what,
                        " differ. HINT: is the program another version, or another device or "
                        "precision, than the run was made by?"));
  };
  const auto same_file = [&](const char* name) {
    const std::string a = str(round_directory(run, round), '/', name);
    const std::string b = str(round_directory(again, round), '/', name);
    if (!detail::file_exists(a) && !detail::file_exists(b)) return;
    if (contents_hash(a) != contents_hash(b)) differs(name);
  };
  if (fingerprint(load_model(policy_of(run, round), s.tokenizer, s.chat)) !=
      fingerprint(load_model(policy_of(again, round), s.tokenizer, s.chat)))
    differs("the policies");
  same_file("candidates.jsonl");
  same_file("episodes.jsonl");
  if (!s.directly()) {
    const auto candidates = load_candidates(round_directory(run, round) + "/candidates.jsonl");
    const auto scores = [&](const std::string& of) {
      return scores_by_model(round_directory(of, round) + "/reward.safetensors", reference, s,
                             candidates);
    };
    if (scores(run) != scores(again)) differs("the reward models");
  }
  const Index first = s.directly() ? round : round * s.ppo.config.iterations;
  const std::string rows = rows_from(again, first);
  if (rows_from(run, first).substr(0, rows.size()) != rows) differs("the metrics");
}

// An answer as its tokens' texts.
std::vector<std::string> texts_of(const Loaded& loaded, const Prompt& prompt, const Tokens& answer,
                                  Index room) {
  Episode e;
  e.prompt = encode_prompt(loaded, prompt, room);
  e.response = answer;
  return token_texts(loaded, e);
}

// What differs between the run's round and the turned one.
void compare(const AlignSettings& s, const std::string& run, const std::string& turned,
             const Candidates& ranked, const std::vector<Prompt>& prompts, const Loaded& reference,
             Index round, Json& out) {
  GenerateSettings g = s.generate;
  g.sampling.responses = 1;
  const std::uint32_t step = 1000000;  // the draws that align's own evaluation has
  const Loaded first = load_model(policy_of(run, round), s.tokenizer, s.chat);
  const Loaded second = load_model(policy_of(turned, round), s.tokenizer, s.chat);
  out["policy_before"] = fingerprint(first);
  out["policy_after"] = fingerprint(second);
  const auto before = generate_candidates(first, prompts, g, step, "held-out answers before");
  const auto after = generate_candidates(second, prompts, g, step, "held-out answers after");
  std::vector<double> rewards_before, rewards_after;
  if (!s.directly()) {
    const std::string a = round_directory(run, round) + "/reward.safetensors";
    const std::string b = round_directory(turned, round) + "/reward.safetensors";
    rewards_before = scores_by_model(a, reference, s, before);
    rewards_after = scores_by_model(b, reference, s, before);
    out["ranked_scores_before"] = scores_by_model(a, reference, s, {ranked});
    out["ranked_scores_after"] = scores_by_model(b, reference, s, {ranked});
  }
  Index answers = 0, tokens = 0, rewards = 0;
  Json all = Json::array();
  for (std::size_t i = 0; i < before.size(); ++i) {
    const Tokens& x = before[i].tokens[0];
    const Tokens& y = after[i].tokens[0];
    const auto differ = std::mismatch(x.begin(), x.end(), y.begin(), y.end()).first - x.begin();
    const bool changed = x != y;
    const std::size_t longest = std::max(x.size(), y.size());
    for (std::size_t t = 0; t < longest; ++t)
      tokens += t >= x.size() || t >= y.size() || x[t] != y[t] ? 1 : 0;
    answers += changed ? 1 : 0;
    Json one = {{"prompt", prompts[i].text},
                {"before", texts_of(first, prompts[i], x, g.sampling.max_new_tokens)},
                {"after", texts_of(second, prompts[i], y, g.sampling.max_new_tokens)},
                {"first_difference", changed ? Json(differ) : Json()}};
    if (!rewards_before.empty()) {
      one["reward_before"] = rewards_before[i];
      one["reward_after"] = rewards_after[i];
      rewards += rewards_before[i] != rewards_after[i] ? 1 : 0;
    }
    all.push_back(std::move(one));
  }
  out["answers"] = std::move(all);
  out["answers_changed"] = answers;
  out["tokens_changed"] = tokens;
  if (!rewards_before.empty()) out["rewards_changed"] = rewards;
}

// "B > A = C, D": the order of the ranked, then who is unranked.
std::string order_in_words(const std::vector<int>& rank) {
  std::string out, unranked;
  int last = -1;
  for (int place = 0; place <= *std::max_element(rank.begin(), rank.end()); ++place)
    for (std::size_t i = 0; i < rank.size(); ++i)
      if (rank[i] == place) {
        out += str(out.empty() ? "" : last == place ? " = " : " > ", i);
        last = place;
      }
  for (std::size_t i = 0; i < rank.size(); ++i)
    if (rank[i] < 0) unranked += str(unranked.empty() ? "; unranked " : ", ", i);
  return out + unranked;
}

std::string joined(const Json& texts) {
  std::string out;
  for (const Json& text : texts) out += text.get<std::string>();
  return out;
}

void print_result(const Json& r) {
  std::printf("round %s, ranking %s: %s becomes %s\n", r.at("round").dump().c_str(),
              r.at("ranking").dump().c_str(),
              order_in_words(r.at("rank_before").get<std::vector<int>>()).c_str(),
              order_in_words(r.at("rank_after").get<std::vector<int>>()).c_str());
  if (r.at("unchanged_is_the_run").is_boolean())
    std::printf("without the change the round is the run's own, bit for bit\n");
  if (r.at("policy_before") == r.at("policy_after"))
    std::printf("nothing hangs on it: the reward model was tested on it, and not fitted to it\n");
  if (r.contains("ranked_scores_before"))
    for (std::size_t i = 0; i < r.at("ranked_scores_before").size(); ++i)
      std::printf("  response %zu: reward %s, then %s\n", i,
                  fixed(r.at("ranked_scores_before")[i].get<double>(), 4).c_str(),
                  fixed(r.at("ranked_scores_after")[i].get<double>(), 4).c_str());
  for (const Json& one : r.at("answers")) {
    if (one.at("first_difference").is_null()) continue;
    const auto k = one.at("first_difference").get<std::size_t>();
    const auto token = [&](const char* side) {
      return k < one.at(side).size() ? harmless(json_text(one.at(side)[k]))
                                     : std::string("the end");
    };
    std::printf(
        "\nprompt: %s\nbefore: %s\nafter:  %s\nfirst difference at token %zu: %s, then %s\n",
        harmless(one.at("prompt").get<std::string>()).c_str(),
        harmless(joined(one.at("before"))).c_str(), harmless(joined(one.at("after"))).c_str(), k,
        token("before").c_str(), token("after").c_str());
    if (one.contains("reward_before"))
      std::printf("reward of the answer before: %s, by the other reward model %s\n",
                  fixed(one.at("reward_before").get<double>(), 4).c_str(),
                  fixed(one.at("reward_after").get<double>(), 4).c_str());
  }
  std::printf("\n%s of %zu held-out answers change, in %s tokens",
              r.at("answers_changed").dump().c_str(), r.at("answers").size(),
              r.at("tokens_changed").dump().c_str());
  if (r.contains("rewards_changed"))
    std::printf("; %s of %zu rewards", r.at("rewards_changed").dump().c_str(),
                r.at("answers").size());
  std::printf("\n");
}

// With the rankings that there are: nobody is asked.
AlignGuide as_ranked(std::function<void(const std::vector<Prompt>&, const Loaded&)> instead) {
  AlignGuide guide;
  guide.rank = [](const RankOptions&) {};
  guide.instead = std::move(instead);
  return guide;
}

}  // namespace

void whatif_command(const WhatIfCommand& c, Json& results) {
  const Manifest manifest = manifest_of(c.run);
  require_ended(c.run, manifest.settings, c.round);
  const std::string source = round_directory(c.run, c.round) + "/rankings.jsonl";
  std::vector<std::string> lines = lines_of(source);
  if (static_cast<std::size_t>(c.ranking) >= lines.size())
    fail<DataError>(str("[whatif] ", shown(source), " has ", lines.size(),
                        " rankings, counted from 0; there is no ranking ", c.ranking));
  std::string& line = lines[static_cast<std::size_t>(c.ranking)];
  const std::vector<Ranking> rankings = read_rankings(source).records;
  check<DataError>(rankings.size() == lines.size(), "[whatif] a line there is not one ranking");
  const Ranking& ranking = rankings[static_cast<std::size_t>(c.ranking)];
  const std::vector<int> rank = turned_round(ranking.rank);
  if (rank.empty())
    fail<DataError>(str("[whatif] ranking ", c.ranking, " of ", shown(source),
                        " prefers nothing, and cannot be turned round. HINT: name another one"));

  const std::string out = c.out.empty() ? whatif_directory(c.run, c.round, c.ranking) : c.out;
  if (detail::file_exists(out))
    fail<DataError>(
        str("[whatif] ", shown(out),
            " is there already. HINT: name another directory with --out, or delete it"));
  const auto again = [&](const char* name) {
    AlignSettings s = manifest.settings;
    s.run = str(out, '/', name);
    s.rounds = c.round + 1;
    s.judge = kDefaultRule;  // which nobody asks
    return s;
  };
  const auto text_of = [&] {
    std::string text;
    for (const std::string& one : lines) text += one + "\n";
    return text;
  };
  make_directory(out);
  Unfinished unfinished{out};
  results = {{"round", c.round},
             {"ranking", c.ranking},
             {"prompt", ranking.prompt},
             {"responses", ranking.responses},
             {"rank_before", ranking.rank},
             {"rank_after", rank},
             {"unchanged_is_the_run", nullptr}};
  Json unused;
  if (c.check) {
    const AlignSettings same = again("same");
    begin_again(manifest, c.run, same, c.round, text_of());
    align_command(same, {}, unused,
                  as_ranked([&](const std::vector<Prompt>&, const Loaded& reference) {
                    require_same(c.run, same.run, same, c.round, reference);
                  }));
    results["unchanged_is_the_run"] = true;
  }
  Json record = parse_json(line, shown(source));
  check<DataError>(record.contains("ranking") && record["ranking"].is_array(),
                   "[whatif] the ranking is not one of plumb rank's");
  auto& groups = record["ranking"].get_ref<Json::array_t&>();  // the best first
  std::reverse(groups.begin(), groups.end());
  line = json_text(record);
  const AlignSettings turned = again("turned");
  begin_again(manifest, c.run, turned, c.round, text_of());
  check<DataError>(read_rankings(round_directory(turned.run, c.round) + "/rankings.jsonl")
                           .records[static_cast<std::size_t>(c.ranking)]
                           .rank == rank,
                   "[whatif] the ranking did not turn round");
  Candidates ranked;
  ranked.id = ranking.id;
  ranked.prompt = ranking.prompt;
  ranked.responses = ranking.responses;
  ranked.finished = ranking.finished;
  ranked.tokens = ranking.tokens;
  ranked.turns = ranking.turns;
  align_command(turned, {}, unused,
                as_ranked([&](const std::vector<Prompt>& prompts, const Loaded& reference) {
                  compare(turned, c.run, turned.run, ranked, prompts, reference, c.round, results);
                }));
  write_atomically(out + "/whatif.json", json_text(results, 1) + "\n");
  unfinished.directory.clear();
  print_result(results);
  std::printf("-> %s/whatif.json\n", harmless(out).c_str());
}

}}  // namespace plumb::v0_1
