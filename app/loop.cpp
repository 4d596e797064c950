#include "loop.hpp"

#include "progress.hpp"
#include "run_directory.hpp"
#include "screen.hpp"

#include <plumb/io/settings.hpp>
#include <plumb/run/interrupt.hpp>

#include <chrono>
#include <cstdio>
#include <thread>

namespace plumb { inline namespace v0_1 {

namespace {

using Lock = std::lock_guard<std::mutex>;

StudioReply all_right() { return {200, "{}"}; }

// What the page says of settings: texts by name.
void take(AlignSettings& s, const Json& said) {
  for (const auto& [name, text] : said.items()) {
    if (!text.is_string()) fail<DataError>(str("[loop] setting '", name, "' is not said as text"));
    bool known = false;
    fields(s, [&, &key = name, &value = text](const Field& field, auto& member) {
      if (key != field.name || known) return;
      known = true;
      using T = std::remove_reference_t<decltype(member)>;
      if constexpr (std::is_same_v<T, std::vector<std::string>>) member.clear();
      const std::string typed = value.template get<std::string>();
      if (std::is_same_v<T, std::vector<std::string>> && typed.empty()) return;
      const std::string complaint = parse_setting(field, member, typed);
      if (!complaint.empty()) fail<DataError>(str("[loop] ", key, " ", complaint));
    });
    if (!known) fail<DataError>(str("[loop] there is no setting '", repaired_utf8(name), "'"));
  }
  s.generate_temperature_said |= said.contains("generate-temperature");
  s.ppo_temperature_said |= said.contains("ppo-temperature");
}

// The run's own settings where it has begun.
AlignSettings settings_of(const StudioOptions& options) {
  AlignSettings s;
  s.labeller = "person";
  const std::string begun = options.candidates + "/config.json";
  const bool has_begun = detail::file_exists(begun);
  check<DataError>(!has_begun || options.config.empty(),
                   "[loop] this run has begun, with settings of its own. HINT: leave --config out");
  const std::string path = has_begun ? begun : options.config;
  if (!path.empty()) read_align(s, parse_json(read_file(path), shown(path)), shown(path));
  s.run = options.candidates;
  return s;
}

std::string step_name(const AlignSettings& s, AlignStep step) {
  switch (step) {
    case AlignStep::Start: return "Open the model";
    case AlignStep::Generate: return "Generate";
    case AlignStep::Rank: return s.labeller == "person" ? "Rank" : "Rank by " + s.labeller;
    case AlignStep::Reward: return "Fit the reward model";
    case AlignStep::Policy:
      return str("Train by ", s.directly() ? choice_name(s.method) : s.ppo.label());
    case AlignStep::Compare:
      return s.judge_spec() == "person" ? "Judge, blind" : "Judge by " + s.judge_spec();
  }
  return {};
}

}  // namespace

Json settings_form(const AlignSettings& settings) {
  AlignSettings s = settings;
  Json out = Json::array();
  fields(s, [&](const Field& field, auto& member) {
    using T = std::remove_reference_t<decltype(member)>;
    if (std::string_view(field.name) == "run") return;
    const Json value = setting_json(member);
    Json one = {{"name", field.name},
                {"help", field.help},
                {"unit", field.unit},
                {"group", field.group},
                {"range", field.range.text()},
                {"value", value.is_string() ? value.template get<std::string>() : value.dump()}};
    if constexpr (std::is_same_v<T, std::vector<std::string>>)
      one["value"] = member.empty() ? "" : member.front();
    if constexpr (std::is_same_v<T, bool>) one["choices"] = {"true", "false"};
    if constexpr (Choice<T>) {
      one["choices"] = Json::array();
      for (const auto& choice : choices(T{})) one["choices"].push_back(choice.first);
    }
    out.push_back(std::move(one));
  });
  return out;
}

LoopStudio::LoopStudio(AlignSettings settings, std::string instructions)
    : instructions_(std::move(instructions)),
      watch_({settings.run}),
      settings_(std::move(settings)) {}

StudioReply LoopStudio::handle(const std::string& action, const std::string& body) {
  try {
    return act(action, body);
  } catch (const std::exception& error) {
    return refusal(400, "request", error.what());
  }
}

StudioReply LoopStudio::act(const std::string& action, const std::string& body) {
  if (action == "open") {
    const Lock lock(mutex_);
    Json out = {{"mode", "loop"}, {"run", settings_.run}, {"settings", nullptr}};
    const bool begun = detail::file_exists(settings_.run + "/config.json");
    if (!begun && state_ != State::Runs) out["settings"] = settings_form(settings_);
    return {200, json_text(out)};
  }
  if (action == "begin") return begin(body);
  if (action == "train") return train();
  if (action == "stop") {
    const Lock lock(mutex_);
    if (state_ != State::Runs) return refusal(409, "request", "[loop] nothing is under way");
    change(State::Stops);
    ask_to_stop();
    return all_right();
  }
  for (const char* of_desk : {"sit", "answer", "skip", "undo", "skipped"})
    if (action == of_desk) {
      const Lock lock(mutex_);  // no answer comes after the file was read
      if (!desk_)
        return refusal(410, "closed", "nobody is asked just now: the run is at another step");
      StudioReply reply = desk_->handle(action, body);
      ++version_;
      return reply;
    }
  return watch_.handle(action, body);
}

StudioReply LoopStudio::begin(const std::string& body) {
  const Json said = parse_json(body, "the page's request");
  const Json none = Json::object();
  const Json& texts = said.is_object() && said.contains("settings") ? said["settings"] : none;
  if (!texts.is_object()) return refusal(400, "request", "[loop] settings are texts by name");
  const Lock lock(mutex_);
  if (state_ == State::Runs || state_ == State::Stops)
    return refusal(409, "request", "[loop] the run is under way already");
  if (!texts.empty() && detail::file_exists(settings_.run + "/config.json"))
    return refusal(409, "request", "[loop] the run has begun, and its settings stay as they are");
  AlignSettings s = settings_;
  take(s, texts);
  if (texts.contains("method")) {  // what the method chooses, where the page does not say it
    use_method(s);
    take(s, texts);
  }
  check_align(s);
  check<DataError>(s.judge_spec() != "person" || s.eval_responses == 1,
                   "[loop] a person who judges at the page gets one response a prompt, so that it "
                   "may end early. HINT: eval-responses 1");
  settings_ = s;
  change(State::Runs);
  return all_right();
}

StudioReply LoopStudio::train() {
  const Lock lock(mutex_);
  if (!desk_ || at_.step != AlignStep::Rank)
    return refusal(409, "request", "[loop] nobody ranks just now");
  const std::size_t there_are = desk_->rankings();
  if (there_are < settings_.fewest_rankings())
    return refusal(400, "request",
                   str("[loop] there are ", there_are, " rankings; training needs at least ",
                       settings_.fewest_rankings()));
  asked_enough_ = true;
  return all_right();
}

// With the lock held.
void LoopStudio::change(State state) {
  state_ = state;
  if (state == State::Runs) error_.clear();
  if (state != State::Runs && state != State::Stops) progress_ = nullptr;
  ++version_;
}

Json LoopStudio::steps() const {
  Json out = Json::array();
  const bool ended = state_ == State::Ended;
  const auto add = [&](Index round, AlignStep step) {
    const auto order = [](Index r, AlignStep s) { return r * 10 + static_cast<Index>(s); };
    const Index here = order(round, step), now = order(at_.round, at_.step);
    const bool under_way = state_ == State::Runs || state_ == State::Stops;
    out.push_back({{"round", round},
                   {"name", step_name(settings_, step)},
                   {"state", ended || here < now        ? "done"
                             : here == now && under_way ? "now"
                                                        : "later"}});
  };
  for (Index round = 0; round < settings_.rounds; ++round)
    for (const AlignStep step :
         {AlignStep::Generate, AlignStep::Rank, AlignStep::Reward, AlignStep::Policy})
      if (step != AlignStep::Reward || !settings_.directly()) add(round, step);
  add(settings_.rounds, AlignStep::Compare);
  return out;
}

Json LoopStudio::state() const {
  static constexpr const char* kNames[] = {"waits", "runs", "stops", "stopped", "failed", "ended"};
  Json out = {{"state", kNames[static_cast<int>(state_)]},
              {"steps", steps()},
              {"rounds", settings_.rounds},
              {"begun", detail::file_exists(settings_.run + "/config.json")},
              {"progress", progress_},
              {"error", error_},
              {"results", results_},
              {"asks", nullptr}};
  if (desk_)
    out["asks"] = {{"what", at_.step == AlignStep::Rank ? "rank" : "judge"},
                   {"rankings", desk_->rankings()},
                   {"questions", desk_->questions()},
                   {"fewest", settings_.fewest_rankings()}};
  return out;
}

StudioEvent LoopStudio::after(const std::string& id) {
  const std::size_t slash = std::min(id.find('/'), id.size());
  StudioEvent rows = watch_.after(id.substr(0, slash));
  const Lock lock(mutex_);
  StudioEvent out{str(rows.id, "/", version_), ""};
  if (rows.data.empty() && out.id == id) return out;
  Json json = rows.data.empty() ? Json::object() : Json::parse(rows.data);
  json["loop"] = state();
  out.data = json_text(json);
  return out;
}

void LoopStudio::seat(std::unique_ptr<DeskStudio> desk) {
  const Lock lock(mutex_);
  desk_ = std::move(desk);
  asked_enough_ = false;
  progress_ = nullptr;
  ++version_;
}

// Until nobody is asked any more, or the run is to stop; then the desk is closed.
void LoopStudio::wait_while_asking() {
  for (;;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const Lock lock(mutex_);
    if (!asked_enough_ && !interrupted()) continue;
    desk_.reset();
    ++version_;
    break;
  }
  if (interrupted()) throw Interrupted("The run was stopped. The same command goes on.");
}

void LoopStudio::have_ranked(const RankOptions& options) {
  seat(std::make_unique<DeskStudio>(desk_of(options.candidates, options.output, options.asking),
                                    instructions_));
  wait_while_asking();
}

std::string LoopStudio::have_judged(const std::vector<Candidates>& pairs,
                                    const std::string& answers) {
  if (pairs.empty()) return settings_.annotator;
  RankingPlan plan;
  plan.seed = settings_.generate.sampling.seed;
  seat(std::make_unique<DeskStudio>(std::make_shared<RankingDesk>(pairs, answers, plan),
                                    instructions_, Contest{"the first policy", "the last policy"}));
  std::string judge;
  while (judge.empty() && !interrupted()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const Lock lock(mutex_);
    judge = desk_->judged_by();
    asked_enough_ = !judge.empty();
  }
  wait_while_asking();
  return judge;
}

AlignGuide LoopStudio::guide() {
  AlignGuide out;
  out.begins = [this](Index round, AlignStep step) {
    const Lock lock(mutex_);
    at_ = {round, step};
    progress_ = nullptr;
    ++version_;
  };
  out.rank = [this](const RankOptions& options) { have_ranked(options); };
  out.judge = [this](const std::vector<Candidates>& pairs, const std::string& answers) {
    return have_judged(pairs, answers);
  };
  return out;
}

void LoopStudio::work(Json& results) {
  progress_listener = [this](const ProgressState& p) {
    const Lock lock(mutex_);
    progress_ = {{"label", p.label},
                 {"unit", p.unit},
                 {"extra", p.extra},
                 {"done", p.done},
                 {"total", p.total}};
    ++version_;
  };
  const AlignGuide guide = this->guide();
  while (!interrupted()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    AlignSettings settings;
    {
      const Lock lock(mutex_);
      if (state_ != State::Runs) continue;
      settings = settings_;
    }
    Json reached = Json::object();
    State end = State::Ended;
    std::string error;
    try {
      align_command(settings, "Plumb run", reached, guide);
      results = reached;
    } catch (const Interrupted&) {
      if (!asked_to_stop()) throw;
      end = State::Stopped;
    } catch (const std::exception& failure) {
      end = State::Failed;
      error = failure.what();
      std::fprintf(stderr, "plumb: %s\n", harmless(error).c_str());
    }
    const Lock lock(mutex_);
    desk_.reset();
    error_ = plain_reason(error);
    if (end == State::Ended) results_ = reached;
    if (asked_to_stop()) clear_interrupt();
    change(end);
  }
}

Json loop_command(const StudioOptions& options) {
  check<DataError>(!options.candidates.empty() && options.output.empty() && !options.judge &&
                       options.before.empty() && options.after.empty(),
                   "[loop] what is needed is the directory of a run, and nothing else. HINT: plumb "
                   "studio RUN --loop");
  LoopStudio loop(settings_of(options), instructions_of(options.asking));
  Json results = Json::object();
  const InterruptGuard guard(BlockingReads::Return);
  const StudioServer server(
      address_of(options),
      [&](const std::string& action, const std::string& body) { return loop.handle(action, body); },
      [&](const std::string& id) { return loop.after(id); });
  std::printf(
      "The run %s is driven from the page; Ctrl-C ends it, and the same command goes on.\n"
      "Open %s\n",
      harmless(options.candidates).c_str(), server.url().c_str());
  std::fflush(stdout);
  loop.work(results);
  return results;
}

}}  // namespace plumb::v0_1
