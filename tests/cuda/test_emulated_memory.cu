// That the tools see tensors, not only what the device gave: with PLUMB_DEVICE_MEMORY=exact (which
// CTest sets for this program) every array of every kernel in turn is one element shorter than it
// is said to be, memory is used after its release or released twice, and a graph's temporaries go
// back to the pool. Each fault is found, and its twin is quiet. A fault runs in a process of its
// own: sanitizers end theirs.
#include <plumb/cuda/gemm_vendor.cuh>
#include <plumb/cuda/kernels.cuh>
#include <plumb/plumb.hpp>

#include <emulator/runtime.hpp>

#include <doctest/doctest.h>

#include <cstdio>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include "tiny.hpp"

using namespace plumb;

namespace {

using kernels::allocate;

/// A device whose graphs give their temporaries back to the pool, if it is told to.
struct Leaky : Cuda {
  inline static bool leaks = false;
};

}  // namespace

template <>
inline constexpr bool plumb::backend_included<Leaky> = true;

template <>
class plumb::Replay<Leaky> {
 public:
  template <class Compute>
  const Tensor<Leaky>& run(Index key, Compute compute) {
    graphs_.run(key, [&] {
      if (Leaky::leaks)
        kernels::detail::DevicePool::instance().capture_into(Cuda{}.stream, nullptr);
      results_[key] = compute();
      return Tensor<Cuda>{};
    });
    return results_[key];
  }

 private:
  std::map<Index, Tensor<Leaky>> results_;
  Replay<Cuda> graphs_;
};

namespace {

const std::string_view way = PLUMB_WAY;

// --- Running a fault -----------------------------------------------------------------------------

struct Outcome {
  bool quiet;
  std::string output;
};

/// Runs `work` in a process of its own; quiet if it ended as programs do and nobody reported.
Outcome in_a_process(const std::function<void()>& work) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  std::fflush(stdout);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[1], 1);
    ::dup2(ends[1], 2);
    ::close(ends[0]);
    try {
      work();
      emulator::drain_all();
      release_cached_device_memory();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "exception: %s\n", error.what());
      std::_Exit(4);
    }
    std::_Exit(emulator::take_errors().empty() ? 0 : 3);
  }
  ::close(ends[1]);
  std::string output;
  char buffer[4096];
  ssize_t n = 0;
  while ((n = ::read(ends[0], buffer, sizeof buffer)) > 0)
    output.append(buffer, static_cast<std::size_t>(n));
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  return {status == 0, output};
}

void expect(bool right) {
  if (right) return;
  std::fputs("wrong value\n", stderr);
  std::_Exit(3);
}

// --- One element past a tensor -------------------------------------------------------------------

/// Hands out a kernel's arrays; the one of number `shorter` lacks its last element.
class Short {
 public:
  explicit Short(int shorter) : shorter_(shorter) {}

  /// Of values that suit any kernel.
  float* in(Index n, float value = 0.5F) {
    return put<float>(n, [value](Index i) { return value + 0.01F * static_cast<float>(i % 7); });
  }
  float* out(Index n) {
    writes_.push_back(count_);
    return in(n);
  }
  std::int32_t* ids(const std::vector<std::int32_t>& values) {
    return put<std::int32_t>(static_cast<Index>(values.size()),
                             [&values](Index i) { return values[static_cast<std::size_t>(i)]; });
  }
  bf16* halves(Index n) {
    return put<bf16>(n, [](Index) { return bf16(0.5F); });
  }
  std::int8_t* codes(Index n) {
    return put<std::int8_t>(n, [](Index) { return std::int8_t{3}; });
  }

  int count() const { return count_; }
  bool written(int array) const {
    return std::find(writes_.begin(), writes_.end(), array) != writes_.end();
  }

  ~Short() {
    for (const auto& [block, bytes] : blocks_) release(device_, block, bytes);
  }
  Short(const Short&) = delete;
  Short& operator=(const Short&) = delete;

 private:
  template <class T, class Value>
  T* put(Index n, Value value) {
    std::vector<T> values;
    for (Index i = 0; i < n; ++i) values.push_back(value(i));
    if (count_++ == shorter_) values.pop_back();
    const std::size_t bytes = values.size() * sizeof(T);
    T* block = static_cast<T*>(allocate(device_, bytes));
    kernels::copy_from_host(device_, block, values.data(), bytes);
    blocks_.emplace_back(block, bytes);
    return block;
  }

  Cuda device_;
  int shorter_;
  int count_ = 0;
  std::vector<int> writes_;
  std::vector<std::pair<void*, std::size_t>> blocks_;
};

struct KernelCase {
  const char* name;
  std::function<void(Short&)> call;
};

constexpr Index kN = 5, kC = 37, kAll = kN * kC;
const std::vector<std::int32_t> kIds{4, 0, 2, 1, 3};       // of kN rows, the last one among them
const std::vector<std::int32_t> kColumns{1, 0, 2, 3, 36};  // in the last row the last column
const std::vector<std::int32_t> kGroups{0, 2, 5};

Operand<float> whole(const float* x) { return {x, kC, 1}; }

template <class D>
KernelCase product(const char* name, Index m, Form form) {
  return {name, [m, form](Short& at) {
            constexpr Index kInner = 70;
            matmul(D{}, at.out(m * kC), at.in(m * kInner), at.in(kInner * kC), m, kC, kInner, form,
                   true, Epilogue{at.in(kC), at.in(m * kC), at.out(m * kC)});
          }};
}

template <class D>
KernelCase packed_product(const char* name, Index m) {
  return {name, [m](Short& at) {
            constexpr Index kInner = 70;
            matmul_packed(D{}, at.out(m * kC), at.in(m * kInner),
                          static_cast<const bf16*>(at.halves(kInner * kC)), m, kC, kInner,
                          Epilogue{at.in(kC), at.in(m * kC), at.out(m * kC)});
          }};
}

const AttentionShape kShape{2, 1, 8, 0.35F};

std::vector<KernelCase> families() {
  const Cuda device;
  std::vector<KernelCase> all{
      {"accumulate", [=](Short& at) { accumulate(device, at.out(kAll), at.in(kAll), 1, kAll); }},
      {"accumulate_by",
       [=](Short& at) { accumulate_by(device, at.out(kAll), at.in(kAll), at.in(1), kAll); }},
      {"assign",
       [=](Short& at) { assign(device, at.out(kAll), kC, whole(at.in(kAll)), 1, true, kN, kC); }},
      {"combine_forward",
       [=](Short& at) {
         combine_forward(device, at.out(kAll), whole(at.in(kAll)), Operand<float>{at.in(kC), 0, 1},
                         Arithmetic::Add, kN, kC);
       }},
      {"combine_backward",
       [=](Short& at) {
         combine_backward(device, at.out(kAll), at.in(kAll), whole(at.in(kAll)),
                          Operand<float>{at.in(kN), 1, 0}, Arithmetic::Divide, false, kN, kC);
       }},
      {"function_backward",
       [=](Short& at) {
         function_backward(device, at.out(kAll), at.in(kAll), at.in(kAll), Function::Exp, kAll);
       }},
      {"activation_backward",
       [=](Short& at) {
         activation_backward(device, at.out(kAll), at.in(kAll), at.in(kAll), Activation::Gelu,
                             kAll);
       }},
      {"swiglu_backward",
       [=](Short& at) {
         swiglu_backward(device, at.out(kAll), at.out(kAll), at.in(kAll), at.in(kAll), at.in(kAll),
                         kAll);
       }},
      {"row_sums", [=](Short& at) { row_sums(device, at.out(kN), at.in(kAll), kN, kC, false); }},
      {"argmax_rows", [=](Short& at) { argmax_rows(device, at.ids(kIds), at.in(kAll), kN, kC); }},
      {"softmax_rows",
       [=](Short& at) { softmax_rows(device, at.out(kAll), at.in(kAll), kN, kC, true); }},
      {"softmax_rows_backward",
       [=](Short& at) {
         softmax_rows_backward(device, at.out(kAll), at.in(kAll), at.in(kAll), kN, kC, false);
       }},
      {"pick",
       [=](Short& at) {
         pick_forward(device, at.out(kN), at.in(kAll), at.ids(kColumns), kN, kC);
         pick_backward(device, at.out(kAll), at.in(kN), at.ids(kColumns), kN, kC);
       }},
      {"transpose", [=](Short& at) { transpose(device, at.out(kAll), at.in(kAll), 1, kN, kC); }},
      {"group_sums",
       [=](Short& at) {
         group_sums(device, at.out(2 * kC), at.in(kAll), at.ids(kGroups), 2, kC);
         group_sums_backward(device, at.out(kAll), at.in(2 * kC), at.ids(kGroups), 2, kC);
       }},
      {"group_logsumexp",
       [=](Short& at) {
         group_logsumexp(device, at.out(2 * kC), at.in(kAll), at.ids(kGroups), 2, kC);
         group_logsumexp_backward(device, at.out(kAll), at.in(2 * kC), at.in(kAll), at.in(2 * kC),
                                  at.ids(kGroups), 2, kC);
       }},
      {"rms_norm",
       [=](Short& at) {
         rms_norm_forward(device, at.out(kAll), at.out(kN), at.in(kAll), at.in(kC), kN, kC, 1e-5F);
         rms_norm_backward(device, at.out(kAll), at.out(kC), at.in(kAll), at.in(kAll), at.in(kC),
                           at.in(kN), kN, kC);
       }},
      {"layer_norm",
       [=](Short& at) {
         layer_norm_forward(device, at.out(kAll), at.out(kN), at.out(kN), at.in(kAll), at.in(kC),
                            at.in(kC), kN, kC, 1e-5F);
         layer_norm_backward(device, at.out(kAll), at.out(kC), at.out(kC), at.in(kAll), at.in(kAll),
                             at.in(kC), at.in(kN), at.in(kN), kN, kC);
       }},
      {"embedding",
       [=](Short& at) {
         embedding_forward(device, at.out(kAll), at.in(kAll), at.ids(kIds), kN, kC);
         embedding_backward(device, at.out(kAll), at.in(kAll), at.ids(kIds), kN, kC, kN);
       }},
      {"sum_rows", [=](Short& at) { sum_rows(device, at.out(kC), at.in(kAll), kN, kC); }},
      {"rope",
       [=](Short& at) {  // one head of 6: its rows of cosines are 3 wide
         rope_forward(device, at.out(kN * 6), at.in(kN * 6), at.in(kN * 3), at.in(kN * 3),
                      at.ids(kIds), kN, 1, 6);
       }},
      {"adamw_update",
       [=](Short& at) {
         adamw_update(device, at.out(kAll), at.in(kAll), at.out(kAll), at.out(kAll), kAll,
                      AdamWStep{1e-2F, 0.9F, 0.99F, 1e-8F, 0.1F, 0.7F, 3, false});
       }},
      {"sgd_update",
       [=](Short& at) {
         sgd_update(device, at.out(kAll), at.in(kAll), at.out(kAll), kAll,
                    SgdStep{0.1F, 0.9F, 0.01F, 0.5F, true});
       }},
      {"lion_update",
       [=](Short& at) {
         lion_update(device, at.out(kAll), at.in(kAll), at.out(kAll), kAll,
                     LionStep{0.01F, 0.1F, 0.01F, -0.001F, 0.5F});
       }},
      {"sum_of_squares", [=](Short& at) { sum_of_squares(device, at.in(kAll), kAll); }},
      {"ppo_policy_loss",
       [=](Short& at) {
         ppo_policy_loss(device, at.out(1), at.out(kC), nullptr, at.in(kC), at.in(kC), at.in(kC),
                         at.in(kC), kC, PpoClip{});
       }},
      {"ppo_value_loss",
       [=](Short& at) {
         ppo_value_loss(device, at.out(1), at.out(kC), nullptr, at.in(kC), at.in(kC), at.in(kC),
                        at.in(kC), kC, 0.2F);
       }},
      {"kl_loss",
       [=](Short& at) {
         kl_loss(device, at.out(1), at.out(kC), at.in(kC), at.in(kC), at.in(kC), kC,
                 KlEstimator::K3);
       }},
      {"kto_loss",
       [=](Short& at) {
         kto_loss(device, at.out(1), at.out(kC), at.in(kC), at.in(kC), at.in(kC), kC, 0.1F);
       }},
      {"log_odds",
       [=](Short& at) {
         log_odds_forward(device, at.out(kC), at.in(kC, -0.7F), kC);
         log_odds_backward(device, at.out(kC), at.in(kC), at.in(kC, -0.7F), kC);
       }},
      {"ranking_loss",
       [=](Short& at) {
         ranking_loss(device, at.out(1), at.out(kN), nullptr, at.in(kN), at.ids(kIds), at.in(kN),
                      at.ids(kGroups), at.in(2), 2, RankingLoss{});
       }},
      {"weighted_sum",
       [=](Short& at) { weighted_sum(device, at.out(1), at.in(kC), at.in(kC), kC); }},
      {"segments",
       [=](Short& at) {
         segment_sum(device, at.out(2), at.in(kN), at.in(kN), at.ids(kGroups), 2);
         segment_spread(device, at.out(kN), at.in(2), at.in(kN), at.ids(kGroups), 2);
       }},
      {"head_logprob",
       [=](Short& at) {
         float *logprob = at.out(kN), *entropy = at.out(kN), *lse = at.out(kN);
         const float *x = at.in(kN * 12), *w = at.in(kC * 12);
         const std::int32_t* targets = at.ids(kColumns);
         float* logits = at.out(kAll);
         head_logprob_forward(device, logprob, entropy, lse, x, w, targets, kN, 12, kC, 1, logits);
         head_logprob_backward(device, at.out(kN * 12), at.out(kC * 12), at.in(kN), at.in(kN), x, w,
                               targets, lse, entropy, kN, 12, kC, 1, logits);
       }},
      {"head_kl",
       [=](Short& at) {
         head_kl_forward(device, at.out(kN), at.in(kN * 12), at.in(kC * 12), 12, at.in(kN * 12),
                         at.in(kC * 12), 12, kN, kC, 1, at.ids(kColumns), at.out(kN));
       }},
      {"sample_rows",
       [=](Short& at) {
         std::vector<std::int32_t> token(kN);
         std::vector<float> logprob(kN);
         const std::vector<SampleKey> keys(kN);
         sample_rows(device, token.data(), logprob.data(), at.in(kAll), kN, kC, SamplingSettings{},
                     keys.data());
         sample_rows(device, token.data(), logprob.data(), at.in(kAll), kN, kC, {.top_p = 0.9F},
                     keys.data());
       }},
      {"pack_matrix", [=](Short& at) { pack_matrix(device, at.out(kAll), at.in(kAll), kN, kC); }},
      {"quantize_rows",
       [=](Short& at) {
         quantize_rows(device, at.codes(kAll), at.out(kN * int8_blocks(kC)), at.in(kAll), kN, kC);
         expand_rows(device, at.out(kAll), at.codes(kAll), at.in(kN * int8_blocks(kC)), kN, kC);
       }},
      {"attention",
       [=](Short& at) {
         float *out = at.out(kN * 16), *lse = at.out(kN * 2);
         const float *q = at.in(kN * 16), *k = at.in(kN * 8), *v = at.in(kN * 8);
         const std::int32_t *rows = at.ids({0, 2, 5}), *keys = at.ids({0, 2, 5});
         attention_forward(device, out, lse, q, k, v, rows, keys, 2, kN, kN, kShape);
         attention_backward(device, at.out(kN * 16), at.out(kN * 8), at.out(kN * 8), at.in(kN * 16),
                            out, lse, q, k, v, rows, keys, 2, kN, kN, kShape);
       }},
      {"attention to a cache",
       [=](Short& at) {
         const KvShape kv{2, 32, kShape};
         float *keys = at.out(kv.keys_size()), *values = at.out(kv.values_size());
         // Rows for the last place of the last slot, which is the cache's last element.
         const std::int32_t *slots = at.ids({0, 1}), *positions = at.ids({3, 31});
         kv_append(device, keys, values, at.in(16), at.in(16), slots, positions, 2, kv);
         attention_cached_forward(device, at.out(32), at.in(32), keys, values, slots, positions, 2,
                                  kv);
         kv_copy(device, keys, values, 1, 0, 32, kv);
       }},
      product<Cuda>("product", 40, Form::NN),
      product<Cuda>("product of A and B transposed", 40, Form::NT),
      product<Cuda>("product of A transposed", 40, Form::TN),
      product<Cuda>("product of few rows", 3, Form::NT),
      packed_product<Cuda>("product by a packed matrix", 3),
      product<CudaBf16>("product in bf16", 40, Form::NT),
      packed_product<CudaBf16>("product in bf16 by a packed matrix", 3),
      product<CudaTensorCore>("product on tensor cores", 40, Form::NT),
      product<CudaTensorCore>("product on tensor cores of A transposed", 40, Form::TN),
      packed_product<CudaTensorCore>("product on tensor cores of few rows", 3),
      product<CudaTf32>("product in tf32", 40, Form::NN),
      product<CudaVendor>("product by cuBLAS", 40, Form::NT),
  };
  return all;
}

}  // namespace

TEST_CASE("one element past a tensor is seen: every array of every kernel") {
  REQUIRE(kernels::detail::DevicePool::instance().exact());
  int faults = 0, missed = 0;
  for (const KernelCase& family : families()) {
    INFO(std::string(family.name));
    int arrays = 0;
    std::vector<int> written;
    const Outcome twin = in_a_process([&] {
      Short at(-1);
      family.call(at);
    });
    CHECK_MESSAGE(twin.quiet, twin.output);
    {  // how many there are
      Short at(-1);
      family.call(at);
      arrays = at.count();
      for (int i = 0; i < arrays; ++i)
        if (at.written(i)) written.push_back(i);
    }
    if (way == "asan" || way == "trace") {
      written.clear();
      for (int i = 0; i < arrays; ++i) written.push_back(i);
    }
    for (const int array : written) {
      const Outcome with = in_a_process([&] {
        Short at(array);
        family.call(at);
      });
      ++faults;
      missed += with.quiet;
      CHECK_MESSAGE(!with.quiet, "array ", array);
    }
  }
  std::printf("one element past a tensor, %s: %d faults, %d missed\n", PLUMB_WAY, faults, missed);
}

TEST_CASE("the end of a tensor is the end of its memory") {
  struct Fault {
    const char* name;
    std::function<void(bool)> run;
    const char* report;  // in the ways that check accesses; null: it is the same in every way
    const char* value;   // in the others; null: not seen
  };
  const char* const access = way == "asan" ? "use-after-poison" : "use-after-free";
  const Fault faults[] = {
      {"read after its release",
       [](bool bug) {
         auto x = Tensor<Cuda>::full({100}, 1.0F);
         const auto y = Tensor<Cuda>::empty({100});
         const float* p = x.data();
         if (bug) x = {};
         scale_forward(Cuda{}, y.data(), p, 2, 100);
         expect(y.to_vector()[99] == 2.0F);
       },
       access, "wrong value"},
      {"written after its release",
       [](bool bug) {
         auto x = Tensor<Cuda>::full({100}, 1.0F);
         float* p = x.data();
         if (bug) x = {};
         scale_forward(Cuda{}, p, p, 2, 100);
         synchronize(Cuda{});
       },
       access, nullptr},
      {"released twice",
       [](bool bug) {
         void* block = allocate(Cuda{}, 400);
         release(Cuda{}, block, 400);
         if (bug) release(Cuda{}, block, 400);
       },
       nullptr, "twice"},
      {"released as of another size",
       [](bool bug) {
         void* block = allocate(Cuda{}, 400);
         release(Cuda{}, block, bug ? 404 : 400);
       },
       nullptr, "another size"},
      {"a graph's temporary read after its release",
       [](bool bug) {
         const auto x = Tensor<Cuda>::full({100}, 1.0F);
         Replay<Cuda> replay;
         for (int i = 0; i < 3; ++i) {
           const auto& y = replay.run(1, [&] {
             auto twice = add(x, x);
             const float* p = twice.data();
             if (bug) twice = {};
             auto result = Tensor<Cuda>::empty({100});
             scale_forward(Cuda{}, result.data(), p, 2, 100);
             return result;
           });
           expect(y.to_vector()[99] == 4.0F);
         }
       },
       nullptr, "wrong value"},
      {"a graph's temporaries returned to the pool: 6 prompts in 2 slots",
       [](bool bug) {
         Leaky::leaks = bug;
         const Model<Leaky> model(test::tiny_llama(), 7);
         SampleOptions options;
         options.slots = 2;
         options.responses = 1;
         options.max_new_tokens = 5;
         CHECK(sample(model, test::some_prompts(6, 19), options).size() == 6);
       },
       access, nullptr},
  };
  for (const Fault& fault : faults) {
    INFO(std::string(fault.name));
    const bool checked = (way == "asan" || way == "trace") && fault.report != nullptr;
    const char* expected = checked ? fault.report : fault.value;
    const Outcome with = in_a_process([&] { fault.run(true); });
    CHECK_MESSAGE(with.quiet == (expected == nullptr), with.output);
    if (expected != nullptr)
      CHECK_MESSAGE(with.output.find(expected) != std::string::npos, with.output);
    const Outcome twin = in_a_process([&] { fault.run(false); });
    CHECK_MESSAGE(twin.quiet, twin.output);
  }
}
