// SPDX-License-Identifier: Apache-2.0
// What CMake generates into backend_table.cpp beside backends() and known_backends().
#pragma once

#include <span>
#include <string_view>

namespace postern {

// The known backends whose interface kernels have that are built for POWER, or for other processors.
[[nodiscard]] std::span<const std::string_view> backends_for(bool power) noexcept;

}  // namespace postern
