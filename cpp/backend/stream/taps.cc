// The residual stream between layers, for who asks. It is copied to the host where it lies, in the
// order of the stream: a second copy on the device would take its memory and save no time.
#include <algorithm>
#include <cstring>
#include <new>
#include <string>

#include "backend/stream/backend_impl.h"
#include "base/error.h"

namespace specdec::stream {
namespace {

std::size_t bytes_of_tap(const DevicePass& pass, int n_rows) {
  return static_cast<std::size_t>(n_rows) * static_cast<std::size_t>(pass.hidden_stride) *
         sizeof(float);
}

}  // namespace

// Room on the host, which only who taps layers pays for.
void StreamBackend::require_taps(const DevicePass& pass) {
  const std::size_t n_taps = pass.key.taps.size();
  // At once for all passes that may be recorded, so that it seldom moves.
  const std::size_t n_bytes = n_taps * bytes_of_tap(pass, std::max(pass.n_rows, kMostRecordedRows));
  if (n_bytes <= pinned_taps_.size()) return;
  try {
    pinned_taps_ = RuntimeMemory(*runtime_, n_bytes, true);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kResource) throw;
    throw Error(ErrorCode::kResource,
                "hidden states of " + std::to_string(n_taps) + " layers and " +
                    std::to_string(pass.n_rows) + " rows come from the GPU through " +
                    std::to_string(n_bytes) +
                    " bytes of pinned host memory, which cannot be had (" + error.what() +
                    "); ask for fewer layers, or decode without the head");
  }
  // They have the old place in them. Nothing runs.
  std::erase_if(recordings_, [](const auto& entry) { return !entry.first.pass.taps.empty(); });
}

void StreamBackend::save_tap() {
  SPECDEC_CHECK(n_tapped_ < pass_.key.taps.size());
  const std::size_t n_bytes = bytes_of_tap(pass_, pass_.n_rows);
  runtime_->download(pinned_taps_.data() + n_tapped_++ * n_bytes, at<float>(space_.hidden),
                     n_bytes);
}

// To where the caller wants them.
void StreamBackend::copy_taps() const {
  const std::size_t n_taps = pass_.key.taps.size();
  SPECDEC_CHECK(replaying_ || n_tapped_ == n_taps);
  for (std::size_t tap = 0; tap < n_taps; ++tap) {
    const auto* from = reinterpret_cast<const float*>(pinned_taps_.data() +
                                                      tap * bytes_of_tap(pass_, pass_.n_rows));
    float* to = pass_.taps_out + static_cast<std::int64_t>(tap) * pass_.tap_size;
    for (int row = 0; row < pass_.n_rows; ++row) {
      std::memcpy(to, from, static_cast<std::size_t>(pass_.tap_size) * sizeof(float));
      from += pass_.hidden_stride;
      to += pass_.taps_stride;
    }
  }
}

}  // namespace specdec::stream
