// SPDX-License-Identifier: Apache-2.0
// Checks commands, and names them in errors.
#include "nvme/request.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <postern/format.hpp>

#include "nvme/admin.hpp"

namespace postern::nvme {
namespace {

// "Namespace is write protected", "attempted write to a read-only range".
constexpr bool is_write_protected(std::uint16_t status) {
  const int code = status & 0x7ff;
  return code == 0x020 || code == 0x182;
}

Remedies remedy_of(const Namespace& ns, std::uint16_t status) {
  switch (status & 0x7ff) {
    case 0x004:  // data transfer error
      return RemedyCode::map_for_direction;
    case 0x080:  // LBA out of range
      return fmt::format("the namespace has {} blocks", ns.blocks);
    default:
      return {};
  }
}

}  // namespace

std::string_view operation_of(Opcode opcode) noexcept {
  switch (opcode) {
    case Opcode::flush:
      return "NVMe Flush";
    case Opcode::write:
      return "NVMe Write";
    case Opcode::read:
      break;
  }
  return "NVMe Read";
}

std::string object_of(std::string_view device, const Namespace& ns, const Command& command) {
  if (command.opcode == Opcode::flush) return fmt::format("{} namespace {}", device, ns.id);
  if (command.count <= 1) return fmt::format("{} namespace {} block {}", device, ns.id, command.block);
  return fmt::format("{} namespace {} blocks {}-{}", device, ns.id, command.block, command.block + (command.count - 1));
}

Result<void> check_command(std::string_view device, const Namespace& ns, const Command& command,
                           std::uint64_t max_transfer) {
  const auto invalid = [&](std::string reason, std::string remedy) {
    return nvme_failure(EINVAL, operation_of(command.opcode), object_of(device, ns, command), std::move(reason),
                        std::move(remedy));
  };
  switch (command.opcode) {
    case Opcode::flush:
      return {};
    case Opcode::read:
    case Opcode::write:
      break;
    default:
      return invalid(fmt::format("opcode {:#04x} cannot be submitted", static_cast<unsigned>(command.opcode)), {});
  }
  const std::uint64_t bytes = std::uint64_t{command.count} * ns.block_size;
  if (bytes == 0) return invalid("the count of blocks is zero", {});
  if (bytes > max_transfer) {
    return invalid(fmt::format("{} in one command, but the controller transfers {} at most", size_text(bytes),
                               size_text(max_transfer)),
                   "split it");
  }
  if (command.data.value % 4 != 0)
    return invalid("the data's iova " + to_string(command.data) + " is not a multiple of 4", {});
  if (!IovaRange::from_length(command.data, bytes)) {
    return invalid("the data runs past the last iova, from " + to_string(command.data), {});
  }
  return {};
}

// Many controllers report success for DMA that an IOMMU has blocked.
Result<void> check_mapped(const Container& container, std::string_view device, const Namespace& ns,
                          const Command& command) {
  if (command.opcode == Opcode::flush) return {};
  const auto data = IovaRange::from_length(command.data, std::uint64_t{command.count} * ns.block_size);
  if (!data) return {};  // check_command() reports it
  const auto needed = static_cast<unsigned>(command.opcode == Opcode::read ? Access::write : Access::read);
  Iova next = data->first;
  for (auto mapping = container.find(next); mapping; mapping = container.find(next)) {
    if ((static_cast<unsigned>(mapping->access) & needed) == 0) break;
    if (mapping->range.last >= data->last) return {};
    next = mapping->range.last + 1;
  }
  return nvme_failure(
      EFAULT, operation_of(command.opcode), object_of(device, ns, command),
      fmt::format("the data is {}, but {} is not mapped for the device", to_string(*data), to_string(next)),
      RemedyCode::map_for_direction);
}

tl::unexpected<Error> status_failure(std::string_view device, const Namespace& ns, const Command& command,
                                     std::uint16_t status) {
  return nvme_failure(is_write_protected(status) ? EROFS : EIO, operation_of(command.opcode),
                      object_of(device, ns, command), status_text(status), remedy_of(ns, status));
}

}  // namespace postern::nvme
