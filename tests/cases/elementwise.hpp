// Cases of cpu/elementwise.hpp: one pass over n elements.
#pragma once

#include <cstddef>
#include <string>

#include "work.hpp"

namespace cases::elementwise {

enum class Op {
  Add,
  Accumulate,
  GeluForward,
  GeluBackward,
  GeluErfForward,
  GeluErfBackward,
  SwigluForward,
  SwigluBackward,
  Exp,
  Log,
  Tanh,
  Erf,
  Sqrt,
  Sigmoid,
  Softplus,
  Clamp,
  Shift,
  Divide,
  Minimum
};

struct Case {
  Op op;
  Index n;
};

/// For every op: around the widths of registers and the 32 lanes.
inline constexpr Index kSmall[] = {0, 1, 2, 7, 8, 15, 16, 17, 31, 33, 63, 65, 127, 255, 257, 20011};

/// What an op does for each element, and the largest error allowed, relative to max(1, |exact|).
struct Entry {
  Op op;
  const char* name;
  Index read, written, in_place;  ///< floats an element; in_place: of the written, read before
  Index extra;                    ///< see Work
  double tolerance;
};
inline constexpr Entry kOps[] = {
    {Op::Add, "add", 2, 1, 0, 0, 0x1p-24},
    {Op::Accumulate, "accumulate", 2, 1, 1, 0, 0x1p-24},
    {Op::GeluForward, "gelu_forward", 1, 1, 0, 6 + kTanh, 4e-7},
    {Op::GeluBackward, "gelu_backward", 3, 1, 1, 12 + kTanh, 1e-6},
    {Op::GeluErfForward, "gelu_erf_forward", 1, 1, 0, 3 + kErf, 4e-7},
    {Op::GeluErfBackward, "gelu_erf_backward", 3, 1, 1, 7 + kErf + kExp, 1e-6},
    {Op::SwigluForward, "swiglu_forward", 2, 1, 0, 2 + kSigmoid, 4e-7},
    {Op::SwigluBackward, "swiglu_backward", 5, 2, 2, 6 + kSigmoid, 2e-6},
    {Op::Exp, "exp", 1, 1, 0, kExp, 4e-7},
    {Op::Log, "log", 1, 1, 0, kLog, 4e-7},
    {Op::Tanh, "tanh", 1, 1, 0, kTanh, 4e-7},
    {Op::Erf, "erf", 1, 1, 0, kErf, 4e-7},
    {Op::Sqrt, "sqrt", 1, 1, 0, 1, 0x1p-23},
    {Op::Sigmoid, "sigmoid", 1, 1, 0, kSigmoid, 4e-7},
    {Op::Softplus, "softplus", 1, 1, 0, kExp + kLog + 1, 4e-7},
    {Op::Clamp, "clamp", 1, 1, 0, 0, 0x1p-24},
    {Op::Shift, "shift", 1, 1, 0, 0, 0x1p-24},
    {Op::Divide, "divide", 2, 1, 0, 1, 0x1p-23},
    {Op::Minimum, "minimum", 2, 1, 0, 0, 0},
};
constexpr const Entry& entry(Op op) { return kOps[static_cast<std::size_t>(op)]; }

/// A hidden layer's activations, the same with one element more, the yardstick's sum, and as many
/// as the second cache holds.
inline constexpr Index kTimedSizes[] = {4096 * 1024, 4096 * 1024 + 1, 3072 * 768, 32 * 1024};
constexpr Work work(const Case& c) {
  const Entry& e = entry(c.op);
  return with_extra(
      updating(0, floats(e.read * c.n), floats(e.written * c.n), floats(e.in_place * c.n)),
      e.extra * c.n);
}

inline std::string name(const Case& c) { return plumb::str(entry(c.op).name, "/", c.n); }

}  // namespace cases::elementwise
