// Scheduler as _core.Engine.
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <utility>

#include "bindings/common.h"
#include "bindings/interrupts.h"
#include "bindings/native_call.h"
#include "engine/scheduler.h"
#include "engine/speed.h"

namespace specdec::bindings {
namespace {

template <typename T>
py::tuple to_tuple(std::span<const T> items) {
  py::tuple result(items.size());
  for (std::size_t i = 0; i < items.size(); ++i) result[i] = items[i];
  return result;
}

// Tells a Python object: told(kind, payload). Called with the GIL, which Scheduler's `around` got.
class PythonSink final : public RequestSink {
 public:
  PythonSink(py::object told, bool rounds) : told_(std::move(told)), rounds_(rounds) {}
  ~PythonSink() override {
    const Inside inside;
    if (interpreter_exits() || !Py_IsInitialized()) {
      (void)told_.release();  // nobody can free it any more
      return;
    }
    const py::gil_scoped_acquire gil;
    told_ = py::object();
  }
  PythonSink(const PythonSink&) = delete;
  PythonSink& operator=(const PythonSink&) = delete;

  void on_chunk(const OutputChunk& chunk) override {
    tell("chunk", [&] { return py::cast(chunk, py::return_value_policy::copy); });
  }
  void on_progress(int n_read, int n_total) override {
    tell("progress", [&] { return py::make_tuple(n_read, n_total); });
  }
  [[nodiscard]] bool wants_rounds() const override { return rounds_; }
  void on_round(const RoundInfo& round) override {
    tell("round", [&] {
      return py::make_tuple(round.index, to_text(round.drafter), to_text(round.reason),
                            to_text(round.outcome()), to_tuple(round.drafted),
                            to_tuple(round.parents), to_tuple(round.accepted), round.next_token);
    });
  }
  void on_end(const GenerateResult& result) override {
    tell("end", [&] { return py::cast(result, py::return_value_policy::copy); });
  }
  void on_error(const std::exception_ptr& error) override {
    tell("error", [&] {
      try {
        // pybind11's translators make the Python exception of it.
        py::cpp_function raise([error] { std::rethrow_exception(error); });
        raise();
      } catch (py::error_already_set& raised) {
        return py::object(raised.value());
      }
      return py::object(py::none());
    });
  }

 private:
  template <typename Make>
  void tell(const char* kind, const Make& make) {
    try {
      told_(kind, make());
    } catch (py::error_already_set& raised) {
      raised.discard_as_unraisable("telling what became of a request");
    } catch (const std::exception& error) {  // no memory for what is told
      try {
        told_("error", py::module_::import("builtins").attr("MemoryError")(error.what()));
      } catch (py::error_already_set& raised) {
        raised.discard_as_unraisable("telling that there is no memory");
      }
    }
  }

  py::object told_;
  bool rounds_;
};

// One state of the interpreter for the life of a thread. Making and deleting one for each call
// costs time, and until Python 3.12 a fork() of another thread hangs where it meets that.
void keep_thread_state(py::gil_scoped_acquire& gil) {
  struct Kept {
    PyThreadState* state = nullptr;
    Kept() = default;
    ~Kept() {
      if (state == nullptr) return;
      const Inside inside;  // a thread that nobody joins may end beside the interpreter
      if (interpreter_exits() || !Py_IsInitialized()) return;
      if (PyGILState_GetThisThreadState() != state) return;
      py::gil_scoped_acquire last;
      last.dec_ref();
    }
    Kept(const Kept&) = delete;
    Kept& operator=(const Kept&) = delete;
  };
  thread_local Kept kept;
  if (kept.state != nullptr) return;
  gil.inc_ref();
  kept.state = PyGILState_GetThisThreadState();
}

// Those with a thread, to be ended before the interpreter is. Guarded by the GIL.
std::set<std::shared_ptr<Scheduler>>& open_schedulers() {
  static auto* const open = new std::set<std::shared_ptr<Scheduler>>();  // outlives destructors
  return *open;
}

class NativeEngine {
 public:
  NativeEngine(const ModelHandle& target, const std::optional<ModelHandle>& draft,
               SchedulerOptions options, bool poll_signals) {
    require_same_process();
    if (draft) options.session.draft = draft->model;
    options.around = [](const std::function<void()>& all) {
      const Inside inside;
      if (interpreter_exits()) return;
      py::gil_scoped_acquire gil;
      keep_thread_state(gil);
      all();
    };
    SignalPoll signals(poll_signals);
    try {
      const NativeCall call;
      scheduler_ = std::make_shared<Scheduler>(target.model, options,
                                               [&] { signals.throw_if_interrupted(); });
    } catch (const SignalPoll::Interrupted&) {
      signals.raise();
    }
    open_schedulers().insert(scheduler_);
  }
  ~NativeEngine() {
    open_schedulers().erase(scheduler_);
    const NativeCall call;
    scheduler_.reset();
  }
  NativeEngine(const NativeEngine&) = delete;
  NativeEngine& operator=(const NativeEngine&) = delete;

  [[nodiscard]] Scheduler& get() const { return *scheduler_; }
  void close() {
    const NativeCall call;
    scheduler_->close();
  }

 private:
  std::shared_ptr<Scheduler> scheduler_;
};

// For cancelling; holds the request, not the engine.
struct TicketHandle {
  Scheduler::Ticket ticket;
};

// Whether there was a place. told("ticket", handle) comes before it returns: what is returned is
// lost when a signal's handler raises in the caller, and then nobody could end the request.
bool submit(const NativeEngine& engine, GenerateRequest request, const py::object& told,
            bool rounds, std::optional<double> time_limit, bool poll_signals) {
  require_same_process();
  SignalPoll signals(poll_signals);
  auto sink = std::make_shared<PythonSink>(told, rounds);
  Scheduler::Ticket ticket;
  try {
    const NativeCall call;
    ticket = engine.get().submit(std::move(request), std::move(sink), time_limit,
                                 [&] { signals.throw_if_interrupted(); });
  } catch (const SignalPoll::Interrupted&) {
    signals.raise();
  }
  if (ticket == nullptr) return false;
  try {
    told("ticket", TicketHandle{ticket});
  } catch (...) {
    Scheduler::cancel(ticket);
    throw;
  }
  return true;
}

GenerateResult time_out(const NativeEngine& engine, GenerateRequest request, bool poll_signals) {
  require_same_process();
  SignalPoll signals(poll_signals);
  GenerateResult result;
  try {
    const NativeCall call;
    result = engine.get().time_out(std::move(request), [&] { signals.throw_if_interrupted(); });
  } catch (const SignalPoll::Interrupted&) {
    signals.raise();
  }
  return result;
}

Fields stats_of(const NativeEngine& engine) {
  require_same_process();
  SchedulerStats s;
  {
    const NativeCall call;
    s = engine.get().stats();
  }
  Fields fields;
  fields["queued"] = s.n_queued;
  fields["running"] = s.n_running;
  fields["kv_bytes"] = s.kv_bytes;
  fields["kv_used_bytes"] = s.kv_used_bytes;
  fields["kv_pages"] = s.n_kv_pages;
  fields["kept_prefixes"] = s.n_prefixes;
  fields["submitted"] = s.n_submitted;
  fields["finished"] = s.n_finished;
  fields["cancelled"] = s.n_cancelled;
  fields["timed_out"] = s.n_timed_out;
  fields["failed"] = s.n_failed;
  fields["refused"] = s.n_refused;
  fields["prompt_tokens"] = s.prompt_tokens;
  fields["cached_tokens"] = s.cached_tokens;
  fields["prefix_hits"] = s.n_prefix_hits;
  fields["evicted"] = s.n_evicted;
  fields["emitted"] = s.emitted;
  fields["drafted"] = s.drafted;
  fields["accepted"] = s.accepted;
  fields["passes"] = s.n_passes;
  fields["rows"] = s.n_rows;
  fields["pass_ms"] = s.pass_ms;
  return fields;
}

}  // namespace

void bind_engine(py::module_& m) {
  py::class_<TicketHandle>(m, "Ticket", py::module_local())
      .def("cancel", [](const TicketHandle& handle) { Scheduler::cancel(handle.ticket); });
  py::class_<SchedulerOptions>(m, "EngineOptions", py::module_local())
      .def(py::init<>())
      .def_readwrite("session", &SchedulerOptions::session)
      .def_readwrite("max_requests", &SchedulerOptions::max_requests)
      .def_readwrite("max_queue", &SchedulerOptions::max_queue)
      .def_readwrite("kv_bytes", &SchedulerOptions::kv_bytes)
      .def_readwrite("share_prefixes", &SchedulerOptions::share_prefixes);
  py::class_<NativeEngine>(m, "Engine", py::module_local())
      .def(
          py::init<const ModelHandle&, const std::optional<ModelHandle>&, SchedulerOptions, bool>(),
          py::arg("target"), py::arg("draft"), py::arg("options"), py::kw_only(),
          py::arg("poll_signals"))
      .def("submit", &submit, py::arg("request"), py::arg("told"), py::kw_only(), py::arg("rounds"),
           py::arg("time_limit"), py::arg("poll_signals"))
      .def("time_out", &time_out, py::arg("request"), py::kw_only(), py::arg("poll_signals"))
      .def("close", &NativeEngine::close)
      .def("stats", &stats_of)
      .def_property_readonly("n_ctx",
                             [](const NativeEngine& engine) { return engine.get().n_ctx(); })
      .def(
          "speed_line",
          [](const NativeEngine& engine, const DecodeStats& stats, double bandwidth) {
            const ModelInfo& info = engine.get().target().info();
            return to_text(speed_line(stats, info, info.n_gpu_layers > 0 ? 0 : bandwidth));
          },
          py::arg("stats"), py::arg("bandwidth"));
  // Before the interpreter is gone: threads that want the GIL then are ended by it.
  py::module_::import("atexit").attr("register")(py::cpp_function([] {
    const auto open = open_schedulers();  // another thread may drop one meanwhile
    const NativeCall call;
    for (const auto& scheduler : open) scheduler->close();
  }));
}

}  // namespace specdec::bindings
