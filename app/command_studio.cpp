#include "loop.hpp"
#include "run_directory.hpp"
#include "screen.hpp"
#include "studio.hpp"
#include "studio_chat.hpp"
#include "watch.hpp"

#include <plumb/run/interrupt.hpp>

#include <sys/stat.h>
#include <chrono>
#include <cstdio>
#include <thread>
#include <utility>

namespace plumb { inline namespace v0_1 {

namespace {

// The newest round of a run that has candidates.
std::string newest_round(const std::string& run) {
  std::string found;
  for (int round = 0;; ++round) {
    const std::string directory = round_directory(run, round);
    if (!detail::file_exists(directory + "/candidates.jsonl")) break;
    found = directory;
  }
  if (found.empty())
    fail<DataError>(str("[studio] ", shown(run),
                        " has no round-0/candidates.jsonl. HINT: name a run of plumb align, or a "
                        "file made by plumb generate"));
  return found;
}

bool is_directory(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

// A run's own files. Its judgements are where the judge `person` keeps them, too.
void judge_run(StudioOptions& options) {
  options.before = options.candidates + "/samples-before.jsonl";
  options.after = options.candidates + "/samples-after.jsonl";
  if (!detail::file_exists(options.after))
    fail<DataError>(str("[studio] ", shown(options.candidates),
                        " has no samples-after.jsonl. HINT: --judge is for a run of plumb align "
                        "that has ended; or name two files, --before and --after"));
  if (options.output.empty()) options.output = options.candidates + "/judgements.jsonl";
  options.candidates.clear();
}

// A run's own file, and the order of the terminal in it, so that align goes on with what is ranked.
void take_from_run(StudioOptions& options) {
  const std::string config = options.candidates + "/config.json";
  if (options.asking.plan.seed == 0 && detail::file_exists(config)) {
    const Json settings = parse_json(read_file(config), shown(config));
    if (settings.is_object() && settings.contains("generate-seed") &&
        settings["generate-seed"].is_number_unsigned())
      options.asking.plan.seed = settings["generate-seed"].get<std::uint64_t>();
  }
  const std::string round = newest_round(options.candidates);
  options.candidates = round + "/candidates.jsonl";
  if (options.output.empty()) options.output = round + "/rankings.jsonl";
}

void wait_for_the_end() {
  std::fflush(stdout);
  while (!interrupted()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
}

Json watch_runs(const StudioOptions& options) {
  for (const std::string& run : options.watch)
    if (!is_directory(run))
      fail<DataError>(str("[studio] ", shown(run),
                          " is no directory of a run. HINT: the run of "
                          "plumb ppo, grpo or align, which may be under way"));
  const WatchStudio watch(options.watch);
  const InterruptGuard guard(BlockingReads::Return);
  const StudioServer server(
      address_of(options),
      [&](const std::string& action, const std::string& body) {
        return watch.handle(action, body);
      },
      [&](const std::string& id) { return watch.after(id); });
  std::printf("Watching %zu runs. Ctrl-C ends this, and not them.\nOpen %s\n", options.watch.size(),
              server.url().c_str());
  wait_for_the_end();
  return {{"runs", options.watch.size()}};
}

Json talk_to_models(const StudioOptions& options) {
  check<DataError>(options.candidates.empty(),
                   "[studio] models to talk to and candidates to rank are two pages. HINT: leave "
                   "one out");
  std::vector<Loaded> models;
  for (const std::string& path : options.chat)
    models.push_back(load_model(path, options.tokenizer));
  GenerateSettings settings = options.talk;
  take_temperature_of_form(settings.sampling.sampling, options.temperature_said, models.front());
  const std::size_t count = models.size();
  ChatStudio chat(std::move(models), settings);
  const InterruptGuard guard(BlockingReads::Return);
  const StudioServer server(address_of(options),
                            [&](const std::string& action, const std::string& body) {
                              return chat.handle(action, body);
                            });
  std::printf("%s to talk to. Ctrl-C ends it.\nOpen %s\n",
              count == 1 ? "A model" : "Two models, side by side,", server.url().c_str());
  wait_for_the_end();
  return {{"models", count}};
}

}  // namespace

Json studio_command(const StudioOptions& said) {
  if (!said.chat.empty()) return talk_to_models(said);
  if (!said.watch.empty()) return watch_runs(said);
  if (said.loop) return loop_command(said);
  StudioOptions options = said;
  const bool run = is_directory(options.candidates);
  check<DataError>(run || !options.judge, "[studio] --judge is for the directory of a run");
  if (run) (options.judge ? judge_run : take_from_run)(options);
  const bool contest = !options.before.empty() && !options.after.empty();
  check<DataError>(
      contest == options.candidates.empty() && options.before.empty() == options.after.empty(),
      "[studio] what is to be shown? HINT: a file of candidates, a run, or --before "
      "FILE and --after FILE");
  check<DataError>(!options.output.empty(),
                   "[studio] rankings need a file to be kept in. HINT: --out rankings.jsonl");
  std::optional<Contest> sides;
  if (contest) sides = Contest{options.before, options.after};
  const std::shared_ptr<RankingDesk> desk =
      contest ? contest_desk(*sides, options.output, options.asking.plan)
              : desk_of(options.candidates, options.output, options.asking);
  DeskStudio studio(desk, instructions_of(options.asking), sides);
  const std::size_t before = desk->file.rankings();
  const InterruptGuard guard(BlockingReads::Return);
  {
    const StudioServer server(address_of(options),
                              [&](const std::string& action, const std::string& body) {
                                return studio.handle(action, body);
                              });
    if (desk->file.discarded() > 0)
      std::printf("The last line of %s was cut short by a crash: removed.\n",
                  harmless(options.output).c_str());
    std::printf("%zu questions; answers go to %s, each at once. Ctrl-C ends it.\nOpen %s\n",
                desk->candidates.size(), harmless(options.output).c_str(), server.url().c_str());
    wait_for_the_end();
  }
  const std::size_t after = desk->file.rankings();
  std::printf("\n%zu rankings, %zu of them from this sitting, all in %s.\n", after,
              after - std::min(before, after), harmless(options.output).c_str());
  return {{"rankings", after}, {"questions", desk->candidates.size()}};
}

}}  // namespace plumb::v0_1
