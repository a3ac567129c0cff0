// Any bytes as a file of kept caches, for the model that SPECDEC_FUZZ_MODEL names. Most inputs get
// right sizes and checksums first, so that more than these is met.
#include <algorithm>
#include <vector>

#include "base/hash.h"
#include "engine/loaded_model.h"
#include "engine/session.h"
#include "fuzz.h"
#include "kv/kv_file_head.h"

using namespace specdec;

namespace {

constexpr std::size_t kPrologue = 40;
constexpr std::size_t kMostBytes = std::size_t{1} << 20;
using Bytes = std::vector<std::byte>;

void put(Bytes& bytes, std::size_t at, std::uint64_t value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

void mend(Bytes& bytes) {
  if (bytes.size() < kPrologue) return;
  std::uint64_t n_head = 0;
  std::memcpy(&n_head, bytes.data() + 24, 8);
  n_head = std::min<std::uint64_t>(n_head, bytes.size() - kPrologue);
  put(bytes, 24, n_head);
  const auto head_bytes = std::span<const std::byte>(bytes).subspan(kPrologue, n_head);
  put(bytes, 32, hash64(head_bytes));
  std::string problem;
  const KvFileHead head = read_kv_head(head_bytes, problem);
  if (problem.empty()) {
    std::size_t at = kPrologue + n_head;
    for (const KvFileCache& cache : head.caches) {
      for (const std::uint64_t n : kv_block_bytes(cache.record)) {
        if (n > kMostBytes || at > kMostBytes) return;
        bytes.resize(std::max<std::size_t>(bytes.size(), at + n + 8));
        put(bytes, at + n, hash64(std::span<const std::byte>(bytes).subspan(at, n)));
        at += n + 8;
      }
    }
    bytes.resize(at);
  }
  put(bytes, 16, bytes.size());
}

std::shared_ptr<const LoadedModel> model() {
  static const auto loaded = [] {
    const char* path = std::getenv("SPECDEC_FUZZ_MODEL");
    if (path == nullptr) {
      std::fprintf(stderr, "SPECDEC_FUZZ_MODEL must name the model of the seeds\n");
      std::exit(2);
    }
    ModelOptions options;
    options.n_threads = 1;
    options.device = "cpu";
    options.n_ctx = 64;
    return LoadedModel::load(path, options);
  }();
  return loaded;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::File file;
  if (size == 0) return 0;
  const auto given = std::as_bytes(std::span(data, size)).subspan(1);
  Bytes bytes(given.begin(), given.end());
  if (data[0] != 0) mend(bytes);
  file.write(bytes.data(), bytes.size());
  SessionOptions options;
  options.drafters = parse_drafters("none", false);
  static Session session(model(), options);
  fuzz::runs([&] { (void)kept_options(*model(), file.path()); });
  if (!fuzz::runs([&] { session.load(file.path()); })) return 0;
  fuzz::runs([&] {
    GenerateRequest request;
    request.prompt_ids = session.cached_tokens();
    request.prompt_ids.push_back(1);
    request.max_tokens = 2;
    (void)session.generate(request);
  });
  session.reset();
  return 0;
}
