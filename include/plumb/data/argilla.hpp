// Rankings out of Argilla's exports: a record of a FeedbackDataset or of the server,
//
//   {"fields":{…},"responses":[{"user_id","status","values":{QUESTION:{"value":
//   [{"value":"reply-1","rank":1},…]}}},…]}
//
// one of to_json, {"fields","responses":{QUESTION:[{"value":[…],"user_id"},…]}}, or one flattened,
// "QUESTION.responses":[…] with ….users and ….status. The field named as a ranked value is a
// response, the one that is left the prompt; equal ranks tie, no rank is unranked.
//
// What is not certain is refused by its name: ratings and labels, of which the file does not say
// what is better, and bare names in a list, since version 2 drops a ranking's ranks when it exports
// and lists the names as its question does. Sources: argilla, client/feedback/schemas,
// records/_io/_generic.py, responses.py.
#pragma once

#include <plumb/data/annotation.hpp>

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 { namespace detail {

/// Whether an answer of Argilla's is that of a RankingQuestion, with its ranks.
inline bool is_argilla_ranking(const Json& value) {
  return value.is_array() && !value.empty() &&
         std::all_of(value.begin(), value.end(), [](const Json& item) {
           return item.is_object() && item.contains("value") && item.contains("rank");
         });
}

inline bool counts(const Json& status) { return status.is_null() || status == "submitted"; }

/// All answers of an Argilla record, also those to other questions.
inline std::vector<Annotation> argilla_annotations(const JsonRecord& r, DataForm form) {
  std::vector<Annotation> out;
  const auto add = [&](const std::string& question, const Json& value, const Json& user,
                       const Json& status) {
    out.push_back({name_of(user), "", 0.0, !counts(status), question, &value, ""});
  };
  const auto object = [&](const Json& json, const char* key) {
    if (!json.is_object()) bad_record(str("expected only objects in \"", key, "\""), r.where);
    return JsonRecord{json, r.line, r.where};
  };
  if (form == DataForm::ArgillaFlat) {
    for (const auto& [key, column] : r.json.items()) {
      if (!key.ends_with(kArgillaColumn) || column.is_null()) continue;
      const Json& values = column;
      const Json &users = r.at((key + ".users").c_str()), &states = r.at((key + ".status").c_str());
      const auto fits = [&](const Json& list) {
        return list.is_null() || (list.is_array() && list.size() == values.size());
      };
      if (!values.is_array() || !fits(users) || !fits(states))
        bad_record(str("expected lists of one length as \"", shown(key),
                       "\", and with .users and .status behind it"),
                   r.where);
      for (std::size_t i = 0; i < values.size(); ++i)
        add(key.substr(0, key.size() - kArgillaColumn.size()), values[i],
            users.is_null() ? users : users[i], states.is_null() ? states : states[i]);
    }
  } else if (r.at("responses").is_object()) {
    for (const auto& [question, answers] : r.at("responses").items()) {
      if (!answers.is_array())
        bad_record(str("expected a list of answers to \"", shown(question), "\""), r.where);
      for (const Json& answer : answers) {
        const JsonRecord a = object(answer, question.c_str());
        add(question, a.at("value"), a.at("user_id"), a.at("status"));
      }
    }
  } else if (!r.at("responses").is_null()) {
    for (const Json& response : r.list("responses")) {
      const JsonRecord one = object(response, "responses");
      if (!one.at("values").is_object() && counts(one.at("status")))
        bad_record("expected an object \"values\" in each of \"responses\"", r.where);
      if (one.at("values").empty())
        out.push_back({name_of(one.at("user_id")), "", 0.0, !counts(one.at("status")), "", {}, ""});
      for (const auto& [question, answer] : one.at("values").items())
        add(question, object(answer, "values").at("value"), one.at("user_id"), one.at("status"));
    }
  }
  return out;
}

/// Argilla's names of a field and of a value may differ in what joins their words.
inline std::string joined_alike(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

/// The question whose answers are rankings: one. Refused where there is none, or two.
inline std::string question_that_ranks(const std::vector<Annotation>& answers,
                                       const JsonRecord& r) {
  std::string question, listed;
  std::set<std::string> others;
  for (const Annotation& a : answers) {
    if (!is_argilla_ranking(*a.value)) {
      if (others.insert(a.question).second && others.size() <= 10)
        listed += str(listed.empty() ? "" : ", ", '"', shown(a.question.substr(0, 80)), '"');
    } else if (!question.empty() && question != a.question) {
      bad_record(str("two questions rank, \"", shown(question), "\" and \"", shown(a.question),
                     "\", and one is read. HINT: export one"),
                 r.where);
    } else {
      question = a.question;
    }
  }
  if (question.empty() && !others.empty())
    bad_record(str("no answer has \"value\" and \"rank\"; there are answers to ", listed,
                   ", of which the file does not say what is better. HINT: Argilla 2 exports the "
                   "ranks of no ranking; its server does, GET "
                   "/api/v1/datasets/ID/records?include=responses, in \"items\""),
               r.where);
  return question;
}

inline void rankings_of_argilla(const JsonRecord& r, DataForm form, Ranking& out,
                                std::vector<Annotation>& answers,
                                std::vector<std::vector<int>>& ranks) {
  const std::string question = question_that_ranks(answers, r);
  std::erase_if(answers, [&](const Annotation& a) { return a.question != question; });
  for (const Annotation& a : answers)
    if (!is_argilla_ranking(*a.value))
      bad_record(str("an answer to \"", shown(question),
                     "\" is no list of {\"value\",\"rank\"}, and another is"),
                 r.where);
  const bool flat = form == DataForm::ArgillaFlat;
  const JsonRecord fields{flat ? r.json : r.at("fields"), r.line, r.where};
  std::set<std::string> named;
  for (const Annotation& a : answers)
    for (const Json& item : *a.value) named.insert(joined_alike(name_of(item["value"])));
  Ranked items;
  std::set<std::string> keys;
  for (const auto& [key, value] : fields.json.items())
    if (value.is_string() && named.contains(joined_alike(key)) &&
        items.add(joined_alike(key), value.get<std::string>()))
      keys.insert(key);
  for (const Annotation& a : answers) {
    std::vector<std::pair<std::string, std::optional<double>>> places;
    for (const Json& item : *a.value) {
      const Json& rank = item["rank"];
      if (!item["value"].is_string() || !(rank.is_null() || (rank.is_number_integer() && rank > 0)))
        bad_record("expected text \"value\" and a whole number from 1 as \"rank\" in a ranking",
                   r.where);
      places.emplace_back(joined_alike(item["value"].get<std::string>()),
                          rank.is_null() ? std::optional<double>() : rank.get<double>());
    }
    ranks.push_back(ranks_from_places(places, items, true, r));
  }
  out.responses = std::move(items.texts);
  if (flat)
    prompt_of_annotated(fields, {"prompt", "instruction"}, out,
                        [](const auto&, const auto&) { return false; });
  else
    prompt_of_annotated(fields, {}, out,
                        [&](const std::string& name, const Json&) { return !keys.contains(name); });
  if (r.at("external_id").is_string()) out.id = r.text("external_id");
}

}}}  // namespace plumb::v0_1::detail
