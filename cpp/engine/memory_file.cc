#include "engine/memory_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "base/hash.h"
#include "base/open_file.h"
#include "engine/memory_body.h"
#include "gguf/atomic_file.h"
#include "gguf/cursor.h"

namespace specdec {
namespace {

constexpr std::string_view kMagic = "SPECMEMO";
constexpr std::uint32_t kByteOrder = 0x01020304;
constexpr std::uint32_t kTurned = 0x04030201;
constexpr std::size_t kPrologueBytes = 8 + 4 + 4 + 8 + 8;
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 30;
constexpr std::uint32_t kMostName = 4096;
constexpr std::uint32_t kMostVocabulary = 1U << 30;

template <typename T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_text(std::string& out, const std::string& text) {
  const auto n = std::min<std::size_t>(text.size(), kMostName);
  put(out, static_cast<std::uint32_t>(n));
  out.append(text, 0, n);
}

bool read_text(Cursor& cursor, std::string& out) {
  std::uint32_t n = 0;
  if (!cursor.read(&n) || n > kMostName || n > cursor.remaining()) return false;
  out.assign(reinterpret_cast<const char*>(cursor.data()), n);
  return cursor.skip(n);
}

// Tokens of a text or a row, all below `limit`.
bool read_tokens(Cursor& cursor, std::uint32_t n, std::uint32_t limit, std::vector<TokenId>& out) {
  if (std::uint64_t{n} * 4 > cursor.remaining()) return false;
  out.resize(n);
  for (TokenId& token : out) {
    if (!cursor.read(&token) || token < 0 || static_cast<std::uint32_t>(token) >= limit)
      return false;
  }
  return true;
}

std::vector<std::byte> read_all(const std::string& path) {
  const OpenFile file(path);
  if (file.size() > kMostBytes)
    throw memory_file_error(path, ErrorCode::kModelFormat, "limit",
                            "has " + std::to_string(file.size()) +
                                " bytes, more than any memory that this program writes (1 GiB); "
                                "give another file");
  std::vector<std::byte> bytes(file.size());
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::read(file.fd(), bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_file_error(path, "cannot read", errno);
    if (n == 0) break;  // it was made shorter meanwhile
    done += static_cast<std::size_t>(n);
  }
  bytes.resize(done);
  return bytes;
}

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

}  // namespace

Error memory_file_error(const std::string& path, ErrorCode code, std::string reason,
                        const std::string& text) {
  ErrorDetail detail;
  detail.reason = std::move(reason);
  detail.path = path;
  return {code, printable(path, 512) + ": " + text, std::move(detail)};
}

void MemoryFile::refuse(const char* reason, const std::string& text) const {
  throw memory_file_error(path_, ErrorCode::kModelFormat, reason,
                          text + "; the file is damaged: remove it, and a new one begins");
}

MemoryFile::MemoryFile(std::string path) : path_(std::move(path)), bytes_(read_all(path_)) {
  check_prologue();
  check_body();
}

void MemoryFile::check_prologue() {
  Cursor cursor(bytes_);
  if (bytes_.size() < kMagic.size() ||
      std::memcmp(bytes_.data(), kMagic.data(), kMagic.size()) != 0 || !cursor.skip(kMagic.size()))
    throw memory_file_error(path_, ErrorCode::kModelFormat, "bad_magic",
                            "is not a memory of earlier requests: expected a file that begins "
                            "with " +
                                std::string(kMagic) + ", or none; give another path");
  std::uint32_t format = 0, byte_order = 0;
  std::uint64_t n_bytes = 0;
  if (!cursor.read(&format) || !cursor.read(&byte_order) || !cursor.read(&n_bytes) ||
      !cursor.read(&checksum_))
    refuse("truncated", "it ends after " + std::to_string(bytes_.size()) + " bytes");
  if (byte_order == kTurned)
    throw memory_file_error(path_, ErrorCode::kUnsupported, "big_endian",
                            "was written on a big-endian machine; give another path");
  if (format != kMemoryFileFormat)
    throw memory_file_error(
        path_, ErrorCode::kUnsupported, "file_version",
        "has format " + std::to_string(format) + ", expected " + std::to_string(kMemoryFileFormat) +
            ": another version of this program wrote it; remove it, or give another path");
  if (byte_order != kByteOrder) refuse("bad_value", "an impossible mark of byte order");
  if (n_bytes > bytes_.size())
    refuse("truncated",
           "it has " + std::to_string(bytes_.size()) + " of " + std::to_string(n_bytes) + " bytes");
  if (n_bytes < bytes_.size())
    refuse("trailing_bytes", "it has " + std::to_string(bytes_.size()) + " bytes, expected " +
                                 std::to_string(n_bytes));
  if (hash64(std::span(bytes_).subspan(kPrologueBytes)) != checksum_)
    refuse("checksum", "its checksum is wrong");
}

void MemoryFile::check_body() {
  Cursor cursor(bytes_);
  const bool begins = cursor.skip(kPrologueBytes) && cursor.read(&head_.vocabulary) &&
                      cursor.read(&head_.n_vocabulary) && read_text(cursor, head_.version) &&
                      read_text(cursor, head_.model);
  if (!begins || head_.n_vocabulary < 1 || head_.n_vocabulary > kMostVocabulary)
    refuse("bad_value", "its head is wrong");
  texts_start_ = static_cast<std::size_t>(cursor.position());
  std::vector<TokenId> tokens;
  std::unordered_set<std::uint64_t> keys;
  std::uint64_t key = 0;
  std::uint32_t n = 0;
  if (!cursor.read(&n_texts_)) refuse("bad_value", "it does not say how many texts it holds");
  for (std::uint64_t i = 0; i < n_texts_; ++i) {
    if (!cursor.read(&key) || !cursor.read(&n) ||
        !read_tokens(cursor, n, head_.n_vocabulary, tokens))
      refuse("bad_value", "text " + std::to_string(i) + " is wrong");
    n_tokens_ += n;
    keys.insert(key);
  }
  if (!cursor.read(&n_rows_)) refuse("bad_value", "it does not say how many rows it holds");
  for (std::uint64_t i = 0; i < n_rows_; ++i) {
    std::int32_t after = 0;
    if (!cursor.read(&key) || !cursor.read(&after) || after < 0 ||
        static_cast<std::uint32_t>(after) >= head_.n_vocabulary || !cursor.read(&n) ||
        n > static_cast<std::uint32_t>(DraftMemory::kRowTokens) ||
        !read_tokens(cursor, n, head_.n_vocabulary, tokens))
      refuse("bad_value", "row " + std::to_string(i) + " is wrong");
    keys.insert(key);
  }
  if (cursor.remaining() != 0) refuse("bad_value", "there is more behind its last row");
  n_keys_ = keys.size();
}

void MemoryFile::add_to(DraftMemory& memory, std::uint64_t time,
                        const std::function<void()>& poll) const {
  static_assert(kMostBytes < DraftMemory::kFreeTimes);
  std::uint64_t at = time;
  visit(
      [&](std::uint64_t key, std::span<const TokenId> text) {
        if (poll) poll();
        memory.add_at(at++, key, text);
      },
      [&](std::uint64_t key, const DraftMemory::Successors& row) {
        memory.add_successors_at(time, key, std::span(&row, 1));
      });
}

// Everything was checked.
void MemoryFile::visit(
    const std::function<void(std::uint64_t key, std::span<const TokenId> text)>& on_text,
    const std::function<void(std::uint64_t key, const DraftMemory::Successors& row)>& on_row)
    const {
  Cursor cursor(bytes_);
  std::vector<TokenId> tokens;
  std::uint64_t key = 0, count = 0;
  std::uint32_t n = 0;
  SPECDEC_CHECK(cursor.skip(texts_start_) && cursor.read(&count));
  for (std::uint64_t i = 0; i < n_texts_; ++i) {
    SPECDEC_CHECK(cursor.read(&key) && cursor.read(&n) &&
                  read_tokens(cursor, n, head_.n_vocabulary, tokens));
    on_text(key, tokens);
  }
  SPECDEC_CHECK(cursor.read(&count));
  for (std::uint64_t i = 0; i < n_rows_; ++i) {
    DraftMemory::Successors row;
    SPECDEC_CHECK(cursor.read(&key) && cursor.read(&row.after) && cursor.read(&n) &&
                  read_tokens(cursor, n, head_.n_vocabulary, tokens));
    row.best.fill(-1);
    std::copy(tokens.begin(), tokens.end(), row.best.begin());
    on_row(key, row);
  }
}

bool MemoryFile::is_one(const std::string& path) {
  try {
    const OpenFile file(path);
    std::array<char, kMagic.size()> start{};
    return ::pread(file.fd(), start.data(), start.size(), 0) ==
               static_cast<ssize_t>(start.size()) &&
           std::string_view(start.data(), start.size()) == kMagic;
  } catch (const Error&) {  // whoever reads it says why not
    return false;
  }
}

std::uint64_t MemoryFile::checksum_of(const std::string& path) {
  struct stat status = {};
  if (::stat(path.c_str(), &status) != 0 && errno == ENOENT) return 0;
  const OpenFile file(path);
  std::uint64_t checksum = 0;
  if (::pread(file.fd(), &checksum, sizeof checksum, kPrologueBytes - sizeof checksum) !=
      static_cast<ssize_t>(sizeof checksum))
    return 1;                                   // too short to be one: reading it says so
  return std::max<std::uint64_t>(checksum, 1);  // 0 says that there is none
}

std::uint64_t write_memory_file(const std::string& path, const MemoryFileHead& head,
                                const DraftMemory& memory, const MemoryFile* before) {
  std::string body;
  put(body, head.vocabulary);
  put(body, head.n_vocabulary);
  put_text(body, head.version);
  put_text(body, head.model);
  body += memory_body(memory, before);
  const std::uint64_t checksum = hash64(std::as_bytes(std::span(body.data(), body.size())));
  std::string prologue(kMagic);
  put(prologue, kMemoryFileFormat);
  put(prologue, kByteOrder);
  put(prologue, static_cast<std::uint64_t>(kPrologueBytes + body.size()));
  put(prologue, checksum);
  AtomicFile file(path, 0600);
  file.write(prologue.data(), prologue.size());
  file.write(body.data(), body.size());
  file.finish();
  file.commit();
  return checksum;
}

FolderLock::FolderLock(const std::string& path) {
  fd_ = open_uninterrupted(folder_of(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd_ < 0) throw_file_error(folder_of(path), "cannot open the folder", errno);
  while (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return;
    ::close(std::exchange(fd_, -1));
    return;
  }
}

FolderLock::~FolderLock() {
  if (fd_ < 0) return;
  ::flock(fd_, LOCK_UN);  // a child that fork() made meanwhile has the descriptor, too
  ::close(fd_);
}

}  // namespace specdec
