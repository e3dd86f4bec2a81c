// SPDX-License-Identifier: Apache-2.0
// OneThread: detects two threads in an object that allows one at a time. Only in debug builds (without NDEBUG).
#pragma once

#ifndef NDEBUG
#include <atomic>
#include <thread>
#endif

namespace postern {

#ifndef NDEBUG

class OneThread {
 public:
  // A call in progress. Calls may nest within a thread.
  class Use {
   public:
    explicit Use(OneThread& object) noexcept : object_(object) {
      std::thread::id nobody;
      is_outermost_ = object.user_.compare_exchange_strong(nobody, std::this_thread::get_id());
      is_alone_ = is_outermost_ || nobody == std::this_thread::get_id();
    }
    ~Use() {
      if (is_outermost_) object_.user_.store({});
    }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;
    explicit operator bool() const noexcept { return is_alone_; }  // false: another thread is in the object

   private:
    OneThread& object_;
    bool is_outermost_;
    bool is_alone_;
  };

 private:
  std::atomic<std::thread::id> user_;
};

#else

class OneThread {
 public:
  struct Use {
    explicit Use(OneThread& /*object*/) noexcept {}
    constexpr explicit operator bool() const noexcept { return true; }
  };
};

#endif

}  // namespace postern
