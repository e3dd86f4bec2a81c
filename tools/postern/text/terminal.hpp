// SPDX-License-Identifier: Apache-2.0
// Terminal: properties of an output, and text formatted for it.
#pragma once

#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>

namespace postern::tool {

struct Terminal {
  bool interactive = false;  // isatty(3)
  bool colour = false;       // interactive, without NO_COLOR and TERM=dumb
  std::size_t width = 0;     // columns; 0: unknown, so nothing is cut or folded

  [[nodiscard]] static Terminal of(int fd);
};

// Makes text from elsewhere (names of processes and drivers, mount points, serial numbers) safe to print: control
// characters, also line ends, marks that change the direction of writing, and invalid UTF-8 are replaced by "\x1b" and
// the like. Other text is unchanged. Everything that prints a value calls it: paint(), fold(), Table, error_line().
[[nodiscard]] std::string printable(std::string_view text);

// Writes to stdout or stderr; all output of the tool goes through it. Lets through no control characters except line
// ends and, with colour, paint()'s codes, even if a caller forgot printable(). Drops what cannot be written, and does
// not fail; for stdout, main() checks at the end.
void put(std::FILE* stream, const Terminal& terminal, std::string_view text);

enum class Style { good, bad, doubtful, heading, faint };

// Returns the printable text, with codes only if the terminal has colour.
[[nodiscard]] std::string paint(const Terminal& terminal, Style style, std::string_view text);

// Returns the number of columns of UTF-8 text, if no character is wider than one column.
[[nodiscard]] std::size_t columns_of(std::string_view text);

// Folds text between words so that no line is wider than the terminal. `indent`: the columns already printed before the
// first line, which are put before all others. A number stays with its unit. Quoted text, which is a command to copy,
// stays on one line, even if that is too long.
[[nodiscard]] std::string fold(const Terminal& terminal, std::string_view text, std::size_t indent);

// Folds the text of --help: a description to the right of its option or command, a paragraph as a whole.
[[nodiscard]] std::string fold_help(const Terminal& terminal, std::string_view help);

}  // namespace postern::tool
