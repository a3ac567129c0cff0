// Names of variables as small numbers.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace specdec::chat {

class Names {
 public:
  int id(const std::string& name) {
    const auto [entry, is_new] = ids_.try_emplace(name, static_cast<int>(texts_.size()));
    if (is_new) texts_.push_back(name);
    return entry->second;
  }
  [[nodiscard]] const std::string& text(int id) const {
    return texts_[static_cast<std::size_t>(id)];
  }

 private:
  std::unordered_map<std::string, int> ids_;
  std::vector<std::string> texts_;
};

}  // namespace specdec::chat
