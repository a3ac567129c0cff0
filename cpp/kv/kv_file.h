// A file of kept caches: what was read of a text, to go on from at another time.
//
//   "SPECKEPT", u32 format, u32 0x01020304, u64 bytes of the file, u64 bytes of the head, u64 its
//   checksum; the head; then block after block of the caches (kv/kv_store.h), each followed by the
//   u64 checksum of its bytes
//
// Numbers are little-endian. Nobody vouches for such a file: whatever the bytes are, reading it
// either gives caches all of whose numbers are checked, or throws Error. Reasons:
//   kModelFormat  bad_magic truncated trailing_bytes checksum bad_value
//   kUnsupported  file_version big_endian
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/error.h"
#include "base/mapped_file.h"
#include "kv/kv_file_head.h"

namespace specdec {

inline constexpr std::uint32_t kKvFileFormat = 1;

// Writes caches, as many as head.caches, in place of what is at the path once all is on the disk.
// Throws Error(kIo), or kInvalidArgument where the path names no file that may be replaced. `poll`
// (may be empty) is called after every block, and may throw.
void write_kv_file(const std::string& path, const KvFileHead& head,
                   std::span<const KvCache* const> caches, const std::function<void()>& poll);

class KvFile {
 public:
  // Reads and checks all but the blocks.
  explicit KvFile(const std::string& path);

  [[nodiscard]] const KvFileHead& head() const noexcept { return head_; }
  [[nodiscard]] std::uint64_t n_bytes() const noexcept { return mapping_.bytes().size(); }
  [[nodiscard]] const std::string& path() const noexcept { return mapping_.path(); }
  // The cache of that number, for up to n_ctx positions. Throws Error also where it does not fit.
  [[nodiscard]] KvCache read(std::size_t cache, std::shared_ptr<KvArena> arena, int n_ctx,
                             const std::function<void()>& poll) const;
  // An Error about this file; the message gets the path in front.
  [[nodiscard]] Error make_error(ErrorCode code, std::string reason, const std::string& text) const;

  // Whether the file begins like one of these; false also where it cannot be read.
  [[nodiscard]] static bool is_one(const std::string& path);

 private:
  [[noreturn]] void refuse(const char* reason, const std::string& text) const;

  MappedFile mapping_;
  KvFileHead head_;
  std::uint64_t data_start_ = 0;
};

}  // namespace specdec
