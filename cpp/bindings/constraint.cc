// A grammar's matcher, which is a Python object, as a constraint of a request.
#include "sampling/constraint.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "bindings/common.h"
#include "engine/session.h"

namespace specdec::bindings {
namespace {

// Of the matcher these methods of llguidance's LLMatcher are used: rollback, try_consume_tokens,
// validate_tokens, compute_ff_tokens, unsafe_compute_mask_ptr, is_error, get_error. It stands
// somewhere in a text; what it is asked about may be another one.
class MatcherConstraint final : public TokenConstraint {
 public:
  explicit MatcherConstraint(py::object matcher) : matcher_(std::move(matcher)) {}
  MatcherConstraint(const MatcherConstraint&) = delete;
  MatcherConstraint& operator=(const MatcherConstraint&) = delete;
  ~MatcherConstraint() override {
    const py::gil_scoped_acquire gil;
    matcher_ = py::object();
  }

  void allow(std::span<const TokenId> generated, std::span<std::uint32_t> allowed) override {
    const py::gil_scoped_acquire gil;
    if (!go_to(generated)) {
      std::fill(allowed.begin(), allowed.end(), ~std::uint32_t{0});
      return;
    }
    matcher_.attr("unsafe_compute_mask_ptr")(reinterpret_cast<std::uintptr_t>(allowed.data()),
                                             allowed.size_bytes());
    check();
  }

  std::size_t n_allowed(std::span<const TokenId> generated,
                        std::span<const TokenId> next) override {
    const py::gil_scoped_acquire gil;
    if (!go_to(generated)) return 0;
    const auto n = py::cast<std::size_t>(matcher_.attr("validate_tokens")(list_of(next)));
    check();
    return n;
  }

  std::vector<TokenId> forced(std::span<const TokenId> generated) override {
    const py::gil_scoped_acquire gil;
    if (!go_to(generated)) return {};
    auto tokens = py::cast<std::vector<TokenId>>(matcher_.attr("compute_ff_tokens")());
    check();
    return tokens;
  }

 private:
  static py::list list_of(std::span<const TokenId> tokens) {
    py::list list;
    for (const TokenId token : tokens) list.append(token);
    return list;
  }

  // Whether the text is allowed; the matcher stands behind it or, if not, behind its beginning.
  bool go_to(std::span<const TokenId> text) {
    const auto differs = std::mismatch(text_.begin(), text_.end(), text.begin(), text.end());
    const auto n_same = static_cast<std::size_t>(differs.first - text_.begin());
    if (n_same < text_.size()) {
      matcher_.attr("rollback")(text_.size() - n_same);
      text_.resize(n_same);
    }
    if (n_same < text.size()) {
      const std::span<const TokenId> rest = text.subspan(n_same);
      const auto n = py::cast<std::size_t>(matcher_.attr("try_consume_tokens")(list_of(rest)));
      text_.insert(text_.end(), rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(n));
    }
    check();
    return text_.size() == text.size();
  }

  void check() {
    if (!py::cast<bool>(matcher_.attr("is_error")())) return;
    const auto told = py::cast<std::string>(matcher_.attr("get_error")());
    // Behind the first line it tells of its own state.
    throw_invalid("the grammar cannot be followed: " + told.substr(0, told.find('\n')));
  }

  py::object matcher_;
  std::vector<TokenId> text_;  // behind which the matcher stands
};

}  // namespace

std::shared_ptr<TokenConstraint> matcher_constraint(py::object matcher) {
  return std::make_shared<MatcherConstraint>(std::move(matcher));
}

}  // namespace specdec::bindings
