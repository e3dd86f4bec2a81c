// SPDX-License-Identifier: Apache-2.0
// Variant: data of a function's variant driver beyond vfio-pci's, while the function is open.
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
