#include "compute.hpp"

#include <cstdio>

std::uint64_t compute_in_b();

int main() {
  std::printf("%016llx\n%016llx\n", static_cast<unsigned long long>(compute()),
              static_cast<unsigned long long>(compute_in_b()));
}
