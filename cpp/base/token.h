#pragma once

#include <cstdint>

namespace specdec {

using TokenId = std::int32_t;

// A token and its logit.
struct TopToken {
  TokenId token = -1;
  float logit = 0.0F;
};

}  // namespace specdec
