// The page of what rankings are worth: its numbers are those that were computed, its text is
// escaped, and what nobody said has no picture.
#include "../app/people_report.hpp"

#include "../app/report.hpp"

#include "support.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace plumb;
using test::contains;

namespace {

Ranking by(const std::string& annotator, int number, std::vector<int> rank) {
  Ranking r;
  r.id = r.prompt = r.group = str("q", number);
  r.responses = {"a short one", "one that is about twice as long"};
  r.finished = {true, true};
  r.rank = std::move(rank);
  r.annotator = annotator;
  r.labeller = "person";
  r.shown = {number % 2, 1 - number % 2};
  r.seconds = 2.0 + number;
  return r;
}

std::string page_of(const std::vector<Ranking>& all) {
  return people_html(all, agreement_of(all), annotator_rates(all), habits_of(all));
}

std::size_t times_in(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != text.npos; at += part.size()) ++count;
  return count;
}

}  // namespace

TEST_CASE("people report: what three people said, as numbers and pictures") {
  std::vector<Ranking> all;
  for (int i = 0; i < 8; ++i) {
    all.push_back(by("ana", i, {0, 1}));
    all.push_back(by("<b>ob", i, i < 6 ? std::vector<int>{0, 1} : std::vector<int>{1, 0}));
    all.push_back(by("cem", i, {0, 1}));
  }
  const std::string page = page_of(all);
  CHECK(contains(page, "<!doctype html>"));
  CHECK(!contains(page, "<b>ob"));
  CHECK(contains(page, "&lt;b&gt;ob and ana"));
  CHECK(contains(page, "<td>0.75 <small>8 prompts</small></td>"));  // 6 of 8
  CHECK(contains(page, "<td>1.00 <small>8 prompts</small></td>"));
  for (const char* part :
       {"Do they agree?", "Krippendorff", "Where on the screen", "What the choices lean on",
        "How long they took", "Ranked best, by place", "The longer of two is preferred",
        "by Dawid and Skene"})
    CHECK(contains(page, part));
  // Seconds 2 to 9 of each: median 5.5, quartiles 3.75 and 7.25.
  CHECK(times_in(page, "5.5 (3.8 to 7.2)") + times_in(page, "5.5 (3.8 to 7.3)") == 3);
  // The longer one was preferred in 2 of 24.
  CHECK(contains(page, "<small>24 pairs</small>"));
  CHECK(contains(page, ">0.08 ("));
  CHECK(!contains(page, "http"));  // nothing is fetched
  CHECK(!contains(page, "nan"));
}

TEST_CASE("people report: what is not known has no picture") {
  Ranking r = by("", 0, {0, 1});
  r.shown.clear();
  r.seconds = 0.0;
  r.labeller = "rule:warm";
  const std::string page = page_of({r});
  CHECK(contains(page, "(unnamed)"));
  CHECK(contains(page, "by a rule"));
  CHECK(contains(page, "No two annotators ranked the same"));
  CHECK(!contains(page, "Where on the screen"));
  CHECK(!contains(page, "How long they took"));
  CHECK(contains(page_of({}), "What these rankings are worth"));
}

TEST_CASE("report: intervals are on one axis, each with its numbers as text") {
  Report report("Run");
  report.add_intervals("Chart & title", "share",
                       {{"low<", 0.0, -1.0, 1.0}, {"high", 3.0}, {"none", std::nan("")}}, 0);
  const std::string page = report.html();
  CHECK(contains(page, "Chart &amp; title"));
  CHECK(contains(page, "low&lt;"));
  CHECK(contains(page, "<td>0.00 (-1.00 to 1.00)</td>"));
  CHECK(contains(page, "<td>3.00</td>"));
  CHECK(!contains(page, ">none<"));
  CHECK(contains(page, "d=\"M16.67 5H50.00\""));  // the axis is -2 to 4
  CHECK(contains(page, "class=\"dot\" d=\"M83.33 5h0\""));
  CHECK(contains(page, "left:33.33%\">0<"));
  Report empty("Run");
  empty.add_intervals("t", "x", {{"none", std::nan("")}});
  CHECK(contains(empty.html(), "no values"));
}
