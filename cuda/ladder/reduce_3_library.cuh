// Rung 3: many elements a lane, then exchanges between registers: the library's own sum
// (ops/reduce.hpp). A warp takes 4096 elements; a lane adds 128 of them, 32 apart, and five
// exchanges (__shfl_xor_sync) join the lanes. The sums are summed likewise.
//
// Why it helps: a lane's loads are under way together, and the tree comes once for 4096 elements
// and not for 256. Exchanges need no shared memory and no barrier. The order is that of 32 lanes on
// the CPU, and so are the bits.
// Global memory: 4 bytes an element, and 8 for each 4096 of them: 67 MB for 16.8 million, 0.25
// FLOP/B.
// What binds: memory, which is what a sum is for: 43 µs on an A100 (1.56 TB/s), 20 on an H100
// (3.35); for a few rows of 4096, the chain of 128 additions.
#pragma once

#include <plumb/cuda/reduce.cuh>
#include <plumb/ops/reduce.hpp>

namespace plumb { inline namespace v0_1 { namespace ladder::reduce_3 {

/// *result = the sum of x (n), on the device.
inline void sum(Cuda, float* result, const float* x, Index n) {
  detail::sum_all<Cuda>(result, x, n);
}

}}}  // namespace plumb::v0_1::ladder::reduce_3
