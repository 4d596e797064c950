// A chat's turn with one model or two, and what the page asks of it, without HTTP:
// tests/scripts/studio.py has that.
#include "../app/chat_turn.hpp"
#include "../app/studio_chat.hpp"

#include "support.hpp"
#include "tiny.hpp"

#include <plumb/core/real.hpp>
#include <plumb/text/bytes.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace plumb;
using test::contains;

namespace {

// Bytes, of which the last may say nothing, as special tokens do; and which wait, if they are told
// to, when they are read.
class QuietBytes : public Tokenizer {
 public:
  explicit QuietBytes(std::int32_t quiet, const std::atomic<bool>* open = nullptr)
      : quiet_(quiet), open_(open) {}
  Index vocab() const override { return bytes_.vocab(); }
  std::vector<std::int32_t> encode(std::string_view text) const override {
    return bytes_.encode(text);
  }
  std::string decode(std::span<const std::int32_t> tokens) const override {
    while (open_ != nullptr && !*open_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::vector<std::int32_t> loud;
    for (const std::int32_t token : tokens)
      if (token < quiet_) loud.push_back(token);
    return bytes_.decode(loud);
  }
  std::int32_t bos() const override { return bytes_.bos(); }
  std::int32_t eos() const override { return bytes_.eos(); }
  std::vector<std::int32_t> stops() const override { return bytes_.stops(); }
  std::string name() const override { return "quiet bytes"; }
  std::uint64_t fingerprint() const override { return static_cast<std::uint64_t>(quiet_); }

 private:
  ByteTokenizer bytes_;
  std::int32_t quiet_;
  const std::atomic<bool>* open_;
};

Loaded byte_model(std::uint64_t seed, std::shared_ptr<const Tokenizer> tokenizer = {}) {
  TransformerConfig config = test::tiny_llama();
  config.vocab = 256;
  Loaded loaded;
  loaded.tokenizer = tokenizer ? std::move(tokenizer) : std::make_shared<ByteTokenizer>();
  loaded.stops = {0};
  loaded.context = config.context;
  loaded.model = std::make_shared<DeviceModel>(test::tiny_model<Device>(config, seed));
  loaded.source = str("model-", seed);
  return loaded;
}

GenerateSettings drawn(std::uint64_t seed, Index longest = 60) {
  GenerateSettings settings;
  settings.sampling.seed = seed;
  settings.sampling.max_new_tokens = longest;
  return settings;
}

// log softmax of the logits after `before`, each prefix by itself and in double.
std::vector<double> log_probabilities(const Loaded& loaded, const Tokens& before) {
  PackedBatch packed;
  packed.add(before);
  const auto hidden = loaded.model->hidden(Batch<Device>::from(packed));
  const auto n = hidden.dim(0);
  const auto logits = linear(hidden.rows(n - 1, n), loaded.model->head()).to_vector();
  double largest = logits[0], sum = 0;
  for (const float z : logits) largest = std::max<double>(largest, z);
  for (const float z : logits) sum += real::exp(z - largest);
  std::vector<double> out;
  for (const float z : logits) out.push_back(z - largest - real::log(sum));
  return out;
}

std::vector<ChatToken> tokens_of(const ChatResponse& response) {
  std::vector<ChatToken> all;
  for (const ChatPiece& piece : response.pieces)
    all.insert(all.end(), piece.tokens.begin(), piece.tokens.end());
  return all;
}

std::string shown_text(const ChatResponse& response) {
  std::string out;
  for (const ChatPiece& piece : response.pieces) out += piece.text;
  return out;
}

// Holds each model to what it says of the tokens of a response, one by one.
void check_against(const ChatResponse& response, const Loaded& own, Tokens own_before,
                   const Loaded* other, Tokens other_before) {
  for (const ChatToken& token : tokens_of(response)) {
    const auto id = static_cast<std::size_t>(token.id);
    const std::vector<double> own_says = log_probabilities(own, own_before);
    CHECK(std::fabs(token.logprob - own_says[id]) < 1e-4);
    REQUIRE(token.likely.size() == kLikelyTokens);
    for (std::size_t i = 0; i < kLikelyTokens; ++i) {
      const LikelyToken& one = token.likely[i];
      CHECK(std::fabs(one.logprob - own_says[static_cast<std::size_t>(one.id)]) < 1e-4);
      const auto above = std::count_if(own_says.begin(), own_says.end(),
                                       [&](double p) { return p > one.logprob + 1e-4; });
      CHECK(above <= static_cast<std::ptrdiff_t>(i));
    }
    REQUIRE(token.beside.has_value() == (other != nullptr));
    if (other != nullptr) {
      const std::vector<double> other_says = log_probabilities(*other, other_before);
      CHECK(std::fabs(*token.beside - other_says[id]) < 1e-4);
      const double apart = std::fabs(own_says[id] - other_says[id]);
      if (std::fabs(apart - real::log(2.0)) > 2e-4)
        CHECK(token.differs() == (apart > real::log(2.0)));
    }
    own_before.push_back(token.id);
    other_before.push_back(token.id);
  }
}

}  // namespace

TEST_CASE("chat: what can be shown of bytes") {
  CHECK(visible_text("a\xC3\xA9 \n") == "a\xC3\xA9 \n");
  CHECK(visible_text(std::string(1, '\0')) == "\\x00");
  CHECK(visible_text("\xC3") == "\\xC3");
  CHECK(visible_text("\xE2\x82z\xFF") == "\\xE2\\x82z\\xFF");
  CHECK(visible_text("a\x1B[2J\x7F\t\xE2\x80\xAE\xC2\x9B") == "a\\x1B[2J\\x7F\t\\u202E\\u009B");
  CHECK(whole_characters("ab\xE2\x82") == "ab");
  CHECK(whole_characters("ab\xE2\x82\xAC") == "ab\xE2\x82\xAC");
  CHECK(whole_characters("ab\xFF") == "ab\xFF");  // no character begins here, none will be whole
  CHECK(whole_characters("").empty());
}

TEST_CASE("chat: of one model each token's probability, and what else was likely") {
  const Loaded model = byte_model(3);
  GenerateSettings settings = drawn(5, 24);
  const Loaded* const models[] = {&model};
  const ChatTurn turn = chat_turn(models, "Once", settings, 0);
  REQUIRE(turn.responses.size() == 1);
  CHECK(!turn.compared);
  CHECK(!turn.first_difference);
  CHECK(difference_in_words(turn).empty());
  const Tokens prompt = encode_prompt(model, "Once", 1);
  check_against(turn.responses[0], model, prompt, nullptr, prompt);
  // The training forward's own bits, where tokens are drawn as they are read.
  SampleOptions options = settings.sampling;
  options.stops = model.stops;
  const Response sampled = sample(*model.model, {prompt}, options).front();
  const std::vector<ChatToken> tokens = tokens_of(turn.responses[0]);
  REQUIRE(tokens.size() == sampled.tokens.size());
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    CHECK(tokens[t].id == sampled.tokens[t]);
    CHECK(tokens[t].logprob == static_cast<double>(sampled.logprobs[t]));
  }
  // However it is drawn, the probability is that of the whole distribution at temperature 1.
  settings.sampling.sampling = {.temperature = 0.5F, .top_k = 20, .top_p = 0.9F};
  check_against(chat_turn(models, "Once", settings, 0).responses[0], model, prompt, nullptr,
                prompt);
}

TEST_CASE("chat: a model beside itself is the same") {
  const Loaded model = byte_model(3);
  const Loaded* const models[] = {&model, &model};
  const ChatTurn turn = chat_turn(models, "Once", drawn(5), 2);
  CHECK(turn.compared);
  CHECK(!turn.first_difference);
  CHECK(turn.responses[0].text == turn.responses[1].text);
  CHECK(!turn.responses[0].pieces.empty());
  for (const ChatResponse& response : turn.responses)
    for (const ChatToken& token : tokens_of(response)) {
      CHECK(token.logprob == *token.beside);
      CHECK(!token.differs());
    }
  CHECK(contains(difference_in_words(turn), "are the same"));
  CHECK(contains(difference_in_words(turn), "finds 0 of the"));
}

TEST_CASE("chat: of two models it says where they differ") {
  const Loaded a = byte_model(3), b = byte_model(4);
  const Loaded* const models[] = {&a, &b};
  const Tokens prompt = encode_prompt(a, "Once", 1);
  std::size_t differ = 0, all = 0;
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    const ChatTurn turn = chat_turn(models, "Once", drawn(seed, 20), 0);
    check_against(turn.responses[0], a, prompt, &b, prompt);
    check_against(turn.responses[1], b, prompt, &a, prompt);
    const std::vector<ChatToken> x = tokens_of(turn.responses[0]), y = tokens_of(turn.responses[1]);
    std::size_t t = 0;
    while (t < std::min(x.size(), y.size()) && x[t].id == y[t].id) ++t;
    REQUIRE(turn.first_difference);
    CHECK(*turn.first_difference == t);
    CHECK(contains(difference_in_words(turn), str("from token ", t + 1, " on")));
    for (const ChatResponse& response : turn.responses)
      for (const ChatPiece& piece : response.pieces) {
        const auto count = std::count_if(piece.tokens.begin(), piece.tokens.end(),
                                         [](const ChatToken& token) { return token.differs(); });
        CHECK(piece.differs() == (count > 0));
        differ += static_cast<std::size_t>(count);
        all += piece.tokens.size();
      }
  }
  CHECK(differ > 0);
  CHECK(differ < all);
}

TEST_CASE("chat: pieces are whole characters, or bytes that are none, and make the text") {
  const auto quiet = std::make_shared<QuietBytes>(250);
  const Loaded model = byte_model(3, quiet);
  const Loaded* const models[] = {&model};
  std::size_t joined = 0, broken = 0, named = 0, ended = 0;
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    const ChatResponse response = chat_turn(models, "On", drawn(seed), 0).responses[0];
    CHECK(shown_text(response) == visible_text(response.text));
    Tokens tokens;
    for (const ChatPiece& piece : response.pieces) {
      CHECK(is_utf8(piece.text));
      CHECK(piece.begin == tokens.size());
      for (const ChatToken& token : piece.tokens) tokens.push_back(token.id);
      joined += piece.tokens.size() > 1 && !contains(piece.text, "\\x") ? 1 : 0;
      broken += contains(piece.text, "\\x") ? 1 : 0;
      if (piece.text.empty()) {
        REQUIRE(piece.tokens.size() == 1);
        const ChatToken& only = piece.tokens[0];
        CHECK(only.text == (only.id == 0 ? "<end>" : str("<", only.id, ">")));
        named += only.id >= 250 ? 1 : 0;
        ended += only.id == 0 ? 1 : 0;
      }
    }
    CHECK(response.tokens() == tokens.size());
    CHECK(response_text(model, encode_prompt(model, "On", 1), tokens) == response.text);
    CHECK(response.finished == (tokens.back() == 0));
  }
  CHECK(joined > 0);
  CHECK(broken > 0);
  CHECK(named > 0);
  CHECK(ended > 0);
}

TEST_CASE("chat: each model reads in its own form, and other tokenizers are not compared") {
  const Loaded a = byte_model(3);
  Loaded b = byte_model(4);
  b.chat = {.before = "Q: ", .after = " A:"};
  const Loaded* const models[] = {&a, &b};
  const ChatTurn turn = chat_turn(models, "Once", drawn(2, 12), 0);
  const Tokens plain = encode_prompt(a, "Once", 1), framed = encode_prompt(b, "Once", 1);
  REQUIRE(plain != framed);
  check_against(turn.responses[0], a, plain, &b, framed);
  check_against(turn.responses[1], b, framed, &a, plain);

  const Loaded other = byte_model(4, std::make_shared<QuietBytes>(250));
  const Loaded* const strangers[] = {&a, &other};
  const ChatTurn apart = chat_turn(strangers, "Once", drawn(2, 12), 0);
  CHECK(!apart.compared);
  CHECK(!apart.first_difference);
  CHECK(contains(difference_in_words(apart), "different tokenizers"));
  check_against(apart.responses[0], a, plain, nullptr, plain);
  check_against(apart.responses[1], other, plain, nullptr, plain);
}

TEST_CASE("chat: a response has room in every model that reads it, and can be stopped") {
  const Loaded a = byte_model(3);
  Loaded b = byte_model(4);
  b.chat = {.before = std::string(20, 'b'), .after = ""};
  const Loaded* const models[] = {&a, &b};
  GenerateSettings settings = drawn(2, 1000);
  const ChatTurn turn = chat_turn(models, std::string(50, 'a'), settings, 0);
  for (const ChatResponse& response : turn.responses) CHECK(response.tokens() <= 10);
  CHECK(contains(test::message_of([&] { chat_turn(models, std::string(60, 'a'), settings, 0); }),
                 "exceeds the context of 80"));

  settings.sampling.max_new_tokens = 9;
  std::vector<std::pair<std::size_t, std::string>> heard;
  const auto three = [&](std::size_t side, std::string_view text) {
    heard.emplace_back(side, text);
    return heard.size() == 3;
  };
  const ChatTurn cut = chat_turn(models, "Once", settings, 0, three);
  CHECK(cut.responses[0].stopped);
  CHECK(cut.responses[1].stopped);
  CHECK(heard.size() == 3);
  CHECK(heard.back().second == cut.responses[0].text);
  CHECK(cut.responses[0].tokens() == 3);
  CHECK(!cut.responses[0].finished);
  CHECK(cut.responses[1].pieces.empty());
  CHECK(contains(difference_in_words(cut), "B says nothing more"));
}

namespace {

// A page that asks without HTTP.
struct ChatPage {
  ChatStudio studio;

  explicit ChatPage(std::vector<Loaded> models, const GenerateSettings& settings = drawn(1, 12))
      : studio(std::move(models), settings) {}
  Json ask(const std::string& action, const Json& body, int status = 200) {
    const StudioReply reply = studio.handle(action, json_text(body));
    CHECK(reply.status == status);
    return parse_json(reply.json);
  }
  Json until_it_ends(const std::string& word) {
    for (;;) {
      const Json state = ask("hear", {{"turn", word}});
      if (state.at("state") != "waits" && state.at("state") != "speaks") return state;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
};

std::string word_of(int n) { return str("0000-1111-2222-", 1000 + n); }

}  // namespace

TEST_CASE("chat: the page is told what there is, and gets what chat_turn says") {
  const Loaded a = byte_model(3), b = byte_model(4);
  ChatPage page({a, b});
  const Json opened = page.ask("open", Json::object());
  CHECK(opened.at("mode") == "chat");
  CHECK(opened.at("compared") == true);
  CHECK(opened.at("models")[1] == Json{{"name", "model-4"}, {"continues", true}});
  CHECK(opened.at("settings") ==
        Json{{"temperature", 1.0}, {"top-p", 1.0}, {"max-new-tokens", 12}, {"seed", 1}});

  const Loaded* const models[] = {&a, &b};
  const auto said = [](const ChatTurn& turn) { return parse_json(json_text(turn_json(turn))); };
  page.ask("say", {{"turn", word_of(0)}, {"text", "Once"}});
  const Json first = page.until_it_ends(word_of(0));
  CHECK(first.at("state") == "done");
  CHECK(first.at("said") == said(chat_turn(models, "Once", drawn(1, 12), 0)));

  GenerateSettings other = drawn(9, 5);
  other.sampling.sampling = {.temperature = 0.5F, .top_p = 0.75F};
  const Json settings = {{"temperature", 0.5}, {"top-p", 0.75}, {"max-new-tokens", 5}, {"seed", 9}};
  page.ask("say", {{"turn", word_of(1)}, {"text", "Once"}, {"settings", settings}});
  const Json second = page.until_it_ends(word_of(1));
  CHECK(second.at("said") == said(chat_turn(models, "Once", other, 0)));
  const Json& token = second.at("said").at("responses")[0].at("pieces")[0].at("tokens")[0];
  CHECK(token.at("likely").size() == kLikelyTokens);
  CHECK(token.at("probability").get<double>() > 0.0);
  CHECK(token.at("beside").get<double>() > 0.0);
  // Said twice, once.
  CHECK(page.ask("say", {{"turn", word_of(0)}, {"text", "another"}}) == first);
}

TEST_CASE("chat: what does not fit is refused in words") {
  ChatPage page({byte_model(3)});
  const auto refuses = [&](const std::string& body, const char* words, int status = 400) {
    const StudioReply reply = page.studio.handle("say", body);
    CHECK(reply.status == status);
    const std::string error = parse_json(reply.json).at("error");
    CHECK_MESSAGE(contains(error, words), error);
  };
  const auto with = [](const char* more) {
    return "{\"turn\":\"0123456789abcdef\"," + std::string(more) + "}";
  };
  refuses("{", "JSON");
  refuses("[1]", "object");
  refuses("{}", "\"turn\"");
  refuses("{\"turn\":7}", "\"turn\"");
  refuses("{\"turn\":\"short\",\"text\":\"a\"}", "16 to 64");
  refuses("{\"turn\":\"0123456789ABCDEF\",\"text\":\"a\"}", "small letters");
  refuses("{\"turn\":\"" + std::string(65, 'a') + "\",\"text\":\"a\"}", "may have 64");
  refuses(with("\"settings\":{}"), "\"text\"");
  refuses(with("\"text\":[]"), "\"text\"");
  refuses(with("\"text\":\"\""), "no text");
  refuses(with(("\"text\":\"" + std::string(20001, 'a') + "\"").c_str()), "may have 20000");
  refuses(with("\"text\":\"a\",\"settings\":3"), "\"settings\"");
  const auto settings = [&](const char* one) {
    return with(str("\"text\":\"a\",\"settings\":{", one, "}").c_str());
  };
  refuses(settings("\"stop\":\"a\""), "no setting \"stop\"");
  refuses(settings("\"temperature\":\"1\""), "\"temperature\"");
  refuses(settings("\"temperature\":-1"), "from 0 to 100");
  refuses(settings("\"temperature\":1e-44"), "temperature");
  refuses(settings("\"top-p\":0"), "top-p");
  refuses(settings("\"top-p\":1.5"), "from 0 to 1");
  refuses(settings("\"max-new-tokens\":0"), "max-new-tokens");
  refuses(settings("\"max-new-tokens\":2.5"), "whole number");
  refuses(settings("\"max-new-tokens\":1025"), "from 0 to 1024");
  refuses(settings("\"seed\":-1"), "whole number");
  CHECK(page.studio.handle("hear", with("\"text\":\"a\"")).status == 404);
  CHECK(page.studio.handle("answer", "{}").status == 404);
  // What only the model can refuse, it refuses in its turn.
  page.ask("say", {{"turn", word_of(0)}, {"text", std::string(80, 'a')}});
  const Json failed = page.until_it_ends(word_of(0));
  CHECK(failed.at("state") == "failed");
  CHECK(contains(failed.at("error").get<std::string>(), "exceeds the context of 80"));
  CHECK(contains(test::message_of([] { const ChatStudio none({}, {}); }), "one model or two"));
}

TEST_CASE("chat: turns wait for one another, and can be stopped") {
  std::atomic<bool> open{false};
  ChatPage page({byte_model(3, std::make_shared<QuietBytes>(256, &open))});
  const auto say = [&](int n, int status = 200) {
    return page.ask("say", {{"turn", word_of(n)}, {"text", "Once"}}, status);
  };
  say(0);
  while (page.ask("hear", {{"turn", word_of(0)}}).at("state") == "waits")
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  CHECK(page.ask("hear", {{"turn", word_of(0)}}) == Json{{"state", "speaks"}, {"texts", {""}}});
  for (int n = 1; n <= static_cast<int>(kChatWaiting); ++n)
    CHECK(say(n) == Json{{"state", "waits"}, {"ahead", n}});
  CHECK(contains(say(20, 503).at("error").get<std::string>(), "try again"));
  CHECK(say(3) == Json{{"state", "waits"}, {"ahead", 3}});  // said twice, it keeps its place

  CHECK(page.ask("stop", {{"turn", word_of(2)}}) == Json{{"state", "stopped"}});
  CHECK(page.ask("hear", {{"turn", word_of(3)}}) == Json{{"state", "waits"}, {"ahead", 2}});
  CHECK(say(20) == Json{{"state", "waits"}, {"ahead", kChatWaiting}});
  page.ask("stop", {{"turn", word_of(0)}});
  open = true;
  const Json stopped = page.until_it_ends(word_of(0));
  CHECK(stopped.at("state") == "done");
  CHECK(stopped.at("said").at("responses")[0].at("stopped") == true);
  CHECK(stopped.at("said").at("responses")[0].at("pieces").size() == 1);
  const Json whole = page.until_it_ends(word_of(20));
  CHECK(whole.at("said").at("responses")[0].at("stopped") == false);
  for (int n = 3; n <= static_cast<int>(kChatWaiting); ++n)
    CHECK(page.ask("hear", {{"turn", word_of(n)}}).at("state") == "done");
  CHECK(page.ask("stop", {{"turn", word_of(3)}}).at("state") == "done");  // too late
}

TEST_CASE("chat: old turns are forgotten, and one under way does not keep the program") {
  ChatPage page({byte_model(3)}, drawn(1, 1));
  for (int n = 0; n < 100; ++n) {
    page.ask("say", {{"turn", word_of(n)}, {"text", "a"}});
    page.until_it_ends(word_of(n));
  }
  CHECK(contains(page.ask("hear", {{"turn", word_of(0)}}, 404).at("error").get<std::string>(),
                 "not known"));
  CHECK(page.ask("hear", {{"turn", word_of(50)}}).at("state") == "done");

  std::atomic<bool> open{false};
  std::thread opens;
  {
    ChatPage leaving({byte_model(3, std::make_shared<QuietBytes>(256, &open))});
    for (int n = 0; n < 3; ++n) leaving.ask("say", {{"turn", word_of(n)}, {"text", "a"}});
    while (leaving.ask("hear", {{"turn", word_of(0)}}).at("state") == "waits")
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    opens = std::thread([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(30));
      open = true;
    });
  }  // ends here, with turns that wait
  CHECK(open);
  opens.join();
}
