// SPDX-License-Identifier: Apache-2.0
// What a container can do.
#include "verbs/limits.hpp"

#include <fmt/format.h>

#include "text/sizes.hpp"

namespace postern::tool {

std::string range_text(IovaRange range) {
  return fmt::format("{} ({})", to_string(range), range.length() == 0 ? "16 EiB" : size_text(range.length()));
}

std::string ranges_text(const Container& container) {
  std::string text;
  for (const IovaRange& range : container.usable_ranges()) {
    if (!text.empty()) text += ", ";
    text += range_text(range);
  }
  return text.empty() ? "none" : text;
}

std::string mapping_limit_text(const Container& container) {
  const auto limit = container.mapping_limit();
  return limit ? "at most " + count_text(*limit) : "as many as memory allows";
}

Json limits_json(const Container& container) {
  Json ranges = Json::array();
  for (const IovaRange& range : container.usable_ranges()) {
    ranges.push_back({{"first", to_string(range.first)}, {"last", to_string(range.last)}});
  }
  Json sizes = Json::array();
  for (std::uint64_t rest = container.page_sizes(); rest != 0; rest &= rest - 1) sizes.push_back(rest & (~rest + 1));
  Json facts = Json::object();
  for (const auto& [name, value] : container.facts()) facts[name] = value;
  const auto limit = container.mapping_limit();
  return {{"usable_ranges", std::move(ranges)},
          {"page_sizes", std::move(sizes)},
          {"mapping_limit", limit ? Json(*limit) : Json(nullptr)},
          {"facts", std::move(facts)}};
}

}  // namespace postern::tool
