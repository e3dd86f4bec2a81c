// SPDX-License-Identifier: Apache-2.0
// DmaLog: a device's own log of the pages that it wrote.
#pragma once

#include <cstdint>
#include <postern/iova.hpp>
#include <set>
#include <utility>
#include <vector>

namespace postern::sim {

class DmaLog {
 public:
  static constexpr std::uint64_t page_size = 4096;  // for every requested page size

  void start(std::vector<IovaRange> ranges) {
    ranges_ = std::move(ranges);
    is_on_ = true;
  }
  void stop() { *this = {}; }
  [[nodiscard]] bool is_on() const noexcept { return is_on_; }

  // The device wrote this; it does not know whether the write arrived.
  void mark(Iova iova, std::uint64_t length);
  [[nodiscard]] std::set<std::uint64_t>& pages() noexcept { return pages_; }  // iovas

 private:
  bool is_on_ = false;
  std::vector<IovaRange> ranges_;
  std::set<std::uint64_t> pages_;
};

}  // namespace postern::sim
