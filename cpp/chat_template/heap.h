// Reference-counted storage of values, whose bytes the budget knows while they live.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "chat_template/budget.h"

namespace specdec::chat {

class Heap {
 public:
  explicit Heap(Budget& budget, std::size_t n_bytes) : budget_(budget) {
    budget.work(kAllocationWork);
    hold(n_bytes);
  }
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;
  virtual ~Heap() { budget_.release(held_); }

  void hold(std::size_t n_bytes) {
    budget_.hold(n_bytes);
    held_ += n_bytes;
  }
  [[nodiscard]] Budget& budget() const noexcept { return budget_; }
  // How deep what it holds nests: bounded, so that freeing it cannot exhaust the stack.
  int depth = 0;

 private:
  template <typename T>
  friend class Ref;

  Budget& budget_;
  std::size_t held_ = 0;
  std::uint32_t n_refs_ = 0;  // one rendering runs on one thread
};

template <typename T>
class Ref {
 public:
  Ref() = default;
  explicit Ref(T* object) noexcept : object_(object) { add(); }
  Ref(const Ref& other) noexcept : object_(other.object_) { add(); }
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  template <typename U>
  Ref(const Ref<U>& other) noexcept : object_(other.get()) {  // NOLINT: to a base class
    add();
  }
  Ref& operator=(Ref other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Ref() {
    if (object_ != nullptr && --static_cast<Heap*>(object_)->n_refs_ == 0) delete object_;
  }

  [[nodiscard]] T* get() const noexcept { return object_; }
  T* operator->() const noexcept { return object_; }
  T& operator*() const noexcept { return *object_; }
  explicit operator bool() const noexcept { return object_ != nullptr; }

 private:
  void add() noexcept {
    if (object_ != nullptr) ++static_cast<Heap*>(object_)->n_refs_;
  }

  T* object_ = nullptr;
};

template <typename T, typename... Args>
[[nodiscard]] Ref<T> make_heap(Args&&... args) {
  return Ref<T>(new T(std::forward<Args>(args)...));
}

}  // namespace specdec::chat
