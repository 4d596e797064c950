// The single commands: each runs one step on files and puts its results into `results` as named
// numbers, as they come, so that they are there also when a later part of it fails.
#pragma once

#include "align.hpp"

#include <plumb/rlhf/active.hpp>
#include <plumb/rlhf/ratings.hpp>
#include <plumb/text/bpe_train.hpp>

#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

struct ModelOptions {
  std::string model;      // empty: the shipped stories260K
  std::string tokenizer;  // empty: what the model says
  std::string chat;       // the chat form's name; empty: what the model says
  std::string base;       // what adapters stand beside; empty: what their file says
};

struct GenerateCommand {
  ModelOptions from;
  std::string prompts, out;
  std::string name;  // whose the responses are; empty: the model's file, without its ending
  Index limit = 0;
  bool force = false;
  bool temperature_said = false;  // else it is the chat form's
  GenerateSettings settings;
};
void generate_command(const GenerateCommand& c, Json& results);

struct SftCommand {
  ModelOptions from;
  std::string data, out, before, after;
  bool skip_bad_lines = false;
  WithAdapters<SftConfig> settings;
};
void sft_command(const SftCommand& c, Json& results);

struct RewardCommand {
  ModelOptions from;
  std::vector<std::string> rankings, test;
  std::string out;
  Index folds = 5;
  bool control = true;
  bool skip_bad_lines = false;
  WithAdapters<RewardSettings> settings;
};
void reward_command(const RewardCommand& c, Json& results);

struct ScoreCommand {
  std::string file, out, judge = kDefaultRule, tokenizer;
};
void score_command(const ScoreCommand& c, Json& results);

struct RatingsCommand {
  std::vector<std::string> rankings;
  std::string reference;  // the system whose rating is 0; empty: the mean of all is
  std::string report;     // an HTML file of all that is said; empty: none
  bool skip_bad_lines = false;
  RatingConfig settings;
};
void ratings_command(const RatingsCommand& c, Json& results);

struct NextCommand {
  std::vector<std::string> files;
  std::string out, judge, tokenizer;
  std::vector<std::string> ranked;  // rankings: what they rank is not asked again
  NextConfig settings;
};
void next_command(const NextCommand& c, Json& results);

struct PpoCommand {
  ModelOptions from;
  std::string reference;  // empty: the model that PPO begins with
  std::string reward = kDefaultRule;
  std::string prompts;
  std::string run = "ppo-run";
  std::string tensorboard;        // a folder for TensorBoard's events; empty: none
  bool temperature_said = false;  // else it is the chat form's
  PpoSettings settings;
};
void ppo_command(const PpoCommand& c, Json& results);

/// The same by a method without a critic; what it shares with PPO is there.
struct GroupCommand {
  PpoCommand ppo;
  GroupSettings settings;
};
void group_command(const GroupCommand& c, Json& results);

struct BestOfNCommand {
  std::string file, out, judge = kDefaultRule, tokenizer;
};
void best_of_n_command(const BestOfNCommand& c, Json& results);

struct PreferenceCommand {
  ModelOptions from;
  std::vector<std::string> rankings, test;
  std::string out;
  bool skip_bad_lines = false;
  WithAdapters<PreferenceConfig> settings;
};
void preference_command(const PreferenceCommand& c, Json& results);

struct EvalCommand {
  std::string before, after, tokenizer, chat;
  std::string held_out, prompts;
  Index limit = 200;
  bool temperature_said = false;  // else it is the chat form's
  std::string judge = kDefaultRule, answers = "eval-judgements.jsonl", annotator = "me";
  GenerateSettings settings{.sampling = {.responses = 1}};
};
void eval_command(const EvalCommand& c, Json& results);

struct ChatCommand {
  ModelOptions from;
  std::string prompt;
  std::string beside;             // another model, which answers, too
  bool probabilities = false;     // how probable each token was
  bool temperature_said = false;  // else it is the chat form's, if there is one
  GenerateSettings settings{.sampling = {.sampling = {.temperature = 0.8F}}};
};
void chat_command(const ChatCommand& c, Json& results);

struct DataCommand {
  ModelOptions from;
  std::vector<std::string> files;
  std::string as,
      out;  // what rankings are written as (app/export.hpp), and where; empty: nothing is
  bool skip_bad_lines = false;
  Index budget = 8192;
  Index samples = 3;
  bool tokens = true;
};
void data_command(const DataCommand& c, Json& results);

struct ConvertCommand {
  ModelOptions from;
  std::string out;
  bool adapters = false;  // written apart, as PEFT's
};
void convert_command(const ConvertCommand& c, Json& results);

struct TokenizerCommand {
  std::string action;  // train, so far
  std::vector<std::string> files;
  std::string out;
  BpeTrainConfig settings;
};
void tokenizer_command(const TokenizerCommand& c, Json& results);

struct InfoCommand {
  ModelOptions from;
  bool compare = false;  // what frozen storage changes
  std::string held_out;  // on these texts; empty: the shipped held-out stories
};
void info_command(const InfoCommand& c, Json& results);

struct WatchCommand {
  std::string run;
  Index iteration = -1;  // a step of its metrics; -1: the newest
  Index sample = -1;     // one of its responses; -1: all
};
void watch_command(const WatchCommand& c, Json& results);

struct WhatIfCommand {
  std::string run, out;  // out empty: beside the run, with the round and the ranking in its name
  Index round = 0, ranking = 0;
  bool check = false;  // also that the same without a change is the run itself, bit for bit
};
void whatif_command(const WhatIfCommand& c, Json& results);

struct AtlasCommand {
  std::string out;     // folder for methods.md and its figures; empty: print only
  bool quick = false;  // one seed and a fraction of the iterations: that it runs, not what it finds
};
void atlas_command(const AtlasCommand& c, Json& results);

}}  // namespace plumb::v0_1
