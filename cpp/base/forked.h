// Whether this is a fork of the process that loaded the library: it has no threads but one.
#pragma once

namespace specdec {

// Of the process that asked first; to be asked early.
[[nodiscard]] bool in_forked_child() noexcept;

}  // namespace specdec
