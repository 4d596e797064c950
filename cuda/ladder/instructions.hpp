// How many instructions the threads have executed: nvcc's PTX can say (instructions_ptx.cpp),
// kernels that the host's compiler compiled cannot (instructions_source.cpp).
#pragma once

#include <cstdint>

namespace plumb { inline namespace v0_1 { namespace ladder {

bool counts_instructions();
/// Of all threads, since the last call.
std::uint64_t take_instructions();

}}}  // namespace plumb::v0_1::ladder
