// SPDX-License-Identifier: Apache-2.0
// Prints a figure of a benchmark in the format that bench/run reads: name, value, unit, limit, ok or over.
#pragma once

#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

namespace postern::bench {

inline bool all_ok = true;  // the exit code of the program

inline void print_figure(const std::string& name, double value, const char* unit, std::optional<double> limit = {}) {
  const bool ok = !limit || value <= *limit;
  all_ok = all_ok && ok;
  char text[32] = "-";
  if (limit) (void)std::snprintf(text, sizeof text, "%.6g", *limit);
  (void)std::printf("%-36s %12.6g  %-22s %8s  %s\n", name.c_str(), value, unit, text, ok ? "ok" : "over");
  (void)std::fflush(stdout);
}

inline double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace postern::bench
