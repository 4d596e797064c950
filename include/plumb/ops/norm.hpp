// RMSNorm and LayerNorm over the last dimension.
#pragma once

#include <plumb/ops/basic.hpp>

#include <type_traits>

namespace plumb { inline namespace v0_1 {

/// y = weight · x / √(mean(x²) + eps) (Zhang and Sennrich 2019). x (N, C), weight (C) -> y (N, C).
template <class D, class T>
Tensor<D, T> rms_norm(const Tensor<D, T>& x, const Tensor<D, T>& weight,
                      std::type_identity_t<T> eps, Where where = Where::here()) {
  detail::require_backend<D>();
  if (x.shape().rank() != 2 || weight.size() != x.dim(1))
    fail(str("[rms_norm] x ", x.shape(), " and weight ", weight.shape(), " do not fit"), where);
  const Index n = x.dim(0), c = x.dim(1);
  auto y = Tensor<D, T>::empty({n, c});
  auto rstd = Tensor<D, T>::empty({n});
  rms_norm_forward(D{}, y.data(), rstd.data(), x.data(), weight.data(), n, c, eps);
  if (recording(x, weight))
    record(y, [y, x, weight, rstd, n, c] {
      rms_norm_backward(D{}, x.requires_grad() ? x.grad() : nullptr,
                        weight.requires_grad() ? weight.grad() : nullptr, y.grad(), x.data(),
                        weight.data(), rstd.data(), n, c);
    });
  return detail::checked("rms_norm", y);
}

/// y = weight · (x - mean) / √(var + eps) + bias, population variance (Ba et al. 2016).
/// x (N, C), weight (C), bias (C) -> y (N, C).
template <class D, class T>
Tensor<D, T> layer_norm(const Tensor<D, T>& x, const Tensor<D, T>& weight, const Tensor<D, T>& bias,
                        std::type_identity_t<T> eps, Where where = Where::here()) {
  detail::require_backend<D>();
  if (x.shape().rank() != 2 || weight.size() != x.dim(1) || bias.size() != x.dim(1))
    fail(str("[layer_norm] x ", x.shape(), ", weight ", weight.shape(), " and bias ", bias.shape(),
             " do not fit"),
         where);
  const Index n = x.dim(0), c = x.dim(1);
  auto y = Tensor<D, T>::empty({n, c});
  auto mean = Tensor<D, T>::empty({n});
  auto rstd = Tensor<D, T>::empty({n});
  layer_norm_forward(D{}, y.data(), mean.data(), rstd.data(), x.data(), weight.data(), bias.data(),
                     n, c, eps);
  if (recording(x, weight, bias))
    record(y, [y, x, weight, bias, mean, rstd, n, c] {
      layer_norm_backward(D{}, x.requires_grad() ? x.grad() : nullptr,
                          weight.requires_grad() ? weight.grad() : nullptr,
                          bias.requires_grad() ? bias.grad() : nullptr, y.grad(), x.data(),
                          weight.data(), mean.data(), rstd.data(), n, c);
    });
  return detail::checked("layer_norm", y);
}

}}  // namespace plumb::v0_1
