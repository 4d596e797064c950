// What nvcc's host code calls behind the back of the program: the launch stubs of `kernel<<<…>>>`,
// which register each kernel's mangled name before main() and launch it later. Together with the
// runtime stand-in it takes the place of libcudart, so that nvcc's object file is linked unchanged;
// the kernels that run are the translations of the PTX which that same nvcc run made.
//
// The prototypes are those of nvcc's own crt/host_runtime.h and crt/device_functions.h, which
// cannot be included here: nvcc pastes them into each host file and no header offers them alone.
#include <emulator/ptx_module.hpp>
#include <emulator/ptx_thread.hpp>
#include <emulator/runtime.hpp>
#include <emulator/setting.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include <cxxabi.h>

namespace plumb::emulator::ptx {

namespace {

// The wrapper that nvcc puts around a fatbin (fatbinary_section.h), and the fatbin's own header.
struct FatbinWrapper {
  std::int32_t magic, version;
  const void* data;
  void* unused;
};
struct FatbinHeader {
  std::uint32_t magic;
  std::uint16_t version, header_bytes;
  std::uint64_t bytes;  // after the header
};
constexpr std::uint32_t kFatbinMagic = 0xBA55ED50;

/// A fatbin that an object registered, with the kernels whose stubs that object holds.
struct Image {
  std::uint64_t hash = 0;
  std::map<std::string, const void*> stubs;  // mangled name -> the host's handle
  std::string refused;                       // why its kernels must not run
};

struct Configuration {
  dim3 grid, block;
  std::size_t shared;
  cudaStream_t stream;
};

/// Everything that is registered; made at the first use, which may come before main().
struct Registry {
  std::mutex mutex;
  std::vector<Image*> images;
  std::vector<Module*> modules;
  std::map<const void*, Image*> owners;  // of a stub
  std::map<const void*, std::string> names;
  std::vector<Site*> sites;  // by number

  static Registry& get() {
    static auto* registry = new Registry;  // outlives the exit handlers
    return *registry;
  }
};

thread_local std::vector<Configuration> configurations;

std::string demangled(const char* name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name, nullptr, nullptr, &status);
  std::string result = status == 0 ? text : name;
  std::free(text);
  return result;
}

/// Of several translations of one object (sm_80, sm_90), the one of PLUMB_PTX_TARGET or the first
/// name.
bool preferred(const Module& a, const Module* b) {
  if (b == nullptr) return true;
  const char* wanted = std::getenv("PLUMB_PTX_TARGET");
  if (wanted != nullptr && std::strncmp(wanted, "sm_", 3) != 0)
    refuse_setting("PLUMB_PTX_TARGET", wanted, "sm_80, sm_90 or another architecture");
  const std::string target = wanted != nullptr ? wanted : "";
  if ((a.target == target) != (b->target == target)) return a.target == target;
  return std::string(a.target) < b->target;
}

const Module* module_for(const Registry& registry, const Image& image) {
  const Module* best = nullptr;
  for (const Module* m : registry.modules)
    if (m->fatbin == image.hash && preferred(*m, best)) best = m;
  return best;
}

/// Makes the kernels of an image known to cudaLaunchKernel, as far as a translation is there.
void bind(const Registry& registry, const Image& image) {
  const Module* module = module_for(registry, image);
  if (module == nullptr || !image.refused.empty()) return;
  for (std::size_t i = 0; i < module->entry_count; ++i) {
    const Entry& entry = module->entries[i];
    const auto stub = image.stubs.find(entry.name);
    if (stub == image.stubs.end()) continue;
    Kernel kernel;
    kernel.name = demangled(entry.name);
    kernel.body = entry.run;
    kernel.function = stub->second;
    kernel.static_shared = entry.static_shared;
    if (entry.max_threads != 0) kernel.max_threads = entry.max_threads;
    for (std::size_t p = 0; p < entry.parameter_count; ++p) {
      kernel.parameter_offsets.push_back(entry.parameters[p].offset);
      kernel.parameter_sizes.push_back(entry.parameters[p].bytes);
    }
    register_kernel(std::move(kernel));
  }
}

std::string base_name(const char* path) {
  const std::string text = path;
  return text.substr(text.find_last_of('/') + 1);
}

/// "norm.cuh:45, kernels.ptx", to which a report adds the PTX's own line.
const char* site_file(const Module& module, const Site& site) {
  std::string text = module.name;
  if (site.source != nullptr)
    text = base_name(site.source) + ":" + std::to_string(site.source_line) + ", " + text;
  return (new std::string(std::move(text)))->c_str();
}

std::string describe(std::uintptr_t number) {
  const Registry& registry = Registry::get();
  if (number == 0 || number > registry.sites.size()) return "an unknown place";
  const Site& site = *registry.sites[number - 1];
  return std::string(site.opcode) + " at " + site.file + ":" + std::to_string(site.line);
}

/// Why a stub has no kernel to launch.
std::string missing(const void* stub) {
  const Registry& registry = Registry::get();
  const auto owner = registry.owners.find(stub);
  if (owner == registry.owners.end()) return "the kernel was never registered";
  if (!owner->second->refused.empty()) return owner->second->refused;
  if (module_for(registry, *owner->second) == nullptr)
    return "no translation of the PTX in this object is linked (or one of another version of it)";
  return "the translation has no such entry";
}

cudaError_t launch(const void* stub, dim3 grid, dim3 block, void** arguments, std::size_t shared,
                   cudaStream_t stream) {
  if (find_kernel(stub) == nullptr) {
    const std::lock_guard lock(Registry::get().mutex);
    const auto name = Registry::get().names.find(stub);
    report("no-translation", "kernel %s: %s",
           name == Registry::get().names.end() ? "?" : name->second.c_str(), missing(stub).c_str());
    return cudaErrorInvalidDeviceFunction;
  }
  return cudaLaunchKernel(stub, grid, block, arguments, shared, stream);
}

}  // namespace

Registration::Registration(Module& module) {
  Registry& registry = Registry::get();
  const std::lock_guard lock(registry.mutex);
  describe_site = describe;
  const char *last_source = nullptr, *last_file = nullptr;
  int last_line = -1;
  for (std::size_t i = 0; i < module.site_count; ++i) {
    Site& site = module.sites[i];
    const bool repeated =
        last_file != nullptr && site.source == last_source && site.source_line == last_line;
    site.file = repeated ? last_file : site_file(module, site);
    last_source = site.source, last_line = site.source_line, last_file = site.file;
    registry.sites.push_back(&site);
    site.number = registry.sites.size();
  }
  registry.modules.push_back(&module);
  for (const Image* image : registry.images) bind(registry, *image);
}

std::uint64_t fatbin_hash(const void* fatbin) {
  FatbinHeader header;
  std::memcpy(&header, fatbin, sizeof header);
  if (header.magic != kFatbinMagic) return 0;
  const std::size_t bytes = header.header_bytes + header.bytes;
  const auto* p = static_cast<const std::byte*>(fatbin);
  std::uint64_t hash = 0xcbf29ce484222325;
  for (std::size_t i = 0; i < bytes; i += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, p + i, std::min<std::size_t>(8, bytes - i));
    hash = (hash ^ word) * 0x100000001b3;
  }
  return hash;
}

std::vector<InstructionCount> instruction_counts() {
  std::map<std::string, std::uint64_t> sums;
  for (const Module* m : Registry::get().modules)
    for (std::size_t b = 0; b < m->block_count; ++b)
      if (m->executed[b] != 0)
        for (std::uint32_t i = m->block_starts[b]; i < m->block_starts[b + 1]; ++i)
          sums[m->opcodes[m->block_opcodes[i]]] += m->executed[b];
  std::vector<InstructionCount> counts;
  for (const auto& [opcode, count] : sums) counts.push_back({opcode, count});
  return counts;
}

void reset_instruction_counts() {
  for (Module* m : Registry::get().modules) std::fill_n(m->executed, m->block_count, 0);
}

}  // namespace plumb::emulator::ptx

// ---- nvcc's host code --------------------------------------------------------------------------

using plumb::emulator::ptx::Configuration;
using plumb::emulator::ptx::configurations;
using plumb::emulator::ptx::FatbinWrapper;
using plumb::emulator::ptx::Image;
using plumb::emulator::ptx::Registry;

extern "C" {

void** __cudaRegisterFatBinary(void* wrapper) {
  auto* image = new Image;
  image->hash = plumb::emulator::ptx::fatbin_hash(static_cast<const FatbinWrapper*>(wrapper)->data);
  const std::lock_guard lock(Registry::get().mutex);
  Registry::get().images.push_back(image);
  return reinterpret_cast<void**>(image);
}

void __cudaRegisterFunction(void** handle, const char* stub, char*, const char* name, int, uint3*,
                            uint3*, dim3*, dim3*, int*) {
  auto* image = reinterpret_cast<Image*>(handle);
  Registry& registry = Registry::get();
  const std::lock_guard lock(registry.mutex);
  image->stubs[name] = stub;
  registry.owners[stub] = image;
  registry.names[stub] = name;
}

void __cudaRegisterVar(void** handle, char*, char*, const char* name, int, std::size_t, int, int) {
  reinterpret_cast<Image*>(handle)->refused =
      std::string("its object has the variable ") + name +
      ": __device__ and __constant__ variables are not emulated";
}
void __cudaRegisterManagedVar(void** handle, void**, char* address, const char* name, int ext,
                              std::size_t size, int constant, int global) {
  __cudaRegisterVar(handle, nullptr, address, name, ext, size, constant, global);
}

void __cudaRegisterFatBinaryEnd(void** handle) {
  const std::lock_guard lock(Registry::get().mutex);
  plumb::emulator::ptx::bind(Registry::get(), *reinterpret_cast<Image*>(handle));
}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }

// The configuration between the angle brackets, for the stub that is called next.
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, std::size_t shared,
                                     CUstream_st* stream) {
  configurations.push_back({grid, block, shared, stream});
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, std::size_t* shared, void* stream) {
  if (configurations.empty()) return cudaErrorMissingConfiguration;
  const Configuration c = configurations.back();
  configurations.pop_back();
  *grid = c.grid;
  *block = c.block;
  *shared = c.shared;
  *static_cast<cudaStream_t*>(stream) = c.stream;
  return cudaSuccess;
}

// Handles of kernels are the stubs themselves.
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* stub) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(stub));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                               std::size_t shared, cudaStream_t stream) {
  return plumb::emulator::ptx::launch(kernel, grid, block, arguments, shared, stream);
}
cudaError_t __cudaLaunchKernel_ptsz(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                                    std::size_t shared, cudaStream_t stream) {
  return plumb::emulator::ptx::launch(kernel, grid, block, arguments, shared, stream);
}

}  // extern "C"
