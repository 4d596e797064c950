// The one translation unit of plumb::kernels: every CPU kernel, for every instruction set.
#define PLUMB_KERNELS_IMPLEMENTATION
#include <plumb/cpu/kernels.hpp>
