// The smallest program that uses Plumb; each consumer builds it in its own way.
#include <plumb/core/shape.hpp>

#include <cstdio>

int main() {
  const plumb::Shape shape = {2, 3};
  std::printf("%s has %lld elements\n", plumb::str(shape).c_str(),
              static_cast<long long>(shape.size()));
  return shape.size() == 6 ? 0 : 1;
}
