// SPDX-License-Identifier: Apache-2.0
// The conditions that backends bring with them, each by its own list: what they need, and whether they can be used.
#pragma once

#include <postern/backend.hpp>
#include <span>
#include <string_view>
#include <vector>

#include "host/conditions.hpp"

namespace postern::tool {

// A backend, and what was found of what it needs.
struct Examined {
  const Backend* backend;
  bool suits;  // kernels for this host's processor have its interface, or the processor is unknown
  std::vector<RequirementState> requirements;
};

// Those of this build, first those that suit. `device`: null for any.
[[nodiscard]] std::vector<Examined> examine_backends(Kernel& kernel, const HostDevice* device);

// What the backends need of the host, or of the device: adds a condition for each that none of `conditions` is about.
void add_requirements(Kernel& kernel, std::span<const Examined> examined, bool of_device,
                      std::vector<Condition>& conditions);

// Adds whether each backend can be used; and where none of this build suits, those that do. Then one way is enough:
// what only the others need is no longer a fault. `place` is a part of the diagnosis.
void add_backends(Kernel& kernel, std::span<const Examined> examined, std::vector<Condition>& place,
                  Diagnosis& diagnosis);

}  // namespace postern::tool
