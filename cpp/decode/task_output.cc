#include "decode/task_output.h"

namespace specdec {

TaskOutput::TaskOutput(const DecodeRequest& request)
    : request_(request),
      stop_(request.ignore_eos ? std::span<const TokenId>{} : std::span<const TokenId>(request.eog),
            request.stop, request.pieces) {}

void TaskOutput::begin_pass(const DraftProposal& proposal) {
  std::vector<int> per_depth;
  std::vector<int> depth(proposal.tokens.size());
  for (int i = 0; i < proposal.size(); ++i) {
    const std::int32_t parent = proposal.parent(i);
    const int d = parent < 0 ? 0 : depth[static_cast<std::size_t>(parent)] + 1;
    depth[static_cast<std::size_t>(i)] = d;
    if (per_depth.size() <= static_cast<std::size_t>(d))
      per_depth.resize(static_cast<std::size_t>(d) + 1);
    ++per_depth[static_cast<std::size_t>(d)];
  }
  ledger_.begin_pass(proposal.size(), per_depth);
}

bool TaskOutput::push(TokenId token, int draft_depth) {
  if (ended_) {
    ledger_.add_unused(draft_depth);
    return false;
  }
  ledger_.add(draft_depth);
  ended_ = stop_.push(token);
  from_draft_.push_back(draft_depth > 0 ? 1 : 0);
  return true;
}

bool TaskOutput::release(std::span<const TokenId> generated, bool all) {
  const std::size_t end = all ? stop_.n_kept() : stop_.n_releasable();
  if (end <= n_released_) return true;
  const std::size_t begin = n_released_;
  n_released_ = end;
  if (!request_.on_chunk) return true;
  const std::size_t n = end - begin;
  Chunk chunk;
  chunk.token_ids = generated.subspan(begin, n);
  chunk.from_draft = std::span<const std::uint8_t>(from_draft_).subspan(begin, n);
  chunk.text = stop_.text(begin, end);
  if (request_.n_logprobs)
    chunk.logprobs = std::span<const TokenLogprobs>(logprobs_).subspan(begin, n);
  return request_.on_chunk(chunk);
}

std::size_t TaskOutput::n_kept() const {
  const bool keeps_last =
      request_.keep_eog && ended_ && stop_.cause() == StopState::Cause::kEndOfSequence;
  return stop_.n_kept() + (keeps_last ? 1 : 0);
}

void TaskOutput::put(std::span<const TokenId> generated, DecodeResult& result) {
  const std::size_t n = n_kept();
  from_draft_.resize(n);
  if (request_.n_logprobs) logprobs_.resize(n);
  result.token_ids.assign(generated.begin(), generated.begin() + static_cast<std::ptrdiff_t>(n));
  result.text = stop_.text(0, stop_.n_kept());
  result.from_draft = std::move(from_draft_);
  result.logprobs = std::move(logprobs_);
  ledger_.count(n, result.stats);
}

void TaskOutput::put_stop(DecodeResult& result) const {
  if (stop_.cause() == StopState::Cause::kEndOfSequence) {
    result.stop_token = stop_.eog_token();
  } else {
    result.stop_string = stop_.stop_string();
  }
}

}  // namespace specdec
