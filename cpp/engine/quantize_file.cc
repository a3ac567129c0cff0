#include "engine/quantize_file.h"

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>

#include "base/error.h"
#include "base/open_file.h"
#include "base/thread_pool.h"
#include "gguf/reader.h"
#include "gguf/writer.h"
#include "quant/codec.h"
#include "quant/encode.h"

namespace specdec {
namespace {

// A multiple of every block size. A tensor is one sequence of blocks, as each row is.
constexpr std::uint64_t kUnitWeights = 16384;
constexpr std::uint64_t kUnitsPerPiece = 256;
constexpr std::uint32_t kQuantizationVersion = 2;

struct UnitError {
  double error = 0;    // sum of (y - x)^2
  double square = 0;   // sum of x^2
  double largest = 0;  // of |y - x|
  std::uint64_t first_bad = UINT64_MAX;
};

// The largest magnitude that is certain to be finite in `dtype`.
float limit_of(DType dtype) {
  if (dtype == DType::kF32) return 3.40282347e38F;
  if (dtype == DType::kBF16) return 3.38953139e38F;
  return 65504.0F;
}

struct Scratch {
  std::vector<float> x = std::vector<float>(kUnitWeights);
  std::vector<float> y = std::vector<float>(kUnitWeights);
};

UnitError quantize_unit(DType from, const std::byte* src, DType to, std::byte* dst, std::uint64_t n,
                        Scratch& scratch) {
  float* x = scratch.x.data();
  float* y = scratch.y.data();
  codec(from).dequantize(src, x, static_cast<std::int64_t>(n));
  UnitError unit;
  const float limit = limit_of(to);
  for (std::uint64_t i = 0; i < n; ++i) {
    if (!(std::fabs(x[i]) <= limit)) {  // NaN too
      unit.first_bad = i;
      return unit;
    }
  }
  encoder(to)(x, dst, static_cast<std::int64_t>(n));
  codec(to).dequantize(dst, y, static_cast<std::int64_t>(n));
  for (std::uint64_t i = 0; i < n; ++i) {
    const double error = static_cast<double>(y[i]) - static_cast<double>(x[i]);
    unit.error += error * error;
    unit.square += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    unit.largest = std::max(unit.largest, std::fabs(error));
  }
  return unit;
}

std::string number_text(float value) {
  char text[40];
  std::snprintf(text, sizeof text, "%g", static_cast<double>(value));
  return text;
}

class Job {
 public:
  Job(const GgufFile& file, const QuantizeOptions& options, int n_threads)
      : file_(file),
        options_(options),
        n_threads_(n_threads),
        scratch_(static_cast<std::size_t>(n_threads)) {
    for (const TensorInfo& tensor : file.tensors()) total_bytes_ += tensor.n_bytes;
  }

  void copy(const TensorInfo& tensor, const GgufWriter::Sink& sink) {
    check_tensor_values(file_, tensor);
    const std::span<const std::byte> data = file_.tensor_data(tensor);
    constexpr std::size_t kPiece = std::size_t{4} << 20;
    for (std::size_t at = 0; at < data.size(); at += kPiece) {
      const std::size_t n = std::min(kPiece, data.size() - at);
      sink(data.subspan(at, n));
      advance(tensor, at, n);
    }
  }

  void convert(const TensorInfo& tensor, DType to, QuantizedTensor& report,
               const GgufWriter::Sink& sink) {
    const std::byte* src = file_.tensor_data(tensor).data();
    double error = 0;
    double square = 0;
    for (std::uint64_t first = 0; first < tensor.n_elements;
         first += kUnitsPerPiece * kUnitWeights) {
      const std::uint64_t n = std::min(tensor.n_elements - first, kUnitsPerPiece * kUnitWeights);
      const std::uint64_t from_bytes = row_bytes(tensor.dtype, n);
      const std::uint64_t at = row_bytes(tensor.dtype, first);
      convert_piece(tensor, src + at, to, first, n);
      // In order, so that the sums have the same bits with any number of threads.
      for (const UnitError& unit : units_) {
        error += unit.error;
        square += unit.square;
        report.largest_error = std::max(report.largest_error, unit.largest);
      }
      sink(std::span(out_.data(), row_bytes(to, n)));
      advance(tensor, at, from_bytes);
    }
    report.relative_error = square > 0 ? std::sqrt(error / square) : 0.0;
    total_error_ += error;
    total_square_ += square;
  }

  [[nodiscard]] double relative_error() const {
    return total_square_ > 0 ? std::sqrt(total_error_ / total_square_) : 0.0;
  }

 private:
  void convert_piece(const TensorInfo& tensor, const std::byte* src, DType to, std::uint64_t first,
                     std::uint64_t n) {
    const std::uint64_t n_units = (n + kUnitWeights - 1) / kUnitWeights;
    units_.assign(n_units, {});
    out_.resize(row_bytes(to, kUnitsPerPiece * kUnitWeights));
    ThreadPool::shared().run(n_threads_, [&](TaskContext& context) {
      Scratch& scratch = scratch_[static_cast<std::size_t>(context.thread())];
      for (auto u = static_cast<std::uint64_t>(context.next_chunk()); u < n_units;
           u = static_cast<std::uint64_t>(context.next_chunk())) {
        const std::uint64_t begin = u * kUnitWeights;
        units_[u] = quantize_unit(tensor.dtype, src + row_bytes(tensor.dtype, begin), to,
                                  out_.data() + row_bytes(to, begin),
                                  std::min(kUnitWeights, n - begin), scratch);
      }
    });
    for (std::uint64_t u = 0; u < n_units; ++u) {
      if (units_[u].first_bad == UINT64_MAX) continue;
      refuse(tensor, to, first + u * kUnitWeights + units_[u].first_bad);
    }
  }

  [[noreturn]] void refuse(const TensorInfo& tensor, DType to, std::uint64_t element) const {
    const std::uint64_t block = dtype_traits(tensor.dtype).block_elements;
    std::vector<float> values(block);
    const std::uint64_t at = row_bytes(tensor.dtype, element / block * block);
    codec(tensor.dtype)
        .dequantize(file_.tensor_data(tensor).data() + at, values.data(),
                    static_cast<std::int64_t>(block));
    const float value = values[element % block];
    const std::string where = "tensor '" + printable(tensor.name) + "', row " +
                              std::to_string(element / tensor.shape[0]) + ", element " +
                              std::to_string(element % tensor.shape[0]);
    if (std::isfinite(value)) {
      throw file_.make_error(ErrorCode::kModelFormat, "out_of_range",
                             where + ": " + number_text(value) + " is more than " +
                                 dtype_traits(to).name + " can hold (" + number_text(limit_of(to)) +
                                 "); use BF16 or F32",
                             {}, tensor.name, tensor.offset + at);
    }
    throw file_.make_error(
        ErrorCode::kModelFormat, "non_finite",
        where + " is " + number_text(value) + ": the file is damaged or its training diverged", {},
        tensor.name, tensor.offset + at);
  }

  void advance(const TensorInfo& tensor, std::uint64_t offset, std::uint64_t n_bytes) {
    file_.check_whole();
    file_.release(tensor, offset, n_bytes);
    done_bytes_ += n_bytes;
    if (options_.cancel != nullptr && options_.cancel->load()) {
      throw Error(ErrorCode::kCancelled, "quantising was cancelled");
    }
    if (options_.on_progress) options_.on_progress(done_bytes_, total_bytes_, tensor.name);
  }

  const GgufFile& file_;
  const QuantizeOptions& options_;
  int n_threads_;
  std::vector<Scratch> scratch_;
  std::vector<UnitError> units_;
  std::vector<std::byte> out_;
  std::uint64_t total_bytes_ = 0;
  std::uint64_t done_bytes_ = 0;
  double total_error_ = 0;
  double total_square_ = 0;
};

// Throws unless `target` can become a new file.
void check_target(const std::string& source, const std::string& target, bool overwrite) {
  struct stat from = {};
  struct stat to = {};
  if (::stat(source.c_str(), &from) != 0 || ::stat(target.c_str(), &to) != 0) return;
  ErrorDetail detail;
  detail.path = target;
  if (from.st_dev == to.st_dev && from.st_ino == to.st_ino) {
    detail.reason = "same_file";
    throw Error(ErrorCode::kInvalidArgument,
                printable(target, 512) + " is the source itself; give the target another name",
                std::move(detail));
  }
  if (S_ISDIR(to.st_mode)) {
    detail.reason = "is_directory";
    throw Error(ErrorCode::kInvalidArgument,
                printable(target, 512) + " is a folder; give the name of a file",
                std::move(detail));
  }
  require_replaceable(target);
  if (!overwrite) {
    detail.reason = "exists";
    throw Error(ErrorCode::kInvalidArgument,
                printable(target, 512) +
                    " exists already; remove it, or replace it with --force (overwrite=True)",
                std::move(detail));
  }
}

// Better now than after an hour.
void check_space(const std::string& target, std::uint64_t n_bytes) {
  const std::size_t slash = target.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : target.substr(0, slash + 1);
  struct statvfs space = {};
  if (::statvfs(folder.c_str(), &space) != 0) return;  // the writer will say what is wrong
  const double free_bytes =
      static_cast<double>(space.f_bavail) * static_cast<double>(space.f_frsize);
  if (free_bytes >= static_cast<double>(n_bytes)) return;
  ErrorDetail detail;
  detail.reason = "disk_full";
  detail.path = target;
  char text[120];
  std::snprintf(text, sizeof text, ": the file takes %.1f MB, and %.1f MB are free there",
                static_cast<double>(n_bytes) / 1e6, free_bytes / 1e6);
  throw Error(ErrorCode::kIo, printable(target, 512) + text, std::move(detail));
}

void copy_keys(const GgufFile& file, const FileType& type, GgufWriter& writer) {
  bool has_type = false;
  bool has_version = false;
  for (const GgufEntry& entry : file.entries()) {
    if (entry.key == "general.file_type") {
      writer.add_u32(entry.key, type.id);
      has_type = true;
    } else if (entry.key == "general.quantization_version") {
      writer.add_u32(entry.key, kQuantizationVersion);
      has_version = true;
    } else if (!entry.key.starts_with("split.")) {  // those of the target are its own
      writer.add_value(entry.key, entry.value);
    }
  }
  if (!has_type) writer.add_u32("general.file_type", type.id);
  if (!has_version) writer.add_u32("general.quantization_version", kQuantizationVersion);
}

// One for each part, of the tensors up to its end.
std::vector<GgufWriter> writers_of(const GgufFile& file, const FileType& type,
                                   const std::vector<TensorConversion>& plan,
                                   const std::vector<std::size_t>& ends, Job& job,
                                   QuantizeResult& result) {
  std::vector<GgufWriter> writers;
  std::size_t i = 0;
  for (std::size_t part = 0; part < ends.size(); ++part) {
    GgufWriter& writer = writers.emplace_back(file.alignment());
    if (part == 0) copy_keys(file, type, writer);
    if (ends.size() > 1) {
      writer.add_u16("split.no", static_cast<std::uint16_t>(part));
      writer.add_u16("split.count", static_cast<std::uint16_t>(ends.size()));
      writer.add_i32("split.tensors.count", static_cast<std::int32_t>(plan.size()));
    }
    for (; i < ends[part]; ++i) {
      const TensorInfo* tensor = plan[i].source;
      const DType to = plan[i].to;
      QuantizedTensor* report = &result.tensors[i];
      writer.add_tensor(tensor->name, to, tensor->shape,
                        [&job, tensor, to, report](const GgufWriter::Sink& sink) {
                          if (to == tensor->dtype) {
                            job.copy(*tensor, sink);
                          } else {
                            job.convert(*tensor, to, *report, sink);
                          }
                        });
    }
  }
  return writers;
}

}  // namespace

QuantizeResult quantize_file(const std::string& source, const std::string& target,
                             const std::string& type_name, const QuantizeOptions& options) {
  const auto started = std::chrono::steady_clock::now();
  if (options.n_threads < 0 || options.n_threads > 256) {
    throw_invalid("n_threads must be 1 to 256, or 0 for one per core, got " +
                  std::to_string(options.n_threads));
  }
  if (options.choices.leave_output && options.choices.output_type) {
    throw_invalid(
        "leave_output_tensor keeps output.weight as it is: give either it or output_tensor_type");
  }
  const FileType& type = parse_file_type(type_name);
  const std::shared_ptr<const GgufFile> file = GgufFile::open(source);
  const bool one_file = options.parts.max_bytes == 0 && options.parts.max_tensors == 0;
  if (!options.dry_run && one_file) check_target(source, target, options.overwrite);

  QuantizeResult result;
  result.type = type.name;
  result.n_threads = ThreadPool::shared().start(
      options.n_threads > 0 ? options.n_threads : ThreadPool::default_n_threads());
  result.source_bytes = file->total_size();
  const std::vector<TensorConversion> plan = plan_quantization(*file, type, options.choices);
  result.tensors.reserve(plan.size());
  std::uint64_t tensor_bytes = 0;
  std::vector<std::uint64_t> sizes;
  for (const TensorConversion& planned : plan) {
    const TensorInfo& tensor = *planned.source;
    result.tensors.push_back({tensor.name, tensor.shape, tensor.dtype, planned.to, tensor.n_bytes,
                              planned.n_bytes, planned.note, 0, 0});
    result.n_weights += tensor.n_elements;
    tensor_bytes += planned.n_bytes;
    sizes.push_back(planned.n_bytes);
  }
  const std::vector<std::size_t> ends = part_ends(sizes, options.parts);
  if (result.n_weights > 0) {
    result.bits_per_weight =
        8.0 * static_cast<double>(tensor_bytes) / static_cast<double>(result.n_weights);
  }

  result.files = part_paths(target, ends.size());
  if (!options.dry_run) {
    for (const std::string& path : result.files) check_target(source, path, options.overwrite);
  }
  Job job(*file, options, result.n_threads);
  const std::vector<GgufWriter> writers = writers_of(*file, type, plan, ends, job, result);
  for (const GgufWriter& writer : writers) result.target_bytes += writer.size();
  if (!options.dry_run) {
    check_space(target, result.target_bytes);
    result.target_bytes = GgufWriter::write_parts(writers, result.files);
    result.relative_error = job.relative_error();
  }
  result.total_ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - started).count();
  return result;
}

}  // namespace specdec
