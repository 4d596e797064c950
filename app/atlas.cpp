// The atlas as a page: one row a method, and what the exact cases say below it.
#include "atlas.hpp"

#include "commands.hpp"
#include "format.hpp"
#include "progress.hpp"
#include "run_directory.hpp"

#include <plumb/core/real.hpp>
#include <plumb/io/output.hpp>
#include <plumb/run/interrupt.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <map>

namespace plumb { inline namespace v0_1 {

namespace {

using namespace atlas;

// What a method is, in a line; the variants are argued in the files.
struct Described {
  const char *method, *optimises, *variant, *file;
};
constexpr Described kMethods[] = {
    {"ppo", "max(−Aρ, −A·clip ρ), A by GAE with a critic; β·k1 in the reward",
     "Schulman 2017, Ziegler 2019; as TRL", "rlhf/ppo.hpp"},
    {"grpo", "A = (s − mean)/std of the group; β·k3 in the loss",
     "Shao 2024: mean of each response, then of responses", "rlhf/group.hpp"},
    {"dr-grpo", "A = s − mean of the group, over the longest length", "Liu 2025", "rlhf/group.hpp"},
    {"rloo", "A = s − mean of the others, s with −β·k1; ratio of the whole",
     "Ahmadian 2024, as TRL", "rlhf/group.hpp"},
    {"reinforce++", "A = rewards to come, whitened; β·k1 in the reward", "Hu 2025, as OpenRLHF",
     "rlhf/group.hpp"},
    {"reinforce++-baseline", "A = s − mean of the group, whitened; β·k2 in the loss",
     "Hu 2025, as OpenRLHF", "rlhf/group.hpp"},
    {"dapo", "as grpo by tokens; clip 0.2, 0.28; agreeing groups left out", "Yu 2025",
     "rlhf/group.hpp"},
    {"gspo", "as grpo; ratio e^(mean log ratio) of the response", "Zheng 2025", "rlhf/group.hpp"},
    {"cispo", "−A·clip(ρ)·log π, clip(ρ) a constant", "MiniMax 2025", "rlhf/group.hpp"},
    {"dpo", "−log σ(Δ), Δ of β log π/π_ref", "Rafailov 2023", "rlhf/preference.hpp"},
    {"dpo, conservative", "(1 − ε) f(Δ) + ε f(−Δ), f = −log σ", "Mitchell 2023",
     "rlhf/preference.hpp"},
    {"robust", "((1 − ε) f(Δ) − ε f(−Δ))/(1 − 2ε)", "Chowdhury 2024", "rlhf/preference.hpp"},
    {"ipo", "(Δ log π/π_ref − 1/(2β))²", "Azar 2023: sums of log-probs", "rlhf/preference.hpp"},
    {"hinge", "max(0, 1 − Δ)", "Zhao 2023 (SLiC)", "rlhf/preference.hpp"},
    {"simpo", "−log σ(Δ β log π/|y| − γ), no reference", "Meng 2024", "rlhf/preference.hpp"},
    {"orpo", "−log π/|y| of the best − β log σ(Δ log odds)", "Hong 2024", "rlhf/preference.hpp"},
    {"pl", "−log Plackett–Luce of β log π/π_ref over a ranking of K", "Rafailov 2023, A.3",
     "rlhf/preference.hpp"},
    {"kto", "1 − σ(±(β log π/π_ref − z)), of single responses", "Ethayarajh 2024, z as in TRL",
     "rlhf/preference.hpp"},
    {"best of 4", "the highest score of n draws; imitated, rejection sampling",
     "Gao 2023, Touvron 2023", "rlhf/best_of_n.hpp"},
};

std::string number(double x, int decimals) { return std::isnan(x) ? "" : fixed(x, decimals); }

std::string machine() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "a machine that does not name its processor";
}

std::string today() {
  char text[16];
  const std::time_t now = std::time(nullptr);
  std::strftime(text, sizeof text, "%Y-%m-%d", std::localtime(&now));
  return text;
}

double degrees(double relative_error) {
  return real::atan(relative_error) * 180.0 / 3.141592653589793;
}

// A Markdown table, and the same lines for the terminal.
class Page {
 public:
  void text(const std::string& paragraph) { page_ += paragraph + "\n\n"; }
  void heading(const std::string& title) { text("## " + title); }
  void table(const std::vector<std::string>& columns,
             const std::vector<std::vector<std::string>>& rows) {
    const auto row = [](const std::vector<std::string>& cells) {
      std::string line = "|";
      for (std::string cell : cells) {
        for (std::size_t i = 0; (i = cell.find('|', i)) != std::string::npos; i += 2)
          cell.insert(i, "\\");
        line += " " + cell + " |";
      }
      return line + "\n";
    };
    page_ += row(columns) + "|";
    for (std::size_t i = 0; i < columns.size(); ++i) {
      const bool numbers = std::all_of(rows.begin(), rows.end(), [&](const auto& cells) {
        return cells[i].empty() || (cells[i][0] >= '0' && cells[i][0] <= '9') || cells[i][0] == '-';
      });
      page_ += numbers ? "---:|" : "---|";
    }
    page_ += "\n";
    for (const auto& cells : rows) page_ += row(cells);
    page_ += "\n";
  }
  void figure(const std::string& file, const std::string& title) {
    text("![" + title + "](" + file + ")");
  }
  const std::string& page() const { return page_; }

 private:
  std::string page_;
};

// All that was found.
struct Findings {
  std::vector<Rest> rests, sequences;
  std::vector<GradientRow> gradients, corrected;
  std::vector<SpreadRow> spreads;
  std::vector<GoodhartCurve> goodhart;
  std::vector<LearningCurve> curves;
  std::vector<RealScore> real;
  std::vector<Cost> costs;
};

Findings find_all(bool quick) {
  Findings all;
  Progress progress("atlas", 9, "part");
  Index done = 0;
  const auto part = [&](auto& to, auto find) {
    to = find();
    progress.update(++done);
    if (interrupted()) throw Interrupted("The atlas was interrupted; nothing was written.");
  };
  part(all.rests, [&] { return rests(quick); });
  part(all.sequences, [&] { return sequence_rests(quick); });
  part(all.gradients, [&] { return gradients(quick); });
  part(all.corrected, [&] { return corrected_gradients(quick); });
  part(all.spreads, [&] { return spreads(); });
  part(all.goodhart, [&] { return goodhart(quick); });
  part(all.curves, [&] { return learning_curves(quick); });
  part(all.costs, [&] { return costs(quick); });
  part(all.real, [&] { return real_scores(quick); });
  return all;
}

template <class Row>
const Row* of_method(const std::vector<Row>& rows, const std::string& method) {
  for (const Row& row : rows)
    if (row.method == method) return &row;
  return nullptr;
}

void write_methods(Page& out, const Findings& all) {
  std::vector<std::vector<std::string>> rows;
  for (const Described& m : kMethods) {
    const Rest* rest = of_method(all.rests, m.method);
    const LearningCurve* curve = of_method(all.curves, m.method);
    const RealScore* real = of_method(all.real, m.method);
    const Cost* cost = of_method(all.costs, m.method);
    const auto plus = [](double x, double half, int decimals) {
      return fixed(x, decimals) + " ± " + fixed(half, decimals);
    };
    rows.push_back(
        {m.method, m.optimises, m.variant, str("`", m.file, "`"),
         rest ? str(rest->holds ? "holds" : "FAILS", ", ", fixed(rest->distance, 3)) : "",
         curve ? plus(100 * curve->mean.back(), 100 * curve->half.back(), 0) : "",
         real ? plus(real->score, real->half, 2) : "", real ? fixed(real->kl, 0) : "",
         cost ? fixed(cost->microseconds / all.costs[0].microseconds, 2) : ""});
  }
  out.table({"method", "what it makes least, or its advantage", "variant", "file", "exact case",
             "% of the way to J*", "score, stories260K", "KL, nats", "cost of a token"},
            rows);
}

std::vector<std::vector<std::string>> rest_rows(const std::vector<Rest>& rests) {
  std::vector<std::vector<std::string>> rows;
  for (const Rest& r : rests)
    rows.push_back({r.method, number(r.beta, 2), r.target, fixed(r.distance, 4), number(r.gap, 4),
                    number(r.from_optimum, 4), r.holds ? "yes" : "NO"});
  return rows;
}
const std::vector<std::string> kRestColumns{
    "method", "β", "rests at", "trained policy to it, TV", "J below J*", "it to π*, TV", "holds"};

std::vector<std::vector<std::string>> gradient_rows(const std::vector<GradientRow>& gradients) {
  std::vector<std::vector<std::string>> rows;
  for (const GradientRow& g : gradients)
    rows.push_back({g.method,
                    str(fixed(degrees(g.bias), 1), " (", fixed(degrees(g.low), 1), " … ",
                        fixed(degrees(g.high), 1), ")"),
                    std::isnan(g.own) ? "" : fixed(degrees(g.own), 1), fixed(g.variance, 1)});
  return rows;
}

void write_exact(Page& out, const Findings& all) {
  out.heading("Where methods come to rest");
  out.text(
      "A prompt and eight responses of one token. π* ∝ π_ref e^(r/β) is the optimum of\n"
      "J = E r − β KL(π‖π_ref). Trained by the library's own trainers; the resting points are "
      "closed\n"
      "forms, or solved in double where there is none (`exact/`). A row holds if the total "
      "variation\n"
      "(TV) from the trained policy to its own resting point is below 0.03 and, where that point "
      "is\n"
      "π*, J within 0.01 of J*. σ is the spread of the reward at rest, λ normalises.");
  out.table(kRestColumns, rest_rows(all.rests));
  out.text(
      "k2 in the loss stands in for methods that have no divergence of their own. What divides by "
      "a\n"
      "spread rests where β is multiplied by it; k3 in the loss (GRPO) has the gradient of\n"
      "KL(π_ref‖π). IPO, SimPO and ORPO have optima of their own, KTO's is nearly a choice of the\n"
      "responses that win more often than not.");
  out.heading("Sequences");
  out.text("Three tokens, one of which ends a response, at most three of them: 15 responses.");
  out.table(kRestColumns, rest_rows(all.sequences));
  out.text(
      "Only a divergence that is charged for the whole response has π* for its resting point: "
      "what\n"
      "is charged token by token in the loss leaves out what a token leads to.");
  out.heading("What division by the spread does to the optimum");
  std::vector<std::vector<std::string>> rows;
  for (const SpreadRow& s : all.spreads)
    rows.push_back({fixed(s.beta, 2), fixed(s.effective, 3), fixed(s.best_optimum, 3),
                    fixed(s.best, 3), fixed(s.distance, 3)});
  out.table({"β", "β σ", "π* of the best", "at rest", "TV"}, rows);
  out.text(
      "The likelier the best response, the less rewards spread, and the more a difference counts:\n"
      "below some β no resting point is left but the best response alone.");
  out.figure("methods/spread.svg", "The likelihood of the best response, by β");
  out.heading("Sampled gradients beside the exact one");
  out.text(
      "Angle between the mean of many sampled gradients (groups of 8) and ∇J, degrees, its own "
      "noise\n"
      "taken off, with a 95 % interval by the jackknife; the angle of the method's own "
      "expectation\n"
      "with groups without end; the variance of one response's gradient over the square of the "
      "mean.\n"
      "Sequences as above, β = 0.5, at a policy between reference and optimum.");
  out.table({"method", "angle to ∇J", "in expectation", "variance"}, gradient_rows(all.gradients));
  out.text(
      "A finite group takes (G − 1)/G off the reward and not off a divergence in the loss; of "
      "RLOO\n"
      "nothing is taken. Whitening divides by what the same samples spread.");
  out.heading("When the sampler is another policy");
  out.text("The same of Dr. GRPO without a divergence, sampled from another table, by correction.");
  out.table({"correction", "angle to ∇J", "in expectation", "variance"},
            gradient_rows(all.corrected));
  out.text(
      "By sequence and without a cap the mean is right, and its variance the largest; by token it "
      "is\n"
      "not, at a fraction of the variance; cutting and masking buy still less variance with more\n"
      "angle.");
}

void write_goodhart(Page& out, const Findings& all) {
  out.heading("What a proxy costs");
  out.text(
      "Reward models of three sizes (transformers of 4, 12 and 32 channels), fitted to 32 … 2048\n"
      "comparisons of responses of the reference (8 tokens, 4 places: 4096 responses), then "
      "optimised\n"
      "by the best of n (exactly, n to 4096) and by PPO without a penalty. Rewards have mean 0 "
      "and\n"
      "deviation 1 under the reference; means over 12 true rewards. d = √KL; fitted to the true\n"
      "reward: best of n d(α − β d), PPO d(α − β log d) (Gao et al. 2023). Accuracy is that of "
      "the\n"
      "reward model on pairs of the reference.");
  std::vector<std::vector<std::string>> rows;
  for (const GoodhartCurve& c : all.goodhart) {
    const auto top = std::max_element(c.truth.begin(), c.truth.end());
    rows.push_back({str(c.size, ", ", c.labels), c.best_of_n ? "best of n" : "ppo",
                    fixed(c.accuracy, 3), fixed(c.alpha, 3), fixed(c.beta, 3), fixed(c.r2, 3),
                    fixed(c.proxy.back(), 2), fixed(c.truth.back(), 2), fixed(*top, 2),
                    fixed(c.root_kl[static_cast<std::size_t>(top - c.truth.begin())], 2)});
  }
  out.table({"size, comparisons", "by", "accuracy", "α", "β", "R²", "proxy at the end",
             "true at the end", "true at most", "at d"},
            rows);
  out.figure("methods/best-of-n.svg", "True reward by the best of n");
  out.figure("methods/ppo.svg", "True reward by PPO");
  out.figure("methods/proxy.svg", "Proxy and true reward");
}

void write_curves(Page& out, const Findings& all) {
  out.heading("How fast");
  out.text(
      "Four tokens, one of which ends a response, at most four: J as a share of the way from the\n"
      "reference to J* (β = 0.25) against responses seen; five seeds, mean ± 95 %. Methods whose\n"
      "resting point is another can't reach 100. Those on rankings learn from responses of the\n"
      "reference, in pairs (pl: fours), and know only their order: of what the reference hardly "
      "ever\n"
      "says they see nothing, and there J* is. (robust: a fifth of the labels flipped.)");
  const std::size_t last = all.curves[0].seen.size() - 1;
  std::vector<std::vector<std::string>> rows;
  std::vector<std::string> columns{"method"};
  std::vector<std::size_t> places;
  for (const std::size_t quarter : {1U, 2U, 3U, 4U}) places.push_back(last * quarter / 4);
  for (const std::size_t i : places) columns.push_back(fixed(all.curves[0].seen[i], 0));
  for (const LearningCurve& c : all.curves) {
    std::vector<std::string> row{c.method};
    for (const std::size_t i : places)
      row.push_back(fixed(100 * c.mean[i], 1) + " ± " + fixed(100 * c.half[i], 1));
    rows.push_back(row);
  }
  out.table(columns, rows);
  out.figure("methods/groups.svg", "Learning curves of policy methods");
  out.figure("methods/rankings.svg", "Learning curves of methods on rankings");
}

std::vector<Series> chosen_curves(const Findings& all, std::initializer_list<const char*> names) {
  std::vector<Series> lines;
  for (const char* name : names)
    if (const LearningCurve* c = of_method(all.curves, name))
      lines.push_back({name, c->seen, c->mean});
  return lines;
}

void write_figures(const std::string& folder, const Findings& all) {
  make_directory(folder);
  const auto write = [&](const char* name, const std::string& title, const std::string& x,
                         const std::string& y, const std::vector<Series>& lines) {
    write_atomically(folder + "/" + name, Report::svg_file(title, x, y, lines));
  };
  Series best{"π*", {}, {}}, rest{"at rest", {}, {}};
  for (const SpreadRow& s : all.spreads) {
    best.x.push_back(s.beta), best.y.push_back(s.best_optimum);
    rest.x.push_back(s.beta), rest.y.push_back(s.best);
  }
  write("spread.svg", "Division by the spread", "β", "likelihood of the best response",
        {best, rest});
  for (const bool by_n : {true, false}) {
    std::vector<Series> lines;
    for (const GoodhartCurve& c : all.goodhart)
      if (c.best_of_n == by_n && (c.size == "L" || all.goodhart.size() == 2))
        lines.push_back({str(c.labels, " comparisons"), c.root_kl, c.truth});
    write(by_n ? "best-of-n.svg" : "ppo.svg",
          by_n ? "The best of n, reward model L" : "PPO, reward model L", "√KL", "true reward",
          lines);
  }
  std::vector<Series> lines;
  for (const GoodhartCurve& c : all.goodhart)
    if (c.size == "M" && c.labels == 128) {
      const std::string by = c.best_of_n ? "best of n" : "ppo";
      lines.push_back({"proxy, " + by, c.root_kl, c.proxy});
      lines.push_back({"true, " + by, c.root_kl, c.truth});
    }
  write("proxy.svg", "Reward model M, 128 comparisons", "√KL", "reward", lines);
  write("groups.svg", "Policy methods", "responses seen", "share of the way to J*",
        chosen_curves(all, {"ppo", "grpo", "dr-grpo", "rloo", "dapo", "gspo"}));
  write("rankings.svg", "Methods on rankings", "responses seen", "share of the way to J*",
        chosen_curves(all, {"dpo", "ipo", "simpo", "orpo", "pl", "kto"}));
}

Json json_of(const Findings& all) {
  Json json = Json::object();
  for (const auto& [key, rows] : {std::pair{"rests", &all.rests}, {"sequences", &all.sequences}})
    for (const Rest& r : *rows)
      json[key][r.method] = {{"distance", r.distance},
                             {"gap", r.gap},
                             {"from_optimum", r.from_optimum},
                             {"holds", r.holds}};
  for (const auto& [key, rows] :
       {std::pair{"gradients", &all.gradients}, {"corrected", &all.corrected}})
    for (const GradientRow& g : *rows)
      json[key][g.method] = {{"relative_error", g.bias},
                             {"low", g.low},
                             {"high", g.high},
                             {"expected", g.own},
                             {"variance", g.variance}};
  for (const GoodhartCurve& c : all.goodhart)
    json["goodhart"][str(c.size, "-", c.labels, c.best_of_n ? "-best-of-n" : "-ppo")] = {
        {"alpha", c.alpha}, {"beta", c.beta},   {"r2", c.r2},     {"accuracy", c.accuracy},
        {"d", c.root_kl},   {"proxy", c.proxy}, {"true", c.truth}};
  for (const LearningCurve& c : all.curves)
    json["curves"][c.method] = {{"seen", c.seen}, {"mean", c.mean}, {"half", c.half}};
  for (const RealScore& r : all.real)
    json["stories"][r.method] = {{"score", r.score}, {"half", r.half}, {"kl", r.kl}};
  for (const Cost& c : all.costs) json["microseconds_a_token"][c.method] = c.microseconds;
  return json;
}

}  // namespace

void atlas_command(const AtlasCommand& c, Json& results) {
  const auto start = std::chrono::steady_clock::now();
  const InterruptGuard guard;
  if (!c.out.empty()) check_output(c.out + "/methods.md", {});
  const Findings all = find_all(c.quick);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  Page out;
  out.text("# Every method, beside the truth");
  out.text(str("Written by `plumb atlas --out docs`", c.quick ? " --quick" : "", " in ",
               fixed(seconds.count(), 0), " s, ", default_pool().threads(), " threads of ",
               machine(), ", ", today(),
               ".\nWhat each formula is, and where it is computed: [rlhf.md](rlhf.md)."));
  out.text(
      "The exact case says whether the library's trainer comes to rest where the method should, "
      "and\n"
      "how far from it in total variation. J* is the optimum of a small problem (How fast, "
      "below).\n"
      "The score is that of a rule (eight friendly words), on held-out openings, after 768 "
      "responses\n"
      "of 48 tokens, two epochs, five seeds, with settings that were not tuned for any method; "
      "the\n"
      "model itself has " +
      fixed(all.real[0].score, 2) +
      ". A token's cost is processor time beside PPO's, stories260K:\n"
      "policy methods and the best of n sample, those on rankings are given their responses.");
  write_methods(out, all);
  write_exact(out, all);
  write_goodhart(out, all);
  write_curves(out, all);
  std::string page = out.page();
  page.pop_back();
  std::fputs(page.c_str(), stdout);
  results.update(json_of(all));
  results["seconds"] = seconds.count();
  Index fails = 0;
  for (const auto* rows : {&all.rests, &all.sequences})
    for (const Rest& r : *rows) fails += r.holds ? 0 : 1;
  results["exact_cases_that_fail"] = fails;
  if (!c.out.empty()) {
    write_figures(c.out + "/methods", all);
    write_atomically(c.out + "/methods.md", page);
    std::printf("\n-> %s/methods.md, and its figures\n", c.out.c_str());
  }
  if (fails > 0 && !c.quick)
    fail<NumericError>(str("[atlas] ", fails, " exact cases do not hold: see the tables"));
}

}}  // namespace plumb::v0_1
