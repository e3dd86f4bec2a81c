// SPDX-License-Identifier: Apache-2.0
// Progress: a progress bar on the terminal.
#include "text/progress.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "text/sizes.hpp"

namespace postern::tool {
namespace {

constexpr auto initial_delay = std::chrono::milliseconds(500);
constexpr auto interval = std::chrono::milliseconds(100);
constexpr std::string_view wipe = "\r\033[K";

// Replaces what was drawn before.
void draw(const std::string& text) {
  (void)std::fwrite(wipe.data(), 1, wipe.size(), stderr);
  put(stderr, {}, text);
  (void)std::fflush(stderr);
}

}  // namespace

Progress::Progress(const Terminal& terminal, std::string what, std::uint64_t total)
    : terminal_(terminal),
      what_(std::move(what)),
      total_(total),
      started_(Clock::now()),
      next_(started_ + initial_delay) {}

Progress::~Progress() {
  if (!drawn_) return;
  draw("");
}

std::string Progress::line(const std::string& what, std::uint64_t done, std::uint64_t total, double seconds,
                           std::size_t width) {
  const double part = total == 0 ? 1 : std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  std::string behind =
      fmt::format("{:3.0f}%  {} of {}  {}", part * 100, size_text(done), size_text(total), rate_text(done, seconds));
  if (done > 0 && done < total) behind += fmt::format("  {} left", duration_text(seconds / part * (1 - part)));
  const std::string before = "  " + what + " ";
  std::string bar;
  constexpr std::size_t longest = 30;
  const std::size_t taken = before.size() + behind.size() + 4;
  if (width > taken + 8) {
    const std::size_t cells = std::min(longest, width - taken);
    const auto full = static_cast<std::size_t>(part * static_cast<double>(cells));
    bar = "[" + std::string(full, '#') + std::string(cells - full, '.') + "] ";
  }
  std::string text = before + bar + behind;
  // Leaves one column free: some terminals start a new line after a full one.
  if (width > 0 && text.size() >= width) text.resize(width - 1);
  return text;
}

void Progress::show(std::uint64_t done) {
  if (!terminal_.interactive) return;
  const auto now = Clock::now();
  if (now < next_) return;
  next_ = now + interval;
  drawn_ = true;
  const double seconds = std::chrono::duration<double>(now - started_).count();
  const std::size_t width = terminal_.width > 0 ? terminal_.width : 80;
  draw(line(what_, done, total_, seconds, width));
}

}  // namespace postern::tool
