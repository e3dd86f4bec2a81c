// SPDX-License-Identifier: Apache-2.0
// What is known of a terminal, and text made to fit it.
#include "terminal.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>

namespace postern::tool {
namespace {

bool is_set(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && *value != '\0';
}

std::string_view code_of(Style style) {
  switch (style) {
    case Style::good: return "32";
    case Style::bad: return "31;1";
    case Style::doubtful: return "33";
    case Style::heading: return "1";
    case Style::faint: return "2";
  }
  return "0";
}

}  // namespace

Terminal Terminal::of(int fd) {
  Terminal terminal;
  terminal.interactive = ::isatty(fd) == 1;
  if (!terminal.interactive) return terminal;
  const char* kind = std::getenv("TERM");
  // no-color.org: any value but the empty one.
  terminal.colour = !is_set("NO_COLOR") && (kind == nullptr || std::string_view(kind) != "dumb");
  winsize size{};
  if (::ioctl(fd, TIOCGWINSZ, &size) == 0) terminal.width = size.ws_col;
  return terminal;
}

std::string paint(const Terminal& terminal, Style style, std::string_view text) {
  if (!terminal.colour) return std::string(text);
  return "\033[" + std::string(code_of(style)) + "m" + std::string(text) + "\033[0m";
}

std::size_t columns_of(std::string_view text) {
  std::size_t columns = 0;
  for (const char byte : text) columns += (static_cast<unsigned char>(byte) & 0xC0) != 0x80 ? 1 : 0;
  return columns;
}

std::string fold(const Terminal& terminal, std::string_view text, std::size_t indent) {
  // A margin that leaves no room to speak of would give a column of single words.
  if (terminal.width < indent + 20) return std::string(text);
  const std::size_t room = terminal.width - indent;
  std::string folded;
  std::size_t used = 0;
  while (!text.empty()) {
    const std::size_t end = text.find(' ');
    const std::string_view word = text.substr(0, end);
    const std::size_t wide = columns_of(word);
    if (used > 0 && used + 1 + wide > room) {
      folded += "\n" + std::string(indent, ' ');
      used = 0;
    } else if (used > 0) {
      folded += ' ';
      ++used;
    }
    folded += word;
    used += wide;
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return folded;
}

}  // namespace postern::tool
