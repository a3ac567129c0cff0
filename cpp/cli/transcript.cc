#include "cli/transcript.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "cli/json.h"
#include "cli/json_reader.h"
#include "cli/text_input.h"

namespace specdec::cli {
namespace {

[[noreturn]] void fail(const std::string& path, const std::string& what) {
  throw Error(ErrorCode::kIo, printable(path, 400) + ": " + what);
}

bool write_whole(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

}  // namespace

void save_transcript(const std::string& path, const std::vector<ChatMessage>& messages) {
  JsonWriter json;
  json.begin_object().key("messages").begin_array();
  for (const ChatMessage& message : messages) {
    json.begin_object()
        .member("role", message.role)
        .member("content", message.content)
        .end_object();
  }
  json.end_array().end_object();
  // What is there already is replaced only when it is a file: not a device, not somebody's link.
  struct stat info = {};
  if (::lstat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    fail(path, "is not a regular file, so it is not replaced");
  }
  const std::string partial = path + "." + std::to_string(::getpid()) + ".partial";
  const int fd = ::open(partial.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) fail(path, std::string("cannot be written: ") + std::strerror(errno));
  bool written = write_whole(fd, json.text() + "\n");
  int reason = errno;
  if (::close(fd) != 0 && written) {
    written = false;
    reason = errno;
  }
  if (written && ::rename(partial.c_str(), path.c_str()) == 0) return;
  if (written) reason = errno;
  ::unlink(partial.c_str());
  fail(path, std::string("cannot be written: ") + std::strerror(reason));
}

std::vector<ChatMessage> load_transcript(const std::string& path) {
  struct stat info = {};
  if (::stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    fail(path, "is not a regular file");
  }
  const std::string text = read_all(path);
  const JsonValue document = parse_json(text, path);
  const JsonValue* list = &document;
  if (document.kind == JsonValue::Kind::kObject) list = document.find("messages");
  const auto wrong = [&path](std::size_t i, const std::string& what) {
    throw Error(ErrorCode::kModelFormat,
                printable(path, 400) + ": messages[" + std::to_string(i) + "] " + what);
  };
  if (list == nullptr || list->kind != JsonValue::Kind::kArray) {
    throw Error(ErrorCode::kModelFormat,
                printable(path, 400) + ": holds no conversation: expected {\"messages\": [...]}");
  }
  std::vector<ChatMessage> out;
  for (std::size_t i = 0; i < list->items.size(); ++i) {
    const JsonValue* role = list->items[i].find("role");
    const JsonValue* content = list->items[i].find("content");
    const auto is_text = [](const JsonValue* value) {
      return value != nullptr && value->kind == JsonValue::Kind::kText;
    };
    if (!is_text(role) || !is_text(content)) {
      wrong(i, "must have \"role\" and \"content\", both texts");
    }
    const bool known =
        role->text == "user" || role->text == "assistant" || (role->text == "system" && i == 0);
    if (!known) {
      wrong(i, "has the role \"" + printable(role->text, 40) +
                   "\", expected user or assistant, or system for the first");
    }
    out.push_back({role->text, content->text});
  }
  return out;
}

}  // namespace specdec::cli
