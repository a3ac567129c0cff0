#include "engine/telling.h"

#include <utility>

#include "engine/lane.h"

namespace specdec {

// One by one: a chain that frees itself takes a frame of the stack for each.
Telling::~Telling() {
  while (take_end() != nullptr) {
  }
}

Telling::Telling(Telling&& other) noexcept
    : calls_(std::exchange(other.calls_, {})),
      first_(std::move(other.first_)),
      last_(std::exchange(other.last_, nullptr)) {}

void Telling::end(std::shared_ptr<Job> job, std::exception_ptr error) noexcept {
  job->error = std::move(error);
  Job* const now = job.get();
  (last_ == nullptr ? first_ : last_->next) = std::move(job);
  last_ = now;
}

void Telling::tell_all() {
  for (const auto& call : calls_) call();
  calls_.clear();
  while (const std::shared_ptr<Job> job = take_end()) {
    if (job->error != nullptr) {
      job->sink->on_error(job->error);
    } else {
      job->sink->on_end(*job->result);
    }
  }
}

std::shared_ptr<Job> Telling::take_end() noexcept {
  std::shared_ptr<Job> job = std::move(first_);
  if (job != nullptr) first_ = std::move(job->next);
  if (first_ == nullptr) last_ = nullptr;
  return job;
}

}  // namespace specdec
