// Opens the region of the NEON kernels: see simd_begin_scalar.hpp. The instructions are the
// baseline's, so no target is named; clang's region is there for simd_end.hpp to close.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((annotate("plumb"))), apply_to = function)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#endif
