// Reaches the thread pool and the random numbers from pytest.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/control_groups.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "base/pool_width.h"
#include "base/read_real.h"
#include "base/rng.h"
#include "base/system.h"
#include "base/thread_pool.h"
#include "base/waiting.h"

namespace py = pybind11;
using namespace specdec;

namespace {

// One task: n_phases times every thread takes chunks until n_chunks are gone, with a barrier
// between. Returns how often each chunk of each phase was taken, and how often each thread entered.
py::dict run_task(int n_threads, int n_phases, int n_chunks) {
  std::vector<std::atomic<int>> taken(static_cast<std::size_t>(n_phases * n_chunks));
  std::vector<std::atomic<int>> entered(static_cast<std::size_t>(n_threads));
  std::atomic<int> early{0};  // chunks of a phase seen before all of the one before were taken
  {
    const py::gil_scoped_release release;
    ThreadPool::shared().run(n_threads, [&](TaskContext& context) {
      entered[static_cast<std::size_t>(context.thread())].fetch_add(1);
      for (int phase = 0; phase < n_phases; ++phase) {
        for (std::int64_t i = context.next_chunk(); i < n_chunks; i = context.next_chunk()) {
          if (phase > 0) {
            for (int j = 0; j < n_chunks; ++j) {
              const auto at = static_cast<std::size_t>((phase - 1) * n_chunks + j);
              if (taken[at].load() != 1) early.fetch_add(1);
            }
          }
          taken[static_cast<std::size_t>(phase * n_chunks + static_cast<int>(i))].fetch_add(1);
        }
        context.barrier();
      }
    });
  }
  py::list counts;
  for (const auto& count : taken) counts.append(count.load());
  py::list threads;
  for (const auto& count : entered) threads.append(count.load());
  py::dict out;
  out["taken"] = counts;
  out["entered"] = threads;
  out["early"] = early.load();
  return out;
}

// A PoolWidth and a clock that stands.
class Width {
 public:
  explicit Width(int n_threads) : width_(n_threads) {}
  // A task that takes seconds[width - 1], for busy[width - 1] of which a thread runs, all together;
  // the width that it was given.
  int task(const std::vector<double>& seconds, const std::vector<double>& busy, bool crowded) {
    const auto begun = now_;
    const int width = width_.begin(begun, crowded);
    const auto at = static_cast<std::size_t>(width - 1);
    pause(seconds.at(at));
    if (width_.measures()) {
      width_.end(begun, now_, duration(busy.at(at)));
    } else {
      width_.end(begun, now_);
    }
    return width;
  }
  void pause(double seconds) { now_ += duration(seconds); }
  [[nodiscard]] bool at_rest() const { return width_.at_rest(); }

 private:
  static PoolWidth::Clock::duration duration(double seconds) {
    return std::chrono::duration_cast<PoolWidth::Clock::duration>(
        std::chrono::duration<double>(seconds));
  }
  PoolWidth width_;
  PoolWidth::Clock::time_point now_{std::chrono::hours(1)};
};

double processor_ms() {
  return std::chrono::duration<double, std::milli>(processor_time()).count();
}

// Processor time of n_tasks tasks, in which thread i computes for ms[i] before a barrier.
double busy_ms(const std::vector<double>& ms, int n_tasks) {
  const py::gil_scoped_release release;
  double sum = 0.0;
  for (int i = 0; i < n_tasks; ++i) {
    sum += ThreadPool::shared().measure_busy_ms(
        static_cast<int>(ms.size()), [&](TaskContext& context) {
          const double end = processor_ms() + ms[static_cast<std::size_t>(context.thread())];
          while (processor_ms() < end) {
          }
          context.barrier();
        });
  }
  return sum;
}

// n_tasks tasks of n_threads threads while others are said to want the processors; how many threads
// the last half of them had, in the mean. All but the caller sleep for so long while it waits.
double mean_width(int n_threads, int n_tasks, int microseconds) {
  const py::gil_scoped_release release;
  std::atomic<int> n_entered{0};
  for (int i = 0; i < n_tasks; ++i) {
    if (i == n_tasks / 2) n_entered = 0;
    note_crowd();
    ThreadPool::shared().run(n_threads, [&](TaskContext& context) {
      n_entered.fetch_add(1);
      if (context.thread() > 0)
        std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
      context.barrier();
    });
  }
  return static_cast<double>(n_entered) / (n_tasks - n_tasks / 2);
}

// As many tasks, each with n_barriers barriers, in which the threads of `who` throw behind the
// barrier `at`; how many threads came to the end, and how many tasks threw that.
py::tuple run_failing(int n_threads, int n_tasks, int n_barriers, const std::vector<int>& who,
                      int at) {
  const py::gil_scoped_release release;
  std::atomic<int> n_through{0};
  int n_thrown = 0;
  for (int t = 0; t < n_tasks; ++t) {
    try {
      ThreadPool::shared().run(n_threads, [&](TaskContext& context) {
        for (int i = 0; i <= n_barriers; ++i) {
          if (i > 0) context.barrier();
          if (i == at && std::find(who.begin(), who.end(), context.thread()) != who.end())
            throw std::bad_alloc();
        }
        n_through.fetch_add(1);
      });
    } catch (const std::bad_alloc&) {
      ++n_thrown;
    }
  }
  const py::gil_scoped_acquire gil;
  return py::make_tuple(n_through.load(), n_thrown);
}

// n_callers threads run n_tasks small tasks each at the same time; the sum of all increments.
int run_concurrently(int n_callers, int n_tasks, int n_threads) {
  const py::gil_scoped_release release;
  std::atomic<int> sum{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < n_callers; ++c) {
    callers.emplace_back([&, c] {
      for (int t = 0; t < n_tasks; ++t) {
        const int n = 1 + (c + t) % n_threads;
        ThreadPool::shared().run(n, [&](TaskContext&) { sum.fetch_add(1); });
      }
    });
  }
  for (auto& caller : callers) caller.join();
  return sum.load();
}

py::dict control_groups(const std::string& root) {
  const ControlGroupLimits limits = read_control_groups(root);
  py::dict out;
  out["cpu_cores"] = limits.cpu_cores;
  out["memory_bytes"] = limits.memory_bytes;
  out["free_bytes"] = limits.free_bytes;
  return out;
}

// Maps a file, makes it `left` bytes long and reads all of the mapping with n_threads threads:
// what the file says afterwards, and the bytes.
py::tuple read_cut_file(const std::string& path, std::int64_t left, int n_threads) {
  const MappedFile file(path);
  if (::truncate(path.c_str(), left) != 0) throw std::runtime_error("truncate");
  std::string bytes(file.bytes().size(), '?');
  std::string error;
  {
    const py::gil_scoped_release release;
    constexpr std::size_t kPiece = 10000;
    const std::size_t n_pieces = (bytes.size() + kPiece - 1) / kPiece;
    ThreadPool::shared().run(n_threads, [&](TaskContext& context) {
      for (auto i = static_cast<std::size_t>(context.next_chunk()); i < n_pieces;
           i = static_cast<std::size_t>(context.next_chunk())) {
        const std::size_t n = std::min(kPiece, bytes.size() - i * kPiece);
        std::memcpy(bytes.data() + i * kPiece, file.bytes().data() + i * kPiece, n);
      }
    });
    try {
      file.check_whole();
    } catch (const Error& e) {
      error = e.what();
    }
  }
  return py::make_tuple(error, py::bytes(bytes));
}

// Moves a thread from the processor that it runs on: that one, whether move_thread() did, and where
// it runs right afterwards; and whether it does without a processor that is left.
py::tuple move_busy_thread() {
  const py::gil_scoped_release release;
  std::atomic<int> cpu{-1};
  std::atomic<bool> stop{false};
  std::thread thread([&] {
    while (!stop) cpu = current_processor();
  });
  int before = -1;
  while ((before = cpu) < 0) std::this_thread::yield();
  Processors taken;
  taken.set(static_cast<std::size_t>(before));
  const bool moved = move_thread(thread, taken);
  cpu = -1;
  int after = -1;
  while ((after = cpu) < 0) std::this_thread::yield();
  taken.set();
  const bool nowhere = move_thread(thread, taken);
  stop = true;
  thread.join();
  const py::gil_scoped_acquire gil;
  return py::make_tuple(before, moved, after, nowhere);
}

int map_and_unmap(const std::string& path, int n) {
  std::vector<std::unique_ptr<MappedFile>> files;
  for (int i = 0; i < n; ++i) files.push_back(std::make_unique<MappedFile>(path));
  for (const auto& file : files) file->check_whole();
  return n;
}

// What std::from_chars and the way without it say of one text: error, bytes read, the number.
py::tuple read_reals(const std::string& text, bool fixed) {
  const auto format = fixed ? std::chars_format::fixed : std::chars_format::general;
  const auto both = [&](auto one, auto other) {
    const char *first = text.data(), *last = first + text.size();
    const auto a = std::from_chars(first, last, one, format);
    const auto b = read_real_by_strtod(first, last, other, format);
    return py::make_tuple(py::make_tuple(static_cast<int>(a.ec), a.ptr - first, one),
                          py::make_tuple(static_cast<int>(b.ec), b.ptr - first, other));
  };
  return py::make_tuple(both(-7.0, -7.0), both(-7.0F, -7.0F));
}

}  // namespace

PYBIND11_MODULE(_testing_base, m) {
  m.def("run_task", &run_task);
  m.def("mean_width", &mean_width);
  m.def("busy_ms", &busy_ms);
  py::class_<AllThreads>(m, "AllThreads", py::module_local()).def(py::init<>());
  py::class_<Width>(m, "Width", py::module_local())
      .def(py::init<int>())
      .def("task", &Width::task)
      .def("pause", &Width::pause)
      .def_property_readonly("at_rest", &Width::at_rest);
  m.def("read_reals", &read_reals);
  m.def("run_concurrently", &run_concurrently);
  m.def("read_cut_file", &read_cut_file);
  m.def("map_and_unmap", &map_and_unmap);
  m.def("move_busy_thread", &move_busy_thread);
  m.def("control_groups", &control_groups);
  m.def("threads_for_cores", &threads_for_cores);
  m.def("run_failing", &run_failing, py::arg("n_threads"), py::arg("n_tasks"),
        py::arg("n_barriers"), py::arg("who"), py::arg("at"));
  m.def("default_n_threads", &ThreadPool::default_n_threads);
  m.def("random_bits",
        [](std::uint64_t seed, std::uint32_t stream, std::uint64_t position, std::uint32_t index) {
          return random_bits(seed, static_cast<RngStream>(stream), position, index);
        });
  m.def("random_lanes",
        [](std::uint64_t seed, std::uint32_t stream, std::uint64_t position, std::uint32_t first) {
          std::array<std::uint64_t, kRandomLanes> out{};
          random_bits(seed, static_cast<RngStream>(stream), position, first, out);
          return std::vector<std::uint64_t>(out.begin(), out.end());
        });
}
