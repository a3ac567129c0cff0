// The subcommands: arguments after the name in, exit code out.
#pragma once

#include <string>
#include <vector>

namespace specdec::cli {

using Arguments = std::vector<std::string>;

inline constexpr int kExitOk = 0;
inline constexpr int kExitInternal = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitBadFile = 3;
inline constexpr int kExitUnsupported = 4;
inline constexpr int kExitResource = 5;
// And interrupt_exit_code().

[[nodiscard]] int run_generate(const Arguments& arguments);
[[nodiscard]] int run_bench(const Arguments& arguments);
[[nodiscard]] int run_chat(const Arguments& arguments);
[[nodiscard]] int run_inspect(const Arguments& arguments);
[[nodiscard]] int run_tokenize(const Arguments& arguments);
[[nodiscard]] int run_perplexity(const Arguments& arguments);
[[nodiscard]] int run_quantize(const Arguments& arguments);

}  // namespace specdec::cli
