// The episodes that a run keeps: the trainer's own numbers, to the bit; the texts of tokens; a file
// that a stopped run goes on with.
#include "../app/episodes.hpp"
#include "../app/whatif.hpp"

#include "temporary.hpp"
#include "tiny.hpp"

#include <plumb/models/format.hpp>
#include <plumb/text/bytes.hpp>
#include <plumb/text/sentencepiece.hpp>

#include <doctest/doctest.h>

#include <filesystem>
#include <numeric>

using namespace plumb;
using test::contains;

namespace {

Language bytes_language() { return {std::make_shared<ByteTokenizer>(), {}, Tokens{0}, {}, 1000}; }

std::string joined_texts(const Language& language, const Episode& e) {
  std::string out;
  for (const std::string& text : token_texts(language, e)) out += text;
  return out;
}

Tokens bytes_of(const std::string& text) {
  Tokens out;
  for (const char c : text) out.push_back(static_cast<unsigned char>(c));
  return out;
}

std::vector<float> floats_of(const Json& values) {
  std::vector<float> out;
  for (const Json& value : values) out.push_back(static_cast<float>(value.get<double>()));
  return out;
}

// A line with nothing but a step.
std::string bare_line(Index step) { return episodes_line(bytes_language(), step, 0.5, {}, {}); }

}  // namespace

TEST_CASE("episodes: a character stands with the last of its tokens, and all is there") {
  const Language language = bytes_language();
  Episode e;
  e.prompt = bytes_of("so: ");
  e.response = bytes_of("a\xC3\xBC<\xE2\x82\xAC");
  e.response.push_back(0);
  CHECK(token_texts(language, e) ==
        std::vector<std::string>{"a", "", "\xC3\xBC", "<", "", "", "\xE2\x82\xAC", ""});
  // What is no text, within and at the end.
  e.response = bytes_of(
      "\xC3"
      "a\xFF\xE2\x82");
  CHECK(joined_texts(language, e) ==
        "\xEF\xBF\xBD"
        "a\xEF\xBF\xBD\xEF\xBF\xBD");
  CHECK(joined_texts(language, e) == repaired_utf8(response_text(language, e.prompt, e.response)));

  // A space that begins a text belongs to the token, but after BOS to nobody.
  const auto pieces =
      std::make_shared<SentencePieceTokenizer>(PLUMB_SOURCE_DIR "/examples/data/tok512.bin", 512);
  const Language stories{pieces, {}, pieces->stops(), {}, 1000};
  e.response = pieces->encode(" Once upon a time, there was a dog \xE2\x82\xAC.");
  for (const Tokens& prompt : {Tokens{pieces->bos()}, pieces->encode("Lily")}) {
    e.prompt = prompt;
    CHECK(joined_texts(stories, e) == response_text(stories, e.prompt, e.response));
  }
}

TEST_CASE("episodes: the line has the trainer's numbers, and they add up to its metrics") {
  PpoConfig config;
  config.epochs = 2;
  config.minibatches = 2;
  config.sampling.max_new_tokens = 9;
  config.sampling.stops = {2, 5};
  config.beta = 0.3F;
  config.score_clip = 0.4F;
  for (const auto position : {ScorePosition::LastToken, ScorePosition::AfterEnd}) {
    config.score_position = position;
    const auto reference = test::tiny_model(test::tiny_llama(), 8);
    auto policy = test::tiny_model(test::tiny_llama(), 7, ScalarHead::Value);
    auto alone = test::tiny_model(test::tiny_llama(), 7, ScalarHead::Value);
    PpoTrainer<Cpu> trainer(policy, reference, test::even_share, config);
    PpoTrainer<Cpu> without(alone, reference, test::even_share, config);
    const auto prompts = test::some_prompts(5, test::tiny_llama().vocab);
    Language language = bytes_language();
    language.stops = {2, 5};
    for (Index i = 0; i < 2; ++i) {
      const Metrics row = trainer.step(prompts);
      without.step(prompts);
      const std::vector<Episode>& all = trainer.episodes();
      std::vector<double> judged(all.size());
      std::iota(judged.begin(), judged.end(), 0.5);
      const std::string line =
          episodes_line(language, i, metric(row, "objective/kl_coef"), all, judged);
      CHECK(line.ends_with("}\n"));
      CHECK(step_of_line(line) == i);
      const Json json = parse_json(line);
      CHECK(json.at("beta") == 0.3);
      REQUIRE(json.at("episodes").size() == all.size());
      double rewards = 0, scores = 0, kl = 0, exact = 0;
      for (std::size_t k = 0; k < all.size(); ++k) {
        const Json& kept = json.at("episodes")[k];
        const Episode& e = all[k];
        CHECK(kept.at("judge") == judged[k]);
        CHECK(kept.at("group") == e.group);
        CHECK(kept.at("finished") == e.finished);
        CHECK(kept.at("tokens").get<Tokens>() == e.response);
        CHECK(kept.at("text").size() == e.response.size());
        const auto same = [&](const char* name, const std::vector<float>& values) {
          CHECK(test::same_bits(floats_of(kept.at(name)), values));
        };
        same("logprobs", e.logprobs);
        same("ref_logprobs", e.ref_logprobs);
        same("kl_exact", e.kl_exact);
        same("values", e.values);
        same("rewards", e.rewards);
        same("advantages", e.advantages);
        CHECK(e.score == std::clamp(e.raw_score, -0.4F, 0.4F));
        CHECK(static_cast<float>(kept.at("raw_score").get<double>()) == e.raw_score);
        scores += kept.at("score").get<double>();
        for (const float x : floats_of(kept.at("rewards"))) rewards += x;
        for (std::size_t t = 0; t < e.response.size(); ++t) {
          kl += kept.at("logprobs")[t].get<double>() - kept.at("ref_logprobs")[t].get<double>();
          exact += kept.at("kl_exact")[t].get<double>();
        }
      }
      const auto n = static_cast<double>(all.size());
      const auto near = [&](const char* name, double sum) {
        CHECK(sum / n == doctest::Approx(metric(row, name)).epsilon(1e-5));
      };
      near("objective/rlhf_reward", rewards);  // the score, and what each token's KL costs
      near("objective/scores", scores);
      near("objective/kl", kl);
      near("objective/kl_exact", exact);
      near("objective/non_score_reward", -0.3 * kl);
    }
    // Nothing of training hangs on the record.
    CHECK(fingerprint(policy) == fingerprint(alone));
  }
}

TEST_CASE("episodes: a stopped run goes on to the same bytes") {
  const Temporary directory;
  const std::string path = directory / "episodes.jsonl";
  CHECK(episodes_path(directory / "policy.safetensors") == path);
  {
    EpisodeRecords records(path);
    records.truncate_after(-1);
    for (Index i = 0; i < 5; ++i) records.write(bare_line(i));
    records.sync();
  }
  const std::string whole = read_file(path);
  for (const Index last : {-1, 0, 2, 3, 4})
    for (const std::string& torn : {std::string(), std::string("{\"ste"),
                                    std::string("{\"step\":5,\"beta\""), std::string(3, '\0')}) {
      CAPTURE(last);
      write_plainly(path, whole + torn);
      EpisodeRecords records(path);
      records.truncate_after(last);
      for (Index i = last + 1; i < 5; ++i) records.write(bare_line(i));
      CHECK(read_file(path) == whole);
    }
  for (const char* other : {"some text\n", "{\"a\":1}\n", "some text"}) {
    write_plainly(path, other);
    EpisodeRecords records(path);
    const std::string said = message_of<DataError>([&] { records.truncate_after(0); });
    CHECK(contains(said, "episodes.jsonl"));
    CHECK(contains(said, "HINT"));
    CHECK(read_file(path) == other);  // it stays as it was
  }
}

TEST_CASE("episodes: of a step, the newest, and over rounds") {
  const Temporary directory;
  const std::string run = directory / "run", rounds = directory / "rounds";
  std::filesystem::create_directory(run);
  CHECK_FALSE(recorded_episodes(run, {}));
  write_plainly(run + "/episodes.jsonl", bare_line(3) + bare_line(4) + "{\"step\":5,");
  CHECK(recorded_episodes(run, 3)->at("step") == 3);
  CHECK(recorded_episodes(run, {})->at("step") == 4);  // the torn one is none yet
  CHECK_FALSE(recorded_episodes(run, 5));
  CHECK_FALSE(recorded_episodes(run, 0));
  for (const int round : {0, 1, 2}) {
    const std::string folder = str(rounds, "/round-", round);
    std::filesystem::create_directories(folder);
    write_plainly(folder + "/candidates.jsonl", "");
    if (round < 2)
      write_plainly(folder + "/episodes.jsonl", bare_line(2 * round) + bare_line(2 * round + 1));
  }
  CHECK(recorded_episodes(rounds, {})->at("step") == 3);
  for (const Index step : {0, 1, 2, 3}) CHECK(recorded_episodes(rounds, step)->at("step") == step);
  CHECK_FALSE(recorded_episodes(rounds, 4));
  write_plainly(run + "/episodes.jsonl", "{\"step\":0,\"episodes\":1}\n");
  CHECK(contains(message_of<DataError>([&] { recorded_episodes(run, 0); }), "episodes.jsonl"));
}

TEST_CASE("what if: an order turned round") {
  using Rank = std::vector<int>;
  CHECK(turned_round({0, 1, 2, 3}) == Rank{3, 2, 1, 0});
  CHECK(turned_round({1, -1, 0, 1}) == Rank{0, -1, 1, 0});  // ties stay, and who is unranked
  CHECK(turned_round({0, 0, -1}).empty());
  CHECK(turned_round({}).empty());
  CHECK(turned_round(turned_round({2, 0, 1, -1})) == Rank{2, 0, 1, -1});
  CHECK(whatif_directory("a/run//", 1, 7) == "a/run-whatif-1-7");
}
