// A file of texts of earlier requests.
//
//   "SPECMEMO", u32 format, u32 0x01020304, u64 bytes of the file, u64 checksum of what follows:
//   u64 fingerprint of the vocabulary, u32 tokens of the vocabulary, text version of the program,
//   text name of the model; u64 texts, each u64 key, u32 n, n x i32; u64 rows of successors, each
//   u64 key, i32 token, u32 n, n x i32 (a text: u32 bytes, bytes)
//
// Numbers are little-endian. Nobody vouches for such a file: whatever the bytes are, reading it
// gives tokens below the size of the vocabulary that it names, or throws Error. Reasons:
//   kModelFormat  bad_magic truncated trailing_bytes checksum bad_value
//   kUnsupported  file_version big_endian
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "decode/draft_memory.h"

namespace specdec {

inline constexpr std::uint32_t kMemoryFileFormat = 1;

struct MemoryFileHead {
  std::uint64_t vocabulary = 0;  // fingerprint
  std::uint32_t n_vocabulary = 0;
  std::string version;  // of the program
  std::string model;    // what a person calls the one that wrote it
};

class MemoryFile {
 public:
  // Reads and checks all of it.
  explicit MemoryFile(std::string path);

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] const MemoryFileHead& head() const noexcept { return head_; }
  [[nodiscard]] std::uint64_t n_bytes() const noexcept { return bytes_.size(); }
  [[nodiscard]] std::uint64_t checksum() const noexcept { return checksum_; }
  [[nodiscard]] std::uint64_t n_texts() const noexcept { return n_texts_; }
  [[nodiscard]] std::uint64_t n_tokens() const noexcept { return n_tokens_; }
  [[nodiscard]] std::uint64_t n_rows() const noexcept { return n_rows_; }
  [[nodiscard]] std::uint64_t n_keys() const noexcept { return n_keys_; }
  // Adds what it holds, in its order, at times from the first of those that the memory left free.
  // `poll` may be empty; it may throw.
  void add_to(DraftMemory& memory, std::uint64_t time,
              const std::function<void()>& poll = {}) const;
  // In the file's order: texts, used least recently first, and then successors.
  void visit(const std::function<void(std::uint64_t key, std::span<const TokenId> text)>& on_text,
             const std::function<void(std::uint64_t key, const DraftMemory::Successors& row)>&
                 on_row) const;

  // Whether the file begins like one of these; false also where it cannot be read.
  [[nodiscard]] static bool is_one(const std::string& path);
  // Of a file that was not read: its checksum, as it says; 0: there is none.
  [[nodiscard]] static std::uint64_t checksum_of(const std::string& path);

 private:
  [[noreturn]] void refuse(const char* reason, const std::string& text) const;
  void check_prologue();
  void check_body();

  std::string path_;
  std::vector<std::byte> bytes_;
  MemoryFileHead head_;
  std::uint64_t checksum_ = 0;
  std::size_t texts_start_ = 0;
  std::uint64_t n_texts_ = 0, n_tokens_ = 0, n_rows_ = 0, n_keys_ = 0;
};

// An Error about such a file; the message gets the path in front.
[[nodiscard]] Error memory_file_error(const std::string& path, ErrorCode code, std::string reason,
                                      const std::string& text);

// Writes it, readable for its owner only, in place of what is at the path once all is on the disk;
// returns its checksum. Throws Error(kIo), or kInvalidArgument where the path names no file that
// may be replaced. `before`: the file that is there, or null; what it holds beyond the memory's
// bounds stays (memory_body.h).
std::uint64_t write_memory_file(const std::string& path, const MemoryFileHead& head,
                                const DraftMemory& memory, const MemoryFile* before = nullptr);

// While one that holds lives no other process that asks has the folder of the path: who writes a
// file anew looks first what others have written. Where the file system has no such locks it does
// nothing.
class FolderLock {
 public:
  // Does not wait. Throws Error(kIo).
  explicit FolderLock(const std::string& path);
  ~FolderLock();
  [[nodiscard]] bool holds() const { return fd_ >= 0; }  // false: another one has the folder
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int fd_ = -1;
};

}  // namespace specdec
