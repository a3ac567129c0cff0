#include "decode/round_trace.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "base/error.h"
#include "base/open_file.h"

namespace specdec {
namespace {

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.4g", value);
  for (char& c : text) c = c == ',' ? '.' : c;  // whatever the locale
  return text;
}

template <typename Items, typename Write>
std::string list(const Items& items, const Write& write) {
  std::string text = "[";
  for (const auto& item : items) text += (text.size() > 1 ? "," : "") + write(item);
  return text + "]";
}

template <typename Items>
std::string integers(const Items& items) {
  return list(items, [](auto item) { return std::to_string(item); });
}

std::string costs(const CostModel& model) {
  return list(model.table(), [](const auto& entry) {
    return "[" + std::to_string(entry.first) + "," + number(entry.second) + "]";
  });
}

}  // namespace

void RoundTrace::begin_request(int n_prompt, double temperature, Controller& controller) {
  text_ = "{\"request\":{\"n_prompt\":" + std::to_string(n_prompt) +
          ",\"temperature\":" + number(temperature) +
          ",\"target_ms\":" + costs(controller.target_cost()) + ",\"draft_ms\":{";
  bool first = true;
  for (int i = 0; i < controller.n_drafters(); ++i) {
    if (controller.traits(i).lookup) continue;
    text_ += (first ? "\"" : ",\"") + controller.traits(i).name +
             "\":" + costs(controller.drafter_cost(i));
    first = false;
  }
  text_ += "}}}\n";
}

void RoundTrace::begin_pass(int n_committed) {
  text_ += "{\"n\":" + std::to_string(n_committed) + ",\"sources\":{";
  first_source_ = true;
}

void RoundTrace::begin_source(std::string_view name, double ms) {
  text_ += (first_source_ ? "\"" : ",\"") + std::string(name) + "\":{\"ms\":" + number(ms);
  first_source_ = false;
}

void RoundTrace::add_lookup(std::string_view name, const DraftProposal& proposal, double ms) {
  begin_source(name, ms);
  text_ += ",\"strength\":" + std::to_string(proposal.strength) +
           ",\"tokens\":" + integers(proposal.tokens);
  if (!proposal.parents.empty()) text_ += ",\"parents\":" + integers(proposal.parents);
  text_ += "}";
}

void RoundTrace::add_tree(std::string_view name, std::span<const TreeNode> nodes, double ms) {
  begin_source(name, ms);
  const auto of = [](auto member) {
    return [member](const TreeNode& node) { return std::to_string(node.*member); };
  };
  text_ += ",\"tokens\":" + list(nodes, of(&TreeNode::token)) +
           ",\"parents\":" + list(nodes, of(&TreeNode::parent)) +
           ",\"p\":" + list(nodes, [](const TreeNode& node) { return number(node.probability); }) +
           "}";
}

void RoundTrace::end_pass(std::span<const TokenId> fresh, double verify_ms) {
  text_ += "},\"next\":" + integers(fresh) + ",\"ms\":" + number(verify_ms) + "}\n";
}

void RoundTrace::end_request() {
  text_.resize(text_.rfind('\n') + 1);  // without a pass that was cancelled
  const int fd = open_uninterrupted(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) throw_file_error(path_, "cannot open", errno);
  const bool written = write_all(fd, text_);
  const int error = errno;
  ::close(fd);
  text_.clear();
  if (!written) throw_file_error(path_, "cannot write", error);
}

}  // namespace specdec
