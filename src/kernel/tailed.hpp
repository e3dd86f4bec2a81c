// SPDX-License-Identifier: Apache-2.0
// Tailed: a struct of the uAPI that begins with argsz and ends in an array, with room for that array.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace postern {

// What stands behind the struct is zero at first, and at least as aligned as the uAPI wants it.
template <typename Head, typename Element>
class Tailed {
 public:
  explicit Tailed(std::size_t count = 1) : words_((bytes_for(count) + 7) / 8) {
    head().argsz = static_cast<std::uint32_t>(bytes_for(count));
  }

  [[nodiscard]] Head& head() noexcept { return *reinterpret_cast<Head*>(words_.data()); }
  [[nodiscard]] Element* tail() noexcept {
    return reinterpret_cast<Element*>(reinterpret_cast<std::byte*>(words_.data()) + sizeof(Head));
  }

 private:
  static_assert(sizeof(Head) % alignof(Element) == 0);
  static constexpr std::size_t bytes_for(std::size_t count) { return sizeof(Head) + count * sizeof(Element); }

  std::vector<std::uint64_t> words_;
};

}  // namespace postern
