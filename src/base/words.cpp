// SPDX-License-Identifier: Apache-2.0
// Formats sizes, lists and file modes for errors.
#include "base/words.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <array>
#include <bit>
#include <string_view>

namespace postern {

std::string size_text(std::uint64_t bytes) {
  constexpr std::array<std::string_view, 7> units = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes == 0) return "0 bytes";
  const auto unit = static_cast<std::size_t>(std::countr_zero(bytes)) / 10;
  return fmt::format("{} {}", bytes >> (10 * unit), units[unit]);
}

std::string page_sizes_text(std::uint64_t bitmap) {
  std::vector<std::string> sizes;
  for (std::uint64_t left = bitmap; left != 0; left &= left - 1) sizes.push_back(size_text(left & -left));
  return list_text(sizes);
}

std::string ranges_text(std::span<const IovaRange> ranges) {
  std::vector<std::string> words;
  for (const IovaRange range : ranges) words.push_back(to_string(range));
  return list_text(words);
}

std::string list_text(std::span<const std::string> words) {
  return words.empty() ? "none" : fmt::format("{}", fmt::join(words, ", "));
}

std::string mode_text(mode_t mode) {
  std::string text = S_ISCHR(mode) ? "c" : S_ISDIR(mode) ? "d" : S_ISREG(mode) ? "-" : "?";
  for (mode_t bit = 0400; bit != 0; bit >>= 1) {
    constexpr std::string_view letters = "rwx";
    const auto place = static_cast<std::size_t>(8 - std::countr_zero(bit)) % 3;
    text += (mode & bit) != 0 ? letters[place] : '-';
  }
  return text;
}

std::string inverted_text(IovaRange range) {
  return to_string(range) + ": last is below first; ranges end with their last address";
}

std::string length_text(IovaRange range) {
  return to_string(range) + " ends with its last address: it has " + size_text(range.length());
}

std::string access_fault(Access access) {
  return std::to_string(static_cast<unsigned>(access)) + " is no Access: it is read, write or read_write";
}

std::string trimmed(std::string text) {
  using std::string_view_literals::operator""sv;
  text.erase(text.find_last_not_of(" \t\r\n\0"sv) + 1);
  return text;
}

}  // namespace postern
