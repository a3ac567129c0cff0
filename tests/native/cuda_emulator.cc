#include "cuda_emulator.h"

#include "cuda_block_conflicts.h"
#include "cuda_limits.h"
#include "cuda_store_order.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <utility>

#if !defined(__x86_64__) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SPECDEC_UCONTEXT 1
#include <ucontext.h>
#endif

namespace specdec::cuda {
namespace {

constexpr std::size_t kStackBytes = std::size_t{96} << 10;
constexpr std::size_t kGuardBytes = 4096;  // around buffers, so that nothing lies side by side

// Ends a thread of the grid.
struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

std::string& first_error() {
  static std::string error;
  return error;
}
struct Known {
  std::size_t n_bytes = 0;
  std::unique_ptr<BlockConflicts> conflicts;  // made when they are asked for
  std::unique_ptr<StoredWords> stored;
  std::unique_ptr<PendingWords> pending;
};
std::map<std::uintptr_t, Known>& buffers() {
  static std::map<std::uintptr_t, Known> map;
  return map;
}
// Where an address lies; null: nowhere, or no buffer exists.
struct Place {
  Known* known = nullptr;
  std::size_t offset = 0;
};
Place find_place(const void* p) {
  const auto at = reinterpret_cast<std::uintptr_t>(p);
  auto buffer = buffers().upper_bound(at);
  if (buffer == buffers().begin()) return {};
  --buffer;
  return {&buffer->second, at - buffer->first};
}
// Also an empty one.
void forget_buffers(const std::byte* data, std::size_t n_bytes) {
  const auto at = reinterpret_cast<std::uintptr_t>(data);
  buffers().erase(buffers().lower_bound(at),
                  buffers().lower_bound(at + (n_bytes > 0 ? n_bytes : 1)));
}
LaunchOrder& launch_order() {
  static LaunchOrder order;
  return order;
}
int& launch_count() {
  static int n = 0;
  return n;
}
std::int64_t& block_count() {
  static std::int64_t n = 0;
  return n;
}

// --- Fibers --------------------------------------------------------------------------------------

#if defined(SPECDEC_UCONTEXT)

struct Context {
  ucontext_t context;
};
void switch_context(Context& from, Context& to) { swapcontext(&from.context, &to.context); }
void make_context(Context& context, std::byte* stack, void (*entry)()) {
  getcontext(&context.context);
  context.context.uc_stack.ss_sp = stack;
  context.context.uc_stack.ss_size = kStackBytes;
  context.context.uc_link = nullptr;
  makecontext(&context.context, entry, 0);
}

#else

// swapcontext() without its system calls: the registers that a call must preserve.
extern "C" void specdec_switch(void** from, void* to);
__asm__(
    ".text\n"
    ".type specdec_switch, @function\n"
    "specdec_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".size specdec_switch, .-specdec_switch\n");

struct Context {
  void* stack_pointer;
};
void switch_context(Context& from, Context& to) {
  specdec_switch(&from.stack_pointer, to.stack_pointer);
}
void make_context(Context& context, std::byte* stack, void (*entry)()) {
  auto* top = reinterpret_cast<void**>(stack + kStackBytes);
  *--top = nullptr;  // the stack is 8 bytes off 16 when a function begins
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  context.stack_pointer = top;
}

#endif

}  // namespace

// --- A block -------------------------------------------------------------------------------------

class BlockRunner {
 public:
  BlockRunner(int n_threads, int shared_bytes)
      : threads_(static_cast<std::size_t>(n_threads)),
        warps_(static_cast<std::size_t>(n_threads / 32)),
        shared_(static_cast<std::size_t>(shared_bytes)),
        shadow_((shared_.size() + 3) / 4) {}

  void run(int block_x, int block_y, void (*body)(const void*, EmulatedGrid&),
           const void* argument) {
    body_ = body;
    argument_ = argument;
    std::fill(shared_.begin(), shared_.end(), std::byte{0xFF});
    std::fill(shadow_.begin(), shadow_.end(), Shadow{});
    epoch_ = 1;
    for (std::size_t i = 0; i < threads_.size(); ++i) {
      Thread& thread = threads_[i];
      thread.grid.runner_ = this;
      thread.grid.block_x_ = block_x;
      thread.grid.block_y_ = block_y;
      thread.grid.thread_ = static_cast<int>(i);
      thread.grid.n_threads_ = static_cast<int>(threads_.size());
      thread.grid.waited_ = false;
      thread.state = State::kReady;
      make_context(thread.context, stack(i), &BlockRunner::enter);
    }
    for (Warp& warp : warps_) warp = {};
    while (first_error().empty() && !all(State::kDone)) {
      for (std::size_t w = 0; w < warps_.size(); ++w)
        run_warp(emulator_options().backwards ? warps_.size() - 1 - w : w);
      if (all(State::kDone) || !first_error().empty()) break;
      if (!all(State::kSync)) {
        fail("threads wait for others of their block or warp that never come");
        break;
      }
      ++epoch_;
      for (Thread& thread : threads_) thread.state = State::kReady;
    }
  }

  void sync(int) { wait(State::kSync); }
  [[nodiscard]] int epoch() const { return epoch_; }

  const std::uint32_t* exchange(int thread, const std::uint32_t* words, int n, const char* what) {
    Warp& warp = warps_[static_cast<std::size_t>(thread / 32)];
    if (warp.n_arrived == 0) warp.what = what;
    if (std::strcmp(warp.what, what) != 0)
      throw Failure(std::string("lanes of a warp meet in a ") + warp.what + " and a " + what);
    std::uint32_t* slot = warp.words[warp.parity];
    std::memcpy(slot + thread % 32 * EmulatedGrid::kWords, words, static_cast<std::size_t>(n) * 4);
    if (++warp.n_arrived < 32) {
      wait(State::kWarp);
      return slot;
    }
    // Lanes that are slow to read have their words until the exchange after the next one.
    warp.n_arrived = 0;
    warp.parity ^= 1;
    const int first = thread / 32 * 32;
    for (int i = first; i < first + 32; ++i) {
      Thread& other = threads_[static_cast<std::size_t>(i)];
      if (other.state == State::kWarp) other.state = State::kReady;
    }
    return slot;
  }

  std::byte* shared_at(int thread, std::int64_t offset, std::size_t n, bool writes) {
    if (offset < 0 || static_cast<std::size_t>(offset) + n > shared_.size() ||
        static_cast<std::size_t>(offset) % n != 0) {
      throw Failure("shared memory at " + std::to_string(offset) + " of " +
                    std::to_string(shared_.size()));
    }
    for (std::size_t at = static_cast<std::size_t>(offset) / 4;
         at < (static_cast<std::size_t>(offset) + n + 3) / 4; ++at)
      note_access(thread, at, writes);
    return shared_.data() + offset;
  }

 private:
  enum class State { kReady, kWarp, kSync, kDone };
  struct Thread {
    EmulatedGrid grid;
    Context context{};
    State state = State::kDone;
  };
  struct Warp {
    std::uint32_t words[2][32 * EmulatedGrid::kWords] = {};
    int parity = 0;
    int n_arrived = 0;
    const char* what = "";
  };
  // Who touched a word of shared memory since the last sync.
  struct Shadow {
    int write_epoch = 0, writer = -1;
    int read_epoch = 0, reader = -1;  // -2: several
  };

  static constexpr int kSeveral = -2;

  void note_access(int thread, std::size_t at, bool writes) {
    Shadow& shadow = shadow_[at];
    const bool written = shadow.write_epoch == epoch_ && shadow.writer != thread;
    const bool read = shadow.read_epoch == epoch_ && shadow.reader != thread;
    if (written || (writes && read)) {
      throw Failure("a race on shared memory at " + std::to_string(at * 4) + ": thread " +
                    std::to_string(thread) + (writes ? " writes" : " reads") + " what thread " +
                    std::to_string(written ? shadow.writer : shadow.reader) +
                    (written ? " wrote" : " read"));
    }
    if (writes) {
      shadow.write_epoch = epoch_;
      shadow.writer = thread;
    } else {
      shadow.reader = shadow.read_epoch == epoch_ && shadow.reader != thread ? kSeveral : thread;
      shadow.read_epoch = epoch_;
    }
  }

  [[nodiscard]] bool all(State state) const {
    return std::all_of(threads_.begin(), threads_.end(),
                       [&](const Thread& thread) { return thread.state == state; });
  }

  // Until each lane waits for other warps or is done.
  void run_warp(std::size_t w) {
    for (bool progress = true; progress;) {
      progress = false;
      for (std::size_t i = 32 * w; i < 32 * w + 32; ++i) {
        if (threads_[i].state != State::kReady) continue;
        progress = true;
        current_ = this;
        running_ = &threads_[i];
        switch_context(main_, threads_[i].context);
        if (!first_error().empty()) return;
      }
    }
  }

  void wait(State state) {
    Thread* self = running_;
    self->state = state;
    switch_context(self->context, main_);
  }

  static void enter() {
    BlockRunner* runner = current_;
    Thread* self = runner->running_;
    try {
      runner->body_(runner->argument_, self->grid);
      if (!self->grid.waited_) throw Failure("the end of a thread before wait_for_previous()");
    } catch (const std::exception& error) {
      runner->fail(error.what());
    }
    self->state = State::kDone;
    switch_context(self->context, runner->main_);
  }

  void fail(const std::string& what) {
    if (!first_error().empty()) return;
    const EmulatedGrid& grid = running_->grid;
    first_error() = what + " (block " + std::to_string(grid.block_x_) + ", " +
                    std::to_string(grid.block_y_) + ", thread " + std::to_string(grid.thread_) +
                    ")";
  }

  static std::byte* stack(std::size_t i) {
    static std::vector<std::unique_ptr<std::byte[]>> stacks;
    while (stacks.size() <= i) stacks.emplace_back(new std::byte[kStackBytes + 16]);
    const auto address = reinterpret_cast<std::uintptr_t>(stacks[i].get());
    return reinterpret_cast<std::byte*>((address + 15) / 16 * 16);
  }

  static inline BlockRunner* current_ = nullptr;

  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<std::byte> shared_;
  std::vector<Shadow> shadow_;
  Context main_{};
  Thread* running_ = nullptr;
  int epoch_ = 1;
  void (*body_)(const void*, EmulatedGrid&) = nullptr;
  const void* argument_ = nullptr;
};

// --- A thread ------------------------------------------------------------------------------------

void EmulatedGrid::sync() { runner_->sync(thread_); }

const std::uint32_t* EmulatedGrid::exchange(const std::uint32_t* words, int n, const char* what) {
  return runner_->exchange(thread_, words, n, what);
}

std::byte* EmulatedGrid::shared_at(std::int64_t offset, std::size_t n, bool writes) {
  return runner_->shared_at(thread_, offset, n, writes);
}

void EmulatedGrid::check_access(const void* p, std::size_t n, std::size_t alignment,
                                const char* what) {
  const auto at = reinterpret_cast<std::uintptr_t>(p);
  if (at % alignment != 0) throw Failure(std::string("a misaligned ") + what);
  const auto& known = buffers();
  if (known.empty()) return;
  auto next = known.upper_bound(at);
  if (next != known.begin()) {
    --next;
    if (at + n <= next->first + next->second.n_bytes) {
      const PendingWords* pending = next->second.pending.get();
      const bool loads = std::strcmp(what, "load") == 0;
      if (!waited_ && loads && pending != nullptr && pending->any(at - next->first, n))
        throw Failure("a load before wait_for_previous() of what an earlier kernel stored");
      return;
    }
    throw Failure(std::string("a ") + what + " " + std::to_string(at - next->first) +
                  " bytes into a buffer of " + std::to_string(next->second.n_bytes));
  }
  throw Failure(std::string("a ") + what + " outside of device memory");
}

void EmulatedGrid::wait_for_previous() {
  if (waited_) throw Failure("a second wait_for_previous()");
  waited_ = true;
}

void EmulatedGrid::check_waited(const char* what) const {
  if (!waited_) throw Failure(std::string("a ") + what + " before wait_for_previous()");
}

int EmulatedGrid::block_id() const { return block_y_ << 16 | block_x_; }

void EmulatedGrid::fence() {
  if (emulator_options().check_blocks)
    launch_order().fence({block_id(), thread_, runner_->epoch()});
}

void EmulatedGrid::note_atomic() const {
  if (emulator_options().check_blocks)
    launch_order().atomic({block_id(), thread_, runner_->epoch()});
}

void EmulatedGrid::note_store(const void* p, std::size_t n) const {
  const auto [known, first] = find_place(p);
  if (known == nullptr) return;
  if (known->pending == nullptr) known->pending = std::make_unique<PendingWords>(known->n_bytes);
  known->pending->store(first, n);
  if (!emulator_options().check_blocks) return;
  if (known->stored == nullptr) known->stored = std::make_unique<StoredWords>(known->n_bytes);
  known->stored->store(first, n, {block_id(), thread_, runner_->epoch()}, launch_order().tick(),
                       launch_count());
}

void EmulatedGrid::check_visible(const void* p, std::size_t n) const {
  const auto [known, first] = find_place(p);
  if (known == nullptr || known->stored == nullptr) return;
  const std::string error = known->stored->load(first, n, {block_id(), thread_, runner_->epoch()},
                                                launch_count(), launch_order());
  if (!error.empty()) throw Failure(error);
}

// Of an access that check_access() has passed.
void EmulatedGrid::check_conflict(const void* p, const void* stored, std::size_t n) const {
  const auto [place, first] = find_place(p);
  if (place == nullptr) return;
  Known& known = *place;
  if (known.conflicts == nullptr) known.conflicts = std::make_unique<BlockConflicts>(known.n_bytes);
  const int block = block_id();
  const std::string error =
      stored == nullptr ? known.conflicts->load(first, n, block, launch_count())
                        : known.conflicts->store(first, static_cast<const unsigned char*>(p),
                                                 static_cast<const unsigned char*>(stored), n,
                                                 block, launch_count());
  if (!error.empty()) throw Failure(error);
}

std::int32_t EmulatedGrid::dp4a(std::uint32_t a, std::uint32_t b, std::int32_t c) const {
  for (int i = 0; i < 32; i += 8) {
    c += static_cast<std::int8_t>((a >> i) & 0xFFU) * static_cast<std::int8_t>((b >> i) & 0xFFU);
  }
  return c;
}

// The definition of the instruction, not its fragments' sums: row g of A is spread over the lanes
// 4g .. 4g + 3, column c of B over 4c .. 4c + 3.
void EmulatedGrid::mma_k32(std::int32_t* c, const std::uint32_t* a, std::uint32_t b0,
                           std::uint32_t b1) {
  const std::uint32_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
  const std::uint32_t* all = exchange(mine, 6, "mma.k32");
  const int lane = thread_ % 32;
  for (int i = 0; i < 4; ++i) {
    const int column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < 8; ++k) {  // words of a row
      const std::uint32_t weight = all[(lane / 4 * 4 + k % 4) * kWords + k / 4 * 2 + i / 2];
      const std::uint32_t x = all[(column * 4 + k % 4) * kWords + 4 + k / 4];
      c[i] = dp4a(weight, x, c[i]);
    }
  }
}

void EmulatedGrid::mma_k16(std::int32_t* c, std::uint32_t a0, std::uint32_t a1, std::uint32_t b) {
  const std::uint32_t mine[3] = {a0, a1, b};
  const std::uint32_t* all = exchange(mine, 3, "mma.k16");
  const int lane = thread_ % 32;
  for (int i = 0; i < 4; ++i) {
    const int column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < 4; ++k)
      c[i] =
          dp4a(all[(lane / 4 * 4 + k) * kWords + i / 2], all[(column * 4 + k) * kWords + 2], c[i]);
  }
}

// --- Launches ------------------------------------------------------------------------------------

EmulatedBuffer::EmulatedBuffer(std::size_t n_bytes, int fill) : data_(nullptr), n_bytes_(n_bytes) {
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(
      kAlignment, (n_bytes + kAlignment - 1) / kAlignment * kAlignment + 2 * kGuardBytes));
  if (memory == nullptr) throw std::bad_alloc();
  data_ = memory + kGuardBytes;
  std::memset(data_, fill, n_bytes);
  buffers()[reinterpret_cast<std::uintptr_t>(data_)].n_bytes = n_bytes;
}

EmulatedBuffer::~EmulatedBuffer() {
  forget_buffers(data_, n_bytes_);
  std::free(data_ - kGuardBytes);
}

void set_parts(std::byte* data, std::size_t n_bytes, const std::vector<stream::MemoryPart>& parts) {
  forget_buffers(data, n_bytes);
  for (const stream::MemoryPart& part : parts)
    buffers()[reinterpret_cast<std::uintptr_t>(data) + part.offset].n_bytes = part.n_bytes;
}

EmulatorOptions& emulator_options() {
  static EmulatorOptions options;
  return options;
}

void note_host_write(const void* data, std::size_t n_bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  const auto end = begin + n_bytes;
  auto buffer = buffers().upper_bound(begin);
  if (buffer != buffers().begin()) --buffer;
  for (; buffer != buffers().end() && buffer->first < end; ++buffer) {
    const auto first = std::max(begin, buffer->first);
    const auto last = std::min(end, buffer->first + buffer->second.n_bytes);
    if (buffer->second.pending != nullptr && first < last)
      buffer->second.pending->host_write(first - buffer->first, last - first);
  }
}

void note_idle() {
  for (auto& [at, known] : buffers()) {
    if (known.pending != nullptr) known.pending->idle();
  }
}

std::string take_emulator_error() { return std::exchange(first_error(), std::string()); }

std::int64_t emulated_blocks() { return block_count(); }
int emulated_launches() { return launch_count(); }

bool fits_bounds(int n_threads, int shared_bytes, int max_threads, int min_blocks) {
  if (!first_error().empty()) return true;
  if (n_threads > max_threads) {
    first_error() = "a launch of " + std::to_string(n_threads) + " threads of a kernel for " +
                    std::to_string(max_threads);
  }
  for (const ArchitectureLimits& limits : kArchitectures) {
    const int n_blocks = limits.blocks(max_threads, shared_bytes, 0);
    if (!first_error().empty() || n_blocks >= min_blocks) continue;
    first_error() = std::string("a kernel for ") + std::to_string(min_blocks) + " blocks of " +
                    std::to_string(max_threads) + " threads and " + std::to_string(shared_bytes) +
                    " bytes of shared memory at a time, of which a processor of " + limits.name +
                    " holds " + std::to_string(n_blocks);
  }
  return first_error().empty();
}

std::map<std::string, LaunchedKernel>& launched_kernels() {
  static std::map<std::string, LaunchedKernel> kernels;
  return kernels;
}

void note_kernel(const std::type_info& type, const LaunchedKernel& kernel) {
  LaunchedKernel& known = launched_kernels()[type.name()];
  const int most = std::max(known.shared_bytes, kernel.shared_bytes);
  known = kernel;
  known.shared_bytes = most;
}

void run_grid(int grid_x, int grid_y, int n_threads, int shared_bytes,
              void (*body)(const void* argument, EmulatedGrid& thread), const void* argument) {
  if (!first_error().empty()) return;
  if (grid_x < 1 || grid_y < 1 || grid_y > 65535 || n_threads < 32 || n_threads > 1024 ||
      n_threads % 32 != 0 || shared_bytes > 48 * 1024) {
    first_error() = "a launch of " + std::to_string(grid_x) + " x " + std::to_string(grid_y) +
                    " blocks of " + std::to_string(n_threads) + " threads with " +
                    std::to_string(shared_bytes) + " bytes of shared memory";
    return;
  }
  ++launch_count();
  launch_order().begin();
  BlockRunner runner(n_threads, shared_bytes);
  const std::int64_t n_blocks = std::int64_t{grid_x} * grid_y;
  for (std::int64_t i = 0; i < n_blocks && first_error().empty(); ++i) {
    const std::int64_t block = emulator_options().backwards ? n_blocks - 1 - i : i;
    runner.run(static_cast<int>(block % grid_x), static_cast<int>(block / grid_x), body, argument);
    ++block_count();
  }
}

}  // namespace specdec::cuda
