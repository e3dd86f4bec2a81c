// SPDX-License-Identifier: Apache-2.0
// Folding text to the terminal's width, escaping control characters, and colours.
#include "text/terminal.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdlib>

#include "text/progress.hpp"

namespace postern::tool {
namespace terminal_test {

TEST(Terminal, IsNotInteractiveBehindAPipe) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  const Terminal terminal = Terminal::of(ends[1]);
  EXPECT_FALSE(terminal.interactive);
  EXPECT_FALSE(terminal.colour);
  EXPECT_EQ(terminal.width, 0U);
  for (const int end : ends) ::close(end);
}

TEST(FoldHelp, FoldsDescriptionsBesideTheirOptionsAndParagraphsAsAWhole) {
  const std::string help =
      "Check every condition for passing a device through\n"
      "Usage: postern doctor [OPTIONS] [DEV]\n"
      "\n"
      "Options:\n"
      "  --json                Print one JSON document\n"
      "  --host HOST           Use a simulated host, which starts fresh, or\n"
      "                        sim:FILE\n"
      "  --a-very-long-option NAME\n"
      "                        Its description\n"
      "\n"
      "Needs root. The previous driver is\n"
      "recorded.\n";
  EXPECT_EQ(fold_help({}, help), help);
  EXPECT_EQ(fold_help({.width = 46}, help),
            "Check every condition for passing a device\nthrough\n"
            "Usage: postern doctor [OPTIONS] [DEV]\n"
            "\n"
            "Options:\n"
            "  --json                Print one JSON\n"
            "                        document\n"
            "  --host HOST           Use a simulated host,\n"
            "                        which starts fresh, or\n"
            "                        sim:FILE\n"
            "  --a-very-long-option NAME\n"
            "                        Its description\n"
            "\n"
            "Needs root. The previous driver is recorded.\n");
}

TEST(Printable, ShowsControlCharactersAsWhatTheyAre) {
  EXPECT_EQ(printable("nvme0n1 auf /\xc3\xbc \xe2\x82\xac \xf0\x9f\x9a\xaa"),
            "nvme0n1 auf /\xc3\xbc \xe2\x82\xac \xf0\x9f\x9a\xaa");
  EXPECT_EQ(printable("\033[2Jok\a"), "\\x1b[2Jok\\x07");
  EXPECT_EQ(printable("a\nok  all is well\r\t\x7f"), "a\\x0aok  all is well\\x0d\\x09\\x7f");
  EXPECT_EQ(printable("\xc2\x9b"
                      "2J"),
            "\\xc2\\x9b"
            "2J")
      << "a CSI of one character";
  EXPECT_EQ(printable("\xe2\x80\xae"
                      "exe"),
            "\\xe2\\x80\\xae"
            "exe")
      << "it would turn what follows around";
  for (const char* bytes : {"\xff", "\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\x80"}) {
    EXPECT_EQ(printable(bytes).substr(0, 2), "\\x") << "no UTF-8";
  }
  EXPECT_EQ(printable(printable("\033")), printable("\033"));
}

// Returns what put() writes to a file.
std::string written(const Terminal& terminal, std::string_view text) {
  std::FILE* file = std::tmpfile();
  put(file, terminal, text);
  std::rewind(file);
  std::array<char, 256> bytes{};
  const std::size_t got = std::fread(bytes.data(), 1, bytes.size(), file);
  (void)std::fclose(file);
  return {bytes.data(), got};
}

TEST(Put, LetsLineEndsAndTheToolsOwnColoursThrough) {
  const Terminal colour{.interactive = true, .colour = true, .width = 80};
  const std::string text = paint(colour, Style::bad, "NO") + "  it\n\nend\n";
  EXPECT_EQ(written(colour, text), text);
  EXPECT_EQ(written({}, paint({}, Style::bad, "NO") + "\n"), "NO\n");
}

TEST(Put, LetsNoOtherControlCharacterThrough) {
  const Terminal colour{.interactive = true, .colour = true, .width = 80};
  EXPECT_EQ(written(colour, "a\033[2Jb\033]0;title\a\n"), "a\\x1b[2Jb\\x1b]0;title\\x07\n");
  EXPECT_EQ(written({}, "\033[32mgreen\033[0m"), "\\x1b[32mgreen\\x1b[0m") << "there is no colour here";
  EXPECT_EQ(written(colour, "\033"), "\\x1b");
}

TEST(Paint, LeavesNoCodeOfTheTextInIt) {
  EXPECT_EQ(paint({}, Style::bad, "\033[32m"), "\\x1b[32m");
  EXPECT_EQ(fold({}, "line\nend", 0), "line\\x0aend");
}

TEST(Paint, AddsNothingWhereThereIsNoColour) { EXPECT_EQ(paint({}, Style::bad, "NO"), "NO"); }

TEST(Paint, EndsTheColourBehindTheText) {
  EXPECT_EQ(paint({.interactive = true, .colour = true, .width = 80}, Style::good, "ok"), "\033[32mok\033[0m");
}

TEST(Fold, FoldsBetweenWordsWithAHangingIndent) {
  const Terminal terminal{.interactive = true, .colour = false, .width = 30};
  EXPECT_EQ(fold(terminal, "one two three four five six seven", 4), "one two three four five\n    six seven");
}

TEST(Fold, KeepsAWordWholeThatIsLongerThanALine) {
  const Terminal terminal{.interactive = true, .colour = false, .width = 24};
  EXPECT_EQ(fold(terminal, "see /sys/module/vfio_iommu_type1/parameters there", 2),
            "see\n  /sys/module/vfio_iommu_type1/parameters\n  there");
}

TEST(Fold, KeepsANumberWithItsUnit) {
  const Terminal terminal{.interactive = true, .colour = false, .width = 26};
  EXPECT_EQ(fold(terminal, "a container with room for 64 MiB of it", 0), "a container with room for\n64 MiB of it");
  EXPECT_EQ(fold(terminal, "a container with pages 4 KiB, 2 MiB", 0), "a container with pages\n4 KiB, 2 MiB");
}

TEST(Fold, KeepsWhatStandsInQuotesInOneLine) {
  const Terminal terminal{.interactive = true, .colour = false, .width = 30};
  EXPECT_EQ(fold(terminal, "as root: \"chown user /dev/vfio/2\" (for good)", 0),
            "as root:\n\"chown user /dev/vfio/2\" (for\ngood)");
}

TEST(Fold, FoldsNothingWhereTheWidthIsNotKnown) {
  const std::string text(500, 'x');
  EXPECT_EQ(fold({}, text + " " + text, 4), text + " " + text);
}

TEST(Progress, ShowsPartAmountRateAndWhatIsLeft) {
  EXPECT_EQ(Progress::line("reading x", 256 << 20, 1 << 30, 2, 100),
            "  reading x [#######.......................]  25%  256 MiB of 1 GiB  128 MiB/s  6.0 s left");
}

TEST(Progress, GivesTheBarUpBeforeTheNumbers) {
  EXPECT_EQ(Progress::line("reading x", 256 << 20, 1 << 30, 2, 66),
            "  reading x  25%  256 MiB of 1 GiB  128 MiB/s  6.0 s left");
}

TEST(Progress, NeverFillsTheLastColumn) {
  for (std::size_t width = 1; width < 120; ++width) {
    EXPECT_LT(Progress::line("reading 0000:00:01.0", 1 << 20, 1 << 30, 1, width).size(), width);
  }
}

}  // namespace terminal_test
}  // namespace postern::tool
