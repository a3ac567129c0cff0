#include "cli/transcript.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/open_file.h"
#include "chat_template/json_reader.h"
#include "cli/json.h"
#include "cli/text_input.h"

namespace specdec::cli {

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
  require_replaceable(path);
  const std::string partial = path + "." + std::to_string(::getpid()) + ".partial";
  const int fd = open_uninterrupted(partial.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) throw_file_error(path, "cannot write", errno);
  bool written = write_all(fd, json.text() + "\n");
  int reason = errno;
  if (::close(fd) != 0 && written) {
    written = false;
    reason = errno;
  }
  if (written && ::rename(partial.c_str(), path.c_str()) == 0) return;
  if (written) reason = errno;
  ::unlink(partial.c_str());
  throw_file_error(path, "cannot write", reason);
}

std::vector<ChatMessage> load_transcript(const std::string& path) {
  // Refuses what is no regular file: a pipe would be waited for.
  (void)OpenFile(path);
  const std::string text = read_all(path);
  const std::string name = printable(path, 400);
  chat::Budget budget({});
  const chat::Value document = chat::read_json(budget, text, 0, name);
  const chat::Value* list = &document;
  if (document.is(chat::Kind::kDict)) list = document.as_dict().find_ascii("messages");
  if (list == nullptr || !list->is(chat::Kind::kList)) {
    throw Error(ErrorCode::kInvalidArgument,
                name + ": holds no conversation: expected {\"messages\": [...]}");
  }
  std::vector<ChatMessage> out;
  for (const chat::Value& item : list->as_list().items) {
    const std::string place = name + ": messages[" + std::to_string(out.size()) + "]";
    const auto text_of = [&](std::string_view key) {
      const chat::Value* value =
          item.is(chat::Kind::kDict) ? item.as_dict().find_ascii(key) : nullptr;
      if (value == nullptr || !value->is(chat::Kind::kText)) {
        throw Error(ErrorCode::kInvalidArgument,
                    place + " must have \"role\" and \"content\", both texts");
      }
      return chat::to_bytes(value->as_text());
    };
    ChatMessage message{text_of("role"), text_of("content")};
    const bool known = message.role == "user" || message.role == "assistant" ||
                       (message.role == "system" && out.empty());
    if (!known) {
      throw Error(ErrorCode::kInvalidArgument,
                  place + " has the role \"" + printable(message.role, 40) +
                      "\", expected user or assistant, or system for the first");
    }
    out.push_back(std::move(message));
  }
  return out;
}

}  // namespace specdec::cli
