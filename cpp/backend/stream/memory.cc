// Memory of the device, and what is loaded into it.
#include <cstring>
#include <vector>

#include "backend/stream/backend_impl.h"
#include "base/aligned_buffer.h"
#include "base/error.h"

namespace specdec::stream {

int StreamBackend::reserve(std::size_t n_bytes, const WorkShape& shape) {
  const std::lock_guard stream_lock(stream_mutex_);
  WorkShape wanted = shape_;
  wanted.include(shape);
  const WorkSpace space(wanted, kernels_.memory);
  const std::size_t rows = static_cast<std::size_t>(wanted.max_rows);
  RuntimeMemory memory(*runtime_, DeviceSlab::aligned(n_bytes), false);
  // Buffers move only when they must: recordings hold their addresses.
  const bool moves = wanted != shape_ || work_memory_.data() == nullptr;
  RuntimeMemory work, pinned_in, pinned_out, lead_in, lead_out;
  if (moves) {
    work = RuntimeMemory(*runtime_, space.n_bytes, false);
    runtime_->note_parts(work.data(), work.size(), space.parts);
    runtime_->fill(work.data() + space.counters, 0, space.counters_bytes);
    pinned_in = RuntimeMemory(
        *runtime_,
        DeviceSlab::aligned(space.inputs_bytes) + rows * space.hidden_row * sizeof(float), true);
    pinned_out = RuntimeMemory(
        *runtime_, space.scratch - space.top + rows * space.hidden_row * sizeof(float), true);
    // Chains embed their tokens there and bring no whole logits back.
    lead_in = RuntimeMemory(*runtime_, space.inputs_bytes, true);
    lead_out = RuntimeMemory(*runtime_, space.logits - space.top, true);
  }
  const std::lock_guard lock(slab_mutex_);
  if (moves) {
    recordings_.clear();
    work_memory_ = std::move(work);
    pinned_in_ = std::move(pinned_in);
    pinned_out_ = std::move(pinned_out);
    lead_in_ = std::move(lead_in);
    lead_out_ = std::move(lead_out);
  }
  shape_ = wanted;
  space_ = space;
  buffers_.hidden = at<float>(space_.hidden);
  buffers_.qkv = at<float>(space_.qkv);
  buffers_.attention = at<float>(space_.attention);
  buffers_.ffn = at<float>(space_.ffn);
  buffers_.experts = at<std::int32_t>(space_.chosen);
  buffers_.expert_weights = at<float>(space_.expert_weights);
  runtime_->note_parts(memory.data(), memory.size(), {});  // but what allocate() opens
  slab_.add(memory.data(), memory.size());
  const int id = next_reservation_++;
  reservations_[id].memory = std::move(memory);
  return id;
}

void StreamBackend::release(int reservation) noexcept {
  const std::lock_guard lock(slab_mutex_);
  const auto found = reservations_.find(reservation);
  if (found == reservations_.end()) return;
  found->second.released = true;
  const RuntimeMemory& memory = found->second.memory;
  if (slab_.remove(memory.data(), memory.size())) reservations_.erase(found);
}

DeviceMemory StreamBackend::allocate(std::size_t n_bytes, const char* what) {
  std::byte* data = nullptr;
  std::size_t free = 0;
  {
    const std::lock_guard lock(slab_mutex_);
    data = slab_.take(n_bytes);
    free = slab_.free_bytes();
  }
  if (data == nullptr) {
    throw Error(
        ErrorCode::kResource,
        std::string(what) + " needs " + std::to_string(n_bytes) + " bytes on the GPU, and " +
            std::to_string(free) +
            " of what the models reserved are free; end other sessions, use a smaller n_ctx "
            "or kv_type q8_0, or load the models with a larger n_ctx");
  }
  return {shared_from_this(), runtime_->open_part(data, n_bytes), n_bytes};
}

std::unique_ptr<WeightMatrix> StreamBackend::load(const PackedWeight& weight, std::int64_t n_rows,
                                                  std::span<const std::byte> data) {
  const std::size_t n_bytes = kernels_.memory.packed_bytes(weight.dtype, n_rows, weight.n_in);
  DeviceMemory memory = allocate(n_bytes, "a weight matrix");
  AlignedBuffer host(n_bytes);
  kernels_.memory.pack_matrix(weight.dtype, n_rows, weight.n_in, data.data(), host.data(),
                              n_threads_);
  upload(memory.data(), host.data(), n_bytes);
  return std::make_unique<StreamMatrix>(weight, std::move(memory));
}

// Packed as one matrix, in which the rows of each are whole tiles.
std::unique_ptr<WeightMatrix> StreamBackend::load_stack(DType dtype, std::int64_t n_out,
                                                        std::int64_t n_in, int n_matrices,
                                                        std::span<const std::byte> data) {
  const std::int64_t n_rows = padded_rows(n_out);
  std::vector<std::byte> rows;
  if (n_rows != n_out) {  // zeros are weights of every format
    const std::uint64_t row = row_bytes(dtype, static_cast<std::uint64_t>(n_in));
    const std::uint64_t of_one = row * static_cast<std::uint64_t>(n_out);
    const std::uint64_t of_padded = row * static_cast<std::uint64_t>(n_rows);
    rows.resize(of_padded * static_cast<std::uint64_t>(n_matrices));
    for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(n_matrices); ++i)
      std::memcpy(rows.data() + i * of_padded, data.data() + i * of_one, of_one);
    data = rows;
  }
  return load({.dtype = dtype, .n_out = n_out, .n_in = n_in, .n_stacked = n_matrices},
              n_matrices * n_rows, data);
}

double StreamBackend::measure_bandwidth() {
  constexpr std::size_t kBytes = std::size_t{256} << 20;
  constexpr int kCopies = 8;
  const std::lock_guard lock(stream_mutex_);
  try {
    const RuntimeMemory from(*runtime_, kBytes, false);
    const RuntimeMemory to(*runtime_, kBytes, false);
    double best_ms = 0;
    for (int round = 0; round < 4; ++round) {
      runtime_->mark_begin();
      for (int i = 0; i < kCopies; ++i) runtime_->copy(to.data(), from.data(), kBytes);
      runtime_->mark_end();
      wait("measuring the memory's speed");
      const double ms = runtime_->marked_ms();
      if (round == 1 || (round > 1 && ms < best_ms)) best_ms = ms;
    }
    if (best_ms > 0) return 2.0 * kCopies * static_cast<double>(kBytes) / (best_ms / 1000);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kResource) throw;
  }
  return runtime_->info().copy_bytes_per_second;
}

}  // namespace specdec::stream

namespace specdec {

std::shared_ptr<DeviceBackend> make_stream_backend(std::unique_ptr<stream::Runtime> runtime,
                                                   const stream::Kernels& kernels, const char* name,
                                                   int n_threads) {
  return std::make_shared<stream::StreamBackend>(std::move(runtime), kernels, name, n_threads);
}

}  // namespace specdec
