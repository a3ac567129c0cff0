// The scheduler where allocations fail, in a process with alloc_failure.cc.
#include <dlfcn.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "engine/loaded_model.h"
#include "engine/scheduler.h"
#include "engine/session_options.h"

namespace py = pybind11;
using namespace specdec;

namespace {

template <typename F>
F* function(const char* name) {
  auto* const found = reinterpret_cast<F*>(::dlsym(RTLD_DEFAULT, name));
  if (found == nullptr) throw std::runtime_error("alloc_failure.cc is not loaded");
  return found;
}

struct Failures {
  void (*fail)(long, long) = function<void(long, long)>("specdec_fail");
  long (*count)() = function<long()>("specdec_allocations");
  void (*spare)(bool) = function<void(bool)>("specdec_spare");
};

// Needs no memory.
class Sink final : public RequestSink {
 public:
  void on_chunk(const OutputChunk& chunk) override {
    const std::size_t n = std::min(chunk.text.size(), sizeof text_ - n_text_);
    std::memcpy(text_ + n_text_, chunk.text.data(), n);
    n_text_ += n;
    ++n_chunks;
    late_ = late_ || n_ends.load() > 0;
  }
  void on_end(const GenerateResult& result) override {
    std::strncpy(reason_, result.finish_reason.c_str(), sizeof reason_ - 1);
    whole_ = result.text.size() == n_text_ && std::memcmp(result.text.data(), text_, n_text_) == 0;
    ++n_ends;
  }
  void on_error(const std::exception_ptr& error) override {
    try {
      std::rethrow_exception(error);
    } catch (const Error& e) {
      std::strncpy(reason_, e.code() == ErrorCode::kResource ? "no memory" : e.what(),
                   sizeof reason_ - 1);
    } catch (const std::bad_alloc&) {
      std::strncpy(reason_, "no memory", sizeof reason_ - 1);
    } catch (const std::exception& e) {
      std::strncpy(reason_, e.what(), sizeof reason_ - 1);
    }
    ++n_ends;
  }
  // How it ended and its text; "hangs", "twice", "late" or "torn" where it must not.
  [[nodiscard]] py::tuple told() const {
    std::string reason = n_ends.load() == 0 ? "hangs" : n_ends.load() > 1 ? "twice" : reason_;
    if (late_) reason = "late";
    if (!whole_) reason = "torn";
    return py::make_tuple(reason, py::bytes(text_, n_text_));
  }

  std::atomic<int> n_chunks{0}, n_ends{0};

 private:
  char text_[4096];
  std::size_t n_text_ = 0;
  char reason_[200] = "";
  bool whole_ = true, late_ = false;
};

struct Question {
  std::string prompt;
  int max_tokens = 0;
  int cancel_after = 0;     // chunks; 0: never
  double time_limit = 0.0;  // seconds; 0: none
};

class Engine {
 public:
  Engine(const std::string& target, const std::string& draft) {
    ModelOptions options;
    options.n_threads = 2;
    target_ = LoadedModel::load(target, options);
    if (!draft.empty()) draft_ = LoadedModel::load(draft, options);
  }

  // What becomes of the questions, of another one behind them without failures, and the number of
  // allocations until all had ended.
  py::tuple run(const std::vector<py::tuple>& asked, const std::string& drafters, long at,
                long how_many) const {
    std::vector<Question> questions;
    for (const py::tuple& q : asked)
      questions.push_back(
          {q[0].cast<std::string>(), q[1].cast<int>(), q[2].cast<int>(), q[3].cast<double>()});
    std::vector<std::shared_ptr<Sink>> sinks;
    std::string refused;
    long n = 0;
    {
      const py::gil_scoped_release release;
      failures_.spare(true);
      for (std::size_t i = 0; i <= questions.size(); ++i) sinks.push_back(std::make_shared<Sink>());
      SchedulerOptions options;
      options.session.n_ctx = 512;
      options.session.draft = draft_;
      options.session.drafters = parse_drafters(drafters, draft_ != nullptr);
      options.session.adaptive = true;
      options.max_requests = 2;
      failures_.fail(at, how_many);
      refused = work(options, questions, sinks, n);
      failures_.fail(0, 0);
      failures_.spare(false);
    }
    py::list found;
    for (const auto& sink : sinks) found.append(sink->told());
    return py::make_tuple(found, refused, n);
  }

 private:
  [[nodiscard]] std::string work(const SchedulerOptions& options,
                                 const std::vector<Question>& questions,
                                 std::vector<std::shared_ptr<Sink>>& sinks, long& n) const {
    std::unique_ptr<Scheduler> scheduler;
    try {
      const Exposed exposed(failures_);
      scheduler = std::make_unique<Scheduler>(target_, options);
    } catch (const std::exception& error) {
      for (const auto& sink : sinks) ++sink->n_ends;
      return error.what();
    }
    std::string refused;
    std::vector<Scheduler::Ticket> tickets;
    for (std::size_t i = 0; i < questions.size(); ++i) {
      const Question& question = questions[i];
      GenerateRequest request;
      request.prompt = question.prompt;
      request.max_tokens = question.max_tokens;
      std::optional<double> limit;
      if (question.time_limit > 0.0) limit = question.time_limit;
      tickets.push_back(nullptr);
      try {
        const Exposed exposed(failures_);
        tickets.back() = scheduler->submit(std::move(request), sinks[i], limit);
      } catch (const std::exception& error) {
        refused = error.what();
        ++sinks[i]->n_ends;
      }
    }
    wait(questions, sinks, tickets);
    n = failures_.count();
    failures_.fail(0, 0);
    GenerateRequest request;
    request.prompt = questions[0].prompt;
    request.max_tokens = questions[0].max_tokens;
    const Scheduler::Ticket last = scheduler->submit(std::move(request), sinks.back());
    wait({questions[0]}, {sinks.back()}, {last});
    if (!all_ended(*scheduler)) refused += " [places are lost]";
    return refused;
  }

  // A request is told its end within a turn, and counted at the end of that turn.
  [[nodiscard]] static bool all_ended(const Scheduler& scheduler) {
    for (int look = 0; look < 3000; ++look) {
      const SchedulerStats stats = scheduler.stats();
      if (stats.n_queued == 0 && stats.n_submitted == stats.n_finished + stats.n_cancelled +
                                                          stats.n_timed_out + stats.n_failed)
        return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

  // Failures are for what is between.
  struct Exposed {
    explicit Exposed(const Failures& f) : failures(f) { failures.spare(false); }
    ~Exposed() { failures.spare(true); }
    Exposed(const Exposed&) = delete;
    Exposed& operator=(const Exposed&) = delete;
    const Failures& failures;
  };

  static void wait(const std::vector<Question>& questions,
                   const std::vector<std::shared_ptr<Sink>>& sinks,
                   const std::vector<Scheduler::Ticket>& tickets) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    bool all = false;
    while (!all && std::chrono::steady_clock::now() < deadline) {
      all = true;
      for (std::size_t i = 0; i < questions.size(); ++i) {
        const int after = questions[i].cancel_after;
        if (after > 0 && sinks[i]->n_chunks >= after && tickets[i] != nullptr)
          Scheduler::cancel(tickets[i]);
        all = all && sinks[i]->n_ends > 0;
      }
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  }

  Failures failures_;
  std::shared_ptr<const LoadedModel> target_, draft_;
};

}  // namespace

PYBIND11_MODULE(_testing_failures, m) {
  py::class_<Engine>(m, "Engine", py::module_local())
      .def(py::init<const std::string&, const std::string&>(), py::arg("target"), py::arg("draft"))
      .def("run", &Engine::run, py::arg("questions"), py::arg("drafters"), py::arg("at"),
           py::arg("how_many"));
}
