// The fiber core (see core.hpp): threads of a block as fibers, barriers, warp operations, the
// order in which they run, and what is wrong with how they meet.
//
// A thread that has to wait takes the next ready thread and switches to it directly: one switch a
// barrier and thread. Code that runs on a fiber uses no containers of the standard library: their
// inline functions may be the instrumented copies of a translation unit with kernels.
#include <emulator/core_internal.hpp>
#include <emulator/fiber.hpp>
#include <emulator/setting.hpp>
#include <emulator/trace.hpp>

#include <algorithm>
#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <numeric>

#include <sys/mman.h>
#include <unistd.h>
#include <xmmintrin.h>

// clang-format off
asm(R"(
.text
.globl plumb_emulator_switch
.type plumb_emulator_switch,@function
plumb_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size plumb_emulator_switch,.-plumb_emulator_switch
)");
// clang-format on

extern "C" {
[[gnu::weak]] void __tsan_read_range(void* p, unsigned long n);
[[gnu::weak]] void __tsan_write_range(void* p, unsigned long n);
}

namespace plumb::emulator {

Clock clock;
Range fiber_stacks;
TraceHooks trace_hooks{};
constinit thread_local int Quiet::depth = 0;
std::string (*describe_site)(std::uintptr_t) = nullptr;

namespace {

constexpr unsigned max_threads = 1024;
// A stack and the guard page below it. Only what is touched takes memory.
constexpr std::size_t stack_bytes = 256 * 1024;
constexpr std::size_t guard_bytes = 4096;
// Bytes past the shared memory that nobody may change.
constexpr std::size_t shared_margin = 256;
constexpr char margin_byte = 0x3A;  // 0.0007 as a float: what is added to it shows, too

// --- Schedule ---

struct Schedule {
  Order order = Order::forward;
  std::uint64_t state = 1;

  Schedule() {
    const char* name = setting("PLUMB_EMULATOR_ORDER", {"forward", "reverse", "random"});
    if (name != nullptr && std::strcmp(name, "reverse") == 0) order = Order::reverse;
    if (name != nullptr && std::strcmp(name, "random") == 0) order = Order::random;
    start(setting("PLUMB_EMULATOR_SEED", 1, std::uint64_t{1} << 63));
  }
  void start(std::uint64_t seed) { state = seed * 0x9E3779B97F4A7C15U + 0x2545F4914F6CDD1DU; }
  std::uint64_t draw(std::uint64_t n) {  // xorshift64*, its upper bits
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return ((state * 0x2545F4914F6CDD1DU) >> 32) % n;
  }
};
Schedule schedule;

int played_architecture = [] {
  const char* name = setting("PLUMB_EMULATOR_ARCHITECTURE", {"sm_80", "sm_90"});
  return name != nullptr && std::strcmp(name, "sm_90") == 0 ? 90 : 80;
}();

// --- State of the block that runs ---

struct PendingCopy {
  void* shared;
  const void* global;
  unsigned bytes, source_bytes, group;
  const void* pc;  // of the instruction that issued it
};

struct WarpOperation {
  unsigned mask = 0, arrived = 0, left = 0;
  const char* name = nullptr;
  Place place{};
  bool done = false;
  void* arguments[32] = {};
};

struct Warp {
  unsigned full = 0;   ///< lanes that exist
  unsigned alive = 0;  ///< and have not exited
  unsigned used = 0;   ///< operations in use, as bits
  std::uint16_t segment = 0;
  WarpOperation operations[32];  ///< a lane waits in one at most
};

enum class State : std::uint8_t { ready, at_barrier, in_warp, done };

struct Fiber : Context {
  unsigned id = 0;
  State state = State::done;
  uint3 index{};
  Place place{};  ///< where it waits
  const char* waits_for = "";
  WarpOperation* operation = nullptr;
  unsigned group = 0;  ///< copies committed so far
  PendingCopy* copies = nullptr;
  unsigned copy_count = 0, copy_capacity = 0;
};

struct Block {
  const Launch* launch = nullptr;
  uint3 index{};
  unsigned threads = 0, exited = 0;
  // The barrier that threads are arriving at.
  unsigned arrived = 0;
  Place place{};
  Barrier kind{};
  int count = 0;
  int result_count = 0;
  bool result_all = false;
  bool aborted = false;
  // Sanitizers' synchronisation objects: start, end, two barriers.
  char start = 0, end = 0, barriers[2] = {};
};

Block block;
Fiber* fibers = nullptr;
Warp warps[max_threads / 32];
char* stacks = nullptr;
bool stacks_dirty = true;
// Null where the host runs: also in its other threads, while one of them runs a kernel.
constinit thread_local Fiber* current = nullptr;
Context host;
Context* previous = nullptr;
Counts totals;

// Ready threads, in no order that counts: next_ready() draws. A ring, its places counted modulo
// its size: moving them together would be memmove, which TSan takes for an access of the kernel.
unsigned ready[2 * max_threads];
unsigned ready_begin = 0, ready_end = 0;

char* shared_area = nullptr;  // shared_capacity bytes and room for a red zone

std::mutex error_mutex;
std::vector<Error>& errors() {
  static auto* list = new std::vector<Error>;  // outlives the exit handlers
  return *list;
}

bool same(Place a, Place b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

// --- Errors ---

std::string where() {
  if (current == nullptr) return {};
  char text[512];
  std::snprintf(text, sizeof text, " [kernel %s, block (%u, %u, %u), thread (%u, %u, %u)]",
                block.launch->kernel->name.c_str(), block.index.x, block.index.y, block.index.z,
                current->index.x, current->index.y, current->index.z);
  return text;
}

void exit_with_unread_errors() {
  const std::lock_guard lock(error_mutex);
  if (errors().empty()) return;
  std::fflush(stdout);
  std::fprintf(stderr, "plumb emulator: %zu errors that nobody took, the first: %s: %s\n",
               errors().size(), errors().front().kind.c_str(), errors().front().text.c_str());
  std::fflush(stderr);
  ::_exit(86);
}

void add_error(const char* kind, const char* format, std::va_list arguments) {
  const Quiet quiet;
  char text[1024];
  std::vsnprintf(text, sizeof text, format, arguments);
  const std::lock_guard lock(error_mutex);
  static const int registered = std::atexit(exit_with_unread_errors);
  (void)registered;
  // One report for a fault that many threads commit, and an end to an endless stream of them.
  for (const Error& error : errors())
    if (error.kind == kind && error.text.compare(0, std::strlen(text), text) == 0) return;
  if (errors().size() >= 100) return;
  errors().push_back({kind, text + where()});
  if (errors().size() <= 20)
    std::fprintf(stderr, "plumb emulator: %s: %s\n", kind, errors().back().text.c_str());
}

// --- Fibers ---

[[noreturn]] void leave_kernel() {
  block.aborted = true;
  Quiet::depth = 0;  // of frames that are left for good
  Fiber* self = current;
  current = nullptr;
  switch_context(*self, host, previous);
  std::abort();  // nobody resumes a fiber of an aborted launch
}

bool release_barrier() {
  if (block.arrived == 0 || block.arrived + block.exited != block.threads) return false;
  ++totals.barriers;
  block.result_count = block.count;
  block.result_all = block.count == static_cast<int>(block.arrived);
  block.arrived = 0;
  if (trace_hooks.segment_end != nullptr) trace_hooks.segment_end(-1);
  ++clock.epoch;
  for (unsigned w = 0; w * 32 < block.threads; ++w) warps[w].segment = 0;
  const bool backwards = schedule.order == Order::reverse;
  for (unsigned k = 0; k < block.threads; ++k) {
    Fiber& fiber = fibers[backwards ? block.threads - 1 - k : k];
    if (fiber.state != State::at_barrier) continue;
    fiber.state = State::ready;
    ready[ready_end++ % std::size(ready)] = fiber.id;
  }
  return true;
}

void make_ready(unsigned id) {
  fibers[id].state = State::ready;
  ready[ready_end++ % std::size(ready)] = id;
}

Fiber* next_ready() {
  if (ready_begin == ready_end) {
    ready_begin = ready_end = 0;
    if (!release_barrier()) return nullptr;
  }
  if (schedule.order == Order::random)
    std::swap(ready[ready_begin % std::size(ready)],
              ready[(ready_begin + schedule.draw(ready_end - ready_begin)) % std::size(ready)]);
  return &fibers[ready[ready_begin++ % std::size(ready)]];
}

/// Runs others until somebody makes this thread ready and its turn comes.
void wait_for_turn() {
  Fiber* self = current;
  Fiber* next = next_ready();
  if (next == self) return;
  ++totals.switches;
  current = next;  // null: nobody can run, which the host explains
  switch_context(*self, next != nullptr ? *next : host, previous);
}

void exit_thread() {
  Fiber& self = *current;
  if (self.copy_count != 0) {
    self.copy_count = 0;
    report("cp-async", "a thread exits with copies that it never waited for");
  }
  Warp& warp = warps[self.id / 32];
  const unsigned bit = 1U << (self.id % 32);
  warp.alive &= ~bit;
  for (unsigned used = warp.used; used != 0; used &= used - 1)
    if (const WarpOperation& o = warp.operations[__builtin_ctz(used)];
        !o.done && (o.mask & bit) != 0)
      trap("exited-lane", "lane %u exits while lanes %08x of its warp wait for it in %s at %s:%d",
           self.id % 32, o.arrived, o.name, o.place.file, o.place.line);
  if (block.arrived != 0)
    report("early-exit", "a thread exits while %u threads of its block wait at the barrier %s:%d",
           block.arrived, block.place.file, block.place.line);
  ++block.exited;
  self.state = State::done;
  release(&block.end);
}

void fiber_main() {
  arrived(*current, *previous);
  for (;;) {
    acquire(&block.start);
    block.launch->kernel->body(block.launch->parameters);
    exit_thread();
    wait_for_turn();
  }
}

void make_stacks() {
  if (stacks == nullptr) {
    const std::size_t bytes = max_threads * stack_bytes;
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
      std::perror("plumb emulator: mmap of the threads' stacks");
      std::abort();
    }
    stacks = static_cast<char*>(p);
    fiber_stacks = {stacks, stacks + bytes};
    fibers = new Fiber[max_threads];
    for (unsigned i = 0; i < max_threads; ++i)
      mprotect(stacks + i * stack_bytes, guard_bytes, PROT_NONE);
  }
  unpoison(stacks, max_threads * stack_bytes);
  for (unsigned i = 0; i < max_threads; ++i) {
    Fiber& fiber = fibers[i];
    fiber.id = i;
    fiber.bottom = stacks + i * stack_bytes + guard_bytes;
    fiber.size = stack_bytes - guard_bytes;
    fiber.fake_stack = nullptr;
    if (fiber.tsan != nullptr) __tsan_destroy_fiber(fiber.tsan);
    fiber.tsan = nullptr;
    // Tops at distances of whole pages would all fall into the same few sets of the cache.
    char* top = stacks + (i + 1) * stack_bytes - (i % 61) * 448;
    void** sp = reinterpret_cast<void**>(reinterpret_cast<std::uintptr_t>(top) & ~63UL);
    *--sp = nullptr;  // a function starts with its stack 8 short of a multiple of 16
    *--sp = reinterpret_cast<void*>(fiber_main);
    for (int k = 0; k < 6; ++k) *--sp = nullptr;
    fiber.stack_pointer = sp;
  }
  stacks_dirty = false;
}

// --- Blocks ---

void explain_deadlock() {
  std::string text;
  for (unsigned i = 0; i < block.threads; ++i) {
    const Fiber& f = fibers[i];
    if (f.state != State::at_barrier && f.state != State::in_warp) continue;
    unsigned alike = 0;
    bool seen = false;
    for (unsigned k = 0; k < block.threads; ++k) {
      const Fiber& g = fibers[k];
      const bool like = g.state == f.state && same(g.place, f.place);
      seen |= like && k < i;
      alike += like;
    }
    if (seen) continue;
    char line[512];
    std::snprintf(line, sizeof line, "%s%u threads (first: %u) wait in %s at %s:%d",
                  text.empty() ? "" : ", ", alike, i, f.waits_for, f.place.file, f.place.line);
    text += line;
  }
  report("deadlock", "kernel %s, block (%u, %u, %u): %s; %u of %u threads have exited",
         block.launch->kernel->name.c_str(), block.index.x, block.index.y, block.index.z,
         text.c_str(), block.exited, block.threads);
}

void start_block(const Launch& launch, std::uint64_t number) {
  block.index = {static_cast<unsigned>(number % launch.grid.x),
                 static_cast<unsigned>(number / launch.grid.x % launch.grid.y),
                 static_cast<unsigned>(number / launch.grid.x / launch.grid.y)};
  block.exited = block.arrived = 0;
  ++totals.blocks;
  totals.threads += block.threads;
  clock.block_first = ++clock.epoch;
  std::memset(shared_area, 0xFF, shared_bytes());
  if (!under_asan()) std::memset(shared_area + shared_bytes(), margin_byte, shared_margin);
  for (const SharedVariable& v : shared_variables(launch.kernel->function))
    std::memset(v.address, 0xFF, v.bytes);
  for (unsigned w = 0; w * 32 < block.threads; ++w) {
    const unsigned n = block.threads - w * 32;
    warps[w].full = warps[w].alive = n >= 32 ? ~0U : (1U << n) - 1;
    warps[w].segment = 0;
    warps[w].used = 0;
  }
  release(&block.start);
  ready_begin = ready_end = 0;
  const bool backwards = schedule.order == Order::reverse;
  for (unsigned k = 0; k < block.threads; ++k) {
    const unsigned i = backwards ? block.threads - 1 - k : k;
    Fiber& fiber = fibers[i];
    fiber.index = {i % launch.block.x, i / launch.block.x % launch.block.y,
                   i / launch.block.x / launch.block.y};
    fiber.copy_count = fiber.group = 0;
    if (under_tsan() && fiber.tsan == nullptr) {
      fiber.tsan = __tsan_create_fiber(0);
      char name[32];
      std::snprintf(name, sizeof name, "CUDA thread %u", i);
      __tsan_set_fiber_name(fiber.tsan, name);
    }
    make_ready(i);
  }
}

void check_shared_margin() {
  static const std::string untouched(shared_margin, margin_byte);
  if (under_asan() ||
      untouched.compare(0, shared_margin, shared_area + shared_bytes(), shared_margin) == 0)
    return;
  report("out-of-bounds", "kernel %s, block (%u, %u, %u) wrote past its %zu bytes of shared memory",
         block.launch->kernel->name.c_str(), block.index.x, block.index.y, block.index.z,
         shared_bytes());
  set_device_error(cudaErrorIllegalAddress);
}

/// False if the launch ended before its time.
bool run_block(const Launch& launch, std::uint64_t number) {
  start_block(launch, number);
  while (Fiber* next = next_ready()) {
    current = next;
    switch_context(host, *next, previous);
    current = nullptr;
    if (block.aborted) break;
  }
  acquire(&block.end);
  if (!block.aborted && block.exited != block.threads) {
    explain_deadlock();
    block.aborted = true;
    set_device_error(cudaErrorLaunchTimeout);
  }
  if (trace_hooks.segment_end != nullptr) trace_hooks.segment_end(-1);
  check_shared_margin();
  return !block.aborted;
}

/// Visits 0 … n - 1: i -> (start + i · step) mod n with step and n coprime.
struct Permutation {
  std::uint64_t n, start, step;
  explicit Permutation(std::uint64_t size) : n(size), start(0), step(1) {
    if (schedule.order == Order::reverse) start = n - 1, step = n - 1;
    if (schedule.order != Order::random) return;
    start = schedule.draw(n);
    do step = 1 + schedule.draw(n);
    while (std::gcd(step, n) != 1);
  }
  std::uint64_t operator()(std::uint64_t i) const {
    return static_cast<std::uint64_t>((start + static_cast<unsigned __int128>(i) * step) % n);
  }
};

// --- Faults of the host's memory protection ---

struct sigaction old_segv;

void on_fault(int signal, siginfo_t* info, void* context) {
  const char* p = static_cast<const char*>(info->si_addr);
  if (current != nullptr) {
    const char* low = static_cast<const char*>(current->bottom);
    if (p >= low - guard_bytes && p < low)
      trap("stack", "the thread needs more than %zu bytes of stack", stack_bytes - guard_bytes);
    trap("illegal-address", "access of address %p", static_cast<const void*>(p));
  }
  if (is_device_address(p)) {
    static const char text[] =
        "plumb emulator: host-access: the host dereferences a device pointer\n";
    [[maybe_unused]] const auto written = ::write(2, text, sizeof text - 1);
  }
  sigaction(signal, &old_segv, nullptr);  // the fault repeats, and ends the program
  (void)context;
}

}  // namespace

// Called often: a test framework puts its own handler in this place now and then.
void install_fault_handler() {
  constexpr std::size_t size = 64 * 1024;
  static thread_local const bool has_stack = [] {  // the thread's own may be what overflowed
    stack_t stack{};
    stack.ss_sp = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stack.ss_size = size;
    return sigaltstack(&stack, nullptr) == 0;
  }();
  (void)has_stack;
  struct sigaction now {};
  sigaction(SIGSEGV, nullptr, &now);
  if ((now.sa_flags & SA_SIGINFO) != 0 && now.sa_sigaction == on_fault) return;
  old_segv = now;
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigaction(SIGSEGV, &action, nullptr);
}

int architecture() noexcept { return played_architecture; }
void set_architecture(int architecture) { played_architecture = architecture; }

void set_schedule(Order order, std::uint64_t seed) {
  schedule.order = order;
  schedule.start(seed);
}
Order schedule_order() { return schedule.order; }
std::uint64_t schedule_draw(std::uint64_t n) { return schedule.draw(n); }

std::vector<Error> take_errors() {
  heal_device();
  const std::lock_guard lock(error_mutex);
  std::vector<Error> taken;
  taken.swap(errors());
  return taken;
}

void report(const char* kind, const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  add_error(kind, format, arguments);
  va_end(arguments);
  if (current != nullptr) set_device_error(cudaErrorLaunchFailure);
}

void trap(const char* kind, const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  add_error(kind, format, arguments);
  va_end(arguments);
  set_device_error(std::strcmp(kind, "misaligned") == 0 ? cudaErrorMisalignedAddress
                                                        : cudaErrorIllegalAddress);
  if (current == nullptr) std::abort();  // the host has done it
  leave_kernel();
}

void remark(const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  std::fputs("plumb emulator: ", stderr);
  std::vfprintf(stderr, format, arguments);
  std::fputc('\n', stderr);
  va_end(arguments);
}

const Counts& counts() { return totals; }

namespace {

std::uint64_t blocks_at_each_end = 0;  // OnlyEnds; 0: all blocks run
constexpr std::uint64_t all_run_up_to = 8192;

}  // namespace

OnlyEnds::OnlyEnds(std::uint64_t blocks) { blocks_at_each_end = blocks; }
OnlyEnds::~OnlyEnds() { blocks_at_each_end = 0; }
bool OnlyEnds::here() { return blocks_at_each_end > 0; }

bool run(const Launch& launch) {
  if (shared_area == nullptr) {
    // 16 bytes past a multiple of 128: no more than what CUDA promises for dynamic shared memory.
    static char* room = static_cast<char*>(std::aligned_alloc(128, shared_capacity + 1024 - 256));
    shared_area = room + 16;
  }
  if (stacks_dirty) make_stacks();
  if (under_tsan()) host.tsan = __tsan_get_current_fiber();
  ++totals.launches;
  block.launch = &launch;
  block.threads = launch.block.x * launch.block.y * launch.block.z;
  block.aborted = false;
  clock.launch_first = clock.epoch + 1;
  poison(shared_area, shared_capacity + 512);
  unpoison(shared_area, shared_bytes());
  const std::uint64_t blocks =
      static_cast<std::uint64_t>(launch.grid.x) * launch.grid.y * launch.grid.z;
  const std::uint64_t at_each_end = blocks > all_run_up_to ? blocks_at_each_end : 0;
  const std::uint64_t to_run = at_each_end > 0 ? 2 * at_each_end : blocks;
  const Permutation order(to_run);
  bool whole = true;
  // A GPU rounds to nearest and keeps small numbers, whatever the host's thread does.
  const unsigned floats = _mm_getcsr();
  _mm_setcsr(0x1F80);
  for (std::uint64_t i = 0; whole && i < to_run; ++i) {
    const std::uint64_t k = order(i);
    whole = run_block(launch, at_each_end > 0 && k >= at_each_end ? blocks - to_run + k : k);
  }
  _mm_setcsr(floats);
  if (!whole) stacks_dirty = true;
  if (trace_hooks.launch_end != nullptr) trace_hooks.launch_end();
  unpoison(shared_area, shared_capacity + 512);
  block.launch = nullptr;
  return whole;
}

bool traced() { return trace_hooks.access != nullptr; }
std::map<std::string, TraceCounts>& trace_counts() {
  static auto* all = new std::map<std::string, TraceCounts>;
  return *all;
}
namespace {
bool count_transactions = false;
}
void trace_transactions(bool on) { count_transactions = on; }
bool trace_transactions() { return count_transactions; }

bool in_kernel() noexcept { return current != nullptr; }
uint3 thread_index() noexcept { return current->index; }
uint3 block_index() noexcept { return block.index; }
dim3 block_size() noexcept { return block.launch->block; }
dim3 grid_size() noexcept { return block.launch->grid; }
unsigned lane() noexcept { return current->id % 32; }
unsigned current_thread() noexcept { return current->id; }
const Launch& current_launch() noexcept { return *block.launch; }
std::uint16_t warp_segment(unsigned warp) noexcept { return warps[warp].segment; }
char* shared_memory() noexcept { return shared_area; }
char* dynamic_shared_memory() noexcept {
  return shared_area + (block.launch->kernel->static_shared + 15) / 16 * 16;
}
std::size_t shared_bytes() noexcept {
  return (block.launch->kernel->static_shared + 15) / 16 * 16 + block.launch->dynamic_shared;
}
unsigned active_mask() noexcept {
  return schedule.order == Order::random ? 1U << lane() : warps[current->id / 32].alive;
}

int barrier(Barrier kind, int predicate, Place place) {
  if (block.arrived == 0) {
    block.place = place;
    block.kind = kind;
    block.count = 0;
  } else if (block.kind != kind || !same(block.place, place)) {
    report("divergence", "threads of one block meet at different barriers, %s:%d and %s:%d",
           block.place.file, block.place.line, place.file, place.line);
  }
  if (block.exited != 0)
    report("early-exit", "barrier %s:%d after %u threads of the block have exited", place.file,
           place.line, block.exited);
  block.count += predicate != 0;
  ++block.arrived;
  current->state = State::at_barrier;
  current->place = place;
  current->waits_for = "a barrier";
  void* synchronisation = &block.barriers[clock.epoch & 1];
  release(synchronisation);
  wait_for_turn();
  acquire(synchronisation);
  switch (kind) {
    case Barrier::count: return block.result_count;
    case Barrier::any: return block.result_count != 0;
    case Barrier::all: return block.result_all;
    default: return 0;
  }
}

namespace {

/// The operation in which the mask's lanes meet, this lane the first or a later one.
WarpOperation& join_operation(Warp& warp, unsigned bit, unsigned mask, const char* name,
                              Place place) {
  for (unsigned used = warp.used; used != 0; used &= used - 1) {
    WarpOperation& o = warp.operations[__builtin_ctz(used)];
    if (o.done || (o.mask & bit) == 0) continue;
    const bool meets = o.mask == mask;
    // Other lanes wait there for this one; it may come later, unless it waits for them here.
    if (!meets && (mask & o.arrived) == 0) continue;
    if (!meets || !same(o.place, place) || std::strcmp(o.name, name) != 0)
      trap("divergence",
           "lanes of one warp meet at different operations: %s (mask %08x) at %s:%d "
           "and %s (mask %08x) at %s:%d",
           o.name, o.mask, o.place.file, o.place.line, name, mask, place.file, place.line);
    return o;
  }
  const int slot = __builtin_ctz(~warp.used);
  warp.used |= 1U << slot;
  WarpOperation& o = warp.operations[slot];
  o.mask = mask;
  o.arrived = 0;
  o.name = name;
  o.place = place;
  o.done = false;
  return o;
}

}  // namespace

void warp_collective(unsigned mask, const char* name, void* argument, WarpFunction last,
                     Place place, bool orders_memory) {
  Fiber& self = *current;
  Warp& warp = warps[self.id / 32];
  const unsigned bit = 1U << (self.id % 32);
  ++totals.warp_operations;
  if ((mask & bit) == 0)
    trap("warp-mask", "%s at %s:%d: lane %u calls it with the mask %08x, which lacks it", name,
         place.file, place.line, self.id % 32, mask);
  const unsigned members = mask & warp.full;  // the last warp of a block may be short
  if ((members & ~warp.alive) != 0)
    trap("exited-lane", "%s at %s:%d: the mask %08x names lanes that have exited (%08x)", name,
         place.file, place.line, mask, members & ~warp.alive);

  WarpOperation* o = &join_operation(warp, bit, members, name, place);
  o->arrived |= bit;
  o->arguments[self.id % 32] = argument;
  if (orders_memory) release(o);
  if (o->arrived == o->mask) {
    if (last != nullptr) last(o->arguments, o->mask);
    o->done = true;
    o->left = static_cast<unsigned>(__builtin_popcount(o->mask));
    // Only a meeting of all lanes is counted as an order: of a part, races may be reported wrongly.
    if (orders_memory && o->mask == warp.alive && warp.segment != 0xFFFF) {
      if (trace_hooks.segment_end != nullptr)
        trace_hooks.segment_end(static_cast<int>(self.id / 32));
      ++warp.segment;
    }
    const unsigned first = self.id & ~31U;
    const bool backwards = schedule.order == Order::reverse;
    for (unsigned k = 0; k < 32; ++k) {
      const unsigned l = backwards ? 31 - k : k;
      if ((o->mask >> l & 1) != 0 && first + l != self.id) make_ready(first + l);
    }
  } else {
    self.state = State::in_warp;
    self.place = place;
    self.waits_for = name;
    wait_for_turn();
  }
  if (orders_memory) acquire(o);
  if (--o->left == 0) warp.used &= ~(1U << (o - warp.operations));
}

void note(const void* address, std::size_t bytes, Access access, const void* pc) {
  void* p = const_cast<void*>(address);
  if (traced()) return trace_hooks.access(address, bytes, access, pc);
  if (under_asan())
    return access == Access::read ? __asan_loadN(p, bytes) : __asan_storeN(p, bytes);
  if (under_tsan() && access != Access::atomic)
    return access == Access::read ? __tsan_read_range(p, bytes) : __tsan_write_range(p, bytes);
}

void copy_async(void* shared, const void* global, unsigned bytes, unsigned source_bytes,
                Place place, const void* pc) {
  check_aligned(shared, bytes, place);
  check_aligned(global, bytes, place);
  if (pc == nullptr) pc = __builtin_return_address(0);
  note(shared, bytes, Access::write, pc);
  if (source_bytes != 0) note(global, source_bytes, Access::read, pc);
  std::memset(shared, 0xFF, bytes);
  Fiber& self = *current;
  if (self.copy_count == self.copy_capacity) {
    self.copy_capacity = self.copy_capacity == 0 ? 32 : 2 * self.copy_capacity;
    self.copies = static_cast<PendingCopy*>(
        std::realloc(self.copies, self.copy_capacity * sizeof(PendingCopy)));
  }
  self.copies[self.copy_count++] = {shared, global, bytes, source_bytes, self.group, pc};
}

void copy_async_commit() { ++current->group; }

void copy_async_wait(unsigned pending, Place) {
  Fiber& self = *current;
  unsigned kept = 0;
  for (unsigned k = 0; k < self.copy_count; ++k) {
    const PendingCopy c = self.copies[k];
    if (self.group - c.group <= pending) {
      self.copies[kept++] = c;
      continue;
    }
    note(c.shared, c.bytes, Access::arrival, c.pc);
    std::memcpy(c.shared, c.global, c.source_bytes);
    std::memset(static_cast<char*>(c.shared) + c.source_bytes, 0, c.bytes - c.source_bytes);
  }
  self.copy_count = kept;
}

}  // namespace plumb::emulator
