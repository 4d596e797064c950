// Matrix products on any device. While it is timed, the weights (NN, NT: B; TN: their gradient C)
// rotate through more than the caches hold, as a model's layers do.
#pragma once

#include <plumb/bench.hpp>
#include <plumb/cpu/gemm.hpp>

#include <algorithm>
#include <string>
#include <vector>

#include "cases/gemm.hpp"
#include "families/support.hpp"

namespace families {

using plumb::Form;

/// Of an element that is a sum of k products of values of size 1.
inline double product_tolerance(const cases::gemm::Case& k) {
  return cases::gemm::kTolerance * std::max(1.0, 0.25 * double(k.k));
}

/// Σ A·B of element `to` of C, operands as round(x) gives them.
template <class Round>
double product_of(Doubles a, Doubles b, Index to, const cases::gemm::Case& k, Round round) {
  const Index i = to / k.n, j = to % k.n;
  double sum = 0;
  for (Index p = 0; p < k.k; ++p)
    sum += round(a[at(k.form == Form::TN ? p * k.m + i : i * k.k + p)]) *
           round(b[at(k.form == Form::NT ? j * k.k + p : p * k.n + j)]);
  return sum;
}

/// How a device's products differ: operands as round(x) gives them, sums in an order of their own.
template <class Round>
struct Precision {
  Round round;
  bool bf16 = false, tf32 = false;
  bool same_bits = true;
  double tolerance = 1;  ///< times as much as float's

  Work of(Work work) const {
    work.bf16 = bf16;
    work.tf32 = tf32;
    work.footprint = 0;  // of all copies
    return work;
  }
};
inline const auto as_it_is = [](double x) { return x; };
inline const auto as_bf16 = [](double x) {
  return static_cast<double>(static_cast<float>(plumb::product_bf16(static_cast<float>(x))));
};
template <class D>
auto precision_of() {
  if constexpr (plumb::rounds_products<D>)
    return Precision<decltype(as_bf16)>{as_bf16, true};
  else
    return Precision<decltype(as_it_is)>{as_it_is};
}

template <class D, class Table, class Round>
void add_gemm(const std::string& name, const Table& table, const Precision<Round>& precision) {
  using cases::gemm::Case;
  std::vector<Case> storing, adding;
  for (const Case& k : table) (cases::gemm::accumulates(k) ? adding : storing).push_back(k);
  const auto kernel = [](D device, float* c, const float* a, const float* b, Case k) {
    matmul(device, c, a, b, k.m, k.n, k.k, k.form, cases::gemm::accumulates(k));
  };
  const auto oracle = [=](const Places& places, Results c, Doubles a, Doubles b, Case k) {
    for (const Index to : places(k.m * k.n)) {
      const double before = cases::gemm::accumulates(k) ? c[at(to)] : 0;
      c[at(to)] = before + product_of(a, b, to, k, precision.round);
    }
  };
  const auto work = [=](const Case& k) { return precision.of(cases::gemm::work(k)); };
  add(name, kernel,
      each_of(storing,
              [=](const Case& k) {
                auto list = arguments(out(k.m * k.n, precision.tolerance * product_tolerance(k)),
                                      in(k.m * k.k), rotating(in(k.k * k.n)), k);
                list.same_bits = precision.same_bits;
                return list;
              }),
      oracle, work);
  add(name, kernel,
      each_of(adding,
              [=](const Case& k) {
                auto list = arguments(
                    rotating(inout(k.m * k.n, precision.tolerance * product_tolerance(k))),
                    in(k.m * k.k), in(k.k * k.n), k);
                list.same_bits = precision.same_bits;
                return list;
              }),
      oracle, work);
}
template <class D, class Table>
void add_gemm(const std::string& name, const Table& table) {
  add_gemm<D>(name, table, precision_of<D>());
}

/// The form NT with weights packed as T before: generation.
template <class D, class T, class Table>
void add_gemm_packed(const std::string& name, const Table& table) {
  using cases::gemm::Case;
  const auto precision = precision_of<D>();
  add(
      name,
      [](D device, float* c, const float* a, const T* packed, Case k) {
        matmul_packed(device, c, a, packed, k.m, k.n, k.k);
      },
      each_of(table,
              [](const Case& k) {
                const Index size = plumb::kernels::packed_size(Cpu{}, k.n, k.k);
                return arguments(out(k.m * k.n, product_tolerance(k)), in(k.m * k.k),
                                 rotating(in<T>(size)), k);
              }),
      [=](const Places& places, Results c, Doubles a, Doubles packed, Case k) {
        std::vector<T> values;
        for (const double x : packed) values.push_back(T(static_cast<float>(x)));
        std::vector<float> weights(at(k.n * k.k));
        plumb::kernels::unpack_matrix(Cpu{}, weights.data(), values.data(), k.n, k.k);
        const std::vector<double> b(weights.begin(), weights.end());
        for (const Index to : places(k.m * k.n))
          c[at(to)] = product_of(a, b, to, k, precision.round);
      },
      [=](const Case& k) { return precision.of(cases::gemm::work(k, double(sizeof(T)))); });
}

}  // namespace families
