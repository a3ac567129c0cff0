#include "engine/text_memory.h"

#include <unistd.h>

#include <thread>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "base/log.h"
#include "base/open_file.h"
#include "engine/memory_body.h"
#include "tokenizer/tokenizer.h"

namespace specdec {
namespace {

constexpr std::chrono::seconds kLongestWait{5};  // for others that write

}  // namespace

TextMemory::TextMemory(std::string path, int max_tokens)
    : path_(std::move(path)),
      texts_(std::make_shared<DraftMemory>(max_tokens)),
      pid_(::getpid()),
      free_times_(texts_->leave_free()) {}

TextMemory::~TextMemory() { save_quietly(true); }

std::uint64_t TextMemory::key_of(std::string_view name) {
  return name.empty() ? 0 : hash64(std::as_bytes(std::span(name.data(), name.size())));
}

void TextMemory::require_vocabulary(const MemoryFile& file) const {
  if (file.head().vocabulary == head_.vocabulary && file.head().n_vocabulary <= head_.n_vocabulary)
    return;
  throw memory_file_error(
      path_, ErrorCode::kInvalidArgument, "other_model",
      "holds texts of another vocabulary: it was written for " + printable(file.head().model, 200) +
          " with " + std::to_string(file.head().n_vocabulary) + " tokens, this is " +
          printable(head_.model, 200) + " with " + std::to_string(head_.n_vocabulary) +
          "; give each of such models a memory of its own");
}

// Better told before hours of work than by the save at their end. That tries all the same: until
// then the folder may be there.
void TextMemory::warn_of_place() const {
  try {
    require_writable_place(path_);
  } catch (const Error& error) {
    log_message(LogLevel::kWarning,
                std::string("the memory cannot be saved as it is now: ") + error.what());
  }
}

void TextMemory::bind(const LoadedModel& model, const std::function<void()>& poll) {
  const ModelInfo& info = model.info();
  MemoryFileHead head{
      .vocabulary = model.vocabulary_fingerprint(),
      .n_vocabulary = static_cast<std::uint32_t>(model.tokenizer().n_tokens()),
      .version = SPECDEC_VERSION,
      .model = info.architecture + (info.name.empty() ? "" : " '" + info.name + "'")};
  const std::lock_guard lock(mutex_);
  if (head_.vocabulary == head.vocabulary) return;
  if (head_.vocabulary != 0) {
    ErrorDetail detail;
    detail.reason = "other_model";
    throw Error(ErrorCode::kInvalidArgument,
                "the memory holds texts of " + printable(head_.model, 200) + ", and " +
                    printable(head.model, 200) +
                    " has another vocabulary; give each of such models a memory of its own",
                std::move(detail));
  }
  head_ = std::move(head);
  pid_ = ::getpid();  // what made it may have been the parent
  try {
    if (!path_.empty()) {
      (void)read_file(poll);
      warn_of_place();
    }
  } catch (...) {
    head_ = {};
    texts_->clear();
    throw;
  }
  free_times_ = texts_->leave_free();
  n_saved_changes_ = texts_->stats().n_changes;
  if (cleared_) --n_saved_changes_;  // what is there is to be emptied
}

// With the mutex held: adds what this memory has not seen.
std::optional<MemoryFile> TextMemory::read_file(const std::function<void()>& poll) {
  const std::uint64_t checksum = MemoryFile::checksum_of(path_);
  if (checksum == 0) file_exceeds_ = false;
  if (checksum == 0 || (checksum == file_checksum_ && !file_exceeds_)) return std::nullopt;
  MemoryFile file(path_);
  require_vocabulary(file);
  if (!cleared_ && file.checksum() != file_checksum_) file.add_to(*texts_, free_times_, poll);
  file_checksum_ = file.checksum();
  file_exceeds_ = !cleared_ && exceeds(file, *texts_);
  return file;
}

void TextMemory::add(std::uint64_t key, std::span<const TokenId> prompt,
                     std::span<const TokenId> output, TokenId end) noexcept {
  try {
    std::vector<TokenId> text;
    text.reserve(prompt.size() + output.size() + 1);
    text.insert(text.end(), prompt.begin(), prompt.end());
    text.insert(text.end(), output.begin(), output.end());
    if (end >= 0) text.push_back(end);
    texts_->add(key, text);
  } catch (...) {  // no memory: the request has its result all the same
  }
}

void TextMemory::save() {
  const auto end = std::chrono::steady_clock::now() + kLongestWait;
  while (!try_save()) {
    if (std::chrono::steady_clock::now() >= end)
      throw memory_file_error(path_, ErrorCode::kIo, "locked",
                              "another process has locked its folder for seconds; try again");
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

// False: another process has the folder.
bool TextMemory::try_save() {
  if (path_.empty() || ::getpid() != pid_)
    return true;  // in a child of fork() the lock may be held
  const std::lock_guard lock(mutex_);
  if (!has_to_save()) return true;
  last_save_ = std::chrono::steady_clock::now();
  const FolderLock folder(path_);
  if (!folder.holds()) return false;
  if (head_.vocabulary == 0) {
    empty_file();
    return true;
  }
  const std::optional<MemoryFile> before = read_file({});
  const std::uint64_t n_changes = texts_->stats().n_changes;  // with what was read
  const std::uint64_t free_times = texts_->leave_free();
  file_checksum_ = write_memory_file(path_, head_, *texts_, file_exceeds_ ? &*before : nullptr);
  n_saved_changes_ = n_changes;
  free_times_ = free_times;
  cleared_ = false;
  return true;
}

// With the mutex held.
bool TextMemory::has_to_save() const {
  if (head_.vocabulary == 0) return cleared_;  // no text without a model
  return texts_->stats().n_changes != n_saved_changes_;
}

// With the mutex held, before a model came: whose the texts were remains.
void TextMemory::empty_file() {
  if (MemoryFile::checksum_of(path_) != 0) {
    MemoryFileHead head = MemoryFile(path_).head();
    head.version = SPECDEC_VERSION;
    (void)write_memory_file(path_, head, *texts_);
  }
  cleared_ = false;
}

void TextMemory::save_quietly(bool waits) noexcept {
  try {
    if (waits) {
      save();
    } else {
      (void)try_save();  // the next time, if it is another's turn
    }
  } catch (const std::exception& error) {
    try {
      const std::lock_guard lock(mutex_);
      if (!std::exchange(warned_, true))
        log_message(LogLevel::kWarning, std::string("the memory was not saved: ") + error.what());
    } catch (...) {  // no memory for the warning either
    }
  } catch (...) {
  }
}

std::optional<std::chrono::steady_clock::time_point> TextMemory::due() const {
  if (path_.empty() || ::getpid() != pid_) return std::nullopt;
  const std::lock_guard lock(mutex_);
  if (!has_to_save()) return std::nullopt;
  return last_save_ + kSaveEvery;
}

void TextMemory::save_if_due(std::chrono::seconds every) noexcept {
  try {
    const auto when = due();
    if (when && std::chrono::steady_clock::now() >= *when - kSaveEvery + every) save_quietly(false);
  } catch (...) {
  }
}

void TextMemory::clear() {
  const std::lock_guard lock(mutex_);
  cleared_ = true;
  file_exceeds_ = false;
  texts_->clear();
}

}  // namespace specdec
