// SPDX-License-Identifier: Apache-2.0
// What is known of a terminal, and text made to fit it.
#include "text/terminal.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace postern::tool {
namespace {

bool is_set(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && *value != '\0';
}

std::string_view code_of(Style style) {
  switch (style) {
    case Style::good:
      return "32";
    case Style::bad:
      return "31;1";
    case Style::doubtful:
      return "33";
    case Style::heading:
      return "1";
    case Style::faint:
      return "2";
  }
  return "0";
}

bool is_unit(std::string_view word) {
  for (const std::string_view unit : {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}) {
    if (word.starts_with(unit)) return true;
  }
  return false;
}

// How long the first piece of the text is that must not be folded.
std::size_t piece_length(std::string_view text) {
  bool quoted = false;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] == '"') quoted = !quoted;
    if (text[at] != ' ' || quoted) continue;
    const bool number = at > 0 && text[at - 1] >= '0' && text[at - 1] <= '9';
    if (!number || !is_unit(text.substr(at + 1))) return at;
  }
  return text.size();
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
    const std::string_view word = text.substr(0, piece_length(text));
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
    text.remove_prefix(std::min(word.size() + 1, text.size()));
  }
  return folded;
}

}  // namespace postern::tool
