// SPDX-License-Identifier: Apache-2.0
// Random: a generator whose numbers depend only on the seed, not on the compiler or standard library.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>

namespace postern::transcript {

// SplitMix64.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  // The numbers of one operation, independent of those used by operations before it.
  Random(std::uint64_t seed, std::uint64_t operation) : Random(Random(seed).next() + operation * 0x632be59bd9b4e019) {}

  [[nodiscard]] std::uint64_t next() {
    state_ += 0x9e3779b97f4a7c15;
    std::uint64_t bits = state_;
    bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9;
    bits = (bits ^ bits >> 27) * 0x94d049bb133111eb;
    return bits ^ bits >> 31;
  }
  [[nodiscard]] std::uint64_t below(std::uint64_t end) { return next() % std::max<std::uint64_t>(end, 1); }
  [[nodiscard]] bool chance(unsigned percent) { return below(100) < percent; }
  template <typename Value>
  [[nodiscard]] Value pick(std::initializer_list<Value> values) {
    return values.begin()[below(values.size())];
  }

 private:
  std::uint64_t state_;
};

}  // namespace postern::transcript
