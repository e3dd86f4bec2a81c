// SPDX-License-Identifier: Apache-2.0
// Terminal: properties of an output, and text formatted for it.
#include "text/terminal.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
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

constexpr std::string_view end_of_colour = "\033[0m";
std::string begin_of(Style style) { return fmt::format("\033[{}m", code_of(style)); }

bool is_unit(std::string_view word) {
  for (const std::string_view unit : {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}) {
    if (word.starts_with(unit)) return true;
  }
  return false;
}

// Returns the length of the first piece of the text that must not be folded.
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

// Returns the length in bytes of the first character of the text; 0 if it is invalid or must not be printed.
std::size_t character_length(std::string_view text) {
  const auto byte_at = [&](std::size_t at) { return static_cast<unsigned char>(text[at]); };
  const unsigned first = byte_at(0);
  if (first < 0x80) return first >= 0x20 && first != 0x7f ? 1 : 0;
  const std::size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < length) return 0;
  char32_t character = first & (0x7fU >> length);
  for (std::size_t at = 1; at < length; ++at) {
    if ((byte_at(at) & 0xc0U) != 0x80) return 0;
    character = character << 6 | (byte_at(at) & 0x3fU);
  }
  constexpr std::array<char32_t, 5> least = {0, 0, 0x80, 0x800, 0x10000};
  const bool is_encoded_well =
      character >= least.at(length) && character <= 0x10ffff && (character < 0xd800 || character > 0xdfff);
  const bool is_control = character < 0xa0;
  const bool turns = (character >= 0x202a && character <= 0x202e) || (character >= 0x2066 && character <= 0x2069);
  return is_encoded_well && !is_control && !turns ? length : 0;
}

// Returns the length of the code of paint() at the start of the text; 0 if there is none.
std::size_t code_length(std::string_view text) {
  if (text.starts_with(end_of_colour)) return end_of_colour.size();
  for (const Style style : {Style::good, Style::bad, Style::doubtful, Style::heading, Style::faint}) {
    const std::string code = begin_of(style);
    if (text.starts_with(code)) return code.size();
  }
  return 0;
}

}  // namespace

std::string printable(std::string_view text) {
  std::string clean;
  clean.reserve(text.size());
  while (!text.empty()) {
    const std::size_t length = character_length(text);
    if (length > 0) {
      clean += text.substr(0, length);
    } else {
      clean += fmt::format("\\x{:02x}", static_cast<unsigned char>(text.front()));
    }
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return clean;
}

void put(std::FILE* stream, const Terminal& terminal, std::string_view text) {
  std::string clean;
  while (!text.empty()) {
    const std::size_t code = terminal.colour ? code_length(text) : 0;
    const std::size_t kept = text.front() == '\n' ? 1 : code;
    const std::size_t plain = kept > 0 ? 0 : std::min(text.find_first_of("\n\033", 1), text.size());
    clean += text.substr(0, kept);
    clean += printable(text.substr(kept, plain));
    text.remove_prefix(kept + plain);
  }
  (void)std::fwrite(clean.data(), 1, clean.size(), stream);
}

Terminal Terminal::of(int fd) {
  Terminal terminal;
  terminal.interactive = ::isatty(fd) == 1;
  if (!terminal.interactive) return terminal;
  const char* kind = std::getenv("TERM");
  // no-color.org: any non-empty value.
  terminal.colour = !is_set("NO_COLOR") && (kind == nullptr || std::string_view(kind) != "dumb");
  winsize size{};
  if (::ioctl(fd, TIOCGWINSZ, &size) == 0) terminal.width = size.ws_col;
  return terminal;
}

std::string paint(const Terminal& terminal, Style style, std::string_view text) {
  if (!terminal.colour) return printable(text);
  return begin_of(style) + printable(text) + std::string(end_of_colour);
}

std::size_t columns_of(std::string_view text) {
  std::size_t columns = 0;
  for (const char byte : text) columns += (static_cast<unsigned char>(byte) & 0xC0) != 0x80 ? 1 : 0;
  return columns;
}

std::string fold(const Terminal& terminal, std::string_view raw, std::size_t indent) {
  std::string clean = printable(raw);
  // With a margin that leaves too little space, the result would be a column of single words.
  if (terminal.width < indent + 20) return clean;
  std::string_view text = clean;
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

std::string fold_help(const Terminal& terminal, std::string_view help) {
  if (terminal.width == 0) return std::string(help);
  constexpr std::size_t deep = 20;  // a line that begins there goes on with the description above
  std::string folded;
  std::string name;  // with the spaces behind it; empty for a paragraph
  std::string text;
  const auto end = [&] {
    if (!name.empty() || !text.empty()) folded += name + fold(terminal, text, columns_of(name)) + "\n";
    name.clear();
    text.clear();
  };
  while (!help.empty()) {
    const std::string_view line = help.substr(0, help.find('\n'));
    help.remove_prefix(std::min(line.size() + 1, help.size()));
    const std::size_t start = std::min(line.find_first_not_of(' '), line.size());
    if (line.empty()) {
      end();
      folded += "\n";
    } else if (start == 0 || start >= deep) {
      const bool is_below = start > 0 && !name.empty() && text.empty();  // the name takes a line of its own
      if (is_below || (start == 0 && !name.empty()) || line.substr(0, 6) == "Usage:") end();
      if (is_below) name = std::string(start, ' ');
      if (!text.empty()) text += ' ';
      text += line.substr(start);
      if (line.back() == ':') end();  // a heading
    } else {
      end();
      const std::size_t gap = line.find("  ", start);
      const std::size_t description = gap == std::string_view::npos ? line.size() : line.find_first_not_of(' ', gap);
      name = line.substr(0, description);
      text = line.substr(std::min(description, line.size()));
    }
  }
  end();
  return folded;
}

}  // namespace postern::tool
