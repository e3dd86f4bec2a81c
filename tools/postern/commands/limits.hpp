// SPDX-License-Identifier: Apache-2.0
// Formats the limits and capabilities of a container as text and as JSON, for the commands that attach.
#pragma once

#include <postern/container.hpp>
#include <string>

#include "text/errors.hpp"

namespace postern::tool {

// "0x0-0x3fffffff (1 GiB)"
[[nodiscard]] std::string range_text(IovaRange range);

// "0x0-0xfedfffff (4 GiB), 0xfef00000-0x7fffffffff (508 GiB)"
[[nodiscard]] std::string ranges_text(const Container& container);

// The backend's properties beyond the common limits, one per line; with EEH, also the device's state.
[[nodiscard]] Container::Properties properties_of(Container& container);

// "at most 65,535", "as many as memory allows"
[[nodiscard]] std::string mapping_limit_text(const Container& container);

// {"usable_ranges": [{"first", "last"}], "page_sizes", "mapping_limit", "facts": {...}, "dma_windows", "eeh"}: the last
// two are null if the container lacks them.
[[nodiscard]] Json limits_json(Container& container);

}  // namespace postern::tool
