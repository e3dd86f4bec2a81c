// SPDX-License-Identifier: Apache-2.0
// Replaying what one container maps into another, for a device that cannot share the first.
#pragma once

#include <postern/container.hpp>
#include <postern/result.hpp>

namespace postern {

// DMA windows first, where both have them: what lies in one must find it at the same address. On an error part of it is
// mapped; the container is to be let go then.
[[nodiscard]] Result<void> replay(Container& from, Container& to);

}  // namespace postern
