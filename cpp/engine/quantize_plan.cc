#include "engine/quantize_plan.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include "base/error.h"
#include "quant/encode.h"

namespace specdec {
namespace {

bool is_float(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

std::string upper(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return out;
}

// "blk.12.attn_v.weight" -> 12; -1 for others.
std::int64_t layer_of(std::string_view name) {
  if (!name.starts_with("blk.")) return -1;
  std::int64_t layer = -1;
  const char* end = name.data() + name.size();
  const auto result = std::from_chars(name.data() + 4, end, layer);
  return result.ec == std::errc() && result.ptr != end && *result.ptr == '.' ? layer : -1;
}

// The name without "blk.N." and ".weight".
std::string_view part_of(std::string_view name) {
  if (layer_of(name) >= 0) name.remove_prefix(name.find('.', 4) + 1);
  if (name.ends_with(".weight")) name.remove_suffix(7);
  return name;
}

bool is_vector(const TensorInfo& tensor) { return tensor.n_elements == tensor.shape[0]; }

// Matrices that a quantiser touches.
bool is_quantisable(const TensorInfo& tensor) {
  const std::string_view name = tensor.name;
  const auto has = [&](const char* part) { return name.find(part) != std::string_view::npos; };
  return !is_vector(tensor) && name.ends_with("weight") && !has("_norm.weight") &&
         !has("ffn_gate_inp") && !has("position_embd") && !has("token_types") && !has("ssm_conv1d");
}

// Layers at both ends and every third between matter most.
bool wants_more_bits(std::int64_t layer, std::int64_t n_layers) {
  return layer < n_layers / 8 || layer >= 7 * n_layers / 8 || (layer - n_layers / 8) % 3 == 2;
}

// Query heads per key and value head; 1 when the file does not say.
std::uint64_t query_groups(const GgufFile& file, const std::string& arch) {
  const auto count = [&](const char* key) -> std::uint64_t {
    const GgufValue* value = file.find(arch + key);
    return value == nullptr || value->is_array() || !is_gguf_integer(value->type())
               ? 0
               : static_cast<std::uint64_t>(value->as_i64());
  };
  const std::uint64_t n_heads = count(".attention.head_count");
  const std::uint64_t n_kv_heads = count(".attention.head_count_kv");
  return n_kv_heads == 0 ? 1 : n_heads / n_kv_heads;
}

class Planner {
 public:
  Planner(const GgufFile& file, const FileType& type, const QuantizeChoices& choices)
      : type_(type), choices_(choices) {
    for (const TensorInfo& tensor : file.tensors()) {
      has_output_ |= tensor.name == "output.weight";
      n_layers_ = std::max(n_layers_, layer_of(tensor.name) + 1);
    }
    const std::string arch(file.get_string("general.architecture", ""));
    const GgufValue* experts = file.find(arch + ".expert_count");
    has_eight_experts_ = experts != nullptr && !experts->is_array() &&
                         is_gguf_integer(experts->type()) && experts->as_i64() == 8;
    n_gqa_ = query_groups(file, arch);
    has_70b_layers_ = n_layers_ == 80 && (arch == "llama" || arch == "qwen2");
  }

  [[nodiscard]] DType wanted(const TensorInfo& tensor) const {
    const std::string_view part = part_of(tensor.name);
    const bool is_output = part == "output";
    const bool is_embedding = part == "token_embd";
    if (is_embedding && choices_.token_embedding_type) return *choices_.token_embedding_type;
    // A tied embedding is the output matrix too.
    if ((is_output || (is_embedding && !has_output_)) && choices_.output_type) {
      return *choices_.output_type;
    }
    if (choices_.pure || is_float(type_.base)) return type_.base;
    if (is_output || (is_embedding && !has_output_)) {
      return type_.base == DType::kQ8_0 ? DType::kQ8_0 : DType::kQ6_K;
    }
    return layer_type(part, layer_of(tensor.name));
  }

 private:
  [[nodiscard]] DType layer_type(std::string_view part, std::int64_t layer) const {
    if (part == "attn_v" || part == "attn_qkv") return value_type(layer);
    if (part == "attn_k") return has_eight_experts_ ? DType::kQ8_0 : type_.base;
    if (part.starts_with("ffn_down")) return down_type(layer);
    return part == "attn_output" ? attention_output_type() : type_.base;
  }

  [[nodiscard]] bool is(std::string_view name) const { return type_.name == name; }
  [[nodiscard]] bool is_medium() const { return is("Q4_K_M") || is("Q5_K_M"); }
  [[nodiscard]] bool is_uneven_4() const {
    return std::string_view(type_.name).starts_with("IQ4_");
  }

  [[nodiscard]] DType value_type(std::int64_t layer) const {
    DType result = type_.base;
    if (is("Q2_K")) result = n_gqa_ >= 4 ? DType::kQ4_K : DType::kQ3_K;
    if (is("Q3_K_M")) result = layer < 2 ? DType::kQ5_K : DType::kQ4_K;
    if (is("Q3_K_L")) result = DType::kQ5_K;
    if (is_uneven_4() && n_gqa_ >= 4) result = DType::kQ5_K;
    if (is_medium() && wants_more_bits(layer, n_layers_)) result = DType::kQ6_K;
    if (is("Q4_K_S") && layer < 4) result = DType::kQ5_K;
    if (has_70b_layers_ && (result == DType::kQ3_K || result == DType::kQ4_K))
      result = DType::kQ5_K;
    return has_eight_experts_ ? DType::kQ8_0 : result;
  }

  [[nodiscard]] DType down_type(std::int64_t layer) const {
    const bool early = layer < n_layers_ / 8;
    if (is("Q2_K")) return DType::kQ3_K;
    if (is("Q3_K_M")) return layer < n_layers_ / 16 ? DType::kQ5_K : DType::kQ4_K;
    if (is("Q3_K_L")) return DType::kQ5_K;
    if (is_medium() && wants_more_bits(layer, n_layers_)) return DType::kQ6_K;
    return early && (is("Q4_K_S") || is_uneven_4()) ? DType::kQ5_K : type_.base;
  }

  [[nodiscard]] DType attention_output_type() const {
    const DType base = type_.base;
    if (has_eight_experts_) {
      const bool small = base == DType::kQ2_K || base == DType::kQ3_K || base == DType::kQ4_K;
      return small || is_uneven_4() ? DType::kQ5_K : base;
    }
    if (is("Q2_K")) return DType::kQ3_K;
    if (is("Q3_K_M")) return DType::kQ4_K;
    return is("Q3_K_L") ? DType::kQ5_K : base;
  }

  const FileType& type_;
  const QuantizeChoices& choices_;
  bool has_output_ = false;
  bool has_eight_experts_ = false;
  bool has_70b_layers_ = false;
  std::int64_t n_layers_ = 0;
  std::uint64_t n_gqa_ = 1;  // query heads per key and value head
};

double bits_per_weight(DType dtype) {
  const DTypeTraits& traits = dtype_traits(dtype);
  return 8.0 * traits.block_bytes / traits.block_elements;
}

// The nearest type that rows of n weights can have.
DType that_fits(DType dtype, std::uint64_t n) {
  const auto fits = [n](DType d) { return n % dtype_traits(d).block_elements == 0; };
  if (fits(dtype)) return dtype;
  DType other = bits_per_weight(dtype) < 4.5 ? DType::kIQ4_NL : DType::kF16;
  if (dtype == DType::kQ4_K) other = DType::kQ5_0;
  if (dtype == DType::kQ5_K) other = DType::kQ5_1;
  if (dtype == DType::kQ6_K) other = DType::kQ8_0;
  return fits(other) ? other : DType::kF16;
}

}  // namespace

const std::vector<FileType>& file_types() {
  static const std::vector<FileType> types = [] {
    std::vector<FileType> list = {
        {"Q5_K_M", 17, DType::kQ5_K, true},  {"Q5_K_S", 16, DType::kQ5_K, false},
        {"Q4_K_M", 15, DType::kQ4_K, true},  {"Q4_K_S", 14, DType::kQ4_K, true},
        {"Q3_K_L", 13, DType::kQ3_K, true},  {"Q3_K_M", 12, DType::kQ3_K, true},
        {"Q3_K_S", 11, DType::kQ3_K, false}, {"Q2_K", 10, DType::kQ2_K, true},
    };
    for (const DTypeTraits& traits : all_dtypes()) {
      if (traits.file_type < 0) continue;
      list.push_back(
          {traits.name, static_cast<std::uint32_t>(traits.file_type), traits.dtype, false});
    }
    std::stable_sort(list.begin(), list.end(), [](const FileType& a, const FileType& b) {
      return bits_per_weight(a.base) > bits_per_weight(b.base);
    });
    return list;
  }();
  return types;
}

std::string format_problem(const std::string& name) {
  const auto dtype = parse_dtype(name);
  if (dtype && encoder(*dtype) != nullptr) return "";
  std::string known;
  for (const DTypeTraits& traits : all_dtypes()) {
    if (encoder(traits.dtype) != nullptr) known += std::string(" ") + traits.name;
  }
  if (!dtype) return "must be one of" + known + ", got '" + printable(name) + "'";
  return std::string("must not be ") + dtype_traits(*dtype).name +
         ", which is only read: what to keep of weights in it is decided with an importance "
         "matrix; "
         "take one of" +
         known;
}

const FileType& parse_file_type(const std::string& name) {
  std::string wanted = upper(name);
  if (wanted == "Q3_K" || wanted == "Q4_K" || wanted == "Q5_K") wanted += "_S";
  std::string known;
  for (const FileType& type : file_types()) {
    if (wanted == type.name) return type;
    known += std::string(" ") + type.name;
  }
  if (const auto dtype = parse_dtype(name); dtype && encoder(*dtype) == nullptr)
    throw_invalid("the type " + format_problem(name));
  throw_invalid("the type must be one of" + known + " (or Q3_K, Q4_K, Q5_K), got '" +
                printable(name) + "'");
}

std::vector<TensorConversion> plan_quantization(const GgufFile& file, const FileType& type,
                                                const QuantizeChoices& choices) {
  const Planner planner(file, type, choices);
  std::vector<TensorConversion> plan;
  plan.reserve(file.tensors().size());
  for (const TensorInfo& tensor : file.tensors()) {
    TensorConversion planned{.source = &tensor, .to = tensor.dtype, .n_bytes = 0, .note = {}};
    if (choices.leave_output && tensor.name == "output.weight") {
      planned.note = "left as it is";
    } else if (is_quantisable(tensor)) {
      const DType wanted = planner.wanted(tensor);
      planned.to = that_fits(wanted, tensor.shape[0]);
      if (planned.to != wanted) {
        planned.note = "rows of " + std::to_string(tensor.shape[0]) +
                       " weights do not fit the blocks of " + dtype_traits(wanted).name;
      }
    } else if (is_vector(tensor) && is_float(tensor.dtype)) {
      planned.to = DType::kF32;
    }
    if (planned.to != tensor.dtype && !is_float(tensor.dtype) && !is_float(planned.to) &&
        !choices.allow_requantize) {
      throw file.make_error(
          ErrorCode::kInvalidArgument, "requantize",
          "tensor '" + printable(tensor.name) + "' is " + dtype_traits(tensor.dtype).name +
              " already, and " + dtype_traits(planned.to).name +
              " made from it is worse than made from F16; take an F16, BF16 or F32 file, or allow "
              "it with --allow-requantize (allow_requantize=True)",
          {}, tensor.name);
    }
    const std::uint64_t n_rows = tensor.n_elements / tensor.shape[0];
    planned.n_bytes = n_rows * row_bytes(planned.to, tensor.shape[0]);
    plan.push_back(std::move(planned));
  }
  return plan;
}

}  // namespace specdec
