// A pass: inputs go up, operations run or are played from a recording, results come down.
#include <algorithm>
#include <cstring>
#include <string>

#include "backend/stream/backend_impl.h"
#include "base/error.h"

namespace specdec::stream {
namespace {

constexpr std::size_t kMostRecordedSteps = 512;  // of all recordings: they take memory

}  // namespace

// Where the inputs of pass_ go, and the host's copy of them.
PassInputs StreamBackend::put_inputs() {
  const DevicePass& pass = pass_;
  const PassInputs inputs(pass.n_rows, pass.n_fed(), pass.n_rot, key_.max_chunks,
                          pass.parents != nullptr, key_.pass.n_head_blocks,
                          pass.key.follows ? pass.n_rows : 0, kernels_.memory.gap_bytes);
  const auto in = [area = staging().in](std::size_t offset) { return area + offset; };
  const auto rows = static_cast<std::size_t>(pass.n_rows);
  const std::int32_t first_slot = pass.first_slot;
  std::memcpy(in(inputs.first_slot), &first_slot, sizeof first_slot);
  if (!pass.pages.empty()) {
    const std::size_t n = std::min(pass.pages.size(), static_cast<std::size_t>(key_.max_chunks));
    std::memcpy(in(inputs.pages), pass.pages.data(), n * sizeof(std::byte*));
  }
  if (pass.parents != nullptr) {
    std::memcpy(in(inputs.parents), pass.parents, rows * sizeof(std::int32_t));
  }
  std::memcpy(in(inputs.cos_sin), pass.cos_sin,
              static_cast<std::size_t>(pass.n_fed()) * static_cast<std::size_t>(pass.n_rot) *
                  sizeof(float));
  if (!pass.head_blocks.empty()) {
    std::byte* const blocks = in(inputs.head_blocks);
    std::memcpy(blocks, pass.head_blocks.data(), pass.head_blocks.size_bytes());
    for (auto i = pass.head_blocks.size(); i < static_cast<std::size_t>(key_.pass.n_head_blocks);
         ++i) {
      std::memcpy(blocks + i * sizeof(std::int32_t), &kNoHeadBlock, sizeof(std::int32_t));
    }
  }
  if (pass.key.follows) std::memcpy(in(inputs.picks), pass.picks, rows * sizeof(std::int32_t));
  if (pass.key.embeds) {
    std::memcpy(in(inputs.tokens), pass.tokens, rows * sizeof(TokenId));
  } else {
    std::memcpy(in(DeviceSlab::aligned(space_.inputs_bytes)), pass.hidden,
                rows * static_cast<std::size_t>(pass.hidden_stride) * sizeof(float));
  }
  first_slot_ = at<const std::int32_t>(space_.inputs + inputs.first_slot);
  buffers_.tokens = at<const TokenId>(space_.inputs + inputs.tokens);
  buffers_.pages = at<std::byte* const>(space_.inputs + inputs.pages);
  buffers_.parents = at<const std::int32_t>(space_.inputs + inputs.parents);
  buffers_.cos_sin = at<const float>(space_.inputs + inputs.cos_sin);
  buffers_.head_blocks = at<const std::int32_t>(space_.inputs + inputs.head_blocks);
  return inputs;
}

void StreamBackend::upload_inputs(const PassInputs& inputs) {
  runtime_->note_parts(at<std::byte>(space_.inputs), space_.inputs_bytes, inputs.parts);
  runtime_->upload(at<std::byte>(space_.inputs), staging().in, inputs.n_bytes);
  if (pass_.key.follows) {
    launch("taking the draft's tokens", kernels_.take_tokens,
           TakeTokensArgs{.tokens = at<std::int32_t>(space_.inputs + inputs.tokens),
                          .n_rows = pass_.n_rows,
                          .picks = at<const std::int32_t>(space_.inputs + inputs.picks),
                          .found = at<const TopToken>(space_.top)});
  }
  if (pass_.key.embeds) return;
  runtime_->upload(at<std::byte>(space_.hidden),
                   staging().in + DeviceSlab::aligned(space_.inputs_bytes),
                   static_cast<std::size_t>(pass_.n_rows) *
                       static_cast<std::size_t>(pass_.hidden_stride) * sizeof(float));
}

// The place of a pass that is new among the recordings.
void StreamBackend::note_first(const RecordingKey& key) {
  std::size_t n_steps = static_cast<std::size_t>(key.pass.n_steps);
  for (const auto& [other, recording] : recordings_)
    n_steps += static_cast<std::size_t>(other.pass.n_steps);
  if (n_steps > kMostRecordedSteps) {
    // One of them may still be running.
    retired_.merge(recordings_);
    recordings_.clear();
  }
  recordings_[key] = nullptr;
}

bool StreamBackend::begin_pass(const DevicePass& pass) {
  std::unique_lock lock(stream_mutex_);
  SPECDEC_CHECK(!pass.key.follows);
  followed_.reset();
  runtime_->mark_begin();
  const bool issue = start_pass(pass);
  lock.release();  // until finish_pass()
  return issue;
}

// In stream order everything on the device is safe: the leading pass's results are taken and
// downloaded before anything overwrites them. The host's memory is another for those.
bool StreamBackend::follow_pass(const DevicePass& pass) {
  SPECDEC_CHECK(pass_.key.leads && !followed_ && pass.key.follows && !pass.key.leads &&
                pass.key.embeds && pass.n_rows <= kMaxFollowingRows && pass.n_steps == 1);
  submit_pass();
  followed_ = {
      .pass = pass_, .replaying = replaying_, .head_rows = head_rows_, .head_top_k = head_top_k_};
  for (int row = 0; row < pass.n_rows; ++row)
    SPECDEC_CHECK(pass.picks[row] < head_rows_ * head_top_k_);
  runtime_->mark_middle();
  return start_pass(pass);
}

// Begins the pass on the stream; false when it will be played.
bool StreamBackend::start_pass(const DevicePass& pass) {
  recording_ = replaying_ = false;
  step_ = head_rows_ = 0;
  n_tapped_ = 0;
  rope_ = {};
  SPECDEC_CHECK(pass.n_rows >= 1 && pass.n_fed() <= shape_.max_rows && pass.n_steps >= 1 &&
                pass.n_steps <= kMaxSteps &&
                pass.hidden_stride <= static_cast<std::int64_t>(space_.hidden_row) &&
                pass.n_rot <= shape_.n_rot &&
                (!pass.key.leads ||
                 (pass.key.embeds && pass.logits == nullptr && pass.hidden_out == nullptr)) &&
                (pass.key.taps.empty() || !(pass.key.leads || pass.key.follows)));
  const int n_positions = pass.first_slot + pass.n_fed();
  if (pass.key.tree && pass.n_rows > kTreeRows) {
    throw Error(ErrorCode::kUnsupported, "a tree of " + std::to_string(pass.n_rows) +
                                             " tokens is too large for the GPU, which takes " +
                                             std::to_string(kTreeRows) + "; use shorter drafts");
  }
  if (n_positions > space_.n_pages * kKvChunk) {
    throw Error(ErrorCode::kResource,
                "a cache of " + std::to_string(n_positions) +
                    " positions is longer than the models on the GPU were loaded for (" +
                    std::to_string(space_.n_pages * kKvChunk) + "); load them with a larger n_ctx");
  }
  if (!pass.key.taps.empty()) require_taps(pass);
  pass_ = pass;
  key_ = {pass.key, chunk_bucket(n_positions, space_.n_pages)};
  key_.pass.n_head_blocks =
      head_block_bucket(static_cast<int>(pass.head_blocks.size()),
                        static_cast<int>((shape_.n_tokens + kHeadBlock - 1) / kHeadBlock));
  const PassInputs inputs = put_inputs();

  // The first pass of a kind runs as it is, the second one is recorded: what comes once is not
  // worth a recording.
  if (records_ && pass.key.model != 0 && pass.n_rows <= kMostRecordedRows &&
      pass.n_outputs() <= kHeadRows) {
    const auto found = recordings_.find(key_);
    if (found == recordings_.end()) {
      note_first(key_);
    } else if (found->second != nullptr) {
      replaying_ = true;
      return false;
    } else {
      runtime_->begin_recording();
      recording_ = true;
    }
  }
  try {
    upload_inputs(inputs);
  } catch (...) {
    if (recording_) runtime_->abandon_recording();
    recording_ = false;
    throw;
  }
  return true;
}

const TokenId* StreamBackend::next_step() {
  SPECDEC_CHECK(step_ + 1 < pass_.n_steps && head_rows_ == step_ + 1);
  return &at<TopToken>(space_.top)[step_++ * head_top_k_].token;
}

// Recordings are the one thing that takes memory after the models are loaded, the driver's: without
// it this pass is lost, and later ones run as they are.
std::unique_ptr<Recording> StreamBackend::end_recording() {
  recording_ = false;
  try {
    return runtime_->end_recording();
  } catch (const Error& error) {
    retired_.merge(recordings_);
    recordings_.clear();
    records_ = false;
    throw Error(error.code(), std::string(error.what()) +
                                  "; passes are no longer recorded from now on: try again");
  }
}

// Everything of the pass is on the stream then, its downloads too.
void StreamBackend::submit_pass() {
  if (replaying_) {
    runtime_->play(*recordings_.at(key_));
    if (pass_.top != nullptr) {
      head_rows_ = pass_.n_outputs();
      head_top_k_ = pass_.key.top_k;
    }
  } else {
    issue_rope();
    download_results();
    if (recording_) {
      std::unique_ptr<Recording> recording = end_recording();
      // Preparing it took the host long, and nothing ran.
      followed_ ? runtime_->mark_middle() : runtime_->mark_begin();
      runtime_->play(*recording);
      recordings_[key_] = std::move(recording);
    }
  }
}

double StreamBackend::finish_pass() {
  submit_pass();
  runtime_->mark_end();
  wait("a forward pass");
  retired_.clear();
  hand_over();
  const double ms = runtime_->marked_ms();
  const double first_ms = followed_ ? runtime_->marked_first_ms() : 0;
  {
    const std::lock_guard lock(stats_mutex_);
    stats_.n_passes += followed_ ? 2 : 1;
    stats_.n_replayed += (replaying_ ? 1 : 0) + (followed_ && followed_->replaying ? 1 : 0);
    stats_.device_ms += ms;
  }
  double share = 0;
  if (followed_) {
    // Without a clock: as if all rows took the same time.
    const double n_fed = followed_->pass.n_fed();
    share = ms > 0 ? std::clamp(first_ms / ms, 0.0, 1.0) : n_fed / (n_fed + pass_.n_rows);
  }
  followed_.reset();
  stream_mutex_.unlock();
  return share;
}

// Results from the staging to where the callers want them.
void StreamBackend::hand_over() {
  copy_results(0, head_rows_);
  if (pass_.hidden_out != nullptr) {
    const auto stride = static_cast<std::size_t>(pass_.hidden_stride);
    const auto first = static_cast<std::size_t>(pass_.first_hidden_row);
    const std::size_t n = (static_cast<std::size_t>(pass_.n_rows) - first) * stride;
    std::memcpy(pass_.hidden_out + first * stride, staging().out + (space_.scratch - space_.top),
                n * sizeof(float));
  }
  copy_taps();
  if (!followed_) return;
  const std::byte* const out = lead_out_.data();
  const DevicePass& leading = followed_->pass;
  const auto rows = static_cast<std::size_t>(followed_->head_rows);
  std::memcpy(leading.top, out,
              rows * static_cast<std::size_t>(followed_->head_top_k) * sizeof(TopToken));
  if (leading.log_sum_exp != nullptr) {
    std::memcpy(leading.log_sum_exp, out + (space_.log_sum_exp - space_.top), rows * sizeof(float));
  }
}

void StreamBackend::abort_pass() noexcept {
  if (recording_) {
    runtime_->abandon_recording();
    recording_ = false;
  }
  try {
    wait("ending a pass that failed");
  } catch (...) {  // what failed is on its way to the caller already
  }
  retired_.clear();
  followed_.reset();
  stream_mutex_.unlock();
}

// Results of the head lie together: one copy for all but logits.
void StreamBackend::download_results() {
  const auto out = [this, area = staging().out](std::size_t offset) {
    return area + (offset - space_.top);
  };
  if (head_rows_ > 0) {
    runtime_->download(out(space_.top), at<std::byte>(space_.top), space_.logits - space_.top);
    if (pass_.logits != nullptr) {
      runtime_->download(out(space_.logits), at<std::byte>(space_.logits),
                         static_cast<std::size_t>(head_rows_) *
                             static_cast<std::size_t>(pass_.logits_stride) * sizeof(float));
    }
  }
  if (pass_.hidden_out != nullptr) {
    const auto stride = static_cast<std::size_t>(pass_.hidden_stride);
    const auto first = static_cast<std::size_t>(pass_.first_hidden_row);
    runtime_->download(staging().out + (space_.scratch - space_.top),
                       at<float>(space_.hidden) + first * stride,
                       (static_cast<std::size_t>(pass_.n_rows) - first) * stride * sizeof(float));
  }
}

// To where the caller wants them, as output rows from first_row on.
void StreamBackend::copy_results(int first_row, int n_rows) {
  if (n_rows == 0) return;
  const auto out = [this, area = staging().out](std::size_t offset) {
    return area + (offset - space_.top);
  };
  const auto first = static_cast<std::size_t>(first_row);
  const auto rows = static_cast<std::size_t>(n_rows);
  const auto k = static_cast<std::size_t>(head_top_k_);
  std::memcpy(pass_.top + first * k, out(space_.top), rows * k * sizeof(TopToken));
  if (pass_.log_sum_exp != nullptr)
    std::memcpy(pass_.log_sum_exp + first, out(space_.log_sum_exp), rows * sizeof(float));
  if (pass_.logits != nullptr) {
    const auto stride = static_cast<std::size_t>(pass_.logits_stride);
    std::memcpy(pass_.logits + first * stride, out(space_.logits), rows * stride * sizeof(float));
  }
}

}  // namespace specdec::stream
