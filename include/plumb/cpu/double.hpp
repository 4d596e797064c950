// The kernels of ops in double precision, as plain loops on one thread: for checking gradients and
// for studies that float would blur, of Tensor<Cpu, double>. And the ones that move int32 about.
// Here: those of elements, rows and products; and by inclusion norms, attention, head and losses.
// What this is not: fast, or a way to generate: sampling and caches are in float alone.
#pragma once

#include <plumb/core/device.hpp>
#include <plumb/core/real.hpp>
#include <plumb/cpu/double_attention.hpp>
#include <plumb/cpu/double_loss.hpp>
#include <plumb/cpu/double_rows.hpp>
#include <plumb/math/elementwise.hpp>
#include <plumb/math/gemm.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace plumb { inline namespace v0_1 { namespace kernels {

template <class T>
inline constexpr bool not_float = std::is_same_v<T, double> || std::is_same_v<T, std::int32_t>;

namespace in_double {

inline double tanh(double x) {
  const double t = real::expm1(-2 * std::fabs(x)), y = -t / (t + 2);
  return x < 0 ? -y : y;
}

/// 2/√π · e^(-x²) · Σ 2^n x^(2n+1) / (2n+1)!!, whose terms have one sign; 1 from 6 on.
inline double erf(double x) {
  if (!(std::fabs(x) < 6)) return x > 0 ? 1 : x < 0 ? -1 : x;
  double term = x, sum = x;
  for (int n = 1; std::fabs(term) > 1e-17 * std::fabs(sum); ++n) {
    term *= 2 * x * x / (2 * n + 1);
    sum += term;
  }
  return 1.1283791670955126 * real::exp(-x * x) * sum;
}

inline double function(Function f, double x) {
  switch (f) {
    case Function::Exp: return real::exp(x);
    case Function::Log: return real::log(x);
    case Function::Erf: return erf(x);
    case Function::Sqrt: return __builtin_sqrt(x);
    case Function::Sigmoid: return sigmoid(x);
    case Function::Softplus: break;
  }
  return softplus(x);
}

inline double function_slope(Function f, double x) {
  switch (f) {
    case Function::Exp: return real::exp(x);
    case Function::Log: return 1 / x;
    case Function::Erf: return 1.1283791670955126 * real::exp(-x * x);
    case Function::Sqrt: return 0.5 / __builtin_sqrt(x);
    case Function::Sigmoid: return sigmoid(x) * sigmoid(-x);
    case Function::Softplus: break;
  }
  return sigmoid(x);
}

inline double activation(Activation f, double x) {
  switch (f) {
    case Activation::Gelu: return x * sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x));
    case Activation::Silu: return x * sigmoid(x);
    case Activation::Tanh: return tanh(x);
    case Activation::GeluErf: return x / 2 * (1 + erf(x * 0.7071067811865476));
    case Activation::Relu: break;
  }
  return x > 0 || x != x ? x : 0;
}

inline double activation_slope(Activation f, double x) {
  switch (f) {
    case Activation::Gelu: {
      const double u = 1.5957691216057308 * (x + 0.044715 * x * x * x);
      const double slope = 1.5957691216057308 * (1 + 0.134145 * x * x);
      return sigmoid(u) * (1 + x * sigmoid(-u) * slope);
    }
    case Activation::Silu: return sigmoid(x) * (1 + x * sigmoid(-x));
    case Activation::Tanh: return 1 - tanh(x) * tanh(x);
    case Activation::GeluErf:
      return (1 + erf(x * 0.7071067811865476)) / 2 + x * 0.3989422804014327 * real::exp(-x * x / 2);
    case Activation::Relu: break;
  }
  return x > 0 ? 1 : 0;
}

inline double combined(Arithmetic f, double a, double b) {
  switch (f) {
    case Arithmetic::Add: return a + b;
    case Arithmetic::Subtract: return a - b;
    case Arithmetic::Multiply: return a * b;
    case Arithmetic::Divide: return a / b;
    case Arithmetic::Minimum: return a < b || a != a ? a : b;
    case Arithmetic::Maximum: break;
  }
  return a > b || a != a ? a : b;
}

inline double slope_by(Arithmetic f, bool by_a, double a, double b) {
  const double half = a == b ? 0.5 : 0;
  switch (f) {
    case Arithmetic::Add: return 1;
    case Arithmetic::Subtract: return by_a ? 1 : -1;
    case Arithmetic::Multiply: return by_a ? b : a;
    case Arithmetic::Divide: return by_a ? 1 / b : -a / b / b;
    case Arithmetic::Minimum: return (by_a ? a < b : b < a) ? 1 : half;
    case Arithmetic::Maximum: break;
  }
  return (by_a ? a > b : b > a) ? 1 : half;
}

inline double at(Operand<double> x, Index i, Index j) { return x.data[i * x.row + j * x.column]; }

}  // namespace in_double

template <class T>
  requires not_float<T>
void assign(Cpu, T* y, Index row, Operand<T> x, T factor, bool accumulate, Index n, Index c) {
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < c; ++j) {
      T& to = y[i * row + j];
      to = (accumulate ? to : T{0}) + factor * x.data[i * x.row + j * x.column];
    }
}
template <class T>
  requires not_float<T>
void embedding_forward(Cpu, T* y, const T* table, const std::int32_t* ids, Index n, Index c) {
  for (Index i = 0; i < n; ++i) std::copy_n(table + ids[i] * c, c, y + i * c);
}
template <class T>
  requires not_float<T>
void embedding_backward(Cpu, T* dtable, const T* dy, const std::int32_t* ids, Index n, Index c,
                        Index) {
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < c; ++j) dtable[ids[i] * c + j] += dy[i * c + j];
}
template <class T>
  requires not_float<T>
void transpose(Cpu, T* y, const T* x, Index batch, Index n, Index c) {
  for (Index b = 0; b < batch; ++b)
    for (Index i = 0; i < n; ++i)
      for (Index j = 0; j < c; ++j) y[(b * c + j) * n + i] = x[(b * n + i) * c + j];
}
template <class T>
  requires not_float<T>
void pick_forward(Cpu, T* y, const T* x, const std::int32_t* ids, Index n, Index c) {
  for (Index i = 0; i < n; ++i) y[i] = x[i * c + ids[i]];
}
template <class T>
  requires not_float<T>
void argmax_rows(Cpu, std::int32_t* ids, const T* x, Index n, Index c) {
  for (Index i = 0; i < n; ++i) {
    Index best = 0;
    for (Index j = 0; j < c && x[i * c + best] == x[i * c + best]; ++j)
      if (!(x[i * c + j] <= x[i * c + best])) best = j;
    ids[i] = static_cast<std::int32_t>(best);
  }
}

template <class T>
  requires not_float<T>
void pick_backward(Cpu, T* dx, const T* dy, const std::int32_t* ids, Index n, Index c) {
  for (Index i = 0; i < n; ++i) dx[i * c + ids[i]] += dy[i];
}
template <class T>
  requires not_float<T>
void accumulate(Cpu, T* y, const T* x, T factor, Index n) {
  for (Index i = 0; i < n; ++i) y[i] += factor * x[i];
}
inline void accumulate_by(Cpu device, double* y, const double* x, const double* factor, Index n) {
  accumulate(device, y, x, *factor, n);
}
inline void scale_forward(Cpu, double* y, const double* x, double factor, Index n) {
  for (Index i = 0; i < n; ++i) y[i] = factor * x[i];
}
inline void shift_forward(Cpu, double* y, const double* x, double term, Index n) {
  for (Index i = 0; i < n; ++i) y[i] = x[i] + term;
}
inline void clamp_forward(Cpu, double* y, const double* x, double low, double high, Index n) {
  for (Index i = 0; i < n; ++i) y[i] = x[i] < low ? low : x[i] > high ? high : x[i];
}
inline void clamp_backward(Cpu, double* dx, const double* dy, const double* x, double low,
                           double high, Index n) {
  for (Index i = 0; i < n; ++i) dx[i] += x[i] < low || x[i] > high ? 0 : dy[i];
}
inline void function_forward(Cpu, double* y, const double* x, Function f, Index n) {
  for (Index i = 0; i < n; ++i) y[i] = in_double::function(f, x[i]);
}
inline void function_backward(Cpu, double* dx, const double* dy, const double* x, Function f,
                              Index n) {
  for (Index i = 0; i < n; ++i) dx[i] += dy[i] * in_double::function_slope(f, x[i]);
}
inline void activation_forward(Cpu, double* y, const double* x, Activation f, Index n) {
  for (Index i = 0; i < n; ++i) y[i] = in_double::activation(f, x[i]);
}
inline void activation_backward(Cpu, double* dx, const double* dy, const double* x, Activation f,
                                Index n) {
  for (Index i = 0; i < n; ++i) dx[i] += dy[i] * in_double::activation_slope(f, x[i]);
}
inline void swiglu_forward(Cpu, double* y, const double* gate, const double* up, Index n) {
  for (Index i = 0; i < n; ++i) y[i] = in_double::activation(Activation::Silu, gate[i]) * up[i];
}
inline void swiglu_backward(Cpu, double* dgate, double* dup, const double* dy, const double* gate,
                            const double* up, Index n) {
  for (Index i = 0; i < n; ++i) {
    dgate[i] += dy[i] * up[i] * in_double::activation_slope(Activation::Silu, gate[i]);
    dup[i] += dy[i] * in_double::activation(Activation::Silu, gate[i]);
  }
}
inline void combine_forward(Cpu, double* y, Operand<double> a, Operand<double> b, Arithmetic f,
                            Index n, Index c) {
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < c; ++j)
      y[i * c + j] = in_double::combined(f, in_double::at(a, i, j), in_double::at(b, i, j));
}
inline void combine_backward(Cpu, double* d, const double* dy, Operand<double> a, Operand<double> b,
                             Arithmetic f, bool by_a, Index n, Index c) {
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < c; ++j)
      d[i * c + j] += dy[i * c + j] *
                      in_double::slope_by(f, by_a, in_double::at(a, i, j), in_double::at(b, i, j));
}
inline void sum_rows(Cpu, double* total, const double* x, Index n, Index c) {
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < c; ++j) total[j] += x[i * c + j];
}
inline void row_sums(Cpu, double* y, const double* x, Index n, Index c, bool accumulate) {
  for (Index i = 0; i < n; ++i) {
    double total = accumulate ? y[i] : 0;
    for (Index j = 0; j < c; ++j) total += x[i * c + j];
    y[i] = total;
  }
}

/// log Σ e^x of count values, `apart` from one another.
inline double logsumexp(const double* x, Index count, Index apart) {
  double most = -1.7976931348623157e308, total = 0;
  for (Index i = 0; i < count; ++i) most = std::max(most, x[i * apart]);
  for (Index i = 0; i < count; ++i) total += real::exp(x[i * apart] - most);
  return most + real::log(total);
}

inline void softmax_rows(Cpu, double* y, const double* x, Index n, Index c, bool log) {
  for (Index i = 0; i < n; ++i, x += c, y += c) {
    const double all = logsumexp(x, c, 1);
    for (Index j = 0; j < c; ++j) y[j] = log ? x[j] - all : real::exp(x[j] - all);
  }
}
inline void softmax_rows_backward(Cpu, double* dx, const double* dy, const double* y, Index n,
                                  Index c, bool log) {
  for (Index i = 0; i < n; ++i, dx += c, dy += c, y += c) {
    double all = 0;
    for (Index j = 0; j < c; ++j) all += log ? dy[j] : dy[j] * y[j];
    for (Index j = 0; j < c; ++j)
      dx[j] += log ? dy[j] - real::exp(y[j]) * all : y[j] * (dy[j] - all);
  }
}
inline void group_sums(Cpu device, double* y, const double* x, const std::int32_t* offsets,
                       Index groups, Index c) {
  std::fill_n(y, groups * c, 0.0);
  for (Index g = 0; g < groups; ++g)
    sum_rows(device, y + g * c, x + offsets[g] * c, offsets[g + 1] - offsets[g], c);
}
inline void group_sums_backward(Cpu, double* dx, const double* dy, const std::int32_t* offsets,
                                Index groups, Index c) {
  for (Index g = 0; g < groups; ++g)
    for (Index i = offsets[g]; i < offsets[g + 1]; ++i)
      for (Index j = 0; j < c; ++j) dx[i * c + j] += dy[g * c + j];
}
inline void group_logsumexp(Cpu, double* y, const double* x, const std::int32_t* offsets,
                            Index groups, Index c) {
  for (Index g = 0; g < groups; ++g)
    for (Index j = 0; j < c; ++j)
      y[g * c + j] = logsumexp(x + offsets[g] * c + j, offsets[g + 1] - offsets[g], c);
}
inline void group_logsumexp_backward(Cpu, double* dx, const double* dy, const double* x,
                                     const double* y, const std::int32_t* offsets, Index groups,
                                     Index c) {
  for (Index g = 0; g < groups; ++g)
    for (Index i = offsets[g]; i < offsets[g + 1]; ++i)
      for (Index j = 0; j < c; ++j)
        dx[i * c + j] += dy[g * c + j] * real::exp(x[i * c + j] - y[g * c + j]);
}

inline void matmul(Cpu, double* c, const double* a, const double* b, Index m, Index n, Index k,
                   Form form, bool accumulate = false, EpilogueOf<double> epilogue = {}) {
  for (Index i = 0; i < m; ++i)
    for (Index j = 0; j < n; ++j) {
      double sum = accumulate ? c[i * n + j] : 0;
      for (Index p = 0; p < k; ++p)
        sum += (form == Form::TN ? a[p * m + i] : a[i * k + p]) *
               (form == Form::NT ? b[j * k + p] : b[p * n + j]);
      if (epilogue.bias != nullptr) sum += epilogue.bias[j];
      if (epilogue.residual != nullptr) sum += epilogue.residual[i * n + j];
      c[i * n + j] = sum;
      if (epilogue.activated != nullptr)
        epilogue.activated[i * n + j] = in_double::activation(epilogue.activation, sum);
    }
}
inline void matmul_batched(Cpu device, double* c, const double* a, const double* b, Index batch,
                           Index m, Index n, Index k, Form form, bool accumulate) {
  for (Index i = 0; i < batch; ++i)
    matmul(device, c + i * m * n, a + i * m * k, b + i * k * n, m, n, k, form, accumulate);
}

}}}  // namespace plumb::v0_1::kernels
