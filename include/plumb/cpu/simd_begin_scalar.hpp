// Opens the region of the scalar kernels: no vector instructions asked for, and no contraction of
// a * b + c by the compiler, which would round differently from one instruction set to another.
// Multi-included; closed by simd_end.hpp. Include no other header inside.
#if defined(__clang__)
#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("sse2"))), apply_to = function)
#else
#pragma clang attribute push(__attribute__((annotate("plumb"))), apply_to = function)
#endif
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#endif
