// SPDX-License-Identifier: Apache-2.0
// What a container can do, as text and as JSON, for the verbs that attach.
#pragma once

#include <postern/container.hpp>
#include <string>

#include "text/errors.hpp"

namespace postern::tool {

// "0x0-0x3fffffff (1 GiB)"
[[nodiscard]] std::string range_text(IovaRange range);

// "0x0-0xfedfffff (4 GiB), 0xfef00000-0x7fffffffff (508 GiB)"
[[nodiscard]] std::string ranges_text(const Container& container);

// What the backend knows beyond the common limits, line by line; where it has EEH, also in which state the device is.
[[nodiscard]] Container::Facts facts_of(Container& container);

// "at most 65,535", "as many as memory allows"
[[nodiscard]] std::string mapping_limit_text(const Container& container);

// {"usable_ranges": [{"first", "last"}], "page_sizes", "mapping_limit", "facts": {...}, "dma_windows", "eeh"}: the last
// two null where the container has none.
[[nodiscard]] Json limits_json(Container& container);

}  // namespace postern::tool
