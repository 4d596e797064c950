// What a translation made by ptx_translate.py tells the emulator about itself: its kernels, the
// places of its memory and warp operations, its constant tables and how often each instruction ran.
//
// A translation registers itself before main(); the launch stubs of nvcc's object register theirs,
// with the fatbin that holds the same PTX. The two meet at the first launch (ptx_runtime.cpp), by
// the hash of that fatbin, so that a stale translation is refused instead of run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace plumb::emulator::ptx {

class Thread;

/// Where an instruction stands that can go wrong, and the memory that it touched last.
struct Site {
  const char* function;  ///< mangled name of the kernel or device function
  const char* opcode;
  int line;            ///< in the PTX
  const char* source;  ///< file and line in the CUDA source, if compiled with -lineinfo
  int source_line;
  // Set at run time.
  const char* file = nullptr;  ///< name for reports
  std::uintptr_t number = 0;   ///< for describe_site
  // The allocation of the last access: an address passes if it is below `limit` from `low`.
  std::uintptr_t low = 0, limit = 0;
};

struct Parameter {
  std::size_t offset, bytes;
};

struct Entry {
  const char* name;
  void (*run)(const void* parameters);
  const Parameter* parameters;
  std::size_t parameter_count, parameter_bytes;
  std::size_t static_shared;
  unsigned max_threads;  ///< of __launch_bounds__, or 0
};

/// A .global or .const variable: nvcc's tables and strings.
struct Data {
  std::byte* start;
  std::size_t bytes;
  bool constant;
};

struct Module {
  const char* target;    ///< sm_80
  const char* name;      ///< of the PTX file
  std::uint64_t fatbin;  ///< hash, 0 if the translation was not tied to an object
  const Entry* entries;
  std::size_t entry_count;
  Site* sites;
  std::size_t site_count;
  const Data* data;
  std::size_t data_count;
  // Basic block b ran executed[b] times and holds opcodes[block_opcodes[i]] for i from
  // block_starts[b] to block_starts[b + 1].
  std::uint64_t* executed;
  const std::uint32_t* block_starts;
  const std::uint16_t* block_opcodes;
  std::size_t block_count;
  const char* const* opcodes;
  std::size_t opcode_count;
  std::uint64_t launch = 0;  ///< the launch whose allocations `sites` remember
};

struct Registration {
  explicit Registration(Module& module);
};

/// FNV-1a over the 8-byte words of a fatbin, header included.
std::uint64_t fatbin_hash(const void* fatbin);

/// How often each instruction was issued by a thread since the last reset, predicated off or not.
struct InstructionCount {
  std::string opcode;
  std::uint64_t count;
};
std::vector<InstructionCount> instruction_counts();
void reset_instruction_counts();

}  // namespace plumb::emulator::ptx
