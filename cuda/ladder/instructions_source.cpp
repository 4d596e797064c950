// Kernels compiled by the host's compiler: its instructions are none of a GPU's.
#include <plumb/core/check.hpp>

#include <ladder/instructions.hpp>

namespace plumb { inline namespace v0_1 { namespace ladder {

bool counts_instructions() { return false; }
std::uint64_t take_instructions() { return 0; }

}}}  // namespace plumb::v0_1::ladder
