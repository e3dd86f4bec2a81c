// SPDX-License-Identifier: Apache-2.0
// Bytes: the fuzzer's input, read piece by piece; zeros after its end.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

namespace postern::fuzz {

class Bytes {
 public:
  Bytes(const std::uint8_t* data, std::size_t size) : data_(data), left_(size) {}

  [[nodiscard]] bool is_empty() const { return left_ == 0; }
  // Copies at most `length` bytes of input to `to`; leaves the rest of `to` unchanged.
  void fill(void* to, std::size_t length) {
    const std::size_t part = std::min(length, left_);
    if (part != 0) std::memcpy(to, data_, part);
    data_ += part;
    left_ -= part;
  }
  template <typename T>
  T take() {
    T value{};
    fill(&value, sizeof value);
    return value;
  }
  // The input up to the next zero.
  std::string text() {
    const std::size_t length = ::strnlen(reinterpret_cast<const char*>(data_), left_);
    std::string text(reinterpret_cast<const char*>(data_), length);
    data_ += std::min(length + 1, left_);
    left_ -= std::min(length + 1, left_);
    return text;
  }

 private:
  const std::uint8_t* data_;
  std::size_t left_;
};

}  // namespace postern::fuzz
