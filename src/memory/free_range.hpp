// SPDX-License-Identifier: Apache-2.0
// find_free_range(): finds unmapped iovas in the shadow map. Makes no system calls.
#pragma once

#include <cstdint>
#include <optional>
#include <postern/iova.hpp>
#include <span>

#include "memory/shadow_map.hpp"

namespace postern {

struct FreeRangeRequest {
  std::uint64_t length = 0;
  std::uint64_t page_sizes = 0;  // bitmap; the smallest page must divide `length`
  IovaRange within{};            // no iova outside of it is returned
};

// Returns the start of a free range, aligned to the largest page size not above its length, or to a smaller one if no
// free range allows that. Never 0. Searches from `hint` first, and moves it behind what it returns, so that one search
// after another takes O(log n).
[[nodiscard]] std::optional<Iova> find_free_range(const ShadowMap& mappings, std::span<const IovaRange> usable,
                                                  const FreeRangeRequest& request, Iova& hint);

}  // namespace postern
