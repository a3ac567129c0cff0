#include "tensor/dtype.h"

#include <cctype>
#include <iterator>

#include "base/error.h"

namespace specdec {
namespace {
// Sizes are repeated in quant/<format>/block.h and checked against these there.
constexpr DTypeTraits kTraits[] = {
    {DType::kF32, "F32", 1, 4},       {DType::kF16, "F16", 1, 2},
    {DType::kBF16, "BF16", 1, 2},     {DType::kQ4_0, "Q4_0", 32, 18},
    {DType::kQ4_1, "Q4_1", 32, 20},   {DType::kQ5_0, "Q5_0", 32, 22},
    {DType::kQ5_1, "Q5_1", 32, 24},   {DType::kQ8_0, "Q8_0", 32, 34},
    {DType::kQ2_K, "Q2_K", 256, 84},  {DType::kQ3_K, "Q3_K", 256, 110},
    {DType::kQ4_K, "Q4_K", 256, 144}, {DType::kQ5_K, "Q5_K", 256, 176},
    {DType::kQ6_K, "Q6_K", 256, 210},
};

struct IdName {
  std::uint32_t id;
  const char* name;
};
constexpr IdName kOtherNames[] = {
    {4, "Q4_2 (removed)"},
    {5, "Q4_3 (removed)"},
    {9, "Q8_1"},
    {15, "Q8_K"},
    {16, "IQ2_XXS"},
    {17, "IQ2_XS"},
    {18, "IQ3_XXS"},
    {19, "IQ1_S"},
    {20, "IQ4_NL"},
    {21, "IQ3_S"},
    {22, "IQ2_S"},
    {23, "IQ4_XS"},
    {24, "I8"},
    {25, "I16"},
    {26, "I32"},
    {27, "I64"},
    {28, "F64"},
    {29, "IQ1_M"},
    {31, "Q4_0_4_4 (removed)"},
    {32, "Q4_0_4_8 (removed)"},
    {33, "Q4_0_8_8 (removed)"},
    {34, "TQ1_0"},
    {35, "TQ2_0"},
    {36, "IQ4_NL_4_4 (removed)"},
    {37, "IQ4_NL_4_8 (removed)"},
    {38, "IQ4_NL_8_8 (removed)"},
    {39, "MXFP4"},
    {40, "NVFP4"},
    {41, "Q1_0"},
    {42, "Q2_0"},
};
}  // namespace

const std::vector<DTypeTraits>& all_dtypes() {
  static const std::vector<DTypeTraits> list(std::begin(kTraits), std::end(kTraits));
  return list;
}

const DTypeTraits* find_dtype(std::uint32_t id) noexcept {
  for (const auto& traits : kTraits) {
    if (static_cast<std::uint32_t>(traits.dtype) == id) return &traits;
  }
  return nullptr;
}

const DTypeTraits& dtype_traits(DType dtype) {
  const DTypeTraits* traits = find_dtype(static_cast<std::uint32_t>(dtype));
  SPECDEC_CHECK(traits != nullptr);
  return *traits;
}

std::optional<DType> parse_dtype(std::string_view name) {
  for (const auto& traits : kTraits) {
    const std::string_view own = traits.name;
    if (own.size() != name.size()) continue;
    bool same = true;
    for (std::size_t i = 0; i < own.size(); ++i) {
      same = same && std::toupper(static_cast<unsigned char>(name[i])) ==
                         std::toupper(static_cast<unsigned char>(own[i]));
    }
    if (same) return traits.dtype;
  }
  return std::nullopt;
}

std::string gguf_type_name(std::uint32_t id) {
  if (const DTypeTraits* traits = find_dtype(id)) return traits->name;
  for (const auto& other : kOtherNames) {
    if (other.id == id) return other.name;
  }
  return "";
}

std::uint64_t row_bytes(DType dtype, std::uint64_t n_elements) {
  const DTypeTraits& traits = dtype_traits(dtype);
  SPECDEC_CHECK(n_elements % traits.block_elements == 0);
  return n_elements / traits.block_elements * traits.block_bytes;
}

}  // namespace specdec
