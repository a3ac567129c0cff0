// What a model was told and said before, for drafts of later requests: shared by sessions, kept in
// a file where one is given.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "decode/draft_memory.h"
#include "engine/loaded_model.h"
#include "engine/memory_file.h"

namespace specdec {

// Of any threads. It says nothing about what later texts are, only how fast they come; but how fast
// they come can tell whether somebody had the same text before.
class TextMemory {
 public:
  static constexpr std::chrono::seconds kSaveEvery{10};

  // path "": nothing is kept on disk. A file that is there is read with the first model. Throws
  // Error(kInvalidArgument).
  explicit TextMemory(std::string path = {}, int max_tokens = DraftMemory::kDefaultTokens);
  // Saves; a failure is a warning.
  ~TextMemory();
  TextMemory(const TextMemory&) = delete;
  TextMemory& operator=(const TextMemory&) = delete;

  // A model is going to use it. Throws Error(kInvalidArgument, other_model) when it holds texts of
  // another vocabulary, and what MemoryFile throws. `poll` may throw. A file that cannot be written
  // is a warning.
  void bind(const LoadedModel& model, const std::function<void()>& poll = {});

  // Texts are found under their key only: "" is one as well.
  [[nodiscard]] static std::uint64_t key_of(std::string_view name);
  // A request has ended.
  void add(std::uint64_t key, std::span<const TokenId> prompt, std::span<const TokenId> output,
           TokenId end) noexcept;  // end: what ended it, or -1; without memory nothing is added
  [[nodiscard]] const std::shared_ptr<DraftMemory>& texts() const noexcept { return texts_; }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

  // Writes the file, with what other processes have written to it since. Nothing without a path, or
  // when nothing has changed. Waits some seconds for others that write to the folder. Throws Error.
  void save();
  // The same at the end of something; failures are warnings.
  void save_at_end() noexcept { save_quietly(true); }
  // Where that is due, at most so often, and nobody else writes at the moment; failures are
  // warnings. When it will be due, if there is something to save.
  void save_if_due(std::chrono::seconds every = kSaveEvery) noexcept;
  [[nodiscard]] std::optional<std::chrono::steady_clock::time_point> due() const;
  // Forgets all; the file too, with the next save.
  void clear();

 private:
  // What is at the path, if it is to be known: null where it is as it was, or there is none.
  std::optional<MemoryFile> read_file(const std::function<void()>& poll);
  void warn_of_place() const;
  void require_vocabulary(const MemoryFile& file) const;
  [[nodiscard]] bool has_to_save() const;
  [[nodiscard]] bool try_save();
  void empty_file();
  void save_quietly(bool waits) noexcept;

  const std::string path_;
  const std::shared_ptr<DraftMemory> texts_;
  std::atomic<pid_t> pid_;    // who saves
  mutable std::mutex mutex_;  // of what follows
  MemoryFileHead head_;       // of the first model; vocabulary 0: none yet
  std::uint64_t file_checksum_ = 0;
  bool file_exceeds_ = false;  // the file holds more than fits here; the rest stays there
  std::uint64_t n_saved_changes_ = 0;
  std::uint64_t free_times_;  // before all that was used here since the last save
  std::chrono::steady_clock::time_point last_save_{};
  bool warned_ = false;
  bool cleared_ = false;  // what the file holds is forgotten, until it is written again
};

}  // namespace specdec
