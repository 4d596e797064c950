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

Loaded load_reward_model(const std::string& path, const Loaded& like) {
  Loaded loaded = like;
  if (holds_adapters(like, path))
    loaded.model = open_adapters(like, path);
  else
    loaded = load_model(path);
  check<DataError>(loaded.model->head_kind() == ScalarHead::Reward,
                   "[reward] the reward model's file holds a policy. HINT: `plumb reward --out …` "
                   "makes a reward model");
  if (loaded.tokenizer->fingerprint() != like.tokenizer->fingerprint())
    fail<DataError>(str("[reward] the reward model ", shown(path),
                        " has another tokenizer than the policy ", shown(like.source),
                        ". HINT: fit it on the policy's model, `plumb reward --model …`"));
  return loaded;
}

}}  // namespace plumb::v0_1
