// What people's rankings are worth as one HTML page (report.hpp): how far they agree, what their
// answers lean on, how long they took. The numbers are those of agreement.hpp, and pictures beside.
#pragma once

#include <plumb/data/agreement.hpp>
#include <plumb/data/dawid_skene.hpp>
#include <plumb/data/habits.hpp>
#include <plumb/data/records.hpp>

#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// The page, of all rankings and what was computed of them.
std::string people_html(const std::vector<Ranking>& rankings, const Agreement& agreement,
                        const AnnotatorRates& rates, const std::vector<Habits>& habits);

}}  // namespace plumb::v0_1
