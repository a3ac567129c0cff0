// Session as _core.Session.
#include <optional>
#include <span>

#include "bindings/call_slot.h"
#include "bindings/common.h"
#include "bindings/interrupts.h"
#include "bindings/native_call.h"
#include "decode/drafter_options.h"
#include "engine/check_output.h"
#include "engine/session.h"
#include "engine/speed.h"

namespace specdec::bindings {
namespace {

template <typename T>
py::tuple to_tuple(std::span<const T> items) {
  py::tuple result(items.size());
  for (std::size_t i = 0; i < items.size(); ++i) result[i] = items[i];
  return result;
}

// on_chunk(OutputChunk), on_progress(read, total) and on_round(index, source, reason, outcome,
// drafted, parents, accepted, next_token) are Python callables or None; what they raise ends the
// call and passes through. on_chunk returning False cancels.
GenerateResult generate(Session& session, GenerateRequest request, const py::object& on_chunk,
                        const py::object& on_progress, const py::object& on_round,
                        CancelFlag& cancel, bool poll_signals) {
  require_same_process();
  SignalPoll signals(poll_signals);
  if (!on_round.is_none()) {
    request.on_round = [&](const RoundInfo& round) {
      py::gil_scoped_acquire gil;
      on_round(round.index, to_text(round.drafter), to_text(round.reason), to_text(round.outcome()),
               to_tuple(round.drafted), to_tuple(round.parents), to_tuple(round.accepted),
               round.next_token);
    };
  }
  if (!on_chunk.is_none()) {
    request.on_chunk = [&](const OutputChunk& chunk) {
      py::gil_scoped_acquire gil;
      // A copy: Python may keep it.
      const py::object answer = on_chunk(py::cast(chunk, py::return_value_policy::copy));
      if (answer.is(py::bool_(false))) cancel.set = true;
    };
  }
  if (!on_progress.is_none()) {
    request.on_progress = [&](int n_read, int n_total) {
      py::gil_scoped_acquire gil;
      on_progress(n_read, n_total);
    };
  }
  request.cancel = &cancel.set;
  request.should_cancel = [&] { return signals.interrupted(); };

  GenerateResult result;
  {
    const NativeCall call;
    result = session.generate(request);
  }
  signals.rethrow();
  return result;
}

OutputCheck check(const Session& session, GenerateRequest request, const GenerateResult& result,
                  CancelFlag& cancel, bool poll_signals) {
  require_same_process();
  SignalPoll signals(poll_signals);
  request.cancel = &cancel.set;
  request.should_cancel = [&] { return signals.interrupted(); };
  OutputCheck checked;
  {
    const NativeCall call;
    checked = check_output(session.shared_target(), session.options(), request, result);
  }
  signals.rethrow();
  return checked;
}

std::unique_ptr<Session> make_session(const ModelHandle& target,
                                      const std::optional<ModelHandle>& draft,
                                      SessionOptions options, bool poll_signals) {
  require_same_process();
  if (draft) options.draft = draft->model;
  SignalPoll signals(poll_signals);
  try {
    const NativeCall call;
    return std::make_unique<Session>(target.model, options,
                                     [&] { signals.throw_if_interrupted(); });
  } catch (const SignalPoll::Interrupted&) {
    signals.raise();
  }
}

// Work that is given a poll function, and ends by what that throws.
template <typename Work>
auto polled(bool poll_signals, const Work& work) {
  require_same_process();
  SignalPoll signals(poll_signals);
  try {
    const NativeCall call;
    return work([&] { signals.throw_if_interrupted(); });
  } catch (const SignalPoll::Interrupted&) {
    signals.raise();
  }
}

void save(Session& session, const std::string& path, bool poll_signals) {
  polled(poll_signals, [&](const auto& poll) { session.save(path, poll); });
}

void load(Session& session, const std::string& path, bool poll_signals) {
  polled(poll_signals, [&](const auto& poll) { session.load(path, poll); });
}

std::pair<int, std::string> options_of(const std::string& path, const ModelHandle& target,
                                       bool poll_signals) {
  const KeptOptions options = polled(
      poll_signals, [&](const auto& poll) { return kept_options(*target.model, path, poll); });
  return {options.n_ctx, options.kv_type};
}

// Frees the caches without the GIL: they can be large.
struct SessionDeleter {
  void operator()(Session* session) const {
    const NativeCall call;
    delete session;
  }
};

void bind_options(py::module_& m) {
  py::class_<SessionOptions>(m, "SessionOptions", py::module_local())
      .def(py::init<>())
      .def_readwrite("drafters", &SessionOptions::drafters)
      .def_readwrite("adaptive", &SessionOptions::adaptive)
      .def_readwrite("prefer_next_tokens", &SessionOptions::prefer_next_tokens)
      .def_readwrite("verifier", &SessionOptions::verifier)
      .def_readwrite("n_ctx", &SessionOptions::n_ctx)
      .def_readwrite("kv_type", &SessionOptions::kv_type)
      .def_readwrite("use_cache", &SessionOptions::use_cache);
}

}  // namespace

void bind_decoder(py::module_& m) {
  using SessionHolder = std::unique_ptr<Session, SessionDeleter>;
  bind_drafters(m);
  bind_options(m);
  m.def("drafter_names", &drafter_names);
  m.def("parse_drafters", &parse_drafters, py::arg("names"), py::arg("has_draft_model"));
  m.def("verifier_names", &verifier_names);
  m.def(
      "kept_options",
      [](const py::bytes& path, const ModelHandle& target, bool poll_signals) {
        return options_of(path, target, poll_signals);
      },
      py::arg("path"), py::arg("target"), py::kw_only(), py::arg("poll_signals"));

  py::class_<Session, SessionHolder>(m, "Session", py::module_local())
      .def(py::init([](const ModelHandle& target, const std::optional<ModelHandle>& draft,
                       const SessionOptions& options, bool poll_signals) {
             return SessionHolder(make_session(target, draft, options, poll_signals).release());
           }),
           py::arg("target"), py::arg("draft"), py::arg("options"), py::kw_only(),
           py::arg("poll_signals"))
      .def("generate", &generate, py::arg("request"), py::kw_only(), py::arg("on_chunk"),
           py::arg("on_progress"), py::arg("on_round"), py::arg("cancel"), py::arg("poll_signals"))
      .def(
          "require_checkable",
          [](const Session& session, const GenerateRequest& request) {
            require_checkable(session.options().verifier, request.sampling);
          },
          py::arg("request"))
      .def("check_output", &check, py::arg("request"), py::arg("result"), py::kw_only(),
           py::arg("cancel"), py::arg("poll_signals"))
      .def("fork",
           [](Session& session) {
             require_same_process();
             const NativeCall call;
             return SessionHolder(session.fork().release());
           })
      .def(
          "save",
          [](Session& session, const py::bytes& path, bool poll_signals) {
            save(session, path, poll_signals);
          },
          py::arg("path"), py::kw_only(), py::arg("poll_signals"))
      .def(
          "load",
          [](Session& session, const py::bytes& path, bool poll_signals) {
            load(session, path, poll_signals);
          },
          py::arg("path"), py::kw_only(), py::arg("poll_signals"))
      .def("reset", &Session::reset, py::call_guard<NativeCall>())
      .def("encode_prompt", &Session::encode_prompt, py::arg("request"),
           py::call_guard<NativeCall>())
      .def("cached_tokens", &Session::cached_tokens)
      .def_property_readonly("n_ctx", &Session::n_ctx)
      .def_property_readonly("memory_bytes", &Session::memory_bytes)
      .def_property_readonly("busy", &Session::busy)
      .def_property_readonly("drafter",
                             [](const Session& session) {
                               std::string names;
                               for (const DrafterOptions& drafter : session.options().drafters)
                                 names += (names.empty() ? "" : ",") +
                                          std::string(drafter_name(drafter));
                               return names.empty() ? std::string("none") : names;
                             })
      .def(
          "speed_line",
          [](const Session& session, const DecodeStats& stats, double bandwidth) {
            const ModelInfo& info = session.target().info();
            // The bandwidth is that of the CPU.
            return to_text(speed_line(stats, info, info.n_gpu_layers > 0 ? 0 : bandwidth));
          },
          py::arg("stats"), py::arg("bandwidth"));
}

}  // namespace specdec::bindings
