#include "tensor/dtype.h"

#include <cctype>
#include <iterator>

#include "base/error.h"

namespace specdec {
namespace {
constexpr DTypeTraits kTraits[] = {
#define SPECDEC_FORMAT(name, folder, id, elements, bytes, d_at, m_at, file_type) \
  {DType::k##name, #name, elements, bytes, {d_at, m_at}, file_type},
#include "tensor/formats.def"
};

constexpr DType kIdType{27};  // as in gguf/reader.h

struct IdName {
  std::uint32_t id;
  const char* name;
};
constexpr IdName kOtherNames[] = {
#define SPECDEC_OTHER(id, name) {id, name},
#include "tensor/formats.def"
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
  static constexpr DTypeTraits kIds = {kIdType, "I64", 1, 8, {-1, -1}, -1};
  if (dtype == kIdType) return kIds;
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
