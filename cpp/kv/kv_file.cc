#include "kv/kv_file.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/open_file.h"
#include "gguf/atomic_file.h"
#include "gguf/cursor.h"

namespace specdec {
namespace {

constexpr std::string_view kMagic = "SPECKEPT";
constexpr std::uint32_t kByteOrder = 0x01020304;
constexpr std::uint32_t kTurned = 0x04030201;
constexpr std::uint64_t kPrologueBytes = 8 + 4 + 4 + 8 + 8 + 8;

// Blocks with their checksums; nothing where the sum does not fit.
std::optional<std::uint64_t> data_bytes(const KvFileHead& head) {
  std::optional<std::uint64_t> total = 0;
  for (const KvFileCache& cache : head.caches) {
    for (const std::uint64_t block : kv_block_bytes(cache.record)) {
      const auto with_checksum = checked_add(block, 8);
      total = with_checksum && total ? checked_add(*total, *with_checksum) : std::nullopt;
    }
  }
  return total;
}

template <typename T>
void put_number(AtomicFile& file, T value) {
  file.write(&value, sizeof value);
}

}  // namespace

void write_kv_file(const std::string& path, const KvFileHead& head,
                   std::span<const KvCache* const> caches, const std::function<void()>& poll) {
  SPECDEC_CHECK(caches.size() == head.caches.size());
  const std::string text = write_kv_head(head);
  const auto n_data = data_bytes(head);
  SPECDEC_CHECK(n_data.has_value());
  AtomicFile file(path);
  file.write(kMagic.data(), kMagic.size());
  put_number(file, kKvFileFormat);
  put_number(file, kByteOrder);
  put_number(file, kPrologueBytes + text.size() + *n_data);
  put_number(file, static_cast<std::uint64_t>(text.size()));
  put_number(file, hash64(std::as_bytes(std::span(text.data(), text.size()))));
  file.write(text.data(), text.size());
  for (const KvCache* const cache : caches) {
    Hash64 hash;
    KvStore::write(
        *cache,
        [&](std::span<const std::byte> piece) {
          hash.add(piece);
          file.write(piece.data(), piece.size());
        },
        [&] {
          put_number(file, hash.value());
          hash = {};
          if (poll) poll();
        });
  }
  SPECDEC_CHECK(file.size() == kPrologueBytes + text.size() + *n_data);
  file.finish();
  file.commit();
}

bool KvFile::is_one(const std::string& path) {
  try {
    const OpenFile file(path);
    std::array<char, 8> start{};
    return ::pread(file.fd(), start.data(), start.size(), 0) ==
               static_cast<ssize_t>(start.size()) &&
           std::string_view(start.data(), start.size()) == kMagic;
  } catch (const Error&) {  // whoever reads it says why not
    return false;
  }
}

Error KvFile::make_error(ErrorCode code, std::string reason, const std::string& text) const {
  ErrorDetail detail;
  detail.reason = std::move(reason);
  detail.path = path();
  return {code, printable(path(), 512) + ": " + text, std::move(detail)};
}

void KvFile::refuse(const char* reason, const std::string& text) const {
  throw make_error(ErrorCode::kModelFormat, reason,
                   text + "; the file is damaged: read the prompt again and save it again");
}

KvFile::KvFile(const std::string& path) : mapping_(path) {
  const std::span<const std::byte> bytes = mapping_.bytes();
  Cursor cursor(bytes);
  const bool begins =
      bytes.size() >= kMagic.size() && std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) == 0;
  if (!begins || !cursor.skip(kMagic.size()))
    throw make_error(ErrorCode::kModelFormat, "bad_magic",
                     "is not a kept prompt: expected a file that begins with " +
                         std::string(kMagic) + "; give one that was saved as such");
  std::uint32_t format = 0, byte_order = 0;
  std::uint64_t n_bytes = 0, n_head = 0, checksum = 0;
  if (!cursor.read(&format) || !cursor.read(&byte_order) || !cursor.read(&n_bytes) ||
      !cursor.read(&n_head) || !cursor.read(&checksum))
    refuse("truncated", "it ends after " + std::to_string(bytes.size()) + " bytes");
  if (byte_order == kTurned)
    throw make_error(ErrorCode::kUnsupported, "big_endian",
                     "was written on a big-endian machine; read the prompt again here");
  if (format != kKvFileFormat)
    throw make_error(ErrorCode::kUnsupported, "file_version",
                     "has format " + std::to_string(format) + ", expected " +
                         std::to_string(kKvFileFormat) +
                         ": another version of this program wrote it; read the prompt again with "
                         "this one and save it again");
  if (byte_order != kByteOrder) refuse("bad_value", "an impossible mark of byte order");
  if (n_bytes > bytes.size())
    refuse("truncated",
           "it has " + std::to_string(bytes.size()) + " of " + std::to_string(n_bytes) + " bytes");
  if (n_bytes < bytes.size())
    refuse("trailing_bytes", "it has " + std::to_string(bytes.size()) + " bytes, expected " +
                                 std::to_string(n_bytes));
  if (n_head > cursor.remaining())
    refuse("bad_value", "a head of " + std::to_string(n_head) + " bytes does not fit in it");
  const std::span<const std::byte> head = bytes.subspan(kPrologueBytes, n_head);
  if (hash64(head) != checksum) refuse("checksum", "the checksum of its head is wrong");
  std::string problem;
  head_ = read_kv_head(head, problem);
  if (!problem.empty()) refuse("bad_value", "its head is wrong: " + problem);
  data_start_ = kPrologueBytes + n_head;
  const auto n_data = data_bytes(head_);
  if (!n_data || *n_data != bytes.size() - data_start_)
    refuse("bad_value", "its head promises " +
                            (n_data ? std::to_string(*n_data) : std::string("more than 2^64")) +
                            " bytes of caches, there are " +
                            std::to_string(bytes.size() - data_start_));
  mapping_.check_whole();
}

KvCache KvFile::read(std::size_t cache, std::shared_ptr<KvArena> arena, int n_ctx,
                     const std::function<void()>& poll) const {
  SPECDEC_CHECK(cache < head_.caches.size());
  std::uint64_t at = data_start_;
  for (std::size_t before = 0; before < cache; ++before) {
    for (const std::uint64_t n : kv_block_bytes(head_.caches[before].record)) at += n + 8;
  }
  KvCache made =
      KvStore::read(std::move(arena), head_.caches[cache].record, n_ctx,
                    [&](std::uint64_t n) -> std::span<const std::byte> {
                      if (poll) poll();
                      // Sizes were checked with the head.
                      const auto block = mapping_.bytes().subspan(at, n);
                      const auto expected = load_le<std::uint64_t>(block.data() + block.size());
                      if (hash64(block) == expected) {
                        at += n + 8;
                        return block;
                      }
                      mapping_.check_whole();  // says so if that is why
                      refuse("checksum", "the checksum of the " + std::to_string(n) + " bytes at " +
                                             std::to_string(at) + " is wrong");
                    });
  mapping_.check_whole();
  return made;
}

}  // namespace specdec
