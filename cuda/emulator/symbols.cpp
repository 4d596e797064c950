// What the program's own symbol table tells: where the `static __shared__` variables of a kernel
// lie (to fill them with NaN before each block, and to tell shared memory from the host's), how
// many bytes they are, and which line an address of code belongs to.
//
// A variable `s` of a function whose symbol is _Zxxx has the symbol _ZZxxxE1s. A stripped program
// tells nothing: then static shared memory is not poisoned, and the limit on its size not checked.
#include <emulator/core_internal.hpp>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <string_view>

#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

extern "C" char __data_start, _end, __executable_start;

namespace plumb::emulator {

const Range static_storage{&__data_start, &_end};
const Range program_image{&__executable_start, &__data_start};

namespace {

struct Symbols {
  std::uintptr_t bias = 0;
  std::map<std::uintptr_t, std::string> functions;
  std::vector<SharedVariable> variables;  // of functions, writable, by address

  Symbols() {
    dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t, void* p) {  // the program comes first
          *static_cast<std::uintptr_t*>(p) = info->dlpi_addr;
          return 1;
        },
        &bias);
    const int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    struct stat status {};
    if (file >= 0 && fstat(file, &status) == 0) {
      const auto size = static_cast<std::size_t>(status.st_size);
      void* image = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
      if (image != MAP_FAILED) {
        read({static_cast<const char*>(image), size});
        munmap(image, size);
      }
    }
    if (file >= 0) close(file);
    std::sort(
        variables.begin(), variables.end(),
        [](const SharedVariable& a, const SharedVariable& b) { return a.address < b.address; });
  }

  void read(std::string_view image) {
    Elf64_Ehdr header;
    if (image.size() < sizeof header) return;
    std::memcpy(&header, image.data(), sizeof header);
    std::vector<Elf64_Shdr> sections(header.e_shnum);
    if (header.e_shoff + sections.size() * sizeof(Elf64_Shdr) > image.size()) return;
    if (!sections.empty())
      std::memcpy(sections.data(), image.data() + header.e_shoff,
                  sections.size() * sizeof(Elf64_Shdr));
    for (const Elf64_Shdr& table : sections) {
      if (table.sh_type != SHT_SYMTAB || table.sh_link >= sections.size()) continue;
      const char* names = image.data() + sections[table.sh_link].sh_offset;
      for (std::size_t k = 0; k < table.sh_size / sizeof(Elf64_Sym); ++k) {
        Elf64_Sym symbol;
        std::memcpy(&symbol, image.data() + table.sh_offset + k * sizeof symbol, sizeof symbol);
        const char* name = names + symbol.st_name;
        const int type = ELF64_ST_TYPE(symbol.st_info);
        if (symbol.st_shndx == SHN_UNDEF || symbol.st_shndx >= sections.size()) continue;
        if (type == STT_FUNC) functions.emplace(bias + symbol.st_value, name);
        if (type == STT_OBJECT && std::strncmp(name, "_ZZ", 3) == 0 &&
            (sections[symbol.st_shndx].sh_flags & SHF_WRITE) != 0)
          variables.push_back(
              {reinterpret_cast<char*>(bias + symbol.st_value), symbol.st_size, name});
      }
    }
  }
};

const Symbols& symbols() {
  static const auto* table = new Symbols;
  return *table;
}

}  // namespace

const std::vector<SharedVariable>& shared_variables(const void* function) {
  static auto* known = new std::map<const void*, std::vector<SharedVariable>>;
  const auto [it, fresh] = known->try_emplace(function);
  if (!fresh || function == nullptr) return it->second;
  const auto symbol = symbols().functions.find(reinterpret_cast<std::uintptr_t>(function));
  if (symbol == symbols().functions.end() || symbol->second.compare(0, 2, "_Z") != 0)
    return it->second;
  const std::string prefix = "_ZZ" + symbol->second.substr(2) + "E";
  for (const SharedVariable& v : symbols().variables)
    if (v.name.compare(0, prefix.size(), prefix) == 0) it->second.push_back(v);
  return it->second;
}

const SharedVariable* find_shared_variable(const void* address) {
  const auto& all = symbols().variables;
  auto it = std::upper_bound(all.begin(), all.end(), address,
                             [](const void* p, const SharedVariable& v) { return p < v.address; });
  if (it == all.begin()) return nullptr;
  --it;
  return address < it->address + it->bytes ? &*it : nullptr;
}

std::string describe_code(const void* pc) {
  static auto* known = new std::map<const void*, std::string>;
  const auto [it, fresh] = known->try_emplace(pc, "?");
  if (!fresh) return it->second;
  const std::uintptr_t at = reinterpret_cast<std::uintptr_t>(pc);
  if (at < (1U << 24))
    return it->second = describe_site != nullptr ? describe_site(at) : "site " + std::to_string(at);
  char text[512];
  // The return address: one byte before it is still in the call. -i: and where that was inlined.
  std::snprintf(text, sizeof text, "addr2line -i -e /proc/%d/exe %lx 2>/dev/null", getpid(),
                at - symbols().bias - 1);
  std::string places;
  if (std::FILE* pipe = popen(text, "r")) {
    for (int depth = 0; depth < 4 && std::fgets(text, sizeof text, pipe) != nullptr; ++depth) {
      text[std::strcspn(text, " \n")] = 0;
      const char* slash = std::strrchr(text, '/');
      places +=
          (depth == 0 ? "" : ", inlined at ") + std::string(slash != nullptr ? slash + 1 : text);
    }
    pclose(pipe);
  }
  if (!places.empty()) it->second = places;
  return it->second;
}

}  // namespace plumb::emulator
