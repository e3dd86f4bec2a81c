// SPDX-License-Identifier: Apache-2.0
// Formats what an open device reports: regions, interrupts, capabilities, features.
#pragma once

#include <optional>
#include <postern/pci_device.hpp>
#include <string>

#include "text/errors.hpp"
#include "text/terminal.hpp"

namespace postern::tool {

// Sections, each a heading and a table.
[[nodiscard]] std::string opened_text(const PciDevice& device, const Terminal& terminal);

// {"regions", "interrupts", "capabilities", "features", "can_reset"}
[[nodiscard]] Json opened_json(const PciDevice& device);

}  // namespace postern::tool
