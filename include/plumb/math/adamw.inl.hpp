// One element of AdamW; see cpu/optimizer.hpp. Included like elementary.inl.hpp, after it.

struct AdamWElement {
  V parameter, m, v;
};

PLUMB_FORMULA AdamWElement adamw_element(AdamWElement old, V grad, const AdamWScalars& scalars) {
  const V g = grad * set(scalars.grad_scale);
  const V p = fma(old.parameter, set(scalars.minus_decay), old.parameter);
  const V m = fma(set(scalars.one_minus_beta1), g - old.m, old.m);
  const V v = fma(set(scalars.one_minus_beta2) * g, g, set(scalars.beta2) * old.v);
  const V root = fma(sqrt(v), set(scalars.root_scale), set(scalars.eps));
  return {fma(set(scalars.minus_step_size), m / root, p), m, v};
}

struct MomentumElement {
  V parameter, m;
};

/// Gradient descent with momentum, as PyTorch's.
PLUMB_FORMULA MomentumElement sgd_element(MomentumElement old, V grad, const SgdStep& step) {
  const V g = fma(old.parameter, set(step.weight_decay), grad * set(step.grad_scale));
  const V m = fma(set(step.momentum), old.m, g);
  const V along = step.nesterov ? fma(set(step.momentum), m, g) : m;
  return {fma(set(-step.lr), along, old.parameter), m};
}

/// Lion (Chen et al. 2023): the sign of a mean of gradient and momentum.
PLUMB_FORMULA MomentumElement lion_element(MomentumElement old, V grad, const LionStep& step) {
  const V g = grad * set(step.grad_scale);
  const V mean = fma(set(step.one_minus_beta1), g - old.m, old.m);
  const V sign = select(less(set(0.0F), mean), set(1.0F),
                        select(less(mean, set(0.0F)), set(-1.0F), set(0.0F)));
  const V p = fma(old.parameter, set(step.minus_decay), old.parameter);
  return {fma(set(-step.lr), sign, p), fma(set(step.one_minus_beta2), g - old.m, old.m)};
}
