// What `plumb rank --agreement` says: data/agreement.hpp, data/dawid_skene.hpp and
// data/habits.hpp in words and numbers.
#pragma once

#include <plumb/data/agreement.hpp>
#include <plumb/data/dawid_skene.hpp>
#include <plumb/data/habits.hpp>
#include <plumb/io/json.hpp>

#include <iosfwd>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// Agreement between annotators, with oneself, and position bias.
void print_agreement(const Agreement& agreement, std::ostream& out);
Json agreement_json(const Agreement& agreement);

/// How often each person is right, as far as it can be told.
void print_rates(const AnnotatorRates& rates, std::ostream& out);
Json rates_json(const AnnotatorRates& rates);

/// What each annotator's answers lean on, and how fast they came.
void print_habits(const std::vector<Habits>& habits, std::ostream& out);
Json habits_json(const std::vector<Habits>& habits);

}}  // namespace plumb::v0_1
