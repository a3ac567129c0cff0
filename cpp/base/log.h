// Where the library's messages go. It never prints by itself.
#pragma once

#include <functional>
#include <string>

namespace specdec {

enum class LogLevel { kDebug, kInfo, kWarning };

using LogSink = std::function<void(LogLevel, const std::string&)>;

// Replaces the process-wide sink; an empty function silences it (the default). Thread-safe.
void set_log_sink(LogSink sink);
void log_message(LogLevel level, const std::string& message);

}  // namespace specdec
