// What a file of kept caches says before their elements.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/token.h"
#include "kv/kv_store.h"

namespace specdec {

struct KvFileCache {
  std::string model;              // what a person calls it
  std::uint64_t fingerprint = 0;  // of the model
  int n_ctx = 0;                  // that it was made for
  bool long_context = false;      // positions are turned as in a context of that kind
  KvRecord record;
};

struct KvFileHead {
  std::string version;          // of the program
  std::vector<TokenId> tokens;  // [caches[0].record.length]
  // The target's, and where there is one that of a draft model, which holds the first tokens.
  std::vector<KvFileCache> caches;
};

[[nodiscard]] std::string write_kv_head(const KvFileHead& head);

// Whatever the bytes are: says in `problem` what is wrong with them, or leaves it empty and returns
// a head all of whose numbers are checked, but for what only a model can judge.
[[nodiscard]] KvFileHead read_kv_head(std::span<const std::byte> bytes, std::string& problem);

}  // namespace specdec
