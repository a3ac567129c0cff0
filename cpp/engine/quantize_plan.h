// Which type each tensor of a model gets when the model is quantised.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/reader.h"
#include "tensor/dtype.h"

namespace specdec {

// A type that one may ask for: one weight format, or a mix of them.
struct FileType {
  const char* name;  // "Q4_K_M"
  std::uint32_t id;  // general.file_type
  DType base;        // what most matrices get
  bool is_mix;       // some matrices get more bits than base
};

[[nodiscard]] const std::vector<FileType>& file_types();
// Case-insensitive; "Q3_K", "Q4_K" and "Q5_K" stand for Q3_K_S and so on. Throws
// Error(kInvalidArgument) listing the names.
[[nodiscard]] const FileType& parse_file_type(const std::string& name);

// Why no tensor can be written in the weight format of that name, with what to do; "" if one can.
[[nodiscard]] std::string format_problem(const std::string& name);

struct QuantizeChoices {
  // Every matrix gets the base type, where its rows allow it.
  bool pure = false;
  // output.weight stays as it is.
  bool leave_output = false;
  // Matrices that are quantised already may be quantised again.
  bool allow_requantize = false;
  std::optional<DType> output_type;
  std::optional<DType> token_embedding_type;
};

struct TensorConversion {
  const TensorInfo* source = nullptr;
  DType to = DType::kF32;
  std::uint64_t n_bytes = 0;
  // Why `to` is not what the type asked for: "" or "rows of 576 are not a multiple of 256".
  std::string note;
};

// The rules are llama.cpp's. Vectors become F32 if they are F16 or BF16; matrices that route
// experts and the like stay as they are. Throws Error(kInvalidArgument, requantize) for a quantised
// matrix that would become one of another quantised type, without allow_requantize.
[[nodiscard]] std::vector<TensorConversion> plan_quantization(const GgufFile& file,
                                                              const FileType& type,
                                                              const QuantizeChoices& choices);

}  // namespace specdec
