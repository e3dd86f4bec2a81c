// SPDX-License-Identifier: Apache-2.0
// Tailed: a struct of the uAPI with argsz at its start and a flexible array at its end, and what goes there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace postern {

template <typename Head, typename Tail>
class Tailed {
 public:
  Tailed(Head head, const Tail& tail) {
    head.argsz = sizeof bytes_;
    std::memcpy(bytes_, &head, sizeof head);
    std::memcpy(bytes_ + sizeof head, &tail, sizeof tail);
  }
  [[nodiscard]] Head& head() noexcept { return *reinterpret_cast<Head*>(bytes_); }

 private:
  static_assert(sizeof(Head) % alignof(Tail) == 0);
  alignas(8) std::byte bytes_[sizeof(Head) + sizeof(Tail)];
};

}  // namespace postern
