// SPDX-License-Identifier: Apache-2.0
// Variant: what a function's own VFIO driver has beyond vfio-pci, while the function is open.
#pragma once

#include "sim/migration/dma_log.hpp"
#include "sim/migration/migration.hpp"

namespace postern::sim {

struct Variant {
  Variant(Migratable& hardware, Process& process) : migration(hardware, process) {}

  Migration migration;
  DmaLog log = {};
};

}  // namespace postern::sim
