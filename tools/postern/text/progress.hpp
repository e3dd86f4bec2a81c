// SPDX-License-Identifier: Apache-2.0
// Progress: a bar on the terminal for what takes long, and nothing anywhere else.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "text/terminal.hpp"

namespace postern::tool {

// Draws on stderr, at most ten times a second and not before half a second has passed; wipes itself away when it goes.
class Progress {
 public:
  Progress(const Terminal& terminal, std::string what, std::uint64_t total);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void show(std::uint64_t done);

  // The line that is drawn, without the codes that place it. `width`: columns it may take.
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
