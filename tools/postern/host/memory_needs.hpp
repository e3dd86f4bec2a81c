// SPDX-License-Identifier: Apache-2.0
// MemoryNeeds: what each backend would count as locked memory, against the limit of this process.
#pragma once

#include <cstdint>
#include <optional>
#include <postern/locked_memory_need.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace postern::tool {

struct Condition;  // host/conditions.hpp
struct Examined;   // host/backend_conditions.hpp

struct MemoryNeeds {
  std::optional<std::uint64_t> asked;            // bytes that are to be mapped; missing: none were named
  Result<LockedMemory> memory = LockedMemory();  // the limit, and what is in use
  std::vector<LockedMemoryNeed> needs = {};      // of the backends that suit, those first that can be used
  std::size_t usable = 0;                        // how many of the needs are of backends that can be used
  std::vector<Error> unknown = {};               // of backends whose need cannot be computed
};

[[nodiscard]] MemoryNeeds find_memory_needs(Kernel& kernel, std::span<const Examined> examined,
                                            std::span<const HostDevice> devices, std::optional<std::uint64_t> asked);

// Judges the need that is easiest to meet, of the backends that can be used or, if there is none, of all.
[[nodiscard]] Condition judge_memory(const MemoryNeeds& found);

// What to do where the limit is too low for a need; empty where it is not known to be.
[[nodiscard]] std::string remedy_of(const LockedMemoryNeed& need, const LockedMemory& memory);

// The names in JSON: "allowed", "uncertain", "refused"; "process", "user".
[[nodiscard]] std::string_view to_string(LockedMemoryVerdict verdict);
[[nodiscard]] std::string_view to_string(LockedMemoryCounter counter);

}  // namespace postern::tool
