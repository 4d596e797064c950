// Records out of forms: the prompts, demonstrations, candidates and rankings that one record of any
// form of data/forms.hpp gives. Whatever is asked for is made of whatever is there: a prompt of
// each form; of rankings, demonstrations of the best response; candidates without their ranks.
//
// A record may give several (a message tree) or none (a tree in which nobody ranked). DataError
// with the bare reason where a form cannot give what is asked for.
#pragma once

#include <plumb/data/argilla.hpp>
#include <plumb/data/forms.hpp>
#include <plumb/data/label_studio.hpp>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 { namespace detail {

inline std::string summary_prompt(const JsonRecord& info) {
  std::string out;
  if (const auto forum = info.text_or("subreddit", ""); !forum.empty())
    out += "SUBREDDIT: r/" + forum + "\n\n";
  if (const auto title = info.text_or("title", ""); !title.empty())
    out += "TITLE: " + title + "\n\n";
  const bool post = info.has_text("post");
  return out + (post ? "POST: " : "ARTICLE: ") + info.text(post ? "post" : "article") +
         "\n\nTL;DR:";
}

inline void read_summaries(const JsonRecord& r, Ranking& out) {
  if (!r.at("info").is_object()) bad_record("expected an object \"info\"", r.where);
  const JsonRecord info{r.at("info"), r.line, r.where};
  out.prompt = out.group = summary_prompt(info);
  for (const Json& summary : r.list("summaries")) {
    if (!summary.is_object()) bad_record("expected only objects in \"summaries\"", r.where);
    out.responses.push_back(JsonRecord{summary, r.line, r.where}.text("text"));
  }
  const Json& choice = r.at("choice");
  if (!choice.is_number_integer() || choice < 0 ||
      choice >= static_cast<std::int64_t>(out.responses.size()))
    bad_record(str("expected \"choice\", the number of one of the ", out.responses.size(),
                   " summaries, counted from 0"),
               r.where);
  out.rank.assign(out.responses.size(), 1);
  out.rank[choice.get<std::size_t>()] = 0;
  out.annotator = r.text_or("worker", "");
}

/// A score that is a number or, as some have it, text of one; NaN if it is neither.
inline double score_of(const Json& json) {
  if (json.is_number()) return json.get<double>();
  if (!json.is_string()) return std::nan("");
  const std::string& text = json.get_ref<const std::string&>();
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? value : std::nan("");
}

inline void read_scores(const JsonRecord& r, Ranking& out) {
  read_prompt(r, r.has("instruction") ? "instruction" : "prompt", out, &Ranking::prompt);
  std::vector<double> scores[3];
  for (const Json& completion : r.list("completions")) {
    if (!completion.is_object()) bad_record("expected only objects in \"completions\"", r.where);
    const JsonRecord c{completion, r.line, r.where};
    out.responses.push_back(c.text(c.has("response") ? "response" : "text"));
    if (c.has_text("model")) out.systems.push_back(c.text("model"));
    const char* names[] = {"overall_score", "fine-grained_score", "score"};
    for (std::size_t i = 0; i < 3; ++i) scores[i].push_back(score_of(c.at(names[i])));
  }
  require_few(out.responses.size(), r.where);
  if (out.systems.size() != out.responses.size()) out.systems.clear();  // whose all are, or none
  for (const auto& kind : scores) {
    out.rank = ranks_from_scores(kind);
    if (std::none_of(out.rank.begin(), out.rank.end(), [](int rank) { return rank >= 0; }))
      continue;
    for (const double score : kind) out.level.push_back(std::isnan(score) ? 0.0 : score);
    if (!std::all_of(out.level.begin(), out.level.end(), JsonRecord::is_level)) out.level.clear();
    return;
  }
  bad_record("no completion has a number \"overall_score\", \"fine-grained_score\" or \"score\"",
             r.where);
}

/// Replies of a message that are there and say something.
inline std::vector<JsonRecord> replies_of(const JsonRecord& message) {
  std::vector<JsonRecord> out;
  if (!message.has_list("replies")) return out;
  for (const Json& reply : message.at("replies")) {
    if (!reply.is_object()) bad_record("expected only messages in \"replies\"", message.where);
    const JsonRecord r{reply, message.line, message.where};
    if (r.at("deleted") != true) out.push_back(r);
  }
  return out;
}

inline std::string role_in_tree(const JsonRecord& message) {
  const std::string role = message.text("role");
  if (role == "prompter") return "user";
  if (role != "assistant")
    bad_record(
        str("the role \"", shown(role.substr(0, 40)), "\" is not one of: prompter, assistant"),
        message.where);
  return role;
}

/// Calls visit(turns, replies) for each message of the user's in a tree that has answers; `turns`
/// lead to it. The depth is that of the JSON, which is bounded.
template <class Visit>
void visit_tree(const JsonRecord& message, Turns& turns, Visit&& visit) {
  turns.push_back({role_in_tree(message), message.text("text")});
  const std::vector<JsonRecord> replies = replies_of(message);
  if (turns.back().role == "user" && !replies.empty()) visit(message, turns, replies);
  for (const JsonRecord& reply : replies) visit_tree(reply, turns, visit);
  turns.pop_back();
}

/// Of a tree: a ranking for each message of the user's with two answers or more that are ranked.
inline void rankings_of_tree(const JsonRecord& r, std::vector<Ranking>& to) {
  Turns path;
  visit_tree({r.at("prompt"), r.line, r.where}, path,
             [&](const JsonRecord& message, const Turns& turns, const auto& replies) {
               Ranking out;
               set_prompt(out, &Ranking::prompt, turns, r.where);
               for (const JsonRecord& reply : replies) {
                 if (role_in_tree(reply) != "assistant") continue;
                 out.responses.push_back(reply.text("text"));
                 const Json& rank = reply.at("rank");
                 const bool ranked = rank.is_number_unsigned() && rank < 1'000'000'000;
                 out.rank.push_back(ranked ? rank.get<int>() : -1);
               }
               require_few(out.responses.size(), r.where);
               if (std::count(out.rank.begin(), out.rank.end(), -1) + 2 > std::ssize(out.rank))
                 return;
               out.group = r.text("message_tree_id");
               out.id = message.text_or("message_id", out.group);
               out.finished.assign(out.responses.size(), true);
               out.labeller = "person";
               to.push_back(std::move(out));
             });
}

/// A ranking for each person who gave one; returns how many answers ranked nothing or do not count.
inline Index rankings_of_annotated(const JsonRecord& r, std::vector<Ranking>& to) {
  const DataForm form = form_of(r);
  const bool argilla = form == DataForm::Argilla || form == DataForm::ArgillaFlat;
  std::vector<Annotation> answers = argilla                         ? argilla_annotations(r, form)
                                    : form == DataForm::LabelStudio ? label_studio_annotations(r)
                                                                    : json_min_annotations(r);
  if (answers.size() > 1000)  // each becomes a ranking with all the texts
    bad_record(str(answers.size(), " answers to one record; 1000 are the most"), r.where);
  Index left_out = 0;
  Ranking out;
  out.id = r.id();
  std::vector<std::vector<int>> ranks;
  if (argilla) {
    std::vector<std::string> withdrew;  // each person once, whatever the number of questions
    for (const Annotation& a : answers)
      if (a.withdrawn && std::find(withdrew.begin(), withdrew.end(), a.by) == withdrew.end())
        withdrew.push_back(a.by);
    left_out += std::ssize(withdrew);
    std::erase_if(answers, [](const Annotation& a) {
      return a.withdrawn || a.value == nullptr || a.value->is_null();
    });
    if (!answers.empty()) rankings_of_argilla(r, form, out, answers, ranks);
  } else {
    rankings_of_label_studio(r, form, out, answers, ranks);
  }
  require_few(out.responses.size(), r.where);
  out.group = out.prompt;
  out.finished.assign(out.responses.size(), true);
  out.labeller = "person";
  for (std::size_t i = 0; i < answers.size(); ++i) {
    out.rank = ranks[i];
    if (std::none_of(out.rank.begin(), out.rank.end(), [](int rank) { return rank >= 0; })) {
      ++left_out;
      continue;
    }
    out.annotator = answers[i].by;
    out.time = answers[i].time;
    out.seconds = answers[i].seconds > 0.0 && answers[i].seconds <= 1e9 ? answers[i].seconds : 0.0;
    to.push_back(out);
  }
  return left_out;
}

inline void ranking_from(const JsonRecord& r, std::vector<Ranking>& to) {
  const DataForm form = form_of(r);
  if (form == DataForm::Tree) return rankings_of_tree(r, to);
  if (is_annotated(form)) return void(rankings_of_annotated(r, to));
  refuse_form(form, r.where);
  Ranking out;
  out.id = r.id();
  if (form == DataForm::Ranking || form == DataForm::Ranked || form == DataForm::Votes ||
      form == DataForm::Prompt || form == DataForm::Unknown) {
    read_prompt(r, "prompt", out, &Ranking::prompt);
    out.group = out.prompt;
  }
  switch (form) {
    case DataForm::Ranking:
      out.responses = r.texts("responses");
      read_ranking_groups(r, out);
      out.level = r.levels(out.responses.size());
      break;
    case DataForm::Ranked:
      out.responses = r.texts("ranked");
      for (std::size_t i = 0; i < out.responses.size(); ++i)
        out.rank.push_back(static_cast<int>(i));
      out.group = r.text("tree");
      break;
    case DataForm::Votes:
      out.responses = {r.text("response1"), r.text("response2")};
      out.rank = ranks_from_votes(r);
      break;
    case DataForm::Pair:
    case DataForm::PairWithoutPrompt:
    case DataForm::Transcripts: read_pair(r, form, out); break;
    case DataForm::Summaries: read_summaries(r, out); break;
    case DataForm::Scores:
      read_scores(r, out);
      out.group = out.prompt;
      break;
    default:
      bad_record(
          str("expected a ranking: \"ranking\" with \"responses\", \"chosen\" and \"rejected\", or "
              "another of the forms that README.md lists; these are ",
              form_name(form),
              form == DataForm::Liked ? ": one response each, which is better than no other" : ""),
          r.where);
  }
  require_few(out.responses.size(), r.where);
  out.finished = r.finished(out.responses.size());
  out.tokens = r.tokens(out.responses.size());
  out.group = r.text_or("group", std::move(out.group));
  if (out.annotator.empty()) out.annotator = r.text_or("annotator", "");
  out.labeller = r.text_or("labeller", "person");
  out.time = r.text_or("time", "");
  if (out.systems.empty()) out.systems = r.systems(out.responses.size());
  out.seconds = r.positive("seconds", 1e9);
  out.probability = r.positive("probability", 1.0);
  to.push_back(std::move(out));
}

inline void candidates_from(const JsonRecord& r, std::vector<Candidates>& to) {
  const DataForm form = form_of(r);
  if (form != DataForm::Candidates && form != DataForm::Ranking && form != DataForm::Prompt &&
      form != DataForm::Unknown) {
    std::vector<Ranking> rankings;
    ranking_from(r, rankings);
    if (is_annotated(form) && rankings.size() > 1) rankings.resize(1);  // several people's
    for (Ranking& ranking : rankings)
      to.push_back({std::move(ranking.id), std::move(ranking.prompt), std::move(ranking.responses),
                    std::move(ranking.finished), "", "", std::move(ranking.tokens),
                    std::move(ranking.turns)});
    return;
  }
  Candidates out;
  out.id = r.id();
  read_prompt(r, "prompt", out, &Candidates::prompt);
  out.responses = r.texts("responses");
  out.finished = r.finished(out.responses.size());
  out.tokens = r.tokens(out.responses.size());
  out.model = r.text_or("model", "");
  if (r.has_text("name")) out.name = r.text("name");
  out.systems = r.systems(out.responses.size());
  out.probability = r.positive("probability", 1.0);
  if (r.has("sampling")) out.sampling = r.json["sampling"].dump();
  to.push_back(std::move(out));
}

/// {"messages"}: what comes before the last message of the assistant, and that one.
inline void demonstration_of_messages(const JsonRecord& r, std::vector<Demonstration>& to) {
  Demonstration out;
  Turns turns = r.messages("messages");
  out.completion = take_answer(turns, "messages", r.where);
  set_prompt(out, &Demonstration::prompt, std::move(turns), r.where);
  to.push_back(std::move(out));
}

/// The best answer to each message of the user's in a tree: the first of rank 0, or the only one.
inline void demonstrations_of_tree(const JsonRecord& r, std::vector<Demonstration>& to) {
  Turns path;
  visit_tree({r.at("prompt"), r.line, r.where}, path,
             [&](const JsonRecord&, const Turns& turns, const auto& replies) {
               for (const JsonRecord& reply : replies) {
                 if (role_in_tree(reply) != "assistant") continue;
                 if (reply.at("rank") != 0U && replies.size() > 1) continue;
                 Demonstration out;
                 set_prompt(out, &Demonstration::prompt, turns, r.where);
                 out.completion = reply.text("text");
                 to.push_back(std::move(out));
                 return;
               }
             });
}

inline void demonstrations_from(const JsonRecord& r, std::vector<Demonstration>& to) {
  const DataForm form = form_of(r);
  refuse_form(form, r.where);
  if (form == DataForm::Tree) return demonstrations_of_tree(r, to);
  if (r.has_list("messages")) return demonstration_of_messages(r, to);
  if (form == DataForm::Demonstration || form == DataForm::Liked || form == DataForm::Prompt ||
      form == DataForm::Unknown) {
    Demonstration out;
    read_prompt(r, "prompt", out, &Demonstration::prompt);
    out.completion = read_answer(r, "completion", turns_of(out.prompt, out.turns));
    if (form == DataForm::Liked && !r.at("label").is_boolean())
      bad_record("expected true or false as \"label\"", r.where);
    if (form == DataForm::Liked && r.at("label") == false)
      bad_record("a completion with \"label\" false is not one to imitate", r.where);
    to.push_back(std::move(out));
    return;
  }
  std::vector<Ranking> rankings;
  ranking_from(r, rankings);
  for (Ranking& ranking : rankings) {
    const auto best = std::find(ranking.rank.begin(), ranking.rank.end(), 0);
    if (best == ranking.rank.end()) continue;
    to.push_back(
        {std::move(ranking.prompt),
         std::move(ranking.responses[static_cast<std::size_t>(best - ranking.rank.begin())]),
         std::move(ranking.turns)});
  }
}

inline void prompts_from(const JsonRecord& r, std::vector<Prompt>& to) {
  const DataForm form = form_of(r);
  refuse_form(form, r.where);
  Prompt out;
  out.id = r.id();
  if (form == DataForm::Tree) {
    out.id = r.text_or("message_tree_id", out.id);
    out.text = JsonRecord{r.at("prompt"), r.line, r.where}.text("text");
  } else if (form == DataForm::Messages) {
    Turns turns = r.messages("messages");
    if (turns.back().role == "assistant") turns.pop_back();
    set_prompt(out, &Prompt::text, std::move(turns), r.where);
  } else if (form == DataForm::PairWithoutPrompt || form == DataForm::Transcripts ||
             form == DataForm::Summaries || is_annotated(form) ||
             (form == DataForm::Scores && r.has("instruction"))) {
    std::vector<Ranking> rankings;
    ranking_from(r, rankings);
    if (rankings.empty()) return;  // which of the texts is the prompt, nobody's ranking says
    out.text = std::move(rankings.at(0).prompt);
    out.turns = std::move(rankings[0].turns);
  } else {
    read_prompt(r, "prompt", out, &Prompt::text);
  }
  to.push_back(std::move(out));
}

}  // namespace detail

}}  // namespace plumb::v0_1
