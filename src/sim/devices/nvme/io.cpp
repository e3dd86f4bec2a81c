// SPDX-License-Identifier: Apache-2.0
// NvmeController: I/O commands (NVM Express 1.4, section 6).
#include <vector>

#include "sim/devices/nvme/controller.hpp"
#include "sim/devices/nvme/prp.hpp"

namespace postern::sim {

using nvm::Command;
using nvm::IoOpcode;
using nvm::Outcome;
using nvm::Status;

Outcome NvmeController::run_io(const Command& command) {
  constexpr std::size_t block_size = NvmeDisk::block_size;
  const auto opcode = static_cast<IoOpcode>(command.opcode);
  if (opcode != IoOpcode::flush && opcode != IoOpcode::write && opcode != IoOpcode::read) return Status::invalid_opcode;
  if (!command.is_plain()) return Status::invalid_field;
  if (command.nsid != 1) return Status::invalid_namespace;
  if (opcode == IoOpcode::flush) return Status::success;  // written data is already on the disk

  const std::uint64_t first = std::uint64_t{command.dword11} << 32 | command.dword10;
  const std::uint64_t count = (command.dword12 & 0xffff) + 1;
  if (count * block_size > smallest_page << transfer_shift) return Status::invalid_field;
  if (count > disk_.blocks() || first > disk_.blocks() - count) return Status::lba_out_of_range;

  std::vector<std::byte> data(count * block_size);
  const auto block = [&](std::uint64_t i) { return std::span(data).subspan(i * block_size).first<block_size>(); };
  std::vector<NvmePiece> pieces;
  const Status found = find_pieces(*slot_, command, data.size(), page_size_, pieces);
  if (found != Status::success) return found;
  if (opcode == IoOpcode::read) {
    for (std::uint64_t i = 0; i < count; ++i) disk_.read(first + i, block(i));
    send(*slot_, pieces, data);
    return Status::success;
  }
  // All or nothing: no block is written if some data does not arrive.
  if (!fetch(*slot_, pieces, data)) return Status::data_transfer_error;
  for (std::uint64_t i = 0; i < count; ++i) disk_.write(first + i, block(i));
  return Status::success;
}

}  // namespace postern::sim
