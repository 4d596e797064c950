// Step 2: people rank the responses to a prompt, and what they typed becomes data.
//
// Shows: an order as it is typed (ties with =, what is not named is not judged), which pairs it
// decides, a complaint about a slip, lines that are on disk when append() returns, and how far two
// people agree. Not: the screen on which they see the responses, in an order that is shuffled and
// recorded: `plumb rank`.
//
// Prints:
//   ann on the kite: "3 1 2=4" means ranks 1 2 0 2, and decides 5 of 6 pairs
//   ann on the cake: "2 3 1" means ranks 2 0 1, and decides 3 of 3 pairs
//   ben on the kite: "1 > 3 > 2" means ranks 0 2 1 -, and decides 3 of 6 pairs
//   ben on the cake: "2 1=3" means ranks 1 0 1, and decides 2 of 3 pairs
//   a slip: [ranking] response 2 is named twice
//   4 rankings read back as they were given: yes
//   on the kite they agree in  67 % of pairs, Kendall's tau-b 0.33
//   on the cake they agree in  83 % of pairs, Kendall's tau-b 0.82
#include <plumb/data/appender.hpp>
#include <plumb/plumb.hpp>

#include <cstdio>
#include <filesystem>

using namespace plumb;

static const std::vector<Candidates> kQuestions = {
    {"kite",
     "Tom had a red kite.",
     {" It flew up and up, and Tom laughed.", " It was a kite of a kite.",
      " He gave it to Lily, and they had fun together.", " The kite the kite the."},
     {true, true, true, false},
     "",
     ""},
    {"cake",
     "Mom made a cake.",
     {" The cake was sad.", " She shared it with all her friends.", " It was a big cake."},
     {true, true, true},
     "",
     ""}};

// What a person typed of a question. DataError names the word that is wrong.
static Ranking ranked(const Candidates& question, const std::string& who,
                      const std::string& typed) {
  Ranking ranking;
  ranking.id = question.id;
  ranking.prompt = ranking.group = question.prompt;
  ranking.responses = question.responses;
  ranking.finished = question.finished;
  ranking.rank = parse_order(typed, question.responses.size());
  ranking.annotator = who;
  ranking.labeller = "person";
  return ranking;
}

static std::string text_of(const std::vector<int>& rank) {
  std::string text;
  for (const int r : rank) text += r < 0 ? " -" : str(" ", r);
  return text;
}

int main() {
  std::string folder = (std::filesystem::temp_directory_path() / "plumb-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) return 1;
  const std::string file = folder + "/rankings.jsonl";

  // Each answer is on disk before the next question is asked.
  struct Answer {
    std::size_t question;
    const char *who, *typed;
  };
  const std::vector<Answer> answers = {
      {0, "ann", "3 1 2=4"}, {1, "ann", "2 3 1"}, {0, "ben", "1 > 3 > 2"}, {1, "ben", "2 1=3"}};
  std::vector<Ranking> given;
  {
    JsonlAppender appender(file);
    for (const Answer& a : answers) {
      given.push_back(ranked(kQuestions[a.question], a.who, a.typed));
      appender.append(to_json(given.back()));
      const std::vector<int>& rank = given.back().rank;
      const Index n = std::ssize(rank);
      std::printf("%s on the %s: \"%s\" means ranks%s, and decides %d of %d pairs\n", a.who,
                  given.back().id.c_str(), a.typed, text_of(rank).c_str(),
                  static_cast<int>(decided_pairs({.sequences = {}, .rank = rank, .lengths = {}})),
                  static_cast<int>(n * (n - 1) / 2));
    }
  }

  // A slip is named, and nothing of it is written.
  bool refused = false;
  try {
    ranked(kQuestions[1], "ben", "2 1 2");
  } catch (const DataError& error) {
    refused = true;
    const std::string what = error.what();
    std::printf("a slip: %s\n", what.substr(0, what.find(". HINT")).c_str());
  }

  // Read back, by prompt: how far the two agree, over what both of them judged.
  const std::vector<Ranking> kept = read_rankings(file).records;
  bool whole = kept.size() == given.size();
  for (std::size_t i = 0; whole && i < kept.size(); ++i)
    whole = to_json(kept[i]) == to_json(given[i]);
  std::printf("%d rankings read back as they were given: %s\n", static_cast<int>(kept.size()),
              whole ? "yes" : "no");
  for (std::size_t i = 0; i < 2 && whole; ++i)
    std::printf("on the %s they agree in %3.0f %% of pairs, Kendall's tau-b %.2f\n",
                kept[i].id.c_str(), 100 * pairwise_agreement(kept[i].rank, kept[i + 2].rank),
                kendall_tau_b(kept[i].rank, kept[i + 2].rank));
  std::filesystem::remove_all(folder);
  return whole && refused && kept[0].rank == std::vector<int>{1, 2, 0, 2} ? 0 : 1;
}
