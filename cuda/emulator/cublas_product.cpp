// The matrix product behind the stand-ins for cuBLAS and cublasLt: the checks of its memory, the
// queueing on a stream, and the arithmetic. Cost: 2·m·n·k FLOPs on one host thread, about 1 ns
// each. Order of reduction: pairwise over k from groups of kGroup products, fused; see cublas.hpp
// for why.
#include <emulator/cublas_internal.hpp>
#include <emulator/runtime.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

namespace plumb::emulator::cublas {
namespace {

constexpr std::int64_t kGroup = 8;

float from_bf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}
/// To the nearest, ties to even; a NaN stays one.
std::uint16_t to_bf16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (std::isnan(x)) return static_cast<std::uint16_t>((bits >> 16) | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}
/// Ten bits of mantissa, ties away from zero.
float to_tf32(float x) {
  if (!std::isfinite(x)) return x;
  return std::bit_cast<float>((std::bit_cast<std::uint32_t>(x) + 0x1000) & ~0x1FFFU);
}

float load(const void* data, cudaDataType type, std::int64_t i) {
  if (type == CUDA_R_16BF) return from_bf16(static_cast<const std::uint16_t*>(data)[i]);
  return static_cast<const float*>(data)[i];
}
void store(void* data, cudaDataType type, std::int64_t i, float x) {
  if (type == CUDA_R_16BF)
    static_cast<std::uint16_t*>(data)[i] = to_bf16(x);
  else
    static_cast<float*>(data)[i] = x;
}
float rounded(float x, Precision precision) {
  if (precision == Precision::bf16) return from_bf16(to_bf16(x));
  return precision == Precision::tf32 ? to_tf32(x) : x;
}

float dot(const float* a, const float* b, std::int64_t n) {
  if (n <= kGroup) {
    float sum = 0;
    for (std::int64_t i = n; i-- > 0;) sum = std::fma(a[i], b[i], sum);
    return sum;
  }
  const std::int64_t half = (n / 2 + kGroup - 1) / kGroup * kGroup;
  return dot(a, b, half) + dot(a + half, b + half, n - half);
}

/// The tanh form (Hendrycks and Gimpel 2016). cuBLAS's documentation does not say which; PyTorch
/// found its epilogue to be this one (pytorch/pytorch#104061).
float gelu(float x) {
  return 0.5F * x * (1.0F + std::tanh(0.7978845608F * (x + 0.044715F * x * x * x)));
}

/// `lines` lines of k elements, contiguous in k: rows of op(a) or columns of op(b).
std::vector<float> gather(const Operand& x, std::int64_t batch, std::int64_t lines, std::int64_t k,
                          bool along_columns, Precision precision) {
  std::vector<float> out(static_cast<std::size_t>(lines * k));
  const std::int64_t line_step = along_columns ? x.ld : 1;
  const std::int64_t k_step = along_columns ? 1 : x.ld;
  for (std::int64_t i = 0; i < lines; ++i)
    for (std::int64_t p = 0; p < k; ++p)
      out[static_cast<std::size_t>(i * k + p)] =
          rounded(load(x.data, x.type, batch * x.stride + i * line_step + p * k_step), precision);
  return out;
}

void compute(const Product& p) {
  // Whoever keeps data where the library may write loses it.
  if (p.workspace != nullptr) std::memset(p.workspace, 0xFF, p.workspace_bytes);
  for (std::int64_t batch = 0; batch < p.batch; ++batch) {
    const auto a = gather(p.a, batch, p.m, p.k, p.transpose_a, p.precision);
    const auto b = gather(p.b, batch, p.n, p.k, !p.transpose_b, p.precision);
    for (std::int64_t j = 0; j < p.n; ++j)
      for (std::int64_t i = 0; i < p.m; ++i) {
        float x = p.alpha * dot(a.data() + i * p.k, b.data() + j * p.k, p.k);
        // With beta = 0, c need not hold numbers.
        if (p.beta != 0)
          x = std::fma(p.beta, load(p.c.data, p.c.type, batch * p.c.stride + j * p.c.ld + i), x);
        if (p.bias != nullptr) x += load(p.bias, p.d.type, i);
        if (p.activation == Activation::gelu) x = gelu(x);
        store(p.result, p.d.type, batch * p.d.stride + j * p.d.ld + i, x);
      }
    for (std::int64_t j = 0; j < p.n; ++j)
      note_host_write(
          static_cast<char*>(p.result) + (batch * p.d.stride + j * p.d.ld) * bytes_of(p.d.type),
          static_cast<std::size_t>(p.m * bytes_of(p.d.type)));
  }
}

/// The bytes that an operand spans: [first, last).
struct Span {
  const char* name;
  std::uintptr_t first = 0, last = 0;

  bool empty() const { return first == last; }
  bool overlaps(const Span& other) const {
    return !empty() && !other.empty() && first < other.last && other.first < last;
  }
};

Span span_of(const char* name, const Operand& x, std::int64_t rows, std::int64_t columns,
             std::int64_t batch) {
  Span span{name};
  if (rows == 0 || columns == 0 || batch == 0) return span;
  const std::int64_t elements = (batch - 1) * x.stride + (columns - 1) * x.ld + rows;
  span.first = reinterpret_cast<std::uintptr_t>(x.data);
  span.last = span.first + static_cast<std::uintptr_t>(elements * bytes_of(x.type));
  return span;
}

struct Spans {
  Span a, b, c, d, bias, workspace;
};

Spans spans_of(const Product& p) {
  Spans s;
  s.a = p.transpose_a ? span_of("A", p.a, p.k, p.m, p.batch) : span_of("A", p.a, p.m, p.k, p.batch);
  s.b = p.transpose_b ? span_of("B", p.b, p.n, p.k, p.batch) : span_of("B", p.b, p.k, p.n, p.batch);
  s.c = span_of("C", p.c, p.m, p.n, p.beta != 0 ? p.batch : 0);
  s.d = span_of("the result", p.d, p.m, p.n, p.batch);
  s.bias = span_of("the bias", {p.bias, p.d.type, 1, 0}, p.m, 1, p.bias != nullptr);
  s.workspace = {"the workspace", reinterpret_cast<std::uintptr_t>(p.workspace),
                 reinterpret_cast<std::uintptr_t>(p.workspace) + p.workspace_bytes};
  return s;
}

/// Reports operands that are not in device memory.
bool in_device_memory(const char* function, const Product& p) {
  const Spans s = spans_of(p);
  bool good = true;
  for (const Span* span : {&s.a, &s.b, &s.c, &s.d, &s.bias, &s.workspace}) {
    if (span->empty()) continue;
    const auto* start = reinterpret_cast<const void*>(span->first);
    if (is_live_device_range(start, span->last - span->first)) continue;
    report("illegal-address", "%s: the %zu bytes of %s at %p are not (or no longer) device memory",
           function, static_cast<std::size_t>(span->last - span->first), span->name, start);
    good = false;
  }
  return good;
}

/// Reports operands that overlap what is written; c may be d.
bool apart(const char* function, const Product& p) {
  const Spans s = spans_of(p);
  const bool in_place = p.c.data == p.d.data && p.c.ld == p.d.ld && p.c.stride == p.d.stride;
  bool good = true;
  const auto check = [&](const Span& x, const Span& y) {
    if (!x.overlaps(y)) return;
    report("race", "%s: %s overlaps %s", function, x.name, y.name);
    good = false;
  };
  for (const Span* span : {&s.a, &s.b, &s.bias}) check(s.d, *span);
  if (!in_place) check(s.d, s.c);
  for (const Span* span : {&s.a, &s.b, &s.c, &s.d, &s.bias}) check(s.workspace, *span);
  // Matrices of a batch may interleave (columns of one between those of another), but not coincide.
  const std::int64_t stride = std::abs(p.d.stride);
  const bool interleaved = stride >= p.m && stride + p.m <= p.d.ld;
  if (p.batch > 1 && stride < (p.n - 1) * p.d.ld + p.m && !interleaved) {
    report("race", "%s: the results of a batch overlap, being %lld elements apart", function,
           static_cast<long long>(p.d.stride));
    good = false;
  }
  return good;
}

}  // namespace

bool read_scalar(const char* function, const void* pointer, float& value) {
  if (pointer == nullptr) return false;
  if (is_device_address(pointer)) {
    report("illegal-address", "%s: alpha or beta at %p is device memory, and read by the host",
           function, pointer);
    return false;
  }
  std::memcpy(&value, pointer, sizeof value);
  return true;
}

bool is_workspace(const void* workspace, std::size_t bytes) {
  if (bytes == 0) return true;
  return workspace != nullptr &&
         reinterpret_cast<std::uintptr_t>(workspace) % kWorkspaceAlignment == 0 &&
         is_live_device_range(workspace, bytes);
}

cublasStatus_t submit(const char* function, const Product& product, cudaStream_t stream) {
  if (product.m == 0 || product.n == 0 || product.batch == 0) return CUBLAS_STATUS_SUCCESS;
  if (!in_device_memory(function, product)) return CUBLAS_STATUS_INVALID_VALUE;
  if (!apart(function, product)) return CUBLAS_STATUS_INVALID_VALUE;
  const cudaError_t status = enqueue(stream, function, [function, product] {
    // Queued work runs late: its memory may have gone.
    if (!in_device_memory(function, product)) return cudaErrorIllegalAddress;
    compute(product);
    return cudaSuccess;
  });
  return status == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // namespace plumb::emulator::cublas
