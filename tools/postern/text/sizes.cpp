// SPDX-License-Identifier: Apache-2.0
// Parses and formats sizes, rates, durations and counts.
#include "text/sizes.hpp"

#include <fmt/format.h>

#include <array>
#include <bit>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <vector>

namespace postern::tool {
namespace {

constexpr std::string_view units = "KMGTPE";

tl::unexpected<Error> not_a_size(std::string_view text, int code, std::string reason) {
  return failure({.code = code,
                  .operation = "parse",
                  .object = fmt::format("size \"{}\"", text),
                  .reason = std::move(reason),
                  .remedy = "give a number of bytes, or a number followed by K, M, G, T, P or E: 64M",
                  .causes = {}});
}

// Returns the power of 1024 of a unit: "" is 0, "K", "k", "KB" and "KiB" are 1.
std::optional<unsigned> power_of(std::string_view unit) {
  if (unit.empty() || unit == "B" || unit == "b") return 0;
  const auto at = units.find(static_cast<char>(std::toupper(static_cast<unsigned char>(unit.front()))));
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view behind = unit.substr(1);
  const bool known = behind.empty() || behind == "B" || behind == "b" || behind == "iB" || behind == "ib";
  return known ? std::optional(static_cast<unsigned>(at) + 1) : std::nullopt;
}

}  // namespace

Result<std::uint64_t> parse_size(std::string_view text) {
  std::uint64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error == std::errc::result_out_of_range) return not_a_size(text, ERANGE, "does not fit in 64 bits");
  if (error != std::errc()) return not_a_size(text, EINVAL, "does not start with a whole number");
  std::string_view unit(rest, static_cast<std::size_t>(end - rest));
  if (unit.starts_with(' ')) unit.remove_prefix(1);
  const auto power = power_of(unit);
  if (!power) return not_a_size(text, EINVAL, fmt::format("\"{}\" is not a unit", unit));
  if (number == 0) return not_a_size(text, EINVAL, "must not be zero");
  const unsigned shift = 10 * *power;
  if (number > UINT64_MAX >> shift) return not_a_size(text, ERANGE, "does not fit in 64 bits");
  return number << shift;
}

Result<std::uint64_t> parse_memory(std::string_view text) {
  constexpr std::uint64_t most = std::uint64_t{1} << 56;  // x86 with five-level page tables; others have less
  auto size = parse_size(text);
  if (size && *size > most) return not_a_size(text, ERANGE, "more memory than any process can have");
  return size;
}

Result<std::optional<std::uint64_t>> parse_size_or_all(std::string_view text) {
  if (text == "all") return std::optional<std::uint64_t>();
  auto size = POSTERN_TRY(parse_size(text));
  return std::optional(size);
}

std::string size_text(std::uint64_t bytes) {
  std::uint64_t unit = 1;
  std::size_t power = 0;
  while (power < units.size() && bytes / unit >= 1024) {
    unit <<= 10;
    ++power;
  }
  if (power == 0) return counted(bytes, "byte", "bytes");
  const char letter = units[power - 1];
  if (bytes % unit == 0) return fmt::format("{} {}iB", bytes / unit, letter);
  if (bytes < 10240) return fmt::format("{} bytes", bytes);
  // Uses the next smaller unit if that is exact, to avoid a rounded "64.0".
  const std::uint64_t below = unit >> 10;
  if (bytes % below == 0 && bytes / below < 10240) return fmt::format("{} {}iB", bytes / below, units[power - 2]);
  return fmt::format("{:.1f} {}iB", static_cast<double>(bytes) / static_cast<double>(unit), letter);
}

std::string rate_text(std::uint64_t bytes, double seconds) {
  if (seconds <= 0) return "-";
  const double rate = static_cast<double>(bytes) / seconds;
  constexpr double gib = 1024.0 * 1024 * 1024;
  constexpr double mib = 1024.0 * 1024;
  if (rate >= gib) return fmt::format("{:.1f} GiB/s", rate / gib);
  if (rate >= 10 * mib) return fmt::format("{:.0f} MiB/s", rate / mib);
  if (rate >= mib) return fmt::format("{:.1f} MiB/s", rate / mib);
  return fmt::format("{:.0f} KiB/s", rate / 1024);
}

std::string duration_text(double seconds) {
  if (seconds < 0.001) return fmt::format("{:.0f} us", seconds * 1e6);
  if (seconds < 1) return fmt::format("{:.{}f} ms", seconds * 1e3, seconds < 0.01 ? 1 : 0);
  if (seconds < 60) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<unsigned long>(seconds);
  return fmt::format("{} min {:02} s", whole / 60, whole % 60);
}

std::string counted(std::uint64_t count, std::string_view one, std::string_view more) {
  return fmt::format("{} {}", count, count == 1 ? one : more);
}

std::string count_text(std::uint64_t count) {
  std::string digits = std::to_string(count);
  for (std::size_t at = digits.size(); at > 3; at -= 3) digits.insert(at - 3, 1, ',');
  return digits;
}

std::string page_sizes_text(std::uint64_t bitmap) {
  if (bitmap == 0) return "none";
  const auto smallest = bitmap & (~bitmap + 1);
  if (std::popcount(bitmap) > 8 && bitmap == ~(smallest - 1)) return "every power of two from " + size_text(smallest);
  std::string text;
  for (std::uint64_t rest = bitmap; rest != 0; rest &= rest - 1) {
    if (!text.empty()) text += ", ";
    text += size_text(rest & (~rest + 1));
  }
  return text;
}

}  // namespace postern::tool
