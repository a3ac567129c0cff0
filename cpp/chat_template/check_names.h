// Filters and tests that a template names but that do not exist.
#pragma once

#include "chat_template/ast.h"

namespace specdec::chat {

// As jinja: an unknown name is an error at once, but in the branches of an `if` only when it is
// reached. Throws TemplateError(kSyntax).
void check_names(const Body& body);

}  // namespace specdec::chat
