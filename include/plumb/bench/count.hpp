// Cases whose device counts what they do (device.hpp), as a table: a line each, held to its oracle
// first, as those are that are timed.
#pragma once

#include <plumb/bench/suite.hpp>

#include <cstdio>

namespace plumb { inline namespace v0_1 { namespace bench {

namespace detail {
/// 16384: "16.4 kB".
inline std::string bytes_of(double bytes) {
  char text[32];
  const bool small = bytes < 1e3, large = bytes >= 1e6;
  std::snprintf(text, sizeof text, "%.4g %s",
                small   ? bytes
                : large ? bytes / 1e6
                        : bytes / 1e3,
                small   ? "B"
                : large ? "MB"
                        : "kB");
  return text;
}
/// a / b, or a dash where there is nothing to divide.
inline std::string share(double a, double b) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", a / b);
  return a > 0 && b > 0 ? text : "-";
}
inline void print_row(const std::string& name, const std::vector<std::string>& cells) {
  std::printf("%-44s", name.c_str());
  for (const std::string& cell : cells) std::printf(" %9s", cell.c_str());
  std::printf("\n");
  std::fflush(stdout);
}
}  // namespace detail

inline const std::vector<std::string>& count_headings() {
  static const std::vector<std::string> all = {"launches", "read",   "stored", "of least",
                                               "sectors",  "shared", "passes", "barriers"};
  return all;
}
/// A cell for each heading.
inline std::vector<std::string> count_cells(const Counted& c, const Work& work) {
  return {str(c.launches),
          detail::bytes_of(c.read),
          detail::bytes_of(c.stored),
          detail::share(c.read + c.stored, work.bytes()),
          detail::share(c.sectors, c.least_sectors),
          detail::bytes_of(c.shared),
          detail::share(c.passes, c.least_passes),
          detail::share(c.barriers, c.blocks)};
}

inline void count_entry(const Entry& entry) {
  Holder& holder = Holder::instance();
  Subject& subject = holder.hold(entry);
  if (!holder.refusal()) {
    const Counted counted = subject.device_counts();
    if (const Refusal refusal = subject.last_call(holder.device()))
      holder.refuse(entry, refusal);
    else
      detail::print_row(entry.full(), count_cells(counted, subject.work()));
  }
  if (holder.refusal()) std::printf("%s\n", holder.refusal().what.c_str());
}

/// The cases that `chosen` names, under their headings; nothing if there are none.
template <class Chosen>
void count_entries(Chosen chosen) {
  const Side* said = nullptr;
  for (const Entry& entry : entries()) {
    if (!entry.side || !entry.side->counts || !chosen(entry.full())) continue;
    if (said != entry.side) {
      said = entry.side;
      std::printf(
          "%s\nread, stored, shared: bytes as threads ask for them, no cache being modelled; of "
          "least: read and stored,\nover what the work cannot do without; sectors, and passes over "
          "shared memory's banks: over the fewest\nfor what was asked for; barriers: of a "
          "block.\n",
          said->describe().c_str());
      detail::print_row("", count_headings());
    }
    count_entry(entry);
  }
}

}}}  // namespace plumb::v0_1::bench
