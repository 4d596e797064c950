// What rankings lean on besides what the responses say: being shown earlier, length, lists, bold
// text, headings; and answers that came faster than anybody reads.
//
// Each pair of responses that somebody ordered is a choice (run/choice_model.hpp), by how they
// differ in five features at once, so that "a list, at equal length" is what is said of lists. A
// coefficient is the change of the log-odds to be preferred: by being shown before the other; by
// being twice as long; by having a list, bold text, a heading. A tie is half a choice for each. The
// interval is the wider one of the model's and of that clustered by prompt, by Student's t: of a
// habit that never had an exception the second alone would be certain. A ridge of 0.1 keeps such a
// one finite. What this is not: a causal claim; longer answers may also be better ones.
//
// Reading speed: 238 words a minute in English prose (Brysbaert 2019, "How many words do we read
// per minute?"), at six characters a word with its space 24 characters a second; three times that
// is nobody's, and counts as hasty.
#pragma once

#include <plumb/data/agreement.hpp>
#include <plumb/data/records.hpp>
#include <plumb/run/choice_model.hpp>
#include <plumb/run/statistics.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// What of a text can be seen without reading it.
struct TextForm {
  double characters = 0.0;  ///< code points
  bool list = false;        ///< a line begins with -, *, • or a number with . or )
  bool bold = false;        ///< **…**, __…__ or <b>
  bool heading = false;     ///< a line begins with one to six # and a space
};

/// Code points of UTF-8.
inline double characters_of(std::string_view text) {
  return static_cast<double>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
  }));
}

namespace detail {

inline bool is_list_line(std::string_view line) {
  for (const std::string_view mark : {"- ", "* ", "+ ", "\xE2\x80\xA2"})
    if (line.starts_with(mark)) return true;
  const std::size_t digits = std::min(line.find_first_not_of("0123456789"), line.size());
  return digits > 0 && digits <= 3 && digits + 1 < line.size() &&
         (line[digits] == '.' || line[digits] == ')') && line[digits + 1] == ' ';
}

/// Is something between two of these marks, in one line?
inline bool is_enclosed(std::string_view text, std::string_view mark) {
  for (std::size_t at = text.find(mark); at != text.npos; at = text.find(mark, at + 1)) {
    const std::size_t end = text.find(mark, at + mark.size() + 1);
    if (end == text.npos) return false;
    const std::string_view inner = text.substr(at + mark.size(), end - at - mark.size());
    if (inner.find('\n') == inner.npos && inner.front() != ' ') return true;
  }
  return false;
}

}  // namespace detail

inline TextForm text_form(std::string_view text) {
  TextForm form{characters_of(text), false, false, false};
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = text.substr(begin, end - begin);
    line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
    form.list = form.list || detail::is_list_line(line);
    const std::size_t marks = std::min(line.find_first_not_of('#'), line.size());
    form.heading =
        form.heading || (marks >= 1 && marks <= 6 && marks < line.size() && line[marks] == ' ');
    begin = end + 1;
  }
  form.bold = detail::is_enclosed(text, "**") || detail::is_enclosed(text, "__") ||
              text.find("<b>") != text.npos;
  return form;
}

/// What an answer may lean on.
enum class Habit { Earlier, Length, List, Bold, Heading };
inline constexpr std::array<const char*, 5> kHabitNames{"shown earlier", "twice as long", "a list",
                                                        "bold text", "a heading"};

/// How an annotator answers.
struct Habits {
  struct Leaning {
    double pairs = 0.0;     ///< of all pairs, those that differ in it
    double log_odds = 0.0;  ///< of being preferred for it, the others being equal
    Interval interval{};    ///< 95 %
  };
  std::string annotator;
  std::array<Leaning, kHabitNames.size()> leanings{};  ///< by Habit
  double pairs = 0.0, prompts = 0.0;
  // Of the answers whose time is known:
  double timed = 0.0;
  double seconds = 0.0;     ///< median
  double characters = 0.0;  ///< median of the prompt and the responses together
  double speed = 0.0;       ///< median, characters a second
  double hasty = 0.0;       ///< share that is faster than three times as fast as people read
};

/// Characters a second that count as hasty.
inline constexpr double kHastySpeed = 3.0 * 24.0;

namespace detail {

inline double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0.0 : (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
}

/// One ranking's pairs as choices of the cluster, and how many differ in each habit.
inline void add_pairs(const Ranking& r, std::size_t cluster, Choices& choices, Habits& out) {
  std::vector<TextForm> forms;
  for (const std::string& response : r.responses) forms.push_back(text_form(response));
  std::vector<int> place(r.responses.size(), 0);
  for (std::size_t i = 0; i < r.shown.size(); ++i)
    place[static_cast<std::size_t>(r.shown[i])] = static_cast<int>(i);
  const auto flag = [](bool a, bool b) { return (a ? 1.0 : 0.0) - (b ? 1.0 : 0.0); };
  for (std::size_t i = 0; i < forms.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) {
      if (r.rank[i] < 0 || r.rank[j] < 0) continue;
      const TextForm &a = forms[i], &b = forms[j];
      const double twice =
          (real::log(a.characters + 1.0) - real::log(b.characters + 1.0)) / real::log(2.0);
      const std::array<double, kHabitNames.size()> differ{
          static_cast<double>((place[i] < place[j]) - (place[i] > place[j])), twice,
          flag(a.list, b.list), flag(a.bold, b.bold), flag(a.heading, b.heading)};
      std::vector<FeatureTerm> terms;
      for (std::size_t h = 0; h < differ.size(); ++h) {
        if (differ[h] == 0.0) continue;
        terms.push_back({h, differ[h]});
        out.leanings[h].pairs += 1.0;
      }
      const double chosen = r.rank[i] < r.rank[j] ? 1.0 : r.rank[i] > r.rank[j] ? 0.0 : 0.5;
      choices.add(cluster);
      choices.alternative(chosen, terms);
      choices.alternative(1.0 - chosen, {});
      out.pairs += 1.0;
    }
}

inline void add_times(const std::vector<const Ranking*>& rankings, Habits& out) {
  std::vector<double> seconds, characters, speeds;
  double hasty = 0.0;
  for (const Ranking* r : rankings) {
    if (!(r->seconds > 0.0)) continue;
    double read = characters_of(r->prompt);
    for (const std::string& response : r->responses) read += characters_of(response);
    seconds.push_back(r->seconds);
    characters.push_back(read);
    speeds.push_back(read / r->seconds);
    hasty += speeds.back() > kHastySpeed ? 1.0 : 0.0;
  }
  out.timed = static_cast<double>(seconds.size());
  out.hasty = seconds.empty() ? 0.0 : hasty / out.timed;
  out.seconds = median_of(std::move(seconds));
  out.characters = median_of(std::move(characters));
  out.speed = median_of(std::move(speeds));
}

}  // namespace detail

/// Of all the rankings together, as one annotator's.
inline Habits habits_of(const std::string& annotator, const std::vector<const Ranking*>& rankings) {
  Habits out;
  out.annotator = annotator;
  Choices choices(kHabitNames.size());
  std::map<std::string, std::size_t> prompts;
  for (const Ranking* r : rankings)
    detail::add_pairs(*r, prompts.try_emplace(r->prompt, prompts.size()).first->second, choices,
                      out);
  out.prompts = static_cast<double>(prompts.size());
  constexpr double kRidge = 0.1;
  const ChoiceFit fit = fit_choices(choices, {.ridge = kRidge});
  check<NumericError>(fit.converged, "[habits] the log-odds of preferences were not found");
  const SquareMatrix clustered = sandwich_covariance(choices, fit);
  const double t = student_t95(static_cast<double>(choices.clusters()) - 1.0);
  for (std::size_t h = 0; h < out.leanings.size(); ++h) {
    // NaN of one cluster, where t is infinite, too.
    const double variance = std::fmax(fit.variance(h), clustered(h, h));
    out.leanings[h].log_odds = fit.at[h];
    out.leanings[h].interval = {fit.at[h] - t * std::sqrt(variance),
                                fit.at[h] + t * std::sqrt(variance)};
  }
  detail::add_times(rankings, out);
  return out;
}

/// Of each annotator, in the order of their names.
inline std::vector<Habits> habits_of(const std::vector<Ranking>& rankings) {
  std::map<std::string, std::vector<const Ranking*>> by_annotator;
  for (const Ranking& r : rankings) by_annotator[detail::annotator_name(r)].push_back(&r);
  std::vector<Habits> out;
  for (const auto& [annotator, mine] : by_annotator) out.push_back(habits_of(annotator, mine));
  return out;
}

}}  // namespace plumb::v0_1
