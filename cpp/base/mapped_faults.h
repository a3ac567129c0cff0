// Makes a read from a mapped file that has no bytes there any more (it was cut off, or its disk
// fails) survivable: the rest of the mapping becomes zeros and the mapping is marked, where the
// system would end the process with SIGBUS.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace specdec {

// One mapping that is watched. Written by the owner, read by the signal handler.
struct WatchedMapping {
  std::atomic<std::uintptr_t> begin{0};
  std::atomic<std::uintptr_t> end{0};
  std::atomic<bool> faulted{false};
  std::atomic<bool> in_use{false};
  WatchedMapping* next = nullptr;  // set once, before anybody can see it
};

// Installs the handler where it is not the current one; other handlers (Python's faulthandler) go
// on receiving what is not about a watched mapping. Never fails: without it, SIGBUS is what it was.
void watch_faults() noexcept;

// nullptr without memory. `n_bytes` > 0.
[[nodiscard]] WatchedMapping* watch_mapping(const void* data, std::size_t n_bytes) noexcept;
// Before the memory is unmapped.
void unwatch_mapping(WatchedMapping* mapping) noexcept;

}  // namespace specdec
