// What the stream backend needs of a device besides kernels: memory, copies, recordings. One
// stream, in whose order everything happens. Tests put a device in host memory in its place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "backend/device_backend.h"
#include "backend/stream/memory_part.h"

namespace specdec::stream {

// Kernels and copies that can be issued again at once (a CUDA graph).
class Recording {
 public:
  virtual ~Recording() = default;
};

// Errors: Error(kResource) when memory is short, Error(kDevice) for everything else, saying what
// was being done, on which device, and what the device answered. Used by one thread at a time.
class Runtime {
 public:
  virtual ~Runtime() = default;
  [[nodiscard]] virtual DeviceInfo info() const = 0;

  [[nodiscard]] virtual std::byte* allocate(std::size_t n_bytes) = 0;
  virtual void free(std::byte* data) noexcept = 0;
  // Host memory that copies can use directly.
  [[nodiscard]] virtual std::byte* allocate_pinned(std::size_t n_bytes) = 0;
  virtual void free_pinned(std::byte* data) noexcept = 0;

  // Where a part of an allocated block is used: in its place, but for tests, which keep parts from
  // each other so that accesses past an end are noticed. close_part() returns the place.
  [[nodiscard]] virtual std::byte* open_part(std::byte* part, std::size_t /*n_bytes*/) {
    return part;
  }
  [[nodiscard]] virtual std::byte* close_part(std::byte* part) noexcept { return part; }
  // In stream order: of the n_bytes at `data`, kernels touch only these from here on.
  virtual void note_parts(std::byte* /*data*/, std::size_t /*n_bytes*/,
                          const std::vector<MemoryPart>& /*parts*/) {}

  // In stream order; host memory may be reused after synchronize().
  virtual void upload(void* device, const void* host, std::size_t n_bytes) = 0;
  virtual void download(void* host, const void* device, std::size_t n_bytes) = 0;
  virtual void copy(void* dst, const void* src, std::size_t n_bytes) = 0;
  virtual void fill(void* device, int byte, std::size_t n_bytes) = 0;
  void synchronize(const char* what) {
    ++n_waits_;
    wait(what);
  }
  [[nodiscard]] std::int64_t n_waits() const { return n_waits_; }

  // Runs `issue`, which launches kernels on the stream it gets and touches no memory of the device.
  // What it captures must be values: a recording may call it again.
  virtual void launch(const char* what, const std::function<void(void* stream)>& issue) = 0;

  // From begin_recording() on nothing is executed but kept.
  virtual void begin_recording() = 0;
  [[nodiscard]] virtual std::unique_ptr<Recording> end_recording() = 0;
  virtual void abandon_recording() noexcept = 0;
  virtual void play(Recording& recording) = 0;

  // The device's clock between points of the stream; read after synchronize(). 0: none.
  virtual void mark_begin() = 0;
  virtual void mark_middle() = 0;
  virtual void mark_end() = 0;
  [[nodiscard]] virtual double marked_ms() = 0;
  [[nodiscard]] virtual double marked_first_ms() = 0;  // to the middle

 private:
  virtual void wait(const char* what) = 0;

  std::int64_t n_waits_ = 0;
};

}  // namespace specdec::stream
