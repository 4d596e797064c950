// ladder: runs the rungs of cuda/ladder one after the other and prints what each of them did.
// Linked with the emulator it prints counts of their accesses, with the CUDA runtime their times on
// the GPU; it says which.
//
//     ladder                    tables for a terminal
//     ladder --markdown         tables for a document
//     ladder --into FILE        the latter, put between FILE's lines <!-- cuda ladder: begin -->
//     and … end -->
#include <ladder/measure.hpp>
#include <ladder/rungs.cuh>

#include <plumb/core/random.hpp>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <span>

namespace {

using namespace plumb;
using ladder::measure;
using ladder::Work;
using Row = std::vector<std::string>;

constexpr Index kHeadSize = 64;

struct Table {
  std::string title;
  std::vector<Row> rows;
};

/// Columns as code points, for padding: every byte that does not continue a character.
std::size_t width_of(const std::string& text) {
  std::size_t width = 0;
  for (const char c : text) width += (static_cast<unsigned char>(c) & 0xc0U) != 0x80U;
  return width;
}

std::string markdown(const Table& table) {
  std::string text = "**" + table.title + "**\n\n";
  for (std::size_t r = 0; r < table.rows.size(); ++r) {
    text += "|";
    for (const std::string& cell : table.rows[r]) text += " " + cell + " |";
    text += "\n";
    for (std::size_t c = 0; r == 0 && c < table.rows[0].size(); ++c)
      text += c == 0 ? "|---|" : c == 1 ? "---|" : "--:|";
    if (r == 0) text += "\n";
  }
  return text + "\n";
}

std::string plain(const Table& table) {
  std::vector<std::size_t> widths(table.rows[0].size(), 0);
  for (const Row& row : table.rows)
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], width_of(row[c]));
  std::string text = table.title + "\n";
  for (const Row& row : table.rows) {
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::string gap(widths[c] - width_of(row[c]), ' ');
      text += "  " + (c < 2 ? row[c] + gap : gap + row[c]);
    }
    text += "\n";
  }
  return text + "\n";
}

std::vector<float> random_values(Index n, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& value : x) value = rng.normal();
  return x;
}

/// Random values on the device, and the same rounded to bf16.
class Input {
 public:
  Input(Cuda device, Index n, std::uint64_t seed) : floats_(device, n), halves_(device, n) {
    const std::vector<float> x = random_values(n, seed);
    std::vector<bf16> y;
    for (const float value : x) y.emplace_back(value);
    kernels::copy_from_host(device, floats_.data(), x.data(), x.size() * sizeof(float));
    kernels::copy_from_host(device, halves_.data(), y.data(), y.size() * sizeof(bf16));
    kernels::synchronize(device);
  }
  const float* floats() const { return floats_.data(); }
  const bf16* halves() const { return halves_.data(); }

 private:
  kernels::DeviceScratch<float> floats_;
  kernels::DeviceScratch<bf16> halves_;
};

Row heading() {
  Row row = {"rung", "idea"};
  const Row measured = ladder::headings();
  row.insert(row.end(), measured.begin(), measured.end());
  return row;
}

/// Appends a rung's line: its name, its idea, and what running it shows.
template <class Rung>
void add(Table& table, const Rung& rung, const std::function<void()>& run, const Work& work) {
  Row row = {"`" + std::string(rung.name) + "`", rung.idea};
  const Row measured = measure(run, work);
  row.insert(row.end(), measured.begin(), measured.end());
  table.rows.push_back(std::move(row));
}

Table gemm(Cuda device, Index n) {
  Table table{str("C = A·B, ", n, " × ", n, " × ", n), {heading()}};
  const Input a(device, n * n, 1), b(device, n * n, 2);
  const kernels::DeviceScratch<float> c(device, n * n);
  const auto elements = static_cast<double>(n) * static_cast<double>(n);
  for (const ladder::Gemm& rung : ladder::kGemm) {
    const bool halves = rung.matmul == nullptr;
    const auto run = [&] {
      if (halves)
        rung.matmul_bf16(device, c.data(), a.halves(), b.halves(), n, n, n);
      else
        rung.matmul(device, c.data(), a.floats(), b.floats(), n, n, n);
    };
    add(table, rung, run,
        {2.0 * elements * static_cast<double>(n), elements * (halves ? 8.0 : 12.0),
         rung.tensor_core});
  }
  return table;
}

Table softmax(Cuda device, Index rows, Index width) {
  Table table{str("softmax of ", rows, " rows of ", width), {heading()}};
  const Input x(device, rows * width, 3);
  const kernels::DeviceScratch<float> y(device, rows * width);
  const double elements = static_cast<double>(rows) * static_cast<double>(width);
  for (const ladder::Softmax& rung : ladder::kSoftmax) {
    const auto run = [&] { rung.softmax(device, y.data(), x.floats(), rows, width); };
    add(table, rung, run, {4.0 * elements, 8.0 * elements});
  }
  return table;
}

Table attention(Cuda device, Index t) {
  Table table{str("causal attention, ", t, " positions, head size ", kHeadSize), {heading()}};
  const Index n = t * kHeadSize;
  const Input q(device, n, 4), k(device, n, 5), v(device, n, 6);
  const kernels::DeviceScratch<float> out(device, n);
  const auto pairs = static_cast<double>(t) * static_cast<double>(t + 1) / 2.0;
  for (const auto& rung : ladder::kAttention<kHeadSize>) {
    const bool halves = rung.attention == nullptr;
    const auto run = [&] {
      if (halves)
        rung.attention_bf16(device, out.data(), q.halves(), k.halves(), v.halves(), t);
      else
        rung.attention(device, out.data(), q.floats(), k.floats(), v.floats(), t);
    };
    add(table, rung, run,
        {4.0 * pairs * static_cast<double>(kHeadSize),
         static_cast<double>(n) * (halves ? 10.0 : 16.0), halves});
  }
  return table;
}

Table sum(Cuda device, Index n) {
  Table table{str("sum of ", n, " elements"), {heading()}};
  const Input x(device, n, 7);
  const kernels::DeviceScratch<float> result(device, 1);
  for (const ladder::Sum& rung : ladder::kSum) {
    const auto run = [&] { rung.sum(device, result.data(), x.floats(), n); };
    add(table, rung, run, {static_cast<double>(n), 4.0 * static_cast<double>(n)});
  }
  return table;
}

/// Replaces what lies between the file's two marks.
void put_into(const char* path, const std::string& text) {
  const std::string begin = "<!-- cuda ladder: begin -->\n", end = "<!-- cuda ladder: end -->";
  std::ifstream in(path);
  std::string file{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  const std::size_t from = file.find(begin), to = file.find(end);
  if (from == std::string::npos || to == std::string::npos || to < from)
    fail<DataError>(str("[ladder] ", path, " has no two lines ", begin, "and ", end),
                    Where::here());
  file.replace(from + begin.size(), to - from - begin.size(), text);
  std::ofstream out(path);
  out << file;
  if (!out.flush()) fail<IoError>(str("[ladder] cannot write ", path), Where::here());
}

int run(std::span<char*> arguments) {
  const bool into = arguments.size() == 2 && std::strcmp(arguments[0], "--into") == 0;
  const bool document =
      into || (arguments.size() == 1 && std::strcmp(arguments[0], "--markdown") == 0);
  if (!document && !arguments.empty()) {
    std::fputs("usage: ladder [--markdown | --into FILE]\n", stderr);
    return 2;
  }
  const std::string how = ladder::how();
  if (how.empty()) {
    std::fputs("ladder: there is no CUDA device to run on\n", stderr);
    return 1;
  }
  const Cuda device;
  const ladder::Sizes sizes = ladder::sizes();
  std::string text = (into ? "\n" : "") + how + "\n\n";
  for (const Table& table :
       {gemm(device, sizes.gemm), softmax(device, sizes.softmax_rows, sizes.softmax_width),
        attention(device, sizes.attention), sum(device, sizes.sum)})
    text += document ? markdown(table) : plain(table);
  if (into)
    put_into(arguments[1], text);
  else
    std::fputs(text.c_str(), stdout);
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    return run(std::span(arguments, static_cast<std::size_t>(count)).subspan(1));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ladder: %s\n", error.what());
    return 1;
  }
}
