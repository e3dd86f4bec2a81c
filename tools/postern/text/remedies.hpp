// SPDX-License-Identifier: Apache-2.0
// words_of(): the texts of remedies: the library's, but with the tool's commands where it has one.
#pragma once

#include <postern/remedy.hpp>
#include <string>

namespace postern::tool {

[[nodiscard]] std::string words_of(const Remedy& remedy);
// The texts of all, separated by "; "; empty if there are none.
[[nodiscard]] std::string words_of(const Remedies& remedies);

}  // namespace postern::tool
