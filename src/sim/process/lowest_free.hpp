// SPDX-License-Identifier: Apache-2.0
// LowestFree: allocates the lowest free number, as the kernel's ida and fd tables do.
#pragma once

#include <algorithm>
#include <set>

namespace postern::sim {

class LowestFree {
 public:
  explicit LowestFree(int first = 0) : next_(first) {}

  [[nodiscard]] int take() {
    while (!taken_.insert(next_).second) ++next_;
    return next_++;
  }
  // Marks a number as allocated.
  void reserve(int number) { taken_.insert(number); }
  void give_back(int number) {
    if (taken_.erase(number) != 0) next_ = std::min(next_, number);
  }

 private:
  std::set<int> taken_;
  int next_;  // all numbers below it are allocated
};

}  // namespace postern::sim
