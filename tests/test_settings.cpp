// Settings as text and as JSON: what is refused and how it is named, that numbers come out as they
// were given, and that docs/settings.md is the table of these lists (PLUMB_WRITE_DOCS=1 writes it
// anew).
#include "../app/settings.hpp"
#include "temporary.hpp"
#include "tiny.hpp"

#include <plumb/io/output.hpp>
#include <plumb/rlhf/active.hpp>
#include <plumb/rlhf/ratings.hpp>
#include <plumb/text/bpe_train.hpp>

#include <doctest/doctest.h>

#include <cstdlib>
#include <limits>
#include <string>

using namespace plumb;
using namespace test;

namespace {

struct Sample {
  Index whole = 4;
  std::uint64_t seed = 1;
  float share = 0.05F;
  double wide = 0.1;
  bool flag = false;
  KlEstimator kl = KlEstimator::K1;
  std::string text = "a";
  std::vector<std::string> list;
};

template <class F>
void fields(Sample& s, F&& f) {
  f(Field{"whole", "a count", at_least(1), "tokens"}, s.whole);
  f(Field{"seed", "a seed"}, s.seed);
  f(Field{"share", "a share", above_to(0, 1)}, s.share);
  f(Field{"wide", "any number"}, s.wide);
  f(Field{"flag", "a switch"}, s.flag);
  f(Field{"kl", "a choice"}, s.kl);
  f(Field{"text", "a text"}, s.text);
  f(Field{"list", "texts"}, s.list);
}

// What is wrong with one setting's text, or nothing.
std::string said(const char* name, const std::string& text, Sample* out = nullptr) {
  Sample sample;
  std::string complaint = "no such setting";
  fields(sample, [&](const Field& field, auto& member) {
    if (std::string(field.name) == name) complaint = parse_setting(field, member, text);
  });
  if (out != nullptr) *out = sample;
  return complaint;
}

std::string refused(const std::string& json, bool all = false) {
  Sample sample;
  return message_of<DataError>(
      [&] { read_settings(sample, parse_json(json, "c.json"), "c.json", all); });
}

template <class Config>
void add_table(std::string& out, const char* title, const char* where, Config config) {
  out += str("## ", title, "\n\n", where,
             "\n\n| name | default | range | what it is |\n|---|---|---|---|\n");
  fields(config, [&](const Field& field, const auto& member) {
    const Json json = setting_json(member);
    std::string value = json.is_string() ? json.template get<std::string>() : json.dump();
    std::string help = field.help, range = field.range.text();
    for (std::size_t at = 0; (at = help.find('|', at)) != help.npos; at += 2) help.insert(at, "\\");
    if constexpr (Choice<std::decay_t<decltype(member)>>)
      range = choice_names<std::decay_t<decltype(member)>>();
    out += str("| `", field.name, "` | ", value.empty() || value == "[]" ? "" : value, " | ", range,
               " | ", help, *field.unit != '\0' ? str(", ", field.unit) : std::string(), " |\n");
  });
  out += "\n";
}

}  // namespace

TEST_CASE(
    "text: whole numbers refuse fractions, signs and overflow; NaN and infinity are refused") {
  Sample out;
  CHECK(said("whole", "12", &out).empty());
  CHECK(out.whole == 12);
  for (const char* bad : {"1.5", "1e3", "+1", " 1", "1 ", "", "x", "0x10", "1,000"})
    CHECK(contains(said("whole", bad), "must be a whole number"));
  CHECK(contains(said("whole", "99999999999999999999"), "must be a number that fits"));
  CHECK(contains(said("whole", "0"), "must be at least 1; it is 0"));
  CHECK(contains(said("seed", "-1"), "without sign"));
  CHECK(said("seed", "18446744073709551615", &out).empty());
  CHECK(out.seed == std::numeric_limits<std::uint64_t>::max());
  CHECK(contains(said("seed", "18446744073709551616"), "fits"));
  for (const char* bad : {"nan", "inf", "-inf", "infinity"})
    CHECK(contains(said("share", bad), "must be a finite number"));
  CHECK(contains(said("share", "1e999"), "fits"));
  CHECK(contains(said("share", "0"), "must be above 0, at most 1; it is 0"));
  CHECK(contains(said("share", "1.01"), "it is 1.01"));
  CHECK(said("share", "1").empty());
  CHECK(contains(said("flag", "1"), "must be true or false"));
  CHECK(contains(said("kl", "K1"), "must be one of k1, k2, k3; it is 'K1'"));
  CHECK(contains(said("whole", "\xff"), "it is '\xEF\xBF\xBD'"));
  // What is refused is not set.
  said("whole", "0", &out);
  CHECK(out.whole == 4);
}

TEST_CASE(
    "JSON: the same rules; unknown keys are named with the nearest, and nothing is half set") {
  CHECK(refused(R"({"whole": 7, "share": 0.5, "flag": true, "kl": "k3", "list": ["a", "b"]})")
            .empty());
  CHECK(contains(refused(R"({"whole": 7.0})"), "'whole' must be a whole number"));
  CHECK(contains(refused(R"({"whole": "7"})"), "'whole' must be a whole number; it is \"7\""));
  CHECK(contains(refused(R"({"seed": -1})"), "'seed' must be a whole number without sign"));
  CHECK(contains(refused(R"({"share": 1e300})"), "'share' must be a number that fits"));
  CHECK(contains(refused(R"({"flag": 1})"), "'flag' must be true or false"));
  CHECK(contains(refused(R"({"list": "a"})"), "'list' must be a list of texts"));
  CHECK(contains(refused(R"({"text": null})"), "'text' must be text; it is null"));
  CHECK(contains(refused(R"({"whoel": 1})"),
                 "sets 'whoel', which is not known. HINT: did you mean 'whole'?"));
  CHECK(contains(refused(R"({"zzzzzzzz": 1})"), "--help lists the settings"));
  CHECK(contains(refused("[]"), "c.json is not a JSON object"));
  CHECK(contains(refused(R"({"whole": 1})", true), "does not say 'seed'"));
  Sample sample;
  message_of<DataError>(
      [&] { read_settings(sample, parse_json(R"({"whole": 9, "share": 7})", "c"), "c"); });
  CHECK(sample.whole == 4);
}

TEST_CASE("numbers come out as they were given, and settings go round") {
  Sample sample;
  sample.share = 0.05F;
  sample.list = {"x"};
  const Json json = settings_json(sample);
  CHECK(json.dump() ==
        R"({"whole":4,"seed":1,"share":0.05,"wide":0.1,"flag":false,"kl":"k1","text":"a",)"
        R"("list":["x"]})");
  Sample back;
  read_settings(back, json, "c", true);
  CHECK(back.share == sample.share);
  for (const float x : {0.1F, 1e-5F, 3.4e38F, 1.17549435e-38F, 16777216.0F, 1.0F / 3}) {
    sample.share = x;
    CHECK(static_cast<float>(settings_json(sample)["share"].get<double>()) == x);
  }
}

TEST_CASE("the nearest word is one that could have been meant") {
  const std::vector<std::string> known{"--beta", "--beta1", "--seed", "--temperature", "generate"};
  CHECK(nearest_word("--betta", known) == "--beta");
  CHECK(nearest_word("--temprature", known) == "--temperature");
  CHECK(nearest_word("generat", known) == "generate");
  CHECK(nearest_word("--entirely-other", known).empty());
}

TEST_CASE("docs/settings.md is made of the lists") {
  std::string made =
      "# Settings\n\nEach setting is declared once, beside the struct that holds it (`fields` in "
      "the "
      "files named here).\nFrom that come a flag of this name, a key of `--config` files, the "
      "checks of "
      "the library and of\nthe program, and this table. In `plumb align` those of a step have its "
      "name in "
      "front: `sft-lr`,\n`generate-seed`, `reward-epochs`, `dpo-beta`; its `method` is any of "
      "PPO's "
      "or of those that learn\nfrom rankings directly.\n\n";
  add_table(made, "Sampling", "`rlhf/sample.hpp`: `SampleOptions`", SampleOptions{});
  add_table(made, "A vocabulary", "`text/bpe_train.hpp`: `BpeTrainConfig`", BpeTrainConfig{});
  add_table(made, "Supervised fine-tuning", "`rlhf/sft.hpp`: `SftConfig`", SftConfig{});
  add_table(made, "Reward model",
            "`rlhf/reward_model.hpp`: `RewardConfig`; `rlhf/reward_head.hpp`: `HeadConfig`;\n"
            "`rlhf/head_ensemble.hpp`: `EnsembleConfig`",
            RewardSettings{});
  add_table(made, "Adapters", "`nn/lora.hpp`: `LoraConfig`; of every step that trains",
            LoraConfig{});
  add_table(made, "PPO", "`rlhf/ppo_config.hpp`: `PpoConfig`; the program adds how it runs",
            PpoSettings{});
  add_table(made, "From rankings directly", "`rlhf/preference.hpp`: `PreferenceConfig`",
            PreferenceConfig{});
  add_table(made, "What to rank next", "`rlhf/active.hpp`: `NextConfig`", NextConfig{});
  add_table(made, "Ratings of systems", "`rlhf/ratings.hpp`: `RatingConfig`", RatingConfig{});
  made.pop_back();
  const std::string path = PLUMB_SOURCE_DIR "/docs/settings.md";
  if (std::getenv("PLUMB_WRITE_DOCS") != nullptr) write_atomically(path, made);
  CHECK(read_file(path) == made);
}
