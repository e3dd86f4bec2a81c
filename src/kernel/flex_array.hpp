// SPDX-License-Identifier: Apache-2.0
// FlexArray: a uAPI struct that starts with argsz and ends in a flexible array, with memory for that array.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace postern {

// Zero at first. The array is aligned as the uAPI requires.
template <typename Head, typename Element>
class FlexArray {
 public:
  explicit FlexArray(std::size_t count = 1) : words_((bytes_for(count) + 7) / 8) {
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
