// PTX instructions as nvcc wrote them; ptxas joins, drops and adds some.
#include <emulator/ptx_module.hpp>

#include <plumb/core/check.hpp>

#include <ladder/instructions.hpp>

namespace plumb { inline namespace v0_1 { namespace ladder {

bool counts_instructions() { return true; }

std::uint64_t take_instructions() {
  std::uint64_t sum = 0;
  for (const auto& instruction : emulator::ptx::instruction_counts()) sum += instruction.count;
  emulator::ptx::reset_instruction_counts();
  return sum;
}

}}}  // namespace plumb::v0_1::ladder
