// SPDX-License-Identifier: Apache-2.0
// DmaLog: marks written pages.
#include "sim/migration/dma_log.hpp"

#include <algorithm>

namespace postern::sim {

void DmaLog::mark(Iova iova, std::uint64_t length) {
  if (length == 0) return;
  const IovaRange written{iova, iova + (length - 1)};
  for (const IovaRange logged : ranges_) {
    if (!logged.overlaps(written)) continue;
    const std::uint64_t last = std::min(logged.last, written.last).value;
    std::uint64_t page = std::max(logged.first, written.first).value & ~(page_size - 1);
    for (; page <= last; page += page_size) pages_.insert(page);
  }
}

}  // namespace postern::sim
