// SPDX-License-Identifier: Apache-2.0
// Terminal: what is known of the place that text goes to, and text made to fit it.
#pragma once

#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>

namespace postern::tool {

struct Terminal {
  bool interactive = false;  // a person may be looking: isatty(3)
  bool colour = false;       // interactive, and neither NO_COLOR nor TERM=dumb asks for none
  std::size_t width = 0;     // columns; 0: not known, so nothing is cut or folded

  [[nodiscard]] static Terminal of(int fd);
};

// Text from elsewhere (names of processes and drivers, mount points, serial numbers), made fit to be shown: control
// characters, line ends among them, marks that turn the direction of writing, and bytes that are no UTF-8 become
// "\x1b". Text that is clean stays as it is. All that shows a value calls it: paint(), fold(), Table, error_line().
[[nodiscard]] std::string printable(std::string_view text);

// Writes to stdout or stderr, the one way in which the tool does. Whatever came by printable() is caught here: but for
// line ends, and paint()'s codes where there is colour, no control character gets out. What cannot be written is
// dropped, and ends nothing that is under way; for stdout, main() looks at the end.
void put(std::FILE* stream, const Terminal& terminal, std::string_view text);

enum class Style { good, bad, doubtful, heading, faint };

// The text, printable, without a code where there is no colour.
[[nodiscard]] std::string paint(const Terminal& terminal, Style style, std::string_view text);

// How many columns UTF-8 text takes, as long as no character is wider than one column.
[[nodiscard]] std::size_t columns_of(std::string_view text);

// Folds text between words so that no line is longer than the terminal is wide. `indent`: how many columns stand before
// the first line already, and are put before each that follows. A number stays with its unit, and what stands in quotes
// stays in one line, because it is a command to copy; what is longer than a line stays whole.
[[nodiscard]] std::string fold(const Terminal& terminal, std::string_view text, std::size_t indent);

}  // namespace postern::tool
