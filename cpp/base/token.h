#pragma once

#include <cstdint>

namespace specdec {

using TokenId = std::int32_t;

}  // namespace specdec
