#include "model/packed_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "base/checked.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/system.h"
#include "base/thread_pool.h"
#include "gguf/atomic_file.h"
#include "gguf/reader.h"

namespace specdec {
namespace {

constexpr std::array<char, 8> kMagic = {'S', 'P', 'E', 'C', 'P', 'A', 'C', 'K'};
constexpr std::uint64_t kVersion = 1;
constexpr std::size_t kPage = 4096;

std::size_t up_to_page(std::size_t n) { return (n + kPage - 1) / kPage * kPage; }

}  // namespace

struct PackedFile::Header {
  std::array<char, 8> magic = kMagic;
  std::uint64_t version = kVersion;
  std::uint64_t identity = 0;
  std::uint64_t file_bytes = 0;
  std::uint64_t n_entries = 0;
  std::uint64_t source_bytes = 0;  // behind the entries
  std::uint64_t hash = 0;          // of all before the data, with 0 here
};

namespace {

// The bytes of a file before its data, as they were written; empty: it is damaged or another file.
template <typename Header, typename Entry>
std::span<const std::byte> checked_head(std::span<const std::byte> bytes, Header& header) {
  if (bytes.size() < sizeof header) return {};
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.magic != kMagic || header.version != kVersion || header.file_bytes != bytes.size())
    return {};
  const auto entries = checked_mul(header.n_entries, std::uint64_t{sizeof(Entry)});
  const auto whole = entries ? checked_add(*entries, sizeof header) : std::nullopt;
  const auto end = whole ? checked_add(*whole, header.source_bytes) : std::nullopt;
  if (!end || *end > bytes.size()) return {};
  const std::uint64_t found = header.hash;
  header.hash = 0;
  Hash64 hash;
  hash.add(std::as_bytes(std::span(&header, 1)));
  hash.add(bytes.subspan(sizeof header, *end - sizeof header));
  if (hash.value() != found) return {};
  return bytes.first(*end);
}

}  // namespace

std::shared_ptr<const PackedFile> PackedFile::open(const std::string& path,
                                                   std::uint64_t identity) {
  try {
    const std::shared_ptr<PackedFile> file(new PackedFile(path));
    return file->read(identity) ? file : nullptr;
  } catch (const Error&) {  // not there, or not to be read
    return nullptr;
  }
}

bool PackedFile::read(std::uint64_t identity) {
  const std::span<const std::byte> bytes = mapping_.bytes();
  Header header;
  const auto head = checked_head<Header, Entry>(bytes, header);
  if (head.empty() || header.identity != identity) return false;
  entries_.resize(header.n_entries);
  std::memcpy(entries_.data(), bytes.data() + sizeof header, header.n_entries * sizeof(Entry));
  for (const Entry& entry : entries_) {
    const auto end = checked_add(entry.offset, entry.n_bytes);
    if (!end || *end > bytes.size() || entry.offset % kPage != 0) return false;
  }
  return std::is_sorted(entries_.begin(), entries_.end(),
                        [](const Entry& a, const Entry& b) { return a.key < b.key; });
}

std::string PackedFile::source_of(const std::string& path) {
  try {
    const PackedFile file(path);
    Header header;
    const auto head = checked_head<Header, Entry>(file.mapping_.bytes(), header);
    const auto source = head.last(head.empty() ? 0 : header.source_bytes);
    return {reinterpret_cast<const char*>(source.data()), source.size()};
  } catch (const Error&) {
    return {};
  }
}

void PackedFile::write(const std::string& path, std::uint64_t identity, const std::string& source,
                       std::span<const PackedPart> parts, const std::function<void()>& poll) {
  std::vector<PackedPart> sorted(parts.begin(), parts.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const PackedPart& a, const PackedPart& b) { return a.key < b.key; });
  std::vector<Entry> entries;
  std::size_t at = up_to_page(sizeof(Header) + sorted.size() * sizeof(Entry) + source.size());
  for (const PackedPart& part : sorted) {
    entries.push_back({part.key, at, part.bytes.size(), hash64(part.bytes)});
    at = up_to_page(at + part.bytes.size());
    if (poll) poll();
  }
  Header header;
  header.identity = identity;
  header.file_bytes = at;
  header.n_entries = entries.size();
  header.source_bytes = source.size();
  Hash64 hash;
  hash.add(std::as_bytes(std::span(&header, 1)));
  hash.add(std::as_bytes(std::span(entries)));
  hash.add(std::as_bytes(std::span(source.data(), source.size())));
  header.hash = hash.value();

  AtomicFile file(path);
  file.write(&header, sizeof header);
  file.write(entries.data(), entries.size() * sizeof(Entry));
  file.write(source.data(), source.size());
  file.pad_to(kPage);
  for (const PackedPart& part : sorted) {
    file.write(part.bytes.data(), part.bytes.size());
    file.pad_to(kPage);
    if (poll) poll();
  }
  SPECDEC_CHECK(file.size() == at);
  file.finish();
  file.commit();
}

const PackedFile::Entry* PackedFile::entry(std::uint64_t key) const {
  const auto found =
      std::lower_bound(entries_.begin(), entries_.end(), key,
                       [](const Entry& entry, std::uint64_t k) { return entry.key < k; });
  return found == entries_.end() || found->key != key ? nullptr : &*found;
}

std::span<const std::byte> PackedFile::find(std::uint64_t key, std::size_t n_bytes) const {
  const Entry* const found = entry(key);
  if (found == nullptr || found->n_bytes != n_bytes) return {};
  return mapping_.bytes().subspan(found->offset, n_bytes);
}

bool PackedFile::is_intact(std::uint64_t key) const {
  const Entry* const found = entry(key);
  return found != nullptr &&
         hash64(mapping_.bytes().subspan(found->offset, found->n_bytes)) == found->checksum;
}

void PackedFile::bring_in(int n_threads) const {
  constexpr std::size_t kPiece = std::size_t{16} << 20;
  const std::size_t n_pieces = (size() + kPiece - 1) / kPiece;
  ThreadPool::shared().run(n_threads, [&](TaskContext& context) {
    for (std::int64_t i = context.next_chunk(); i < static_cast<std::int64_t>(n_pieces);
         i = context.next_chunk()) {
      const std::size_t begin = static_cast<std::size_t>(i) * kPiece;
      map_pages(mapping_.bytes().data() + begin, std::min(kPiece, size() - begin));
    }
  });
}

std::uint64_t packed_identity(const GgufFile& file, std::uint64_t layout,
                              const std::string& variant) {
  const std::uint64_t stamp = file.stamp();
  if (stamp == 0 || layout == 0) return 0;
  Hash64 hash;
  hash.add_number(stamp);
  hash.add_number(layout);
  hash.add_text(variant);
  return hash.value();
}

}  // namespace specdec
