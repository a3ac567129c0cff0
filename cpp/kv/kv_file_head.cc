#include "kv/kv_file_head.h"

#include <algorithm>
#include <bit>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "gguf/cursor.h"

namespace specdec {
namespace {

constexpr std::uint32_t kMostText = 1024;

static_assert(std::endian::native == std::endian::little, "numbers are written as they are");

class HeadWriter {
 public:
  template <typename T>
  void number(T value) {
    out_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void whole(int value) { number(static_cast<std::int32_t>(value)); }
  void text(std::string_view text) {
    text = text.substr(0, kMostText);
    number(static_cast<std::uint32_t>(text.size()));
    out_ += text;
  }
  void flags(const std::vector<bool>& flags) {
    number(static_cast<std::uint32_t>(flags.size()));
    for (const bool flag : flags) number(static_cast<std::uint8_t>(flag));
  }
  [[nodiscard]] std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

// The first thing that is wrong stays; what is read behind it is zero.
class HeadReader {
 public:
  HeadReader(std::span<const std::byte> bytes, std::string& problem)
      : cursor_(bytes), problem_(problem) {}

  template <typename T>
  T number() {
    T value{};
    if (problem_.empty() && !cursor_.read(&value)) problem_ = "it ends too early";
    return problem_.empty() ? value : T{};
  }
  int whole() { return number<std::int32_t>(); }
  bool flag() {
    const auto value = number<std::uint8_t>();
    if (value > 1) fail("a flag that is " + std::to_string(value));
    return value == 1;
  }
  // Of things of so many bytes each, which are all still to come.
  std::size_t count(std::size_t n_bytes, std::uint64_t most) {
    const std::uint64_t n = number<std::uint32_t>();
    if (n > most || n > cursor_.remaining() / n_bytes) {
      fail("a count of " + std::to_string(n) + " that cannot be");
      return 0;
    }
    return static_cast<std::size_t>(n);
  }
  std::string text() {
    const std::size_t n = count(1, kMostText);
    const std::string text(reinterpret_cast<const char*>(cursor_.data()), n);
    (void)cursor_.skip(n);
    return text;
  }
  std::vector<bool> flags() {
    std::vector<bool> flags(count(1, std::uint64_t{1} << 16));
    for (std::size_t i = 0; i < flags.size(); ++i) flags[i] = flag();
    return flags;
  }
  void fail(const std::string& problem) {
    if (problem_.empty()) problem_ = problem;
  }
  [[nodiscard]] bool ok() const { return problem_.empty(); }
  [[nodiscard]] bool at_end() const { return cursor_.remaining() == 0; }

 private:
  Cursor cursor_;
  std::string& problem_;
};

void write_record(HeadWriter& out, const KvRecord& record) {
  const KvShape& shape = record.shape;
  for (const int n :
       {record.length, record.n_forgotten, static_cast<int>(shape.layout.type),
        shape.layout.n_kv_heads, shape.layout.head_dim, shape.n_layers, shape.window,
        shape.n_recurrent_layers, shape.recurrent.n_heads, shape.recurrent.n_key_heads,
        shape.recurrent.key_dim, shape.recurrent.value_dim, shape.recurrent.n_taps})
    out.whole(n);
  out.number(static_cast<std::uint8_t>(shape.recurrent.grouped));
  out.flags(shape.windowed);
  out.number(static_cast<std::uint32_t>(record.states.size()));
  for (const KvRecord::State& state : record.states) {
    out.whole(state.tip);
    out.whole(state.log_begin);
  }
  out.number(static_cast<std::uint32_t>(record.checkpoints.size()));
  for (const KvRecord::Checkpoint& checkpoint : record.checkpoints) {
    out.whole(checkpoint.position);
    out.flags(checkpoint.has);
  }
}

// Of up to n_tokens positions.
KvRecord read_record(HeadReader& in, std::size_t n_tokens) {
  KvRecord record;
  KvShape& shape = record.shape;
  int type = 0;
  for (int* const n :
       {&record.length, &record.n_forgotten, &type, &shape.layout.n_kv_heads,
        &shape.layout.head_dim, &shape.n_layers, &shape.window, &shape.n_recurrent_layers,
        &shape.recurrent.n_heads, &shape.recurrent.n_key_heads, &shape.recurrent.key_dim,
        &shape.recurrent.value_dim, &shape.recurrent.n_taps})
    *n = in.whole();
  shape.recurrent.grouped = in.flag();
  if (type < 0 || type > static_cast<int>(KvType::kQ8_0)) {
    in.fail("elements of unknown type " + std::to_string(type));
  } else {
    shape.layout.type = static_cast<KvType>(type);
  }
  shape.windowed = in.flags();
  record.states.resize(in.count(8, std::uint64_t{1} << 16));
  for (KvRecord::State& state : record.states) {
    state.tip = in.whole();
    state.log_begin = in.whole();
  }
  record.checkpoints.resize(in.count(8, 1024));
  for (KvRecord::Checkpoint& checkpoint : record.checkpoints) {
    checkpoint.position = in.whole();
    checkpoint.has = in.flags();
  }
  if (record.length > static_cast<std::int64_t>(n_tokens))
    in.fail(std::to_string(record.length) + " positions of " + std::to_string(n_tokens) +
            " tokens");
  if (in.ok()) {
    if (const std::string problem = kv_record_problem(record); !problem.empty()) in.fail(problem);
  }
  return record;
}

}  // namespace

std::string write_kv_head(const KvFileHead& head) {
  HeadWriter out;
  out.text(head.version);
  out.number(static_cast<std::uint32_t>(head.tokens.size()));
  for (const TokenId token : head.tokens) out.whole(token);
  out.number(static_cast<std::uint32_t>(head.caches.size()));
  for (const KvFileCache& cache : head.caches) {
    out.text(cache.model);
    out.number(cache.fingerprint);
    out.whole(cache.n_ctx);
    out.number(static_cast<std::uint8_t>(cache.long_context));
    write_record(out, cache.record);
  }
  return out.take();
}

KvFileHead read_kv_head(std::span<const std::byte> bytes, std::string& problem) {
  HeadReader in(bytes, problem);
  KvFileHead head;
  head.version = in.text();
  head.tokens.resize(in.count(sizeof(std::int32_t), std::uint64_t{1} << 30));
  for (TokenId& token : head.tokens) {
    token = in.whole();
    if (token < 0) in.fail("token " + std::to_string(token));
  }
  head.caches.resize(in.count(8, 2));
  for (KvFileCache& cache : head.caches) {
    cache.model = in.text();
    cache.fingerprint = in.number<std::uint64_t>();
    cache.n_ctx = in.whole();
    cache.long_context = in.flag();
    cache.record = read_record(in, head.tokens.size());
    if (cache.n_ctx > 1 << 30) in.fail("a context of " + std::to_string(cache.n_ctx));
    if (cache.n_ctx < cache.record.length)
      in.fail("more positions than a context of " + std::to_string(cache.n_ctx) + " has");
  }
  if (!in.ok()) return head;
  if (!in.at_end()) in.fail("it goes on behind its end");
  if (head.caches.empty()) {
    in.fail("it has no caches");
  } else if (head.caches[0].record.length != static_cast<int>(head.tokens.size())) {
    in.fail(std::to_string(head.caches[0].record.length) + " positions of " +
            std::to_string(head.tokens.size()) + " tokens");
  }
  return head;
}

}  // namespace specdec
