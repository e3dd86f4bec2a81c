// SPDX-License-Identifier: Apache-2.0
// check_json(): checks a JSON text before it is parsed, and finds the position of an error.
#pragma once

#include <string>
#include <string_view>

namespace postern::sim {

// Why a text is not a valid JSON document. `place` is the path of a value, "functions[1].bytes"; empty for the
// document. `reason` is empty if the text is valid.
struct JsonFault {
  std::string place;
  std::string reason;
  std::string remedy;
};

// Rejects invalid JSON, numbers that do not fit in a double, duplicate keys, and values nested deeper than in any
// description. nlohmann's parser throws for the first two, accepts duplicates, and would build a tree whose printing
// recurses deeply for the last.
[[nodiscard]] JsonFault check_json(std::string_view text);

}  // namespace postern::sim
