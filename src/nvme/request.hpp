// SPDX-License-Identifier: Apache-2.0
// Checks a caller's command, and names it in errors.
#pragma once

#include <cstdint>
#include <postern-nvme/controller.hpp>
#include <postern/container.hpp>
#include <string>
#include <string_view>

namespace postern::nvme {

[[nodiscard]] std::string_view operation_of(Opcode opcode) noexcept;
[[nodiscard]] std::string object_of(std::string_view device, const Namespace& ns, const Command& command);

// Errors: EINVAL (another opcode, no data, more than `max_transfer` bytes, an iova that is unaligned or overflows).
[[nodiscard]] Result<void> check_command(std::string_view device, const Namespace& ns, const Command& command,
                                         std::uint64_t max_transfer);

// Whether the container maps the data for the direction of the command, in one mapping or several. Commands that
// check_command() refuses pass. Errors: EFAULT.
[[nodiscard]] Result<void> check_mapped(const Container& container, std::string_view device, const Namespace& ns,
                                        const Command& command);

// The error of a command that failed with this status: EROFS if it is write-protected, else EIO.
[[nodiscard]] tl::unexpected<Error> status_failure(std::string_view device, const Namespace& ns, const Command& command,
                                                   std::uint16_t status);

}  // namespace postern::nvme
