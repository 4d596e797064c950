// llama2.c model files (version 0): seven int32 sizes, then float32 arrays in a fixed order.
//
//   dim, hidden, layers, heads, kv_heads, vocab (negative: the head is not tied), seq_len
//   embedding (V, C) · norm1 of all layers · query, key, value, projection, each of all layers ·
//   norm2 of all layers · gate (w1), down (w2), up (w3), each of all layers · final_norm ·
//   RoPE cosines and sines (T, D/2) · head (V, C) unless tied
//
// The RoPE tables are a legacy of the format: skipped on reading, computed anew on writing, in
// double precision rounded once; the original exporter's differ in the last bit here and there.
// What this is not: a reader of the quantised version 2 or of ggml. Source: karpathy/llama2.c,
// run.c memory_map_weights() and export.py legacy_export().
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/core/real.hpp>
#include <plumb/core/shape.hpp>
#include <plumb/io/arrays.hpp>
#include <plumb/io/mapped.hpp>
#include <plumb/io/output.hpp>

#include <climits>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// What the header says.
struct LlamaSizes {
  int channels = 0, hidden = 0, layers = 0, heads = 0, kv_heads = 0, vocab = 0, context = 0;
  bool tied = true;
};

/// A llama2.c model. Arrays are named `embedding`, `blocks.{i}.norm1 | query | key | value |
/// projection | norm2 | gate | down | up`, `final_norm`, and `head` if not tied; matrices are
/// (outputs, inputs).
struct LlamaFile : LlamaSizes {
  std::vector<OwnedArray> arrays;

  /// The array of that name, or null.
  const OwnedArray* find(std::string_view name) const { return find_array(arrays, name); }
};

/// The same where it lies: the arrays' bytes are the mapped file's and live as long as this object.
struct LlamaView : LlamaSizes {
  std::vector<ArrayView> arrays;
  NameIndex names;
  MappedFile file;

  /// The array of that name, or null.
  const ArrayView* find(std::string_view name) const { return names.find(arrays, name); }
};

namespace detail {

inline constexpr std::size_t kLlamaHeader = 7 * sizeof(std::int32_t);

/// What is wrong with the sizes, or nothing.
inline std::string llama_complaint(const LlamaSizes& m) {
  if (m.channels < 1 || m.hidden < 1 || m.layers < 1 || m.heads < 1 || m.kv_heads < 1 ||
      m.vocab < 1 || m.context < 1)
    return "a size is not positive";
  if (m.channels % m.heads != 0) return "dim is not a multiple of heads";
  if (m.heads % m.kv_heads != 0) return "heads is not a multiple of kv_heads";
  if (m.channels / m.heads % 2 != 0) return "the head size is odd, so RoPE cannot pair it";
  return {};
}

/// Size of a whole file in bytes; exact for any seven int32, which 64 bits would not be.
__extension__ typedef unsigned __int128 LlamaBytes;
inline LlamaBytes llama_bytes(const LlamaSizes& m) {
  const LlamaBytes c = static_cast<LlamaBytes>(m.channels), f = static_cast<LlamaBytes>(m.hidden),
                   v = static_cast<LlamaBytes>(m.vocab), t = static_cast<LlamaBytes>(m.context),
                   d = c / static_cast<LlamaBytes>(m.heads),
                   kv = d * static_cast<LlamaBytes>(m.kv_heads);
  const LlamaBytes block = 2 * c + 2 * c * c + 2 * kv * c + 3 * f * c;
  const LlamaBytes floats =
      v * c * (m.tied ? 1u : 2u) + static_cast<LlamaBytes>(m.layers) * block + c + t * d;
  return kLlamaHeader + floats * sizeof(float);
}

/// Calls `visit(name, shape)` for every array in file order, and `rope()` where the tables lie.
template <class Visit, class Rope>
void for_each_llama_array(const LlamaSizes& m, Visit&& visit, Rope&& rope) {
  const Index c = m.channels, f = m.hidden, kv = c / m.heads * m.kv_heads;
  const auto all_layers = [&](const char* name, const Shape& shape) {
    for (int i = 0; i < m.layers; ++i) visit(str("blocks.", i, ".", name), shape);
  };
  visit(std::string("embedding"), Shape{m.vocab, c});
  all_layers("norm1", {c});
  all_layers("query", {c, c});
  all_layers("key", {kv, c});
  all_layers("value", {kv, c});
  all_layers("projection", {c, c});
  all_layers("norm2", {c});
  all_layers("gate", {f, c});
  all_layers("down", {c, f});
  all_layers("up", {f, c});
  visit(std::string("final_norm"), Shape{c});
  rope();
  if (!m.tied) visit(std::string("head"), Shape{m.vocab, c});
}

/// The legacy tables: cosines (T, D/2), then sines (T, D/2), of t · 10000^(-2i/D).
inline std::vector<float> llama_rope_tables(const LlamaSizes& m) {
  const int half = m.channels / m.heads / 2;
  const std::size_t size = static_cast<std::size_t>(m.context) * static_cast<std::size_t>(half);
  std::vector<float> tables(2 * size);
  for (std::size_t at = 0; at < size; ++at) {
    const int t = static_cast<int>(at / static_cast<std::size_t>(half));
    const int i = static_cast<int>(at % static_cast<std::size_t>(half));
    const float frequency =
        1.0f / static_cast<float>(real::pow(10000.0, static_cast<double>(i) / half));
    const float angle = static_cast<float>(t) * frequency;
    tables[at] = static_cast<float>(real::cos(static_cast<double>(angle)));
    tables[size + at] = static_cast<float>(real::sin(static_cast<double>(angle)));
  }
  return tables;
}

}  // namespace detail

/// Opens a llama2.c version 0 model. DataError unless the sizes make sense and give the file's
/// size.
inline LlamaView view_llama(const std::string& path, Where where = Where::here()) {
  LlamaView m;
  m.file = MappedFile(path, where);
  const std::string_view bytes = m.file.bytes();
  const auto bad = [&](const std::string& what) {
    fail<DataError>(str("[llama] ", shown(path), ": ", what,
                        ". HINT: expected a llama2.c version 0 model (.bin); the file is "
                        "truncated, corrupt or of another format"),
                    where);
  };
  if (bytes.size() < detail::kLlamaHeader)
    bad(str("expected a header of ", detail::kLlamaHeader, " bytes; the file has ", bytes.size()));
  std::int32_t h[7];
  std::memcpy(h, bytes.data(), sizeof h);
  if (h[5] == INT_MIN) bad("the vocabulary size makes no sense");
  static_cast<LlamaSizes&>(m) = {h[0], h[1], h[2], h[3], h[4], std::abs(h[5]), h[6], h[5] > 0};
  const std::string sizes =
      str("dim ", m.channels, ", hidden ", m.hidden, ", layers ", m.layers, ", heads ", m.heads,
          ", kv_heads ", m.kv_heads, ", vocab ", m.vocab, ", context ", m.context);
  const std::string complaint = detail::llama_complaint(m);
  if (!complaint.empty()) bad(str(complaint, " (", sizes, ")"));
  if (detail::llama_bytes(m) != bytes.size())
    bad(str("the sizes in its header (", sizes, ") do not give the file's ", bytes.size(),
            " bytes"));
  std::size_t at = detail::kLlamaHeader;
  const auto take = [&](std::string name, const Shape& shape) {
    const std::size_t size = static_cast<std::size_t>(shape.size()) * sizeof(float);
    m.arrays.push_back({std::move(name), Dtype::F32, shape, bytes.substr(at, size)});
    at += size;
  };
  const std::size_t tables = static_cast<std::size_t>(m.context) *
                             static_cast<std::size_t>(m.channels / m.heads) * sizeof(float);
  detail::for_each_llama_array(m, take, [&] { at += tables; });
  m.names = NameIndex(m.arrays);
  return m;
}

/// Reads such a model, as above, into floats of its own.
inline LlamaFile read_llama(const std::string& path, Where where = Where::here()) {
  const LlamaView view = view_llama(path, where);
  LlamaFile m{view, {}};
  for (const ArrayView& array : view.arrays) m.arrays.push_back(to_owned(array));
  return m;
}

/// Writes a llama2.c version 0 model, atomically. ShapeError if the sizes make no sense or an array
/// is missing or of another shape.
inline void write_llama(const std::string& path, const LlamaFile& m, Where where = Where::here()) {
  const std::string complaint = detail::llama_complaint(m);
  if (!complaint.empty()) fail(str("[llama] cannot write ", shown(path), ": ", complaint), where);
  const std::int32_t header[7] = {
      m.channels, m.hidden, m.layers, m.heads, m.kv_heads, m.tied ? m.vocab : -m.vocab, m.context};
  const NameIndex names(m.arrays);
  write_atomically(
      path,
      [&](auto put) {
        put(as_text(std::span<const std::int32_t>(header)));
        const auto write = [&](const std::string& name, const Shape& shape) {
          const OwnedArray* array = names.find(m.arrays, name);
          if (array == nullptr || array->shape != shape ||
              static_cast<Index>(array->data.size()) != shape.size())
            fail(
                str("[llama] cannot write ", shown(path), ": expected array '", name, "' of shape ",
                    shape, "; ", array == nullptr ? "it is missing" : str("it is ", array->shape)),
                where);
          put(as_text(std::span<const float>(array->data)));
        };
        detail::for_each_llama_array(
            m, write, [&] { put(as_text(std::span<const float>(detail::llama_rope_tables(m)))); });
      },
      where);
}

}}  // namespace plumb::v0_1
