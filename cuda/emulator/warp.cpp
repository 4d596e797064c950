// Warp operations on top of warp_collective: shuffles, votes, reductions, and the tensor-core
// instructions that Plumb uses, with the fragment layouts of the PTX manual ("Matrix Fragments for
// mma.m16n8k16 / m16n8k8", "ldmatrix") and the rounding of tensor_core.hpp.
#include <emulator/core_internal.hpp>
#include <emulator/device.hpp>
#include <emulator/tensor_core.hpp>

namespace plumb::emulator {

namespace {

template <class F>
void for_each_lane(unsigned mask, F f) {
  for (; mask != 0; mask &= mask - 1) f(static_cast<unsigned>(__builtin_ctz(mask)));
}

struct Shuffle {
  std::uint64_t in, out;
  unsigned source;
  bool outside;
};

void exchange(void** arguments, unsigned mask) {
  for_each_lane(mask, [&](unsigned l) {
    auto* x = static_cast<Shuffle*>(arguments[l]);
    x->outside = (mask >> (x->source & 31) & 1) == 0;
    x->out =
        x->outside ? ~std::uint64_t{0} : static_cast<const Shuffle*>(arguments[x->source & 31])->in;
  });
}

struct Vote {
  bool in;
  unsigned out;
};

void vote(void** arguments, unsigned mask) {
  unsigned bits = 0;
  for_each_lane(mask, [&](unsigned l) {
    bits |= static_cast<unsigned>(static_cast<Vote*>(arguments[l])->in) << l;
  });
  for_each_lane(mask, [&](unsigned l) { static_cast<Vote*>(arguments[l])->out = bits; });
}

struct Reduce {
  std::int64_t value;
  Reduction reduction;
};

void combine(void** arguments, unsigned mask) {
  auto at = [&](unsigned l) { return static_cast<Reduce*>(arguments[l]); };
  const unsigned first = static_cast<unsigned>(__builtin_ctz(mask));
  std::int64_t sum = at(first)->value;
  for_each_lane(mask & (mask - 1), [&](unsigned l) {
    const std::int64_t v = at(l)->value;
    switch (at(first)->reduction) {
      case Reduction::add: sum += v; break;
      case Reduction::minimum: sum = v < sum ? v : sum; break;
      case Reduction::maximum: sum = v > sum ? v : sum; break;
      case Reduction::bit_and: sum &= v; break;
      case Reduction::bit_or: sum |= v; break;
      case Reduction::bit_xor: sum ^= v; break;
    }
  });
  for_each_lane(mask, [&](unsigned l) { at(l)->value = sum; });
}

struct Multiply {
  float* d;
  const std::uint32_t *a, *b;
};

float bf16(std::uint32_t pair, int high) {
  return std::bit_cast<float>(high != 0 ? pair & 0xFFFF0000U : pair << 16);
}
float tf32(std::uint32_t bits) { return std::bit_cast<float>(bits & 0xFFFFE000U); }

// d (16, 8) += a (16, K) · b (8, K) transposed. Lane l has g = l / 4 and t = l % 4; `unpack`
// spreads its registers over a and b.
template <int K, class F>
void multiply(void** arguments, F unpack) {
  TensorOperands<K> a[16], b[8];
  float d[16][8];
  for (int l = 0; l < 32; ++l) {
    const auto& x = *static_cast<const Multiply*>(arguments[l]);
    const int g = l / 4, t = l % 4;
    unpack(x, g, t, a, b);
    for (int i = 0; i < 4; ++i) d[g + i / 2 * 8][2 * t + i % 2] = x.d[i];
  }
  const TensorCoreRule rule = tensor_core_rule(architecture());
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 8; ++j) d[i][j] = tensor_core_dot(a[i], b[j], d[i][j], rule);
  for (int l = 0; l < 32; ++l)
    for (int i = 0; i < 4; ++i)
      static_cast<const Multiply*>(arguments[l])->d[i] = d[l / 4 + i / 2 * 8][l % 4 * 2 + i % 2];
}

void need_whole_warp(unsigned mask) {
  if (mask != ~0U) trap("warp-mask", "a matrix instruction in a warp of fewer than 32 threads");
}

void multiply_16(void** arguments, unsigned mask) {
  need_whole_warp(mask);
  multiply<16>(arguments, [](const Multiply& x, int g, int t, auto& a, auto& b) {
    for (int i = 0; i < 8; ++i) {
      const int r = i / 2;
      a[g + r % 2 * 8].set(2 * t + i % 2 + r / 2 * 8, bf16(x.a[r], i % 2));
    }
    for (int i = 0; i < 4; ++i) b[g].set(2 * t + i % 2 + i / 2 * 8, bf16(x.b[i / 2], i % 2));
  });
}

void multiply_8(void** arguments, unsigned mask) {
  need_whole_warp(mask);
  multiply<8>(arguments, [](const Multiply& x, int g, int t, auto& a, auto& b) {
    for (int r = 0; r < 4; ++r) a[g + r % 2 * 8].set(t + r / 2 * 4, tf32(x.a[r]));
    for (int r = 0; r < 2; ++r) b[g].set(t + r * 4, tf32(x.b[r]));
  });
}

struct LoadMatrices {
  std::uint32_t* r;
  const void* row;
};

// Lane 8m + i brought the address of row i of matrix m; lane l gets elements 2 (l % 4) and the next
// of row l / 4 of each matrix, or of its column l / 4.
void spread(void** arguments, unsigned mask, bool transposed) {
  need_whole_warp(mask);
  for (unsigned m = 0; m < 4; ++m) {
    std::uint16_t matrix[8][8];
    for (unsigned i = 0; i < 8; ++i)
      std::memcpy(matrix[i], static_cast<const LoadMatrices*>(arguments[8 * m + i])->row, 16);
    for (unsigned l = 0; l < 32; ++l) {
      const unsigned g = l / 4, t = l % 4 * 2;
      const std::uint32_t low = transposed ? matrix[t][g] : matrix[g][t];
      const std::uint32_t high = transposed ? matrix[t + 1][g] : matrix[g][t + 1];
      static_cast<const LoadMatrices*>(arguments[l])->r[m] = low | high << 16;
    }
  }
}

}  // namespace

std::uint64_t shuffle(unsigned mask, std::uint64_t value, unsigned source, const char* name,
                      Place place) {
  Shuffle x{value, 0, source, false};
  warp_collective(mask, name, &x, exchange, place);
  if (x.outside)
    trap("warp-mask", "%s at %s:%d reads from lane %u, which the mask %08x lacks", name, place.file,
         place.line, source & 31, mask);
  return x.out;
}

unsigned ballot(unsigned mask, bool predicate, const char* name, Place place) {
  Vote x{predicate, 0};
  warp_collective(mask, name, &x, vote, place);
  return x.out;
}

std::int64_t reduce(unsigned mask, std::int64_t value, Reduction reduction, Place place) {
  Reduce x{value, reduction};
  warp_collective(mask, "__reduce_sync", &x, combine, place);
  return x.value;
}

void multiply_bf16(float* d, const std::uint32_t* a, const std::uint32_t* b, Place place) {
  Multiply x{d, a, b};
  warp_collective(~0U, "mma_bf16", &x, multiply_16, place);
}

void multiply_tf32(float* d, const std::uint32_t* a, const std::uint32_t* b, Place place) {
  Multiply x{d, a, b};
  warp_collective(~0U, "mma_tf32", &x, multiply_8, place);
}

void load_matrices(std::uint32_t* r, const void* row, bool transposed, Place place) {
  check_aligned(row, 16, place);
  note(row, 16, Access::read, __builtin_return_address(0));
  LoadMatrices x{r, row};
  warp_collective(
      ~0U, transposed ? "ldmatrix.trans" : "ldmatrix", &x,
      transposed ? [](void** p, unsigned mask) { spread(p, mask, true); }
                 : [](void** p, unsigned mask) { spread(p, mask, false); },
      place);
}

std::uint32_t round_to_tf32(float a) {
  const auto bits = std::bit_cast<std::uint32_t>(a);
  if (std::isnan(a)) return 0x7FFFFFFFU;
  if (std::isinf(a)) return bits;
  return (bits + 0x1000U) & 0xFFFFE000U;  // ties away from zero
}

float4 load_told(const float* p) {
  note(p, 16, Access::read, __builtin_return_address(0));
  float4 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

void store_told(float* p, float4 v) {
  note(p, 16, Access::write, __builtin_return_address(0));
  std::memcpy(p, &v, sizeof v);
}

}  // namespace plumb::emulator
