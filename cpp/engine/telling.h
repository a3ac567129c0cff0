// What sinks are told after a pass.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <vector>

namespace specdec {

struct Job;

// Calls of sinks in order, and behind them the ends of requests. An end needs no memory: none may
// be lost for want of it.
class Telling {
 public:
  Telling() = default;
  ~Telling();
  Telling(Telling&& other) noexcept;
  Telling& operator=(Telling&& other) = delete;

  void add(std::function<void()> call) { calls_.push_back(std::move(call)); }
  // With job->result, or with an error. Once for each job.
  void end(std::shared_ptr<Job> job, std::exception_ptr error = nullptr) noexcept;

  [[nodiscard]] bool empty() const { return calls_.empty() && first_ == nullptr; }
  void tell_all();

 private:
  [[nodiscard]] std::shared_ptr<Job> take_end() noexcept;  // null: there is none

  std::vector<std::function<void()>> calls_;
  std::shared_ptr<Job> first_;
  Job* last_ = nullptr;
};

}  // namespace specdec
