// SPDX-License-Identifier: Apache-2.0
// Where the data of a command lies: physical region pages (NVM Express 1.4, section 4.3).
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

// Finds the pieces of `length` bytes, which is not 0, in pages of `page_size` bytes. Fetches PRP lists.
[[nodiscard]] nvm::Status find_pieces(Slot& slot, const nvm::Command& command, std::size_t length,
                                      std::uint64_t page_size, std::vector<NvmePiece>& pieces);

// The data is as long as the pieces are together. send() cannot fail: a device cannot tell whether what it wrote
// arrived, since writes on PCI Express are posted, and have no answer. So a read whose data the IOMMU blocks ends as a
// success, on QEMU's controller and on most others, and the bytes are dropped.
void send(Slot& slot, std::span<const NvmePiece> pieces, std::span<const std::byte> data);
// A read has an answer: false where the IOMMU blocks one.
[[nodiscard]] bool fetch(Slot& slot, std::span<const NvmePiece> pieces, std::span<std::byte> data);

}  // namespace postern::sim
