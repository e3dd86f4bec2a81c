// SPDX-License-Identifier: Apache-2.0
// try_dma_buf(): whether a dma-buf can be mapped now.
#pragma once

#include <postern/container.hpp>

namespace postern {

// Maps a page of it at a free iova, and unmaps that: an error if it is revoked.
[[nodiscard]] Result<void> try_dma_buf(Container& container, const Mapping& mapping);

}  // namespace postern
