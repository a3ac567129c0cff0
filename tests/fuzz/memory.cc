// Any bytes as a file of a memory. Most inputs get right sizes and checksums first, so that more
// than these is met.
#include <vector>

#include "base/hash.h"
#include "decode/draft_memory.h"
#include "engine/memory_file.h"
#include "fuzz.h"

using namespace specdec;

namespace {

constexpr std::size_t kPrologue = 32;

void mend(std::vector<std::byte>& bytes) {
  if (bytes.size() < kPrologue) return;
  const auto put = [&](std::size_t at, std::uint64_t value) {
    std::memcpy(bytes.data() + at, &value, sizeof value);
  };
  put(16, bytes.size());
  put(24, hash64(std::span<const std::byte>(bytes).subspan(kPrologue)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::File file;
  if (size == 0) return 0;
  const auto given = std::as_bytes(std::span(data, size)).subspan(1);
  std::vector<std::byte> bytes(given.begin(), given.end());
  if (data[0] != 0) mend(bytes);
  file.write(bytes.data(), bytes.size());
  fuzz::runs([&] {
    const MemoryFile read(file.path());
    DraftMemory memory(DraftMemory::kLeastTokens);
    read.add_to(memory, memory.leave_free());
    const auto limit = static_cast<std::int64_t>(read.head().n_vocabulary);
    const auto check = [&](TokenId token) {
      if (token < 0 || token >= limit) fuzz::found("a token out of range");
    };
    std::uint64_t key = 0;
    std::vector<TokenId> text;
    memory.visit(
        [&](std::uint64_t of, std::span<const TokenId> tokens) {
          for (const TokenId token : tokens) check(token);
          key = of;
          text.assign(tokens.begin(), tokens.end());
        },
        [&](std::uint64_t, const DraftMemory::Successors& row) {
          check(row.after);
          for (const TokenId token : row.best)
            if (token != -1) check(token);
        });
    std::vector<TokenId> out;
    (void)memory.look_up(key, std::span(text).first(text.size() / 2), 63, out);
    for (const TokenId token : out) check(token);
    write_memory_file(file.path(), read.head(), memory);
    const MemoryFile again(file.path());
    if (again.n_tokens() > static_cast<std::uint64_t>(DraftMemory::kLeastTokens))
      fuzz::found("more tokens than the memory may hold");
  });
  return 0;
}
