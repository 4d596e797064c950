#include "studio_chat.hpp"

#include "rank.hpp"
#include "studio.hpp"

#include <algorithm>
#include <utility>

namespace plumb { inline namespace v0_1 {

namespace {

std::string text_in(const Json& body, const char* key, std::size_t most) {
  const auto found = body.find(key);
  if (found == body.end() || !found->is_string())
    fail<DataError>(str("[chat] expected text as \"", key, "\""));
  std::string text = found->get<std::string>();
  if (text.size() > most)
    fail<DataError>(str("[chat] \"", key, "\" has ", text.size(), " bytes, and may have ", most));
  return text;
}

// The word by which a page knows its turn: long enough that nobody guesses it.
std::string word_in(const Json& body) {
  std::string word = text_in(body, "turn", 64);
  const bool fits = std::all_of(word.begin(), word.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '-';
  });
  check<DataError>(fits && word.size() >= 16,
                   "[chat] expected 16 to 64 digits, small letters and - as \"turn\"");
  return word;
}

template <class T>
void take_number(const Json& settings, const char* key, double most, T& to) {
  const auto found = settings.find(key);
  if (found == settings.end()) return;
  if (!found->is_number() || (std::is_integral_v<T> && !found->is_number_unsigned()) ||
      found->get<double>() < 0 || found->get<double>() > most)
    fail<DataError>(str("[chat] expected a ", std::is_integral_v<T> ? "whole " : "",
                        "number from 0 to ", most, " as \"", key, "\""));
  to = found->get<T>();
}

}  // namespace

ChatStudio::ChatStudio(std::vector<Loaded> models, const GenerateSettings& settings)
    : models_(std::move(models)), settings_(settings) {
  check_sampling(settings_.sampling, "chat");
  check<DataError>(models_.size() == 1 || models_.size() == 2,
                   "[chat] the page shows one model or two. HINT: --chat MODEL MODEL2");
  thread_ = std::thread([this] { work(); });
}

ChatStudio::~ChatStudio() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

StudioReply ChatStudio::handle(const std::string& action, const std::string& body) {
  try {
    const Json json = parse_json(body, "the page's request");
    if (!json.is_object()) return refusal(400, "request", "[chat] a body is a JSON object");
    return act(action, json);
  } catch (const std::exception& error) {
    return refusal(400, "request", error.what());
  }
}

Json ChatStudio::opened() const {
  Json models = Json::array();
  for (const Loaded& model : models_)
    models.push_back({{"name", shown(model.source)}, {"continues", model.chat == ChatForm{}}});
  const SampleOptions& s = settings_.sampling;
  return {{"mode", "chat"},
          {"models", std::move(models)},
          {"compared", models_.size() == 2 && comparable(models_[0], models_[1])},
          {"settings",
           {{"temperature", setting_json(s.sampling.temperature)},
            {"top-p", setting_json(s.sampling.top_p)},
            {"max-new-tokens", std::min(s.max_new_tokens, kLongestChatResponse)},
            {"seed", s.seed}}},
          {"longest", kLongestChatResponse}};
}

GenerateSettings ChatStudio::settings_of(const Json& body) const {
  GenerateSettings out = settings_;
  SampleOptions& s = out.sampling;
  s.max_new_tokens = std::min(s.max_new_tokens, kLongestChatResponse);
  const auto found = body.find("settings");
  if (found == body.end()) return out;
  check<DataError>(found->is_object(), "[chat] expected an object as \"settings\"");
  for (const auto& [key, value] : found->items())
    if (key != "temperature" && key != "top-p" && key != "max-new-tokens" && key != "seed")
      fail<DataError>(str("[chat] there is no setting \"", key.substr(0, 60), "\""));
  take_number(*found, "temperature", 100, s.sampling.temperature);
  take_number(*found, "top-p", 1, s.sampling.top_p);
  take_number(*found, "max-new-tokens", static_cast<double>(kLongestChatResponse),
              s.max_new_tokens);
  take_number(*found, "seed", 0x1p53, s.seed);
  check_sampling(s, "chat");
  return out;
}

std::shared_ptr<ChatStudio::Turn> ChatStudio::find(std::string_view word) const {
  for (const auto& turn : turns_)
    if (turn->word == word) return turn;
  return nullptr;
}

StudioReply ChatStudio::state_of(const Turn& turn) const {
  switch (turn.state) {
    case State::Waits: {
      std::size_t ahead = 0;
      for (const auto& other : turns_) {
        if (other.get() == &turn) break;
        ahead += other->state == State::Waits || other->state == State::Speaks ? 1 : 0;
      }
      return {200, json_text({{"state", "waits"}, {"ahead", ahead}})};
    }
    case State::Speaks: {
      Json texts = Json::array();
      for (const std::string& text : turn.texts)
        texts.push_back(visible_text(whole_characters(text)));
      return {200, json_text({{"state", "speaks"}, {"texts", std::move(texts)}})};
    }
    case State::Done: return {200, "{\"state\":\"done\",\"said\":" + turn.end + "}"};
    case State::Stopped: return {200, json_text({{"state", "stopped"}})};
    case State::Failed: break;
  }
  return {200, json_text({{"state", "failed"}, {"error", turn.end}})};
}

StudioReply ChatStudio::act(const std::string& action, const Json& body) {
  if (action == "open") return {200, json_text(opened())};
  if (action != "say" && action != "hear" && action != "stop")
    return refusal(404, "path", "[chat] there is no such action");
  const std::string word = word_in(body);
  const std::lock_guard lock(mutex_);
  std::shared_ptr<Turn> turn = find(word);
  if (action == "say" && turn == nullptr) {
    turn = std::make_shared<Turn>();
    turn->word = word;
    turn->text = text_in(body, "text", kLongestChatText);
    check<DataError>(!turn->text.empty(), "[chat] there is no text to answer");
    turn->settings = settings_of(body);
    const auto waiting = std::count_if(turns_.begin(), turns_.end(), [](const auto& other) {
      return other->state == State::Waits;
    });
    if (static_cast<std::size_t>(waiting) >= kChatWaiting)
      return refusal(503, "busy", str("[chat] ", waiting, " turns wait already: try again soon"));
    turns_.push_back(turn);
    if (turns_.size() > kChatRemembered + kChatWaiting + 1) {
      const auto oldest = std::find_if(turns_.begin(), turns_.end(), [](const auto& other) {
        return other->state != State::Waits && other->state != State::Speaks;
      });
      turns_.erase(oldest);
    }
    changed_.notify_all();
  }
  if (turn == nullptr)
    return refusal(404, "turn",
                   "[chat] this turn is not known: the program was started again, or many turns "
                   "came after it");
  if (action == "stop") {
    turn->stop = true;
    if (turn->state == State::Waits) turn->state = State::Stopped;
  }
  return state_of(*turn);
}

void ChatStudio::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    std::shared_ptr<Turn> next;
    changed_.wait(lock, [&] {
      const auto found = std::find_if(turns_.begin(), turns_.end(),
                                      [](const auto& turn) { return turn->state == State::Waits; });
      if (found != turns_.end()) next = *found;
      return ending_ || next != nullptr;
    });
    if (ending_) return;
    next->state = State::Speaks;
    next->texts.resize(models_.size());
    lock.unlock();
    speak(*next);
    lock.lock();
  }
}

void ChatStudio::speak(Turn& turn) {
  std::vector<const Loaded*> models;
  for (const Loaded& model : models_) models.push_back(&model);
  State state = State::Done;
  std::string end;
  try {
    end = json_text(turn_json(chat_turn(models, turn.text, turn.settings, 0,
                                        [&](std::size_t side, std::string_view text) {
                                          const std::lock_guard lock(mutex_);
                                          turn.texts[side] = text;
                                          return turn.stop || ending_;
                                        })));
  } catch (const std::exception& error) {
    state = State::Failed;
    end = plain_reason(error.what());
  }
  const std::lock_guard lock(mutex_);
  turn.state = state;
  turn.end = std::move(end);
  turn.texts.clear();
}

}}  // namespace plumb::v0_1
