// Weights as a backend packed them, in a file: mapped at a later start instead of being packed
// again, and shared by all processes that map it.
//
// A header with a hash of everything before the data, then the parts, each on a page. Their bytes
// are not read when the file is opened; each has a checksum for check().
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/mapped_file.h"

namespace specdec {

class GgufFile;

struct PackedPart {
  std::uint64_t key = 0;  // of the matrix, unlike those of others
  std::span<const std::byte> bytes;
};

class PackedFile {
 public:
  // Null where there is none, or a damaged one, or one of another `identity`.
  [[nodiscard]] static std::shared_ptr<const PackedFile> open(const std::string& path,
                                                              std::uint64_t identity);
  // Replaces the file by one of these parts. Throws Error(kIo) or kResource. `poll` is called
  // behind each part, and may throw. source: of what model, for source_of().
  static void write(const std::string& path, std::uint64_t identity, const std::string& source,
                    std::span<const PackedPart> parts, const std::function<void()>& poll);
  // What write() was given; empty: it is none of these files.
  [[nodiscard]] static std::string source_of(const std::string& path);

  // Empty where there is none with so many bytes. On a page of memory.
  [[nodiscard]] std::span<const std::byte> find(std::uint64_t key, std::size_t n_bytes) const;
  // Whether a part of find() is as it was written. Reads it.
  [[nodiscard]] bool is_intact(std::uint64_t key) const;
  [[nodiscard]] const std::string& path() const noexcept { return mapping_.path(); }
  [[nodiscard]] std::size_t size() const noexcept { return mapping_.bytes().size(); }
  // Brings all of it into memory and maps it, on several threads: a hint.
  void bring_in(int n_threads) const;
  // As MappedFile::check_whole().
  void check_whole() const { mapping_.check_whole(); }

 private:
  struct Entry {
    std::uint64_t key = 0, offset = 0, n_bytes = 0, checksum = 0;
  };
  struct Header;

  explicit PackedFile(const std::string& path) : mapping_(path) {}
  [[nodiscard]] bool read(std::uint64_t identity);
  [[nodiscard]] const Entry* entry(std::uint64_t key) const;

  MappedFile mapping_;
  std::vector<Entry> entries_;  // by key
};

// What packed weights depend on: size, time of modification and metadata of the model's files, the
// layout and `variant`. 0: the model is in memory.
[[nodiscard]] std::uint64_t packed_identity(const GgufFile& file, std::uint64_t layout,
                                            const std::string& variant);

}  // namespace specdec
