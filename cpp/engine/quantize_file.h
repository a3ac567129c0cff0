// Writes a model again in a smaller type.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/model_parts.h"
#include "engine/quantize_plan.h"

namespace specdec {

struct QuantizeOptions {
  QuantizeChoices choices;
  int n_threads = 0;       // 0: one per core this process may use
  bool dry_run = false;    // only the plan: nothing is read but the header, nothing written
  bool overwrite = false;  // replace a target that exists
  PartLimits parts;        // none: the target is one file
  const std::atomic<bool>* cancel = nullptr;
  // Bytes of the source that are done, and all; the tensor in work. An exception ends the run.
  std::function<void(std::uint64_t, std::uint64_t, const std::string&)> on_progress;
};

struct QuantizedTensor {
  std::string name;
  std::vector<std::uint64_t> shape;  // innermost first
  DType from = DType::kF32;
  DType to = DType::kF32;
  std::uint64_t source_bytes = 0;
  std::uint64_t target_bytes = 0;
  std::string note;           // TensorConversion::note
  double relative_error = 0;  // root of sum (y - x)^2 / sum x^2; 0 for a copy and in a dry run
  double largest_error = 0;   // of |y - x|
};

struct QuantizeResult {
  std::string type;  // "Q4_K_M"
  std::vector<QuantizedTensor> tensors;
  std::vector<std::string> files;  // the target, or its parts
  std::uint64_t n_weights = 0;
  std::uint64_t source_bytes = 0;  // of the whole file
  std::uint64_t target_bytes = 0;  // of all files; in a dry run what they will be
  double bits_per_weight = 0;      // of the tensors
  double relative_error = 0;       // of all weights together
  double total_ms = 0;
  int n_threads = 0;
};

// Quantises `source` into `target` tensor by tensor; memory stays below some 64 MiB. The target
// appears only when it is complete and on disk: whatever goes wrong, its path holds what it held
// before. The bytes do not depend on the number of threads or the machine.
//
// Parts that belong together appear together.
//
// Keys are copied, but for general.file_type and general.quantization_version, which are set.
//
// Throws Error: kInvalidArgument for an unknown type, a target that exists or is the source, or a
// quantised source; kModelFormat (non_finite) for NaN and infinity, (out_of_range) for weights that
// the type cannot hold, both with tensor and index; kIo (disk_full) up front when the disk is too
// small; kCancelled.
[[nodiscard]] QuantizeResult quantize_file(const std::string& source, const std::string& target,
                                           const std::string& type,
                                           const QuantizeOptions& options = {});

}  // namespace specdec
