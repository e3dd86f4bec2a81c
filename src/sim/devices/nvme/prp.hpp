// SPDX-License-Identifier: Apache-2.0
// Physical region pages: the data of a command (NVM Express 1.4, section 4.3).
#pragma once

#include <cstddef>
#include <cstdint>
#include <postern/iova.hpp>
#include <span>
#include <vector>

#include "sim/devices/hardware.hpp"
#include "sim/devices/nvme/spec.hpp"

namespace postern::sim {

// One page of the data, or part of one.
struct NvmePiece {
  Iova iova;
  std::size_t length = 0;
};

// Returns the pieces of `length` bytes, which is not 0, in pages of `page_size` bytes. Reads PRP lists by DMA.
[[nodiscard]] nvm::Status find_pieces(Slot& slot, const nvm::Command& command, std::size_t length,
                                      std::uint64_t page_size, std::vector<NvmePiece>& pieces);

// The data has the total length of the pieces. send() cannot fail: a device does not know whether its write arrived,
// since writes on PCI Express are posted. So a read whose data the IOMMU blocks succeeds, on QEMU's controller and on
// most others, and the data is lost.
void send(Slot& slot, std::span<const NvmePiece> pieces, std::span<const std::byte> data);
// Returns false if the IOMMU blocks the read, which the device sees.
[[nodiscard]] bool fetch(Slot& slot, std::span<const NvmePiece> pieces, std::span<std::byte> data);

}  // namespace postern::sim
