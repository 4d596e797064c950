#include "models.hpp"

#include "fetch.hpp"

#include <plumb/run/machine.hpp>

#include <unistd.h>

namespace plumb { inline namespace v0_1 {

namespace {
double memory = 0;  // 0: not said
}

std::string data_path(const std::string& name) {
  std::string program(4096, '\0');
  const ssize_t length = ::readlink("/proc/self/exe", program.data(), program.size());
  program.resize(length > 0 ? static_cast<std::size_t>(length) : 0);
  std::string installed = str(detail::directory_of(program), PLUMB_DATA_FROM_PROGRAM "/", name);
  return detail::file_exists(installed) ? installed : PLUMB_SOURCE_DIR "/examples/data/" + name;
}

Loaded load_model(const std::string& path, const std::string& tokenizer, const std::string& chat,
                  const std::string& base, bool keep_adapters) {
  const std::string shipped = data_path("stories260K.bin");
  Loaded loaded =
      open_model<Device>(path.empty() ? shipped : model_file(path),
                         {tokenizer, {detail::directory_of(shipped)}, chat, base, keep_adapters});
  if (memory > 0) limit_process(memory);
  return loaded;
}

void set_memory(double bytes) { memory = bytes; }

std::vector<float> Reward::scores(const std::vector<Answered>& sequences) const {
  if (head) return head_scores_of_ensemble(*head, *loaded.model, sequences).score;
  std::vector<Tokens> tokens;
  for (const Answered& sequence : sequences) tokens.push_back(sequence.tokens);
  return reward_scores(*loaded.model, tokens);
}

namespace {

Reward load_head(const std::string& path, const Loaded* like, const std::string& tokenizer) {
  const RewardHeadFile file = open_reward_head(path);
  const bool here = like != nullptr && trunk_fingerprint(*like) == file.fingerprint;
  if (!here && !detail::file_exists(file.trunk))
    fail<DataError>(str("[reward] the linear head ", shown(path), " reads the model ",
                        shown(file.trunk),
                        ", which is not there. HINT: put it back, or fit the "
                        "head again with `plumb reward --model …`"));
  Reward reward{here ? *like : load_model(file.trunk, tokenizer), file.ensemble};
  const LinearHead& head = file.ensemble.heads[0];  // the others are like it
  const DeviceModel& trunk = *reward.loaded.model;
  if (!here && fingerprint(trunk) != file.fingerprint)
    fail<DataError>(
        str("[reward] the linear head ", shown(path),
            " was fitted on a model of "
            "fingerprint ",
            shown(file.fingerprint), ", and ", shown(file.trunk),
            " is another now. HINT: fit it again on this one, `plumb reward --model …`"));
  if (head.layer > trunk.layers() || static_cast<Index>(head.weight.size()) !=
                                         detail::pool_size(head.pool, trunk.config().channels))
    fail<DataError>(str("[reward] the linear head ", shown(path), " does not fit its model: ",
                        head.weight.size(), " weights after ", head.layer, " of ", trunk.layers(),
                        " blocks of ", trunk.config().channels, " channels"));
  return reward;
}

}  // namespace

Reward load_reward(const std::string& path, const Loaded* like, const std::string& tokenizer) {
  Reward reward;
  if (is_reward_head(model_file(path))) {
    reward = load_head(path, like, tokenizer);
  } else if (like != nullptr && holds_adapters(*like, path)) {
    reward.loaded = *like;
    reward.loaded.model = open_adapters(*like, path);
  } else {
    reward.loaded = load_model(path, tokenizer);
  }
  check<DataError>(reward.head || reward.loaded.model->head_kind() == ScalarHead::Reward,
                   "[reward] the reward model's file holds a policy. HINT: `plumb reward --out …` "
                   "makes a reward model");
  if (like != nullptr && reward.loaded.tokenizer->fingerprint() != like->tokenizer->fingerprint())
    fail<DataError>(str("[reward] the reward model ", shown(path),
                        " has another tokenizer than the policy ", shown(like->source),
                        ". HINT: fit it on the policy's model, `plumb reward --model …`"));
  return reward;
}

void save_reward(const std::string& path, const Reward& reward, const Loaded& base) {
  if (reward.head)
    save_reward_head(path, {*reward.head, base.source, trunk_fingerprint(base)});
  else
    save_model(path, *reward.loaded.model, base);
}

}}  // namespace plumb::v0_1
