// Dialogues on their way to tokens: how turns stand in each chat form, and what is left out of one
// that is too long.
#include <plumb/models/chat.hpp>
#include <plumb/models/language.hpp>
#include <plumb/text/bytes.hpp>

#include "support.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace plumb;
using test::contains;
using test::message_of;

namespace {

Language bytes_in_form(const char* form, Index context = 4096) {
  Language m;
  m.tokenizer = std::make_shared<ByteTokenizer>();
  m.stops = m.tokenizer->stops();
  m.chat = chat_form(form);
  m.context = context;
  return m;
}

PromptView view_of(const Prompt& prompt) { return prompt; }

Prompt dialogue_of(const Turns& turns) { return {"", transcript(turns), turns}; }

std::string in_form(const char* form, const Turns& turns) {
  const Language m = bytes_in_form(form);
  const Prompt prompt = dialogue_of(turns);
  return m.tokenizer->decode(encode_prompt(m, view_of(prompt), 0));
}

const Turns kTurns{{"user", "hi"}, {"assistant", "hello"}, {"user", "more?"}};
const Turns kWithSystem{
    {"system", "Be kind."}, {"user", "hi"}, {"assistant", "hello"}, {"user", "more?"}};

}  // namespace

TEST_CASE("dialogue: turns in each chat form, as its authors' templates render them") {
  const std::string rest =
      "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n"
      "<|im_start|>user\nmore?<|im_end|>\n<|im_start|>assistant\n";
  CHECK(in_form("chatml", kTurns) == rest);
  CHECK(in_form("chatml", kWithSystem) == "<|im_start|>system\nBe kind.<|im_end|>\n" + rest);
  // What a form says by default gives way to what the dialogue says.
  CHECK(in_form("qwen2", kTurns) ==
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" + rest);
  CHECK(in_form("qwen2", kWithSystem) == in_form("chatml", kWithSystem));
  const auto header = [](const std::string& role) {
    return "<|start_header_id|>" + role + "<|end_header_id|>\n\n";
  };
  CHECK(in_form("llama-3", kWithSystem) ==
        header("system") + "Be kind.<|eot_id|>" + header("user") + "hi<|eot_id|>" +
            header("assistant") + "hello<|eot_id|>" + header("user") + "more?<|eot_id|>" +
            header("assistant"));
  CHECK(in_form("llama-2", kWithSystem) ==
        "[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nhi [/INST]hello </s><s>[INST] more? [/INST]");
  const std::string text = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: more?\n\nAssistant:";
  CHECK(in_form("human-assistant", kTurns) == text);
  CHECK(in_form("plain", kTurns) == text);
  CHECK(in_form("plain", kWithSystem) == "Be kind." + text);
  // One turn is a prompt like any other.
  CHECK(in_form("human-assistant", {{"user", "hi"}}) == "hi");
  const Language m = bytes_in_form("human-assistant");
  CHECK(m.tokenizer->decode(encode_prompt(m, "hi", 0)) == "\n\nHuman: hi\n\nAssistant:");
}

TEST_CASE("dialogue: a form without a place for a turn refuses it") {
  const auto error = [](const char* form, const Turns& turns) {
    return message_of<DataError>([&] { in_form(form, turns); });
  };
  CHECK(contains(error("alpaca", kTurns), "no place for another turn"));
  CHECK(contains(error("alpaca", kWithSystem), "no place for a system's turn"));
  CHECK(contains(error("chatml", {{"user", "a"}, {"system", "b"}, {"user", "c"}}), "system's"));
  CHECK(contains(error("chatml", {{"user", "a"}, {"user", "c"}}), "another turn"));
  CHECK(contains(error("chatml", {{"assistant", "a"}, {"user", "c"}}), "an answer to nothing"));
}

TEST_CASE("dialogue: a transcript's turns stand in a chat form, its response without the space") {
  const std::string text = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: more?\n\nAssistant:";
  const Turns turns = turns_of_transcript(text);
  CHECK(turns == kTurns);
  const auto all = [&](const char* form, const std::string& response) {
    const Language m = bytes_in_form(form);
    return m.tokenizer->decode(encode_pair(m, {text, turns}, response, false).sequence());
  };
  CHECK(all("chatml", " yes") == in_form("chatml", kTurns) + "yes");
  CHECK(all("plain", " yes") == text + " yes");
  CHECK(all("human-assistant", "yes") == text + " yes");
}

TEST_CASE("dialogue: what is too long loses its oldest exchanges, never the form or the system") {
  Turns turns{{"system", "SYSTEM"}};
  for (int i = 0; i < 6; ++i) {
    turns.push_back({"user", str("question ", i, std::string(20, '.'))});
    turns.push_back({"assistant", str("answer ", i, std::string(20, '.'))});
  }
  turns.pop_back();
  const Prompt prompt = dialogue_of(turns);
  for (const char* form : {"chatml", "llama-3", "llama-2", "human-assistant", "plain"}) {
    const bool transcript_form = contains("human-assistant plain", form);
    for (Index context = 800; context > 150; context -= 7) {
      INFO(form, " ", context);
      const Language m = bytes_in_form(form, context);
      const Encoded e = encode_pair(m, view_of(prompt), "RESPONSE", false);
      const auto size = static_cast<Index>(e.prompt.size() + e.response.size());
      CHECK(size <= context);
      const std::string text = m.tokenizer->decode(e.prompt);
      // Whole exchanges go first: what is left is a rendering of the rest, to the letter.
      const std::vector<std::size_t> exchanges = exchanges_of(turns);
      std::size_t dropped = 0;
      Turns rest = turns;
      std::string whole = m.tokenizer->decode(
          encode_prompt(bytes_in_form(form), {marked_transcript(rest), rest}, 0));
      const auto room = static_cast<std::size_t>(context) - e.response.size();
      while (whole.size() > room && ++dropped < exchanges.size()) {
        rest = turns_from(turns, exchanges[dropped]);
        whole = m.tokenizer->decode(
            encode_prompt(bytes_in_form(form), {marked_transcript(rest), rest}, 0));
      }
      if (e.response_cut == 0 && whole.size() <= room) CHECK(text == whole);
      if (e.prompt_cut > 0) CHECK(rest.size() < turns.size());
      CHECK((contains(text, "SYSTEM") || context < 250));
      if (!transcript_form) CHECK(text.ends_with(chat_form(form).after));
      if (e.response_cut > 0) CHECK(!contains(text, "question 4"));
    }
    const Language m = bytes_in_form(form, 220);
    const std::string sampled = m.tokenizer->decode(encode_prompt(m, view_of(prompt), 10));
    CHECK(sampled.size() + 10 <= 220);
    CHECK(contains(sampled, "question 5"));
    CHECK(contains(sampled, "SYSTEM"));
  }
  // A hundred thousand exchanges take a moment, not an hour.
  Turns many;
  for (int i = 0; i < 100000; ++i) {
    many.push_back({"user", str("q", i)});
    many.push_back({"assistant", "a"});
  }
  many.pop_back();
  const Prompt endless = dialogue_of(many);
  CHECK(turns_of_transcript(endless.text) == many);
  const Language stories = bytes_in_form("chatml", 512);
  const Tokens kept = encode_prompt(stories, view_of(endless), 100);
  CHECK(kept.size() > 300);
  CHECK(kept.size() <= 412);

  const Language m = bytes_in_form("chatml", 60);
  CHECK(contains(message_of<DataError>([&] { encode_prompt(m, view_of(prompt), 10); }),
                 "exceeds the context"));
}
