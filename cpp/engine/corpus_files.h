// Texts of a file, or of the files below a folder, for lookups.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace specdec {

// Of a folder: its text files and those of its subfolders, those changed last first, until
// max_bytes are reached, but at least one; hidden names, links, files of more than 1 MiB and what
// is not UTF-8 text are left out. Of a file: its bytes, whatever they are, up to 256 MiB. `poll` is
// called between files and may throw. Throws kIo when there is no such file or folder or it cannot
// be read, kInvalidArgument for other kinds of files and for a folder without a text.
[[nodiscard]] std::vector<std::string> read_corpus(const std::string& path, std::uint64_t max_bytes,
                                                   const std::function<void()>& poll = {});

}  // namespace specdec
