// SPDX-License-Identifier: Apache-2.0
// Progress: a progress bar; draws only on a terminal.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "text/terminal.hpp"

namespace postern::tool {

// Draws on stderr after half a second, at most ten times a second. The destructor erases it.
class Progress {
 public:
  Progress(const Terminal& terminal, std::string what, std::uint64_t total);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void show(std::uint64_t done);

  // Returns the line without terminal codes. `width`: its maximum number of columns.
  [[nodiscard]] static std::string line(const std::string& what, std::uint64_t done, std::uint64_t total,
                                        double seconds, std::size_t width);

 private:
  using Clock = std::chrono::steady_clock;

  Terminal terminal_;
  std::string what_;
  std::uint64_t total_;
  Clock::time_point started_;
  Clock::time_point next_;
  bool drawn_ = false;
};

}  // namespace postern::tool
