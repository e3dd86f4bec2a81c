// SPDX-License-Identifier: Apache-2.0
// OnFork: tells an object in a child of fork(2) that it is a copy.
#pragma once

#include <pthread.h>

#include <mutex>

namespace postern {

// While it exists, a child of fork(3) calls act(object) before fork returns there. act() may only write to the object.
// Children of a direct clone(2) do not call it.
class OnFork {
 public:
  OnFork(void (*act)(void* object) noexcept, void* object) noexcept : act_(act), object_(object) {
    static const int registered = ::pthread_atfork([] { list_mutex.lock(); }, [] { list_mutex.unlock(); }, in_child);
    static_cast<void>(registered);
    const std::lock_guard lock(list_mutex);
    next_ = list;
    list = this;
    if (next_ != nullptr) next_->previous_ = this;
  }
  ~OnFork() {
    const std::lock_guard lock(list_mutex);
    (previous_ != nullptr ? previous_->next_ : list) = next_;
    if (next_ != nullptr) next_->previous_ = previous_;
  }
  OnFork(const OnFork&) = delete;
  OnFork& operator=(const OnFork&) = delete;

 private:
  static void in_child() noexcept {
    for (const OnFork* each = list; each != nullptr; each = each->next_) each->act_(each->object_);
    list_mutex.unlock();
  }

  static inline std::mutex list_mutex;
  static inline OnFork* list = nullptr;

  void (*act_)(void* object) noexcept;
  void* object_;
  OnFork* next_ = nullptr;
  OnFork* previous_ = nullptr;
};

}  // namespace postern
