// models/: files become models and models files, by their bytes; sizes are compared before anything
// is allocated; and text becomes tokens once, with a border that does not move.
#include "temporary.hpp"
#include "tiny.hpp"

#include <plumb/models/open.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

using namespace plumb;
using namespace test;

namespace {

const std::string kData = PLUMB_SOURCE_DIR "/examples/data/";

LanguageModel<Cpu> stories() { return open_model<Cpu>(kData + "stories260K.bin"); }

TransformerConfig byte_config() {
  auto config = tiny_llama();
  config.vocab = 256;
  return config;
}

LanguageModel<Cpu> byte_model(ScalarHead head = ScalarHead::None) {
  auto made = new_model<Cpu>(byte_config(), "bytes", 3);
  made.model = std::make_shared<Model<Cpu>>(tiny_model(byte_config(), 3, head));
  return made;
}

std::vector<float> weights(const Model<Cpu>& model) {
  return model.parameters().flat().to_vector();
}

template <class E = Error>
std::string opening(const std::string& path, const OpenOptions& options = {}) {
  return message_of<E>([&] { open_model<Cpu>(path, options); });
}

}  // namespace

TEST_CASE("a model is opened by its bytes, whatever its name") {
  const Temporary folder;
  write_atomically(folder / "weights.safetensors", read_file(kData + "stories260K.bin"));
  write_atomically(folder / "tok512.bin", read_file(kData + "tok512.bin"));
  const auto opened = open_model<Cpu>(folder / "weights.safetensors");
  CHECK(opened.model->parameters().count() == 260032);
  CHECK(opened.stops == Tokens{1, 2});
  CHECK(opened.context == 512);
  CHECK(fingerprint(*opened.model) == fingerprint(*stories().model));

  // And a folder stands for the one model in it.
  const auto same = open_model<Cpu>(folder / "");
  CHECK(fingerprint(*same.model) == fingerprint(*opened.model));
  save_model(folder / "second.bin", *opened.model, opened);
  CHECK(
      contains(opening(folder / ""), "holds 2 models where one is expected: second.bin, weights"));
  write_atomically(folder / "notes.txt", "no model at all");
  CHECK(contains(opening(folder / "notes.txt"), "is of no known format"));
  CHECK(contains(opening(folder / "notes.txt"), "llama2.c"));
  CHECK(contains(opening<IoError>(folder / "nowhere"), "nowhere"));
}

TEST_CASE("saved and opened again: every family, every head, the chat form, the same bits") {
  const Temporary folder;
  const std::string path = folder / "m.safetensors";
  for (const Family family : {Family::Llama, Family::Gpt2, Family::Qwen2})
    for (const ScalarHead head : {ScalarHead::None, ScalarHead::Reward, ScalarHead::Value}) {
      auto config = byte_config();
      config.family = family;
      config.rope_base = 12345.5F;
      config.norm_eps = 1e-6F;
      const auto model = tiny_model(config, 9, head);
      auto language = byte_model();
      language.chat = {"Q: ", "\nA:"};
      save_model(path, model, language);
      const auto opened = open_model<Cpu>(path);
      CHECK(opened.model->config() == config);
      CHECK(opened.model->head_kind() == head);
      CHECK(weights(*opened.model) == weights(model));
      CHECK(opened.chat == language.chat);
      CHECK(opened.tokenizer->name() == "bytes");
    }
  // llama2.c's format holds what it can, and says so of the rest.
  const auto llama = stories();
  save_model(folder / "l.bin", *llama.model, llama);
  CHECK(weights(*open_model<Cpu>(folder / "l.bin", {kData + "tok512.bin", {}}).model) ==
        weights(*llama.model));
  const auto critic = llama.model->clone(ScalarHead::Value);
  CHECK(contains(message_of([&] { save_model(folder / "x.bin", critic, llama); }), ".safetensors"));
  CHECK(!detail::file_exists(folder / "x.bin"));
}

TEST_CASE(
    "a model moves: its tokenizer is found beside it, where it was, or in the named folders") {
  const Temporary root;
  for (const char* name : {"made", "moved", "alone"}) ::mkdir((root / name).c_str(), 0777);
  write_atomically(root / "made/tok512.bin", read_file(kData + "tok512.bin"));
  write_atomically(root / "made/stories.bin", read_file(kData + "stories260K.bin"));
  const auto made = open_model<Cpu>(root / "made/stories.bin");
  save_model(root / "moved/m.safetensors", *made.model, made);
  CHECK(opening(root / "moved/m.safetensors").empty());  // by the way from one folder to the other
  const std::string bytes = read_file(root / "moved/m.safetensors");
  write_atomically(root / "alone/m.safetensors", bytes);
  ::rename((root / "made").c_str(), (root / "gone").c_str());
  const auto lost = opening<IoError>(root / "alone/m.safetensors");
  CHECK(contains(lost, "the tokenizer of"));
  CHECK(contains(lost, "--tokenizer"));
  CHECK(opening(root / "alone/m.safetensors", {"", {root / "gone"}}).empty());
  CHECK(opening(root / "alone/m.safetensors", {root / "gone/tok512.bin", {}}).empty());
  write_atomically(root / "alone/tok512.bin", read_file(root / "gone/tok512.bin"));
  CHECK(opening(root / "alone/m.safetensors").empty());
  // Another tokenizer of the right size is not taken.
  std::string other = read_file(root / "gone/tok512.bin");
  other[other.size() - 1] = other.back() == 'x' ? 'y' : 'x';
  write_atomically(root / "alone/tok512.bin", other);
  CHECK(contains(opening(root / "alone/m.safetensors"), "was made with another tokenizer"));
}

TEST_CASE(
    "a configuration that its arrays do not bear out is refused by name, before anything is "
    "allocated") {
  const Temporary folder;
  const std::string path = folder / "m.safetensors";
  const auto model = byte_model();
  save_model(path, *model.model, model);
  const Checkpoint good = read_checkpoint(path);
  const auto with = [&](const char* key, const Json& value) {
    auto metadata = good.metadata;
    Json config = parse_json(metadata.at("model"));
    config[key] = value;
    metadata["model"] = config.dump();
    write_checkpoint(path, views(good.arrays), metadata);
    const Spent time;
    const std::string message = opening<DataError>(path);
    CAPTURE(key);
    CAPTURE(value.dump());
    CHECK(time.within(5));
    CHECK(!message.empty());
    return message;
  };
  for (const char* size : {"vocab", "context", "channels", "layers", "heads", "kv_heads", "hidden"})
    for (const Json& value : {Json(0), Json(-1), Json(5.7), Json(1e300), Json(1LL << 62), Json("8"),
                              Json(true), Json()})
      CHECK(contains(with(size, value), size));
  for (const Json& value : {Json(-1.0), Json(0), Json("x"), Json(1e300)}) {
    CHECK(contains(with("norm_eps", value), "norm_eps"));
    if (value != Json(1e300)) CHECK(contains(with("rope_base", value), "rope_base"));
  }
  CHECK(contains(with("layers", 1'000'000), "claims 1000000 layers and holds"));
  CHECK(contains(with("layers", 3), "blocks.2.norm1"));
  CHECK(contains(with("vocab", 1'000'000), "'embedding' is"));
  CHECK(contains(with("hidden", 1'000'000), "blocks.0.gate"));
  CHECK(contains(with("heads", 3), "3 heads do not share 2"));
  CHECK(contains(with("kv_heads", 3), "4 heads do not share 3"));
  CHECK(contains(with("tied_head", 1), "must be true or false"));
  CHECK(contains(with("norm", "batch"), "must be one of rms, layer; it is 'batch'"));
  CHECK(contains(with("family", 7), "sets 'family', which is not known"));
  CHECK(contains(with("positions", "learned"), "position_embedding"));
  // A key that is not there is not guessed.
  auto metadata = good.metadata;
  Json config = parse_json(metadata.at("model"));
  config.erase("rope_base");
  metadata["model"] = config.dump();
  write_checkpoint(path, views(good.arrays), metadata);
  CHECK(contains(opening(path), "does not say 'rope_base'"));
  // Learned positions bound the context by an array of the file.
  auto gpt = byte_config();
  gpt.family = Family::Gpt2;
  save_model(path, tiny_model(gpt, 1), model);
  const Checkpoint table = read_checkpoint(path);
  metadata = table.metadata;
  config = parse_json(metadata.at("model"));
  config["context"] = 100'000;
  metadata["model"] = config.dump();
  write_checkpoint(path, views(table.arrays), metadata);
  CHECK(contains(opening(path), "position_embedding"));
}

TEST_CASE("weights that are not finite are neither saved nor opened") {
  const Temporary folder;
  const auto model = byte_model();
  save_model(folder / "good.safetensors", *model.model, model);
  Checkpoint file = read_checkpoint(folder / "good.safetensors");
  const auto broken = model.model->clone();
  broken.parameters()["blocks.1.up"].data()[7] = NAN;
  CHECK(contains(
      message_of<NumericError>([&] { save_model(folder / "bad.safetensors", broken, model); }),
      "weight 'blocks.1.up' holds nan"));
  CHECK(!detail::file_exists(folder / "bad.safetensors"));
  for (OwnedArray& array : file.arrays)
    if (array.name == "blocks.0.key") array.data[3] = HUGE_VALF;
  write_checkpoint(folder / "bad.safetensors", views(file.arrays), file.metadata);
  CHECK(
      contains(opening<DataError>(folder / "bad.safetensors"), "weight 'blocks.0.key' holds inf"));
}

TEST_CASE("ten thousand layers open in a second") {
  const Temporary folder;
  auto config = byte_config();
  config.layers = 10'000;
  config.channels = 8;
  config.heads = config.kv_heads = 2;
  config.hidden = 2;
  const Model<Cpu> model(config, 1);
  const auto language = byte_model();
  save_model(folder / "deep.safetensors", model, language);
  const Spent time;
  const auto opened = open_model<Cpu>(folder / "deep.safetensors");
  MESSAGE("opened in ", time.seconds(), " s");
  CHECK(weights(*opened.model) == weights(model));
  CHECK(time.within(3));
}

TEST_CASE("the border between prompt and response does not move") {
  const auto m = stories();
  const auto look = [&](const std::string& prompt, const std::string& response) {
    const Encoded e = encode_pair(m, prompt, response, true);
    CHECK(e.prompt == encode_prompt(m, prompt, 0));
    CHECK(e.ended);
    CHECK(e.response.back() == m.tokenizer->eos());
    CHECK(e.response.back() == 2);  // the end, not the BOS by accident
    CHECK(m.tokenizer->decode(e.prompt) == prompt);
    CHECK(response_text(m, e.prompt, e.response) == response);
  };
  look("Was the dog happy? Answer: ", "yes");
  look("Was the dog happy? Answer:", " yes");
  look("Once upon a ti", "me there was");
  look("Once upon a time, th", "ere was a cat.");
  look("Lily \xC3", "\xA9t\xC3\xA9");  // within a character
  look("", "Once upon a time");
  look("Once", "");
  // What was sampled is kept as it was sampled, if it says what the text says.
  SampleOptions options;
  options.responses = 8;
  options.max_new_tokens = 60;
  options.stops = m.stops;
  const Tokens prompt = encode_prompt(m, "One day", 60);
  int other_tokens = 0;
  for (const Response& r : sample(*m.model, {prompt}, options)) {
    const std::string text = response_text(m, prompt, r.tokens);
    const Encoded e = encode_pair(m, "One day", text, r.finished, r.tokens);
    CHECK(e.response == r.tokens);
    CHECK(e.prompt == prompt);
    other_tokens += encode_pair(m, "One day", text, r.finished).response != r.tokens;
    // Ids of another text, or of another vocabulary, are not believed.
    CHECK(encode_pair(m, "One day", text + " more", r.finished, r.tokens).response != r.tokens);
    CHECK(encode_pair(m, "One day", text, r.finished, Tokens{100000}).response ==
          encode_pair(m, "One day", text, r.finished).response);
  }
  CHECK(other_tokens > 0);  // else this would show nothing
}

TEST_CASE(
    "what exceeds the context is cut from the prompt's front, then the response's end, and "
    "counted") {
  const auto m = stories();
  std::string tail;
  for (int i = 0; i < 400; ++i) tail += " the cat sat";
  const Encoded cut = encode_pair(m, "Once upon a time", tail, true);
  CHECK(static_cast<Index>(cut.sequence().size()) == m.context);
  CHECK(!cut.ended);
  CHECK(cut.response.back() != 2);
  CHECK(cut.response_cut > 0);
  CHECK(cut.prompt.size() == 1);  // the BOS
  const Encoded kept = encode_pair(m, tail, " The end.", true);
  CHECK(static_cast<Index>(kept.sequence().size()) == m.context);
  CHECK(kept.ended);
  CHECK(kept.prompt_cut > 0);
  CHECK(kept.prompt.front() == 1);
  CHECK(response_text(m, {1}, kept.response) == "The end.");
  CHECK(kept.response == encode_pair(m, "One day", " The end.", true).response);

  Ranking r;
  r.prompt = "Once upon a time";
  r.responses = {tail + " and all was well.", tail + " and everybody died.", " short"};
  r.finished = {true, true, true};
  r.rank = {0, 1, 2};
  EncodingCount count;
  const RankedPrompt ranked = encode_ranking(m, r, count);
  CHECK(ranked.sequences[0] == ranked.sequences[1]);
  CHECK(ranked.level.empty());
  EncodingCount again;
  Ranking two = r;
  two.responses.pop_back();
  two.finished.pop_back();
  two.rank = {1, 0};
  two.strength = 2;  // how much better the better one is
  CHECK(encode_ranking(m, two, again).level == std::vector<float>{0, 2});
  two.level = {1, 7};
  CHECK(encode_ranking(m, two, again).level == std::vector<float>{1, 7});
  r.level = {2.5, 0.1, -1};
  CHECK(encode_ranking(m, r, again).level == std::vector<float>{2.5F, 0.1F, -1.0F});
  CHECK(count.sequences == 3);
  CHECK(count.cut == 2);
  CHECK(count.identical == 1);
  CHECK(contains(count.text(m.context), "2 of 3 sequences were cut to the context of 512 tokens"));
  CHECK(contains(count.text(m.context), "1 is the same tokens as another response"));
  CHECK(EncodingCount{}.text(512).empty());
}

TEST_CASE("the loss of a demonstration is on its completion, however long the prompt") {
  const auto m = stories();
  std::string story;
  for (int i = 0; i < 14; ++i)
    story += "Lily and Ben were playing with a big red ball in the park. ";
  EncodingCount count;
  const Example near = encode_example(m, {story.substr(0, 40), " She was happy."}, count);
  const Example far = encode_example(m, {story + story + story, " She was happy."}, count);
  CHECK(near.completion == far.completion);
  CHECK(count.cut == 1);
  CHECK(static_cast<Index>(far.prompt.size() + far.completion.size()) == m.context);
}

TEST_CASE("a chat form stands around every prompt, and not around texts") {
  auto m = byte_model();
  m.chat = {"<", ">"};
  CHECK(m.tokenizer->decode(encode_prompt(m, "hi", 0)) == "<hi>");
  CHECK(m.tokenizer->decode(encode_pair(m, "hi", "yo", false).sequence()) == "<hi>yo");
  CHECK(m.tokenizer->decode(encode_texts(m, {"plain"})[0]) == "plain");
}

TEST_CASE("a stop text of any length is found, in the token that ends it") {
  const auto m = stories();
  const std::string text =
      " Once upon a time there was a little girl who liked to play with her big red ball in the "
      "park "
      "all day long and then she went home to eat her dinner and sleep in her soft warm bed until "
      "the "
      "sun came up again.";
  const Tokens tokens = m.tokenizer->encode_more(text);
  REQUIRE(tokens.size() > 50);
  for (const std::string& stop : {std::string("."), text.substr(20, 150), text}) {
    const auto stops = stop_at_texts(m, {"never", stop});
    std::size_t found = 0;
    for (std::size_t n = 1; n <= tokens.size() && found == 0; ++n)
      if (stops(std::span(tokens).first(n))) found = n;
    REQUIRE(found > 0);
    const Tokens until(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(found));
    CHECK(contains(m.tokenizer->decode(until), stop));
    CHECK(!contains(m.tokenizer->decode(std::span(until).first(found - 1)), stop));
  }
}
