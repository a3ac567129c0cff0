// Folders of what is kept between processes.
#pragma once

#include <string>

namespace specdec {

class GgufFile;

// ~/.cache/specdec-native/NAME, or what the environment variable says. Empty: "off", or there is no
// home.
[[nodiscard]] std::string cache_folder(const char* variable, const char* name);

// The file of a model's packed weights (model/packed_file.h) in $SPECDEC_PACKED, by its path and
// how it is rewritten; empty: there is none to be.
[[nodiscard]] std::string packed_path(const GgufFile& file, const std::string& requantize);

// Makes the folder of packed weights, and removes from it what belongs to models that are not there
// any more. What cannot be done is left.
void tidy_packed_folder() noexcept;

}  // namespace specdec
