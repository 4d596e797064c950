// Streams, memory and errors as a program meets them: several streams and threads, no memory left,
// errors that were caught, a second device.
#include <plumb/cuda/kernels.cuh>
#include <plumb/plumb.hpp>

#include <emulator/runtime.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

using namespace plumb;

namespace {

constexpr Index kMiB = Index{1} << 18;  // floats

/// A stream of the test's own.
struct OwnStream {
  cudaStream_t stream = nullptr;
  OwnStream() { cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking); }
  ~OwnStream() { cudaStreamDestroy(stream); }
};

/// That a launch says nothing of what happened before it.
void launch_something() {
  const auto x = Tensor<Cuda>::from(std::vector<float>{1, 2, 3}, {3});
  const std::vector<float> twice = add(x, x).to_vector();  // a CHECK would catch what it throws
  CHECK(twice == std::vector<float>{2, 4, 6});
}

/// What nvcc makes of multiply_add without -fmad=false.
__global__ void multiply_add_at_once(float* x) { x[3] = __builtin_fmaf(x[0], x[1], x[2]); }

}  // namespace

TEST_CASE("a program whose products are not rounded is told so, by the flag's name") {
  const cudaStream_t stream = Cuda{}.stream;
  CHECK_NOTHROW(kernels::detail::check_products_are_rounded(stream));
  CHECK_THROWS_WITH_AS(kernels::detail::check_products_are_rounded(stream, multiply_add_at_once),
                       doctest::Contains("-fmad=false"), CudaError);
}

TEST_CASE("a size class holds what is asked for, and at most a quarter more") {
  using kernels::detail::SizeClasses;
  for (std::size_t bytes = 1; bytes < std::size_t{1} << 40U; bytes += 1 + bytes / 5) {
    const std::size_t room = SizeClasses::capacity(SizeClasses::of(bytes));
    CHECK(room >= bytes);
    CHECK((room <= 256 || 4 * room <= 5 * (bytes + 64)));
    CHECK(SizeClasses::of(room) == SizeClasses::of(bytes));
  }
}

TEST_CASE("what a graph writes to is given to nobody else while the graph lives") {
  const auto x = Tensor<Cuda>::full({500}, 1.0F);
  const float* inside = nullptr;
  {
    Replay<Cuda> replay;
    replay.run(1, [&] {
      const auto twice = add(x, x);
      inside = twice.data();
      return add(twice, x);
    });
    std::vector<Tensor<Cuda>> others;
    for (int i = 0; i < 20; ++i) {
      others.push_back(Tensor<Cuda>::empty({500}));
      CHECK(others.back().data() != inside);
    }
  }
  std::vector<Tensor<Cuda>> others;  // afterwards the block is as any other
  bool again = kernels::detail::DevicePool::instance().exact();
  for (int i = 0; i < 30 && !again; ++i) {
    others.push_back(Tensor<Cuda>::empty({500}));
    again = others.back().data() == inside;
  }
  CHECK(again);
}

TEST_CASE("the host's memory is free once an upload returns, however long") {
  for (const Index n : {Index{100}, 3 * kMiB}) {
    std::vector<float> values(static_cast<std::size_t>(n), 3.0F);
    const auto x = Tensor<Cuda>::empty({n});
    copy_from_host(Cuda{}, x.data(), values.data(), values.size() * sizeof(float));
    std::fill(values.begin(), values.end(), 4.0F);
    const auto back = x.to_vector();
    CHECK(back.front() == 3.0F);
    CHECK(back.back() == 3.0F);
  }
}

TEST_CASE("uploads through two streams of one thread keep apart") {
  OwnStream a, b;
  constexpr int kRounds = 12;
  constexpr std::size_t kFloats = 100000;  // 400 kB: two to a half of the staging memory
  std::vector<float*> places;
  std::vector<float> values(kFloats);
  for (int i = 0; i < kRounds; ++i) {
    const Cuda on{i % 3 == 2 ? b.stream : a.stream};  // one is fuller than the other
    places.push_back(static_cast<float*>(kernels::allocate(on, kFloats * sizeof(float))));
    std::fill(values.begin(), values.end(), static_cast<float>(i));
    kernels::copy_from_host(on, places.back(), values.data(), kFloats * sizeof(float));
  }
  for (int i = 0; i < kRounds; ++i) {
    const Cuda on{i % 3 == 2 ? b.stream : a.stream};
    kernels::copy_to_host(on, values.data(), places[static_cast<std::size_t>(i)],
                          kFloats * sizeof(float));
    CHECK(values.front() == static_cast<float>(i));
    CHECK(values.back() == static_cast<float>(i));
    kernels::release(on, places[static_cast<std::size_t>(i)], kFloats * sizeof(float));
  }
}

TEST_CASE("uploads by two threads through one stream keep apart") {
  OwnStream shared;
  std::atomic<int> wrong{0};
  const auto work = [&](int thread) {
    const Cuda on{shared.stream};
    std::vector<float> values(60000), back(60000);
    for (int i = 0; i < 8; ++i) {
      std::fill(values.begin(), values.end(), static_cast<float>(10 * i + thread));
      const std::size_t bytes = values.size() * sizeof(float);
      void* place = kernels::allocate(on, bytes);
      kernels::copy_from_host(on, place, values.data(), bytes);
      kernels::copy_to_host(on, back.data(), place, bytes);
      wrong += back != values;
      kernels::release(on, place, bytes);
    }
  };
  std::thread one(work, 1), two(work, 2);
  one.join();
  two.join();
  CHECK(wrong == 0);
}

TEST_CASE("a stream of one's own comes after what was queued, and before what follows") {
  OwnStream own;
  std::vector<float> ones(1000, 1.0F);
  const auto x = Tensor<Cuda>::from(ones, {1000});
  Tensor<Cuda> twice;
  {
    const kernels::StreamScope scope(own.stream);
    CHECK(Cuda{}.stream == own.stream);
    twice = add(x, x);
  }
  CHECK(Cuda{}.stream != own.stream);
  CHECK(add(twice, x).to_vector() == std::vector<float>(1000, 3.0F));
  {
    const kernels::StreamScope scope(cudaStreamLegacy);
    CHECK(add(x, x).to_vector() == std::vector<float>(1000, 2.0F));
  }
}

TEST_CASE("a thread that begins takes the stream and the memory of one that ended") {
  cudaStream_t stream = nullptr;
  const auto work = [&] {
    const auto x = Tensor<Cuda>::full({3 * kMiB}, 1.0F);
    CHECK(add(x, x).to_vector()[5] == 2.0F);
    stream = Cuda{}.stream;
  };
  std::thread(work).join();
  const cudaStream_t first = stream;
  const auto before = cuda_memory_counters();
  for (int i = 0; i < 5; ++i) {
    std::thread(work).join();
    CHECK(stream == first);
  }
  CHECK(cuda_memory_counters().system_calls == before.system_calls);
  CHECK(cuda_memory_counters().system_bytes == before.system_bytes);
}

TEST_CASE("where the device has no memory left, what is cached goes back to it") {
  release_cached_device_memory();
  const auto before = cuda_memory_counters();
  emulator::set_memory_limit(static_cast<std::size_t>(before.system_bytes) + (100U << 20U));
  { const auto a = Tensor<Cuda>::empty({64 * kMiB}); }
  CHECK(cuda_memory_counters().system_bytes >= before.system_bytes + (64U << 20U));  // cached
  { const auto b = Tensor<Cuda>::full({80 * kMiB}, 1.0F); }
  CHECK(cuda_memory_counters().used_bytes == before.used_bytes);
  launch_something();

  // More than there is: refused in words, and nothing of it is left behind.
  std::string said;
  try {
    const auto c = Tensor<Cuda>::empty({120 * kMiB});
  } catch (const CudaError& error) {
    said = error.what();
  }
  CHECK_MESSAGE(said.find("out of memory") != std::string::npos, said);
  CHECK_MESSAGE(said.find("bytes were asked for") != std::string::npos, said);
  CHECK_MESSAGE(said.find("HINT: fewer sequences at once") != std::string::npos, said);
  CHECK(cudaPeekAtLastError() == cudaSuccess);
  CHECK(cuda_memory_counters().used_bytes == before.used_bytes);
  launch_something();
  emulator::set_memory_limit(std::size_t{4} << 30U);
  release_cached_device_memory();
  CHECK(cuda_memory_counters().system_bytes <= before.system_bytes);
}

TEST_CASE("an error that was caught is not told again") {
  launch_something();
  for (const char* call :
       {"cudaMalloc", "cudaMemcpyAsync", "cudaLaunchKernel", "cudaStreamSynchronize"}) {
    CAPTURE(std::string(call));
    release_cached_device_memory();
    emulator::inject(call, 0, cudaErrorInvalidValue);
    CHECK_THROWS_AS(launch_something(), CudaError);
    emulator::clear_injection();
    CHECK(cudaPeekAtLastError() == cudaSuccess);
    launch_something();
  }
  // Of the runtime's own: a launch that it refuses.
  CHECK_THROWS_AS(kernels::embedding_forward(Cuda{}, nullptr, nullptr, nullptr, Index{1} << 45, 1),
                  CudaError);
  launch_something();
  CHECK(emulator::take_errors().empty());
}

TEST_CASE("another device is refused by its number") {
  launch_something();
  emulator::set_device_count(2);
  std::string said;
  std::thread([&] {
    cudaSetDevice(1);
    try {
      launch_something();
    } catch (const CudaError& error) {
      said = error.what();
    }
  }).join();
  emulator::set_device_count(1);
  CHECK_MESSAGE(said.find("device 1") != std::string::npos, said);
  CHECK_MESSAGE(said.find("CUDA_VISIBLE_DEVICES") != std::string::npos, said);
  launch_something();
}
