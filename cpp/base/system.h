// What only one operating system knows how to ask: a file for each (system_linux.cc,
// system_darwin.cc), of which CMake builds one. What POSIX has is used where it is needed.
#pragma once

#include <atomic>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <thread>
#include <vector>

struct stat;

namespace specdec {

// Large pages for memory that begins at one. A hint.
void advise_huge_pages(void* data, std::size_t n_bytes) noexcept;

// Maps the pages of a file that [data, data + n_bytes) touches, reading them if need be, before
// they are used. A hint.
void map_pages(const void* data, std::size_t n_bytes) noexcept;

// When a file was changed last, in nanoseconds since 1970.
[[nodiscard]] std::uint64_t modified_ns(const struct stat& info) noexcept;

// Cores, each counted once, that the scheduler may put this process on; on macOS, of unlike cores
// the fast ones. At least 1.
[[nodiscard]] int usable_cores();

// Memory that can be had without paging, of the whole machine; 0: not known.
[[nodiscard]] std::uint64_t free_memory_bytes();

// "Intel(R) Xeon(R) ..."; empty: not known.
[[nodiscard]] std::string processor_name();

// Bytes of the last-level cache that the first processor sees, 0 where the system does not tell.
// `root`: on Linux, where the system's files are, for tests.
[[nodiscard]] std::uint64_t last_level_cache_bytes(const std::string& root = "");
// The same of the second level.
[[nodiscard]] std::uint64_t second_level_cache_bytes(const std::string& root = "");

// Ticks of all processors since the start: all, and those that the host gave to somebody else.
struct CpuTicks {
  std::uint64_t total = 0;
  std::uint64_t stolen = 0;
};
[[nodiscard]] std::optional<CpuTicks> read_cpu_ticks(const std::string& root = "");

// Of Armv8.2-A with dot products, and with products of matrices of bytes when asked for, what this
// processor lacks, by the names that Linux has for it. Empty on other processors.
[[nodiscard]] std::vector<const char*> missing_arm_features(bool matrix_products);

// Whether this process may use the tile registers of AMX, of which the processor is known to have
// some: the system is asked once, and from then on keeps room for them in signal frames.
[[nodiscard]] bool may_use_tiles() noexcept;

// Sleeps while the word has this value, until woken or, now and then, for nothing; and wakes all
// who do. Like std::atomic's, which on Linux yields before it sleeps.
void sleep_on(const std::atomic<std::uint32_t>& word, std::uint32_t value) noexcept;
void wake_sleepers(std::atomic<std::uint32_t>& word) noexcept;

// The processor that runs this thread right now; -1: not known.
[[nodiscard]] int current_processor() noexcept;
// Puts a thread on a processor that it may use and that is none of `taken`, once: it may go
// elsewhere afterwards. False: there is none, or the system does not do it.
using Processors = std::bitset<1024>;
bool move_thread(std::thread& thread, const Processors& taken) noexcept;

// Unlike for threads that run at the same time, never 0. May be called in a signal handler.
[[nodiscard]] long current_thread_id() noexcept;

// A new file in a folder, open for writing, that vanishes with its descriptor and can be given a
// name with linkat(); `path` is what it is read by meanwhile. -1 where the system has no such
// thing.
[[nodiscard]] int open_nameless_file(const std::string& folder, std::string& path);

// The data of a file is on the disk then; false with errno.
[[nodiscard]] bool sync_to_disk(int fd) noexcept;

}  // namespace specdec
