// SPDX-License-Identifier: Apache-2.0
// parse_request(): a function for each command.
#include "vfio_user/wire/request.hpp"

#include <linux/vfio.h>

#include <cerrno>
#include <cstring>
#include <limits>
#include <optional>
#include <type_traits>

namespace postern::vfio_user {
namespace {

using Parsed = tl::expected<Request, int>;
using Bytes = std::span<const std::byte>;

Parsed malformed() { return tl::unexpected(EINVAL); }

// The start of a body; nothing if it is shorter.
template <typename Body>
std::optional<Body> start_of(Bytes bytes) {
  if (bytes.size() < sizeof(Body)) return std::nullopt;
  Body body;
  std::memcpy(&body, bytes.data(), sizeof body);
  return body;
}

// A body that is nothing else. `argsz` counts at least as much.
template <typename Body>
std::optional<Body> whole(Bytes bytes) {
  const auto body = start_of<Body>(bytes);
  return body && bytes.size() == sizeof(Body) && body->argsz >= sizeof(Body) ? body : std::nullopt;
}

// A request that consists of its body.
template <typename Kind, typename Body>
Parsed parse_whole(Bytes bytes) {
  const auto body = whole<Body>(bytes);
  return body ? Parsed(Kind{*body}) : malformed();
}

// Whether first, first + 1, ... are numbers of 64 bits, and there are some.
bool is_range(std::uint64_t first, std::uint64_t count) {
  return count != 0 && count - 1 <= std::numeric_limits<std::uint64_t>::max() - first;
}

Parsed parse_version(Bytes bytes) {
  struct Numbers {
    std::uint16_t major;
    std::uint16_t minor;
  };
  const auto numbers = start_of<Numbers>(bytes);
  if (!numbers || bytes.size() > longest_version) return malformed();
  const Bytes text = bytes.subspan(sizeof(Numbers));
  std::string_view json(reinterpret_cast<const char*>(text.data()), text.size());
  if (!json.empty()) {
    if (json.find('\0') != json.size() - 1) return malformed();  // it ends with the only NUL
    json.remove_suffix(1);
  }
  return Version{.major = numbers->major, .minor = numbers->minor, .json = json};
}

Parsed parse_dma_map(Bytes bytes) {
  const auto body = whole<DmaMapBody>(bytes);
  constexpr std::uint32_t known = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
  if (!body || body->flags == 0 || (body->flags & ~known) != 0) return malformed();
  if (!is_range(body->iova, body->size) || !is_range(body->offset, body->size)) return malformed();
  return DmaMap{*body};
}

Parsed parse_dma_unmap(Bytes bytes) {
  const auto body = start_of<DmaUnmapBody>(bytes);
  if (!body || body->argsz < sizeof(DmaUnmapBody)) return malformed();
  if ((body->flags & VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP) != 0) return tl::unexpected(EOPNOTSUPP);
  if (bytes.size() != sizeof(DmaUnmapBody)) return malformed();
  if (body->flags == unmap_all) return body->iova == 0 && body->size == 0 ? Parsed(DmaUnmap{*body}) : malformed();
  return body->flags == 0 && is_range(body->iova, body->size) ? Parsed(DmaUnmap{*body}) : malformed();
}

std::optional<IrqData> data_of(std::uint32_t flags) {
  switch (flags & VFIO_IRQ_SET_DATA_TYPE_MASK) {
    case VFIO_IRQ_SET_DATA_NONE:
      return IrqData::none;
    case VFIO_IRQ_SET_DATA_BOOL:
      return IrqData::boolean;
    case VFIO_IRQ_SET_DATA_EVENTFD:
      return IrqData::eventfd;
    default:
      return std::nullopt;
  }
}

std::optional<IrqAction> action_of(std::uint32_t flags) {
  switch (flags & VFIO_IRQ_SET_ACTION_TYPE_MASK) {
    case VFIO_IRQ_SET_ACTION_MASK:
      return IrqAction::mask;
    case VFIO_IRQ_SET_ACTION_UNMASK:
      return IrqAction::unmask;
    case VFIO_IRQ_SET_ACTION_TRIGGER:
      return IrqAction::trigger;
    default:
      return std::nullopt;
  }
}

// Eventfds are as many as vectors, or none at all, which stands for vectors without an eventfd.
Parsed parse_set_irqs(Bytes bytes, std::size_t fds) {
  const auto body = start_of<IrqSetBody>(bytes);
  if (!body || body->argsz < sizeof(IrqSetBody)) return malformed();
  constexpr std::uint32_t known = VFIO_IRQ_SET_DATA_TYPE_MASK | VFIO_IRQ_SET_ACTION_TYPE_MASK;
  const auto data = data_of(body->flags);
  const auto action = action_of(body->flags);
  if (!data || !action || (body->flags & ~known) != 0) return malformed();
  if (body->count > std::numeric_limits<std::uint32_t>::max() - body->start) return malformed();
  if (body->count == 0 && (*data != IrqData::none || *action != IrqAction::trigger)) return malformed();
  const Bytes rest = bytes.subspan(sizeof(IrqSetBody));
  if (rest.size() != (*data == IrqData::boolean ? body->count : 0)) return malformed();
  if (fds != 0 && (*data != IrqData::eventfd || fds != body->count)) return malformed();
  return DeviceSetIrqs{.body = *body, .data = *data, .action = *action, .booleans = rest};
}

bool is_access(const RegionAccessBody& access, std::uint32_t longest) {
  return access.count <= longest && is_range(access.offset, access.count);
}

Parsed parse_region_read(Bytes bytes) {
  const auto body = start_of<RegionAccessBody>(bytes);
  if (!body || bytes.size() != sizeof(RegionAccessBody) || !is_access(*body, longest_transfer)) return malformed();
  return RegionRead{*body};
}

Parsed parse_region_write(Bytes bytes) {
  const auto body = start_of<RegionAccessBody>(bytes);
  if (!body || !is_access(*body, longest_transfer)) return malformed();
  const Bytes data = bytes.subspan(sizeof(RegionAccessBody));
  return data.size() == body->count ? Parsed(RegionWrite{.body = *body, .data = data}) : malformed();
}

Parsed parse_region_write_multi(Bytes bytes) {
  const auto count = start_of<std::uint64_t>(bytes);
  if (!count || *count == 0 || *count > most_writes) return malformed();
  const Bytes rest = bytes.subspan(sizeof(std::uint64_t));
  if (rest.size() % sizeof(RegionWriteBody) != 0 || rest.size() / sizeof(RegionWriteBody) != *count) return malformed();
  RegionWriteMulti multi;
  multi.writes.resize(*count);
  std::memcpy(multi.writes.data(), rest.data(), rest.size());
  for (const RegionWriteBody& write : multi.writes) {
    if (!is_access(write.access, sizeof write.data)) return malformed();
  }
  return multi;
}

template <typename Kind>
Parsed parse_dma_access(Bytes bytes) {
  const auto body = start_of<DmaAccessBody>(bytes);
  if (!body || body->count > longest_transfer || !is_range(body->address, body->count)) return malformed();
  const Bytes data = bytes.subspan(sizeof(DmaAccessBody));
  if constexpr (std::is_same_v<Kind, DmaWrite>) {
    return data.size() == body->count ? Parsed(DmaWrite{.body = *body, .data = data}) : malformed();
  } else {
    return data.empty() ? Parsed(Kind{*body}) : malformed();
  }
}

Parsed parse_feature(Bytes bytes) {
  const auto body = start_of<FeatureBody>(bytes);
  if (!body || body->argsz < sizeof(FeatureBody) || body->argsz > longest_transfer) return malformed();
  return DeviceFeature{.body = *body, .data = bytes.subspan(sizeof(FeatureBody))};
}

Parsed parse_mig_data_read(Bytes bytes) {
  const auto body = whole<MigDataBody>(bytes);
  return body && body->size <= longest_transfer ? Parsed(MigDataRead{*body}) : malformed();
}

Parsed parse_mig_data_write(Bytes bytes) {
  const auto body = start_of<MigDataBody>(bytes);
  if (!body || body->argsz < sizeof(MigDataBody)) return malformed();
  const Bytes data = bytes.subspan(sizeof(MigDataBody));
  return data.size() == body->size ? Parsed(MigDataWrite{data}) : malformed();
}

// How many descriptors a command may have.
std::size_t fds_of(Command command) {
  switch (command) {
    case Command::dma_map:
      return 1;
    case Command::device_set_irqs:
      return most_fds;
    default:
      return 0;
  }
}

}  // namespace

bool has_usable_size(const Header& header) noexcept {
  return header.size >= sizeof(Header) && header.size <= longest_message;
}

tl::expected<Request, int> parse_request(const Header& header, std::span<const std::byte> body, std::size_t fds) {
  if ((header.flags & ~flag_no_reply) != type_command) return malformed();
  const auto command = static_cast<Command>(header.command);
  if (fds > fds_of(command)) return malformed();
  switch (command) {
    case Command::version:
      return parse_version(body);
    case Command::dma_map:
      return parse_dma_map(body);
    case Command::dma_unmap:
      return parse_dma_unmap(body);
    case Command::device_get_info:
      return parse_whole<DeviceGetInfo, DeviceInfoBody>(body);
    case Command::device_get_region_info:
      return parse_whole<DeviceGetRegionInfo, RegionInfoBody>(body);
    case Command::device_get_region_io_fds:
      return parse_whole<DeviceGetRegionIoFds, RegionIoFdsBody>(body);
    case Command::device_get_irq_info:
      return parse_whole<DeviceGetIrqInfo, IrqInfoBody>(body);
    case Command::device_set_irqs:
      return parse_set_irqs(body, fds);
    case Command::region_read:
      return parse_region_read(body);
    case Command::region_write:
      return parse_region_write(body);
    case Command::dma_read:
      return parse_dma_access<DmaRead>(body);
    case Command::dma_write:
      return parse_dma_access<DmaWrite>(body);
    case Command::device_reset:
      return body.empty() ? Parsed(DeviceReset{}) : malformed();
    case Command::region_write_multi:
      return parse_region_write_multi(body);
    case Command::device_feature:
      return parse_feature(body);
    case Command::mig_data_read:
      return parse_mig_data_read(body);
    case Command::mig_data_write:
      return parse_mig_data_write(body);
  }
  return malformed();
}

}  // namespace postern::vfio_user
