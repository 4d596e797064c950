// Agreement, with others and oneself, and what answers lean on: published values, values worked out
// by hand, and annotators who are simulated to lean.
#include <plumb/core/random.hpp>
#include <plumb/data/agreement.hpp>
#include <plumb/data/habits.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

using namespace plumb;

namespace {

using Units = std::vector<std::vector<int>>;

Ranking answer(std::string who, std::string id, std::vector<std::string> responses,
               std::vector<int> rank) {
  Ranking r;
  r.id = std::move(id);
  r.prompt = "prompt of " + r.id.substr(0, 1);
  r.finished.assign(responses.size(), true);
  r.responses = std::move(responses);
  r.rank = std::move(rank);
  r.annotator = std::move(who);
  r.labeller = "person";
  return r;
}

}  // namespace

TEST_CASE("agreement: Krippendorff's alpha of his own example") {
  // Krippendorff 2011, "Computing Krippendorff's alpha-reliability", C: four observers, twelve
  // units, values missing. Nominal 0.743, ordinal 0.815.
  const Units units{{1, 1, 1},    {2, 2, 3, 2}, {3, 3, 3, 3}, {3, 3, 3, 3},
                    {2, 2, 2, 2}, {1, 2, 3, 4}, {4, 4, 4, 4}, {1, 1, 2, 1},
                    {2, 2, 2, 2}, {5, 5, 5},    {1, 1},       {3}};
  CHECK(std::abs(krippendorff_alpha(units, AlphaMetric::Nominal) - 0.743) < 5e-4);
  CHECK(std::abs(krippendorff_alpha(units, AlphaMetric::Ordinal) - 0.815) < 5e-4);
}

TEST_CASE("agreement: Krippendorff's alpha at its ends") {
  // Two observers, ten units of 0 and 1, the same paper's A: 0.095.
  const Units two{{0, 1}, {1, 1}, {0, 1}, {0, 0}, {0, 0}, {0, 1}, {0, 0}, {0, 0}, {1, 0}, {0, 0}};
  for (const AlphaMetric metric : {AlphaMetric::Nominal, AlphaMetric::Ordinal})
    CHECK(krippendorff_alpha(two, metric) == doctest::Approx(1.0 - 19.0 * 4.0 / (14.0 * 6.0)));
  CHECK(krippendorff_alpha(Units{{1, 1}, {2, 2}}, AlphaMetric::Nominal) == 1.0);
  CHECK(krippendorff_alpha(Units{{1, 2}, {2, 1}}, AlphaMetric::Nominal) < 0.0);
  CHECK(std::isnan(krippendorff_alpha(Units{{1, 1}, {1, 1}}, AlphaMetric::Nominal)));
  CHECK(std::isnan(krippendorff_alpha(Units{{1}, {2}, {}}, AlphaMetric::Ordinal)));
  // A near miss counts less than a far one, and to the nominal metric they are alike.
  const Units near{{1, 2}, {2, 2}, {3, 3}, {4, 4}}, far{{1, 4}, {2, 2}, {3, 3}, {2, 4}};
  CHECK(krippendorff_alpha(near, AlphaMetric::Ordinal) >
        krippendorff_alpha(near, AlphaMetric::Nominal));
  CHECK(krippendorff_alpha(far, AlphaMetric::Ordinal) <
        krippendorff_alpha(far, AlphaMetric::Nominal));
}

TEST_CASE("agreement: with oneself, when the same is asked under another id and in another order") {
  const std::vector<Ranking> all{
      answer("ana", "a1", {"x", "y", "z"}, {0, 1, 2}), answer("ana", "b1", {"x", "y"}, {0, 1}),
      answer("ana", "a2", {"z", "x", "y"}, {2, 1, 0}),  // x and y turned: tau 1/3, pairs 2/3
      answer("ana", "b2", {"x", "w"}, {0, 1}),          // other responses: no repeat
      answer("bob", "a1", {"x", "y", "z"}, {0, 1, 2}), answer("", "a1", {"x", "y", "z"}, {0, 1, 2}),
      answer("", "a3", {"x", "y", "z"}, {2, 1, 0})};  // nobody's name is no person
  const Agreement out = agreement_of(all);
  REQUIRE(out.selves.size() == 1);
  CHECK(out.selves[0].annotator == "ana");
  CHECK(out.selves[0].repeats == 1);
  CHECK(out.selves[0].tau == doctest::Approx(1.0 / 3));
  CHECK(out.selves[0].pairwise == doctest::Approx(2.0 / 3));
}

TEST_CASE("agreement: alpha is of people, over what two of them judged") {
  std::vector<Ranking> all{
      answer("ana", "a", {"x", "y", "z"}, {0, 1, 2}),
      answer("bob", "a", {"x", "y", "z"}, {0, 1, 2}), answer("ana", "b", {"x", "y"}, {1, 0}),
      answer("bob", "b", {"x", "y"}, {1, 0}), answer("cem", "b", {"x", "w"}, {0, 1})};
  Agreement out = agreement_of(all);
  CHECK(out.alpha_pairs == 1.0);
  CHECK(out.alpha_ranks == 1.0);
  CHECK(out.shared_pairs == 4);
  CHECK(out.shared_responses == 5);
  all.push_back(answer("rule:warm", "a", {"x", "y", "z"}, {2, 1, 0}));
  all.back().labeller = "rule:warm";
  CHECK(agreement_of(all).alpha_pairs == 1.0);
  all.push_back(answer("dee", "a", {"x", "y", "z"}, {2, 1, -1}));
  out = agreement_of(all);
  // Pair (y, x) is given 1, 1, -1, the others 1, 1 and 1, 1 and -1, -1: nine values, six of them 1.
  CHECK(out.alpha_pairs == doctest::Approx(1.0 - 8.0 * 1.0 / (6.0 * 3.0)));
  CHECK(out.shared_pairs == 4);
}

TEST_CASE("habits: what a text looks like") {
  const auto same = [](const TextForm& a, bool list, bool bold, bool heading) {
    return a.list == list && a.bold == bold && a.heading == heading;
  };
  CHECK(same(text_form("plain - text, 3. of it, * and # too"), false, false, false));
  CHECK(same(text_form("so:\n- one\n- two"), true, false, false));
  CHECK(same(text_form("1. one"), true, false, false));
  CHECK(same(text_form("  12) twelve"), true, false, false));
  CHECK(same(text_form("1984. A year"), false, false, false));
  CHECK(same(text_form("**bold** word"), false, true, false));
  CHECK(same(text_form("2 ** 3 ** 4"), false, false, false));
  CHECK(same(text_form("a ** b\nc** d"), false, false, false));
  CHECK(same(text_form("a\n## Title\nb"), false, false, true));
  CHECK(same(text_form("#hashtag\n####### seven"), false, false, false));
  CHECK(same(text_form(""), false, false, false));
  CHECK(text_form("\xC3\xA4\xC3\xB6").characters == 2.0);
}

namespace {

// Annotators who prefer by log-odds: 1 a doubling of the length, 0.8 a list, 0.5 what is shown
// earlier; nothing by bold text, and no heading occurs.
std::vector<Ranking> leaning_answers(int prompts, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<Ranking> out;
  for (int p = 0; p < prompts; ++p) {
    Ranking r = answer("ana", str(static_cast<char>('a' + p % 26), p), {"", ""}, {0, 1});
    r.prompt = str("prompt ", p);
    double utility[2];
    const int first = static_cast<int>(rng.below(2));
    for (int i = 0; i < 2; ++i) {
      const std::size_t words = 7U << rng.below(3);
      std::string& text = r.responses[static_cast<std::size_t>(i)];
      const bool list = rng.below(2) == 1, bold = rng.below(2) == 1;
      text = std::string(list ? "- " : "xx") + (bold ? "**a**" : "aaaaa") +
             std::string(words * 8 - 8, 'y');
      utility[i] = 1.0 * real::log(static_cast<double>(words)) / real::log(2.0) +
                   (list ? 0.8 : 0.0) + (first == i ? 0.5 : 0.0);
    }
    r.shown = {first, 1 - first};
    const double second = 1.0 / (1.0 + real::exp(utility[0] - utility[1]));
    if (static_cast<double>(rng.uniform()) < second) r.rank = {1, 0};
    out.push_back(std::move(r));
  }
  return out;
}

double leaning(const Habits& h, Habit habit) {
  return h.leanings[static_cast<std::size_t>(habit)].log_odds;
}

}  // namespace

TEST_CASE("habits: the log-odds are those of a simulated annotator, all at once") {
  const Habits h = habits_of(leaning_answers(4000, 1)).at(0);
  CHECK(h.pairs == 4000.0);
  CHECK(h.prompts == 4000.0);
  CHECK(std::abs(leaning(h, Habit::Earlier) - 0.5) < 0.12);  // three standard errors, 0.04
  CHECK(std::abs(leaning(h, Habit::Length) - 1.0) < 0.13);
  CHECK(std::abs(leaning(h, Habit::List) - 0.8) < 0.2);
  CHECK(std::abs(leaning(h, Habit::Bold)) < 0.2);
  CHECK(h.leanings[static_cast<std::size_t>(Habit::Heading)].pairs == 0.0);
  int inside = 0;  // of 100 annotators with 100 answers each, whose interval holds the truth
  for (std::uint64_t seed = 100; seed < 200; ++seed) {
    const Habits one = habits_of(leaning_answers(100, seed)).at(0);
    const Interval i = one.leanings[static_cast<std::size_t>(Habit::List)].interval;
    inside += i.low <= 0.8 && 0.8 <= i.high ? 1 : 0;
  }
  CHECK(inside >= 90);
}

TEST_CASE("habits: of what never had an exception nothing is certain") {
  std::vector<Ranking> all;
  for (int p = 0; p < 6; ++p) {
    Ranking r = answer("ana", "a", {"a list:\n- of one", "no list: of one"}, {0, 1});
    r.prompt = str(p);
    all.push_back(r);
  }
  const Habits h = habits_of(all).at(0);
  const Interval i = h.leanings[static_cast<std::size_t>(Habit::List)].interval;
  CHECK(leaning(h, Habit::List) > 1.0);
  CHECK(std::isfinite(i.high));
  CHECK(i.high - i.low > 2.0);
  all.resize(1);  // and of one prompt nothing at all
  const Interval one =
      habits_of(all).at(0).leanings[static_cast<std::size_t>(Habit::List)].interval;
  CHECK(std::isinf(one.low));
  CHECK(std::isinf(one.high));
}

TEST_CASE("habits: haste") {
  std::vector<Ranking> all;
  const double seconds[] = {10.0, 2.0, 1.0, 0.0};  // 100, 200 and 400 characters; unknown
  for (std::size_t i = 0; i < 4; ++i) {
    Ranking r =
        answer("ana", "a", {std::string(40U << i, 'x'), std::string(40U << i, 'y')}, {0, 1});
    r.prompt = std::string(20U << i, 'p');
    r.seconds = seconds[i];
    all.push_back(r);
  }
  const Habits h = habits_of(all).at(0);
  CHECK(h.timed == 3.0);
  CHECK(h.seconds == 2.0);
  CHECK(h.characters == 200.0);
  CHECK(h.speed == 100.0);
  CHECK(h.hasty == doctest::Approx(2.0 / 3));
}
