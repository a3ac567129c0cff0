// Mutates GGUF files and reads what becomes of them:
//   specdec_fuzz_gguf N_MUTATIONS SEED FILE...
// Every mutation must be accepted or refused with an Error; the process ends with 0 if all were.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <iterator>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "gguf_exercise.h"

namespace {

using Bytes = std::vector<std::byte>;

Bytes read_file(const char* path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const auto bytes = std::as_bytes(std::span<const char>(text));
  return {bytes.begin(), bytes.end()};
}

class Mutator {
 public:
  explicit Mutator(std::uint64_t seed) : random_(seed) {}

  std::size_t below(std::size_t n) { return n == 0 ? 0 : random_() % n; }

  void mutate(Bytes* bytes, const Bytes& other) {
    for (std::size_t n = 1 + below(4); n > 0; --n) mutate_once(bytes, other);
  }

 private:
  void mutate_once(Bytes* bytes, const Bytes& other) {
    const std::size_t at = below(bytes->size());
    switch (below(8)) {
      case 0:
        if (!bytes->empty()) (*bytes)[at] = static_cast<std::byte>(random_());
        break;
      case 1:
        if (!bytes->empty()) (*bytes)[at] ^= static_cast<std::byte>(1U << below(8));
        break;
      case 2:
        overwrite(bytes, at, interesting(), 8);
        break;
      case 3:
        overwrite(bytes, at, interesting(), 4);
        break;
      case 4:
        overwrite(bytes, at, bytes->size() - at + below(17) - 8, 8);
        break;  // near what remains
      case 5:
        bytes->resize(at);
        break;
      case 6: {
        const auto first = bytes->begin() + static_cast<std::ptrdiff_t>(at);
        const std::size_t n = std::min(bytes->size() - at, 1 + below(40));
        bytes->erase(first, first + static_cast<std::ptrdiff_t>(n));
        break;
      }
      default: {
        const std::size_t from = below(other.size());
        const std::size_t n = std::min(other.size() - from, 1 + below(80));
        bytes->insert(bytes->begin() + static_cast<std::ptrdiff_t>(at),
                      other.begin() + static_cast<std::ptrdiff_t>(from),
                      other.begin() + static_cast<std::ptrdiff_t>(from + n));
      }
    }
  }

  std::uint64_t interesting() {
    const std::uint64_t power = std::uint64_t{1} << below(64);
    return power + below(3) - 1;
  }

  static void overwrite(Bytes* bytes, std::size_t at, std::uint64_t value, std::size_t n) {
    if (n <= bytes->size() - at) std::memcpy(bytes->data() + at, &value, n);
  }

  std::mt19937_64 random_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: %s N_MUTATIONS SEED FILE...\n", argv[0]);
    return 2;
  }
  std::vector<Bytes> corpus;
  for (int i = 3; i < argc; ++i) corpus.push_back(read_file(argv[i]));
  Mutator mutator(std::strtoull(argv[2], nullptr, 10));
  const long n_mutations = std::strtol(argv[1], nullptr, 10);
  long n_accepted = 0;
  Bytes bytes;
  try {
    for (const Bytes& original : corpus) {
      const specdec::testing::GuardedCopy copy(original);
      specdec::testing::accepts(copy.bytes());
    }
    for (long i = 0; i < n_mutations; ++i) {
      bytes = corpus[mutator.below(corpus.size())];
      mutator.mutate(&bytes, corpus[mutator.below(corpus.size())]);
      const specdec::testing::GuardedCopy copy(bytes);
      n_accepted += specdec::testing::accepts(copy.bytes()) ? 1 : 0;
    }
  } catch (const std::exception& error) {
    std::ofstream("fuzz_gguf_failure.gguf", std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    std::fprintf(stderr, "%s (input kept in fuzz_gguf_failure.gguf)\n", error.what());
    return 1;
  }
  std::printf("%ld mutations of %zu files: %ld accepted, %ld refused\n", n_mutations, corpus.size(),
              n_accepted, n_mutations - n_accepted);
  return 0;
}
