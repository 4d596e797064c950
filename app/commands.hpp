// The single commands: each runs one step on files and returns its results as named numbers.
#pragma once

#include "align.hpp"

#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

struct ModelOptions {
  std::string model;      // empty: the shipped stories260K
  std::string tokenizer;  // empty: what the model says
};

struct GenerateCommand {
  ModelOptions from;
  std::string prompts, out;
  Index limit = 0;
  GenerateSettings settings;
};
Json generate_command(const GenerateCommand& c);

struct SftCommand {
  ModelOptions from;
  std::string data, out;
  bool skip_bad_lines = false;
  SftSettings settings;
};
Json sft_command(const SftCommand& c);

struct RewardCommand {
  ModelOptions from;
  std::vector<std::string> rankings;
  std::string out;
  int folds = 5;
  bool skip_bad_lines = false;
  RewardSettings settings;
};
Json reward_command(const RewardCommand& c);

struct PpoCommand {
  ModelOptions from;
  std::string reward = "rule:warm";
  std::string prompts;
  std::string run = "ppo-run";
  PpoSettings settings;
};
Json ppo_command(const PpoCommand& c);

struct EvalCommand {
  ModelOptions before, after;
  std::string reward;
  std::string held_out;
  Index prompts = 200;
  GenerateSettings settings;
};
Json eval_command(const EvalCommand& c);

struct ChatCommand {
  ModelOptions from;
  std::string prompt;
  bool bf16 = false;
  GenerateSettings settings;
};
Json chat_command(const ChatCommand& c);

Json info_command(const ModelOptions& from);

}}  // namespace plumb::v0_1
