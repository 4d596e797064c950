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
