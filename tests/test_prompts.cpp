// Prompts of files that people bring.
#include "files.hpp"

#include <plumb/data/prompts.hpp>

#include <string>
#include <vector>

using namespace plumb;

namespace {

std::vector<std::string> ids_of(const std::vector<Prompt>& prompts) {
  std::vector<std::string> out;
  for (const Prompt& prompt : prompts) out.push_back(prompt.id);
  return out;
}

std::vector<Prompt> prompts_in(const std::string& name, const std::string& bytes) {
  const Temporary directory;
  write_plainly(directory / name, bytes);
  return load_prompts(directory / name);
}

std::string refused(const std::string& name, const std::string& bytes) {
  return message_of<DataError>([&] { prompts_in(name, bytes); });
}

using Texts = std::vector<std::string>;

}  // namespace

TEST_CASE("prompts: lines of text, as Windows writes them too; blank ones are none") {
  const auto prompts =
      prompts_in("p.txt", "\xef\xbb\xbfOnce upon\r\n\r\n  \t\r\nOne day \r\nOnce upon\r\nlast\r");
  CHECK(texts_of(prompts) == Texts{"Once upon", "One day ", "last"});
  CHECK(ids_of(prompts) == Texts{"1", "4", "6"});
  CHECK(texts_of(prompts_in("p.txt", "a\nb")) == Texts{"a", "b"});
  CHECK(prompts_in("p.txt", "").empty());
  CHECK(prompts_in("p.txt", "\xef\xbb\xbf\r\n\n").empty());
}

TEST_CASE("prompts: openings of stories, with or without Windows' line ends") {
  const std::string stories = "One. Two.\n<|endoftext|>\n" + std::string(200, 'x') +
                              ". y\n<|endoftext|>\nWhat is\nthis? Yes!\n<|endoftext|>\n";
  const auto prompts = prompts_in("s.txt", stories);
  CHECK(texts_of(prompts) == Texts{"One.", "What is\nthis?"});
  CHECK(ids_of(prompts) == Texts{"1", "3"});
  std::string windows = "\xef\xbb\xbf";
  for (const char c : stories) windows += c == '\n' ? std::string("\r\n") : std::string(1, c);
  CHECK(texts_of(prompts_in("s.txt", windows)) == Texts{"One.", "What is\nthis?"});
}

TEST_CASE("prompts: lines of JSON keep their ids; a prompt that comes again keeps its first") {
  const auto prompts = prompts_in("p.jsonl",
                                  "{\"id\":\"x\",\"prompt\":\"a\"}\r\n{\"prompt\":\"b\"}\n"
                                  "{\"id\":\"z\",\"prompt\":\"a\"}\n{\"id\":4,\"prompt\":\"c\"}\n");
  CHECK(texts_of(prompts) == Texts{"a", "b", "c"});
  CHECK(ids_of(prompts) == Texts{"x", "2", "4"});
  // As in rankings by several people: one id, one prompt.
  CHECK(
      prompts_in("p.jsonl", "{\"id\":1,\"prompt\":\"a\"}\n{\"id\":1,\"prompt\":\"a\"}\n").size() ==
      1);
  says(refused("p.jsonl", "{\"id\":1,\"prompt\":\"a\"}\n{\"id\":1,\"prompt\":\"b\"}\n"),
       "two prompts with the id 1");
}

TEST_CASE("prompts: what cannot be read is refused, by file and line") {
  says(refused("p.txt", "good\nalso\nb\xe9 d\n"), "p.txt:3: the text is not UTF-8");
  says(refused("s.txt", "One.\n<|endoftext|>\nTw\xff.\n"), "s.txt:3: ");
  says(refused("p.jsonl", "{\"prompt\":\"a\"}\n{\"prompt\":\"\xe9\"}\n"), "p.jsonl:2: ");
  says(refused("p.jsonl", "{\"prompt\":\"a\"}\n\n{\"prompt\":\"b\"}\n"),
       "p.jsonl:2: the line is empty");
  says(refused("p.txt", std::string("\xff\xfe"
                                    "a\0\n\0",
                                    6)),
       "is UTF-16");
  says(refused("p.jsonl", std::string("\xff\xfe{\0}\0", 6)), "is UTF-16");
  says(refused("p.txt", "one\rtwo\rthree"), "old Mac");
  says(refused("p.jsonl", "{\"prompt\":\"a\"}\r{\"prompt\":\"b\"}"), "old Mac");
  says(refused("p.txt", "\x1f\x8b x"), "p.txt, byte ");
  CHECK_THROWS_AS(load_prompts("/nowhere"), IoError);
}
