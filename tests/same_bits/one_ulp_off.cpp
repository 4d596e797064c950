// Another mathematics library, for LD_PRELOAD: every function that a standard does not fix to the
// bit gives the number next to what the system's own would give, or one that is PLUMB_ULPS_OFF
// doubles away. A program that prints the same with it and without depends on none of them.
#include <cmath>
#include <cstdint>
#include <cstdlib>

#include <dlfcn.h>

namespace {

std::int64_t ulps() {
  static const char* text = std::getenv("PLUMB_ULPS_OFF");
  static const std::int64_t n = text == nullptr ? 1 : std::atoll(text);
  return n;
}
double off(double x) {
  if (!__builtin_isfinite(x)) return x;
  return __builtin_bit_cast(double, __builtin_bit_cast(std::int64_t, x) + ulps());
}
float off(float x) {  // as far, if that is a float at all
  if (!__builtin_isfinite(x)) return x;
  const auto n = static_cast<std::int32_t>((ulps() >> 29) + 1);
  return __builtin_bit_cast(float, __builtin_bit_cast(std::int32_t, x) + n);
}

}  // namespace

// The system's own of that name, found at the first call.
#define PLUMB_OFF(T, name, parameters, arguments)                                \
  extern "C" T name parameters noexcept {                                        \
    using Function = T(*) parameters;                                            \
    static const auto own = reinterpret_cast<Function>(dlsym(RTLD_NEXT, #name)); \
    return off(own arguments);                                                   \
  }
#define PLUMB_OFF_1(name)                  \
  PLUMB_OFF(double, name, (double x), (x)) \
  PLUMB_OFF(float, name##f, (float x), (x))
#define PLUMB_OFF_2(name)                               \
  PLUMB_OFF(double, name, (double x, double y), (x, y)) \
  PLUMB_OFF(float, name##f, (float x, float y), (x, y))

PLUMB_OFF_1(exp)
PLUMB_OFF_1(exp2)
PLUMB_OFF_1(expm1)
PLUMB_OFF_1(log)
PLUMB_OFF_1(log2)
PLUMB_OFF_1(log10)
PLUMB_OFF_1(log1p)
PLUMB_OFF_1(sin)
PLUMB_OFF_1(cos)
PLUMB_OFF_1(tan)
PLUMB_OFF_1(asin)
PLUMB_OFF_1(acos)
PLUMB_OFF_1(atan)
PLUMB_OFF_1(sinh)
PLUMB_OFF_1(cosh)
PLUMB_OFF_1(tanh)
PLUMB_OFF_1(erf)
PLUMB_OFF_1(erfc)
PLUMB_OFF_1(cbrt)
PLUMB_OFF_1(tgamma)
PLUMB_OFF_1(lgamma)
PLUMB_OFF_2(pow)
PLUMB_OFF_2(atan2)
PLUMB_OFF_2(hypot)

extern "C" void sincos(double x, double* sine, double* cosine) noexcept {
  *sine = sin(x);
  *cosine = cos(x);
}
extern "C" void sincosf(float x, float* sine, float* cosine) noexcept {
  *sine = sinf(x);
  *cosine = cosf(x);
}
