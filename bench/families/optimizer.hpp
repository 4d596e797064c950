// Optimizers on one flat buffer, and the sum of squares that clipping needs, on any device.
#pragma once

#include <plumb/bench.hpp>
#include <plumb/cpu/reference_optimizer.hpp>

#include "cases/optimizer.hpp"
#include "families/support.hpp"

namespace families {

inline constexpr plumb::AdamWStep kAdamW{.lr = 1e-4F,
                                         .beta1 = 0.9F,
                                         .beta2 = 0.999F,
                                         .eps = 1e-8F,
                                         .weight_decay = 0.1F,
                                         .grad_scale = 0.5F,
                                         .step = 100,
                                         .eps_inside = false};
inline constexpr plumb::SgdStep kSgd{
    .lr = 1e-3F, .momentum = 0.9F, .weight_decay = 0.01F, .grad_scale = 0.5F, .nesterov = true};
inline constexpr plumb::LionStep kLion{.lr = 1e-4F,
                                       .one_minus_beta1 = 0.1F,
                                       .one_minus_beta2 = 0.01F,
                                       .minus_decay = -1e-5F,
                                       .grad_scale = 0.5F};

template <class D, class Table>
void add_adamw(const Table& table) {
  using cases::optimizer::Case;
  add(
      "adamw",
      [](D device, float* parameter, const float* grad, float* m, float* v, Index n) {
        adamw_update(device, parameter, grad, m, v, n, kAdamW);
      },
      each_of(table,
              [](const Case& k) {
                const double tolerance = cases::optimizer::kTolerance;
                return arguments(inout(k.n, tolerance), in(k.n), inout(k.n, tolerance, -0.1, 0.1),
                                 inout(k.n, tolerance, 1e-4, 0.1), k.n);
              }),
      [](const Places& places, Results parameter, Doubles grad, Results m, Results v, Index n) {
        for (const Index i : places(n))
          plumb::reference::adamw_element(parameter[at(i)], m[at(i)], v[at(i)], grad[at(i)],
                                          kAdamW);
      },
      cases::optimizer::adamw_work);
}

/// sgd and lion: a parameter and one moment.
template <class Run, class Exact, class Table>
void add_with_momentum(const char* name, Run run, Exact exact, const Table& table) {
  using cases::optimizer::Case;
  add(
      name, run,
      each_of(table,
              [](const Case& k) {
                const double tolerance = cases::optimizer::kTolerance;
                return arguments(inout(k.n, tolerance), in(k.n), inout(k.n, tolerance, -0.1, 0.1),
                                 k.n);
              }),
      [=](const Places& places, Results parameter, Doubles grad, Results m, Index n) {
        for (const Index i : places(n)) exact(parameter[at(i)], m[at(i)], grad[at(i)]);
      },
      cases::optimizer::momentum_work);
}

template <class D, class Table>
void add_momentum(const Table& table) {
  add_with_momentum(
      "sgd",
      [](D device, float* parameter, const float* grad, float* m, Index n) {
        sgd_update(device, parameter, grad, m, n, kSgd);
      },
      [](double& p, double& m, double g) { plumb::reference::sgd_element(p, m, g, kSgd); }, table);
  add_with_momentum(
      "lion",
      [](D device, float* parameter, const float* grad, float* m, Index n) {
        lion_update(device, parameter, grad, m, n, kLion);
      },
      [](double& p, double& m, double g) { plumb::reference::lion_element(p, m, g, kLion); },
      table);
}

/// Its result comes back to the host, which is what clipping waits for.
template <class D, class Table>
void add_sum_of_squares(const Table& table) {
  using cases::optimizer::Case;
  static_assert(plumb::on_host<D>, "the result is the host's: there is no array on the device");
  add(
      "sum_of_squares",
      [](D device, double* sum, const float* x, Index n) { *sum = sum_of_squares(device, x, n); },
      each_of(table,
              [](const Case& k) {
                return arguments(out<double>(1, cases::optimizer::kTolerance), in(k.n), k.n);
              }),
      [](Results sum, Doubles x, Index n) {
        sum[0] = plumb::reference::sum_of_squares(x.data(), n);
      },
      cases::optimizer::squares_work);
}

}  // namespace families
