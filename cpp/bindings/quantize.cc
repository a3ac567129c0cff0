// quantize(): a model written again in a smaller type.
#include "base/error.h"
#include "bindings/common.h"
#include "bindings/interrupts.h"
#include "bindings/native_call.h"
#include "engine/quantize_file.h"

namespace specdec::bindings {
namespace {

std::optional<DType> format_named(const char* option, const std::string& name) {
  if (name.empty()) return std::nullopt;
  const std::string problem = format_problem(name);
  if (!problem.empty()) throw_invalid(std::string(option) + " " + problem);
  return parse_dtype(name);
}

Fields tensor_dict(const QuantizedTensor& tensor) {
  Fields result;
  result["name"] = to_text(tensor.name);
  result["shape"] = py::tuple(py::cast(tensor.shape));
  result["source_type"] = dtype_traits(tensor.from).name;
  result["type"] = dtype_traits(tensor.to).name;
  result["source_bytes"] = tensor.source_bytes;
  result["size_bytes"] = tensor.target_bytes;
  result["relative_error"] = tensor.relative_error;
  result["largest_error"] = tensor.largest_error;
  result["note"] = to_text(tensor.note);
  return result;
}

}  // namespace

void bind_quantize(py::module_& m) {
  m.def(
      "quantize",
      [](const py::bytes& source_bytes, const py::bytes& target_bytes, const std::string& type,
         int n_threads, bool dry_run, bool overwrite, bool pure, bool allow_requantize,
         bool leave_output, const std::string& output_type, const std::string& embedding_type,
         const std::string& split_max_size, int split_max_tensors, const py::object& on_progress,
         bool poll_signals) {
        require_same_process();
        const std::string source = source_bytes;
        const std::string target = target_bytes;
        SignalPoll signals(poll_signals);
        QuantizeOptions options;
        options.n_threads = n_threads;
        options.dry_run = dry_run;
        options.overwrite = overwrite;
        options.choices.pure = pure;
        options.choices.allow_requantize = allow_requantize;
        options.choices.leave_output = leave_output;
        options.choices.output_type = format_named("output_tensor_type", output_type);
        options.choices.token_embedding_type = format_named("token_embedding_type", embedding_type);
        options.parts = {parse_part_bytes(split_max_size), split_max_tensors};
        options.on_progress = [&](std::uint64_t done, std::uint64_t total, const std::string&) {
          signals.throw_if_interrupted();
          if (on_progress.is_none()) return;
          py::gil_scoped_acquire gil;
          on_progress(static_cast<double>(done) / static_cast<double>(total));
        };
        QuantizeResult found;
        try {
          const NativeCall call;
          found = quantize_file(source, target, type, options);
        } catch (const SignalPoll::Interrupted&) {
          signals.raise();
        }
        py::list tensors;
        for (const QuantizedTensor& tensor : found.tensors) tensors.append(tensor_dict(tensor));
        Fields result;
        result["type"] = to_text(found.type);
        result["tensors"] = tensors;
        py::list files;
        for (const std::string& file : found.files) files.append(py::bytes(file));
        result["files"] = files;
        result["n_weights"] = found.n_weights;
        result["source_bytes"] = found.source_bytes;
        result["size_bytes"] = found.target_bytes;
        result["bits_per_weight"] = found.bits_per_weight;
        result["relative_error"] = found.relative_error;
        result["total_ms"] = found.total_ms;
        result["n_threads"] = found.n_threads;
        return result;
      },
      py::arg("source"), py::arg("target"), py::arg("type"), py::kw_only(), py::arg("n_threads"),
      py::arg("dry_run"), py::arg("overwrite"), py::arg("pure"), py::arg("allow_requantize"),
      py::arg("leave_output_tensor"), py::arg("output_tensor_type"),
      py::arg("token_embedding_type"), py::arg("split_max_size"), py::arg("split_max_tensors"),
      py::arg("on_progress"), py::arg("poll_signals"));
}

}  // namespace specdec::bindings
