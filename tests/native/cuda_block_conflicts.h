// Whether blocks of one launch touch what others of it write: on a GPU their order is not known.
// Allowed are several writers of the same bytes; a block may read these after it has written them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace specdec::cuda {

// Who touched the bytes of a piece of device memory in the launch that runs.
class BlockConflicts {
 public:
  explicit BlockConflicts(std::size_t n_bytes) : bytes_(n_bytes) {}

  // What is wrong with an access, or "".
  std::string load(std::size_t first, std::size_t n, int block, int launch) {
    for (std::size_t i = first; i < first + n; ++i) {
      Byte& byte = at(i, launch);
      if (byte.writer != kNobody && !writes(byte, i, block)) {
        return "a load of what block " + std::to_string(byte.writer) + " of the launch writes";
      }
      byte.reader = byte.reader == kNobody || byte.reader == block ? block : kSeveral;
    }
    return {};
  }

  // Before it is done. old, value: the bytes.
  std::string store(std::size_t first, const unsigned char* old, const unsigned char* value,
                    std::size_t n, int block, int launch) {
    for (std::size_t i = first; i < first + n; ++i) {
      Byte& byte = at(i, launch);
      const bool changes = old[i - first] != value[i - first];
      if (changes && byte.writer != kNobody &&
          (byte.writer != block || others_.count({launch, i}) > 0)) {
        return "a store that changes what block " + std::to_string(byte.writer) +
               " of the launch writes";
      }
      if (changes && byte.reader != kNobody && byte.reader != block)
        return "a store to what another block of the launch has read";
      if (byte.writer == kNobody) {
        byte.writer = block;
      } else if (!writes(byte, i, block)) {
        others_[{launch, i}].push_back(block);
      }
    }
    return {};
  }

 private:
  static constexpr int kNobody = -1, kSeveral = -2;
  struct Byte {
    int launch = -1;
    int writer = kNobody, reader = kNobody;  // the first to write
  };
  struct Hash {
    std::size_t operator()(const std::pair<int, std::size_t>& key) const {
      return key.second * 31 + static_cast<std::size_t>(key.first);
    }
  };

  Byte& at(std::size_t i, int launch) {
    Byte& byte = bytes_[i];
    if (byte.launch != launch) byte = {.launch = launch};
    return byte;
  }
  [[nodiscard]] bool writes(const Byte& byte, std::size_t i, int block) const {
    if (byte.writer == block) return true;
    const auto found = others_.find({byte.launch, i});
    return found != others_.end() &&
           std::find(found->second.begin(), found->second.end(), block) != found->second.end();
  }

  std::vector<Byte> bytes_;
  std::unordered_map<std::pair<int, std::size_t>, std::vector<int>, Hash> others_;
};

}  // namespace specdec::cuda
