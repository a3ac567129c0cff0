// The answer of one model alone beside the speculative one.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "engine/session.h"

namespace specdec::cli {

class AloneAnswer {
 public:
  // `options` are those of the speculative session.
  AloneAnswer(std::shared_ptr<const LoadedModel> model, const SessionOptions& options);

  // The same request without drafts. Where there is no memory for a second context, the one of
  // `beside` is given up for it and read again with the next answer.
  [[nodiscard]] GenerateResult generate(const GenerateRequest& request, Session& beside);

 private:
  std::shared_ptr<const LoadedModel> model_;
  SessionOptions options_;
  std::optional<Session> session_;  // kept, so that a conversation is not read again
};

// How many drafted tokens were right, whether both gave the same tokens, and how much faster one
// was; on stderr. `excuse`: why other tokens are no fault; "" where they are one.
void print_comparison(const GenerateResult& speculative, const GenerateResult& alone,
                      const std::string& excuse);

}  // namespace specdec::cli
