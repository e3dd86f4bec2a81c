// SPDX-License-Identifier: Apache-2.0
// A JSON text that people write, checked before its values are made: what is wrong with it, and where.
#pragma once

#include <string>
#include <string_view>

namespace postern::sim {

// Why a text is no JSON document that can be read. `place` is that of a value, "functions[1].bytes"; empty for the
// document. `reason` is empty where nothing is wrong.
struct JsonFault {
  std::string place;
  std::string reason;
  std::string remedy;
};

// Refuses what is no JSON, numbers that no double holds, a key that is twice in one object, and values nested deeper
// than a host's description can be. nlohmann's parser throws at the first two, takes the third, and what it makes of
// the last is a tree whose printing recurses as deep as it goes.
[[nodiscard]] JsonFault check_json(std::string_view text);

}  // namespace postern::sim
