// SPDX-License-Identifier: Apache-2.0
// Requests of vfio-user, read from messages. No I/O, and no state: every sequence of bytes is a request or an errno.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <tl/expected.hpp>
#include <variant>
#include <vector>

#include "vfio_user/wire/layout.hpp"

namespace postern::vfio_user {

constexpr std::uint32_t longest_transfer = 1 << 20;  // of data, bytes: max_data_xfer_size
constexpr std::uint32_t longest_message = sizeof(Header) + sizeof(RegionAccessBody) + longest_transfer;
constexpr std::size_t longest_version = 4096;  // of the body of VERSION, bytes
constexpr std::size_t most_fds = 16;           // of a message: max_msg_fds
constexpr std::size_t most_writes = 256;       // of a REGION_WRITE_MULTI; QEMU sends 200 at most

// Spans and texts are parts of the message's body.
struct Version {
  std::uint16_t major;
  std::uint16_t minor;
  std::string_view json;  // empty: none was sent
};
struct DmaMap {
  DmaMapBody body;  // not empty; neither iovas nor offsets wrap
};
struct DmaUnmap {
  DmaUnmapBody body;  // not empty, unless all is unmapped
  [[nodiscard]] bool is_all() const noexcept { return body.flags == unmap_all; }
};
struct DeviceGetInfo {
  DeviceInfoBody body;
};
struct DeviceGetRegionInfo {
  RegionInfoBody body;
};
struct DeviceGetRegionIoFds {
  RegionIoFdsBody body;
};
struct DeviceGetIrqInfo {
  IrqInfoBody body;
};
enum class IrqData : std::uint8_t { none, boolean, eventfd };
enum class IrqAction : std::uint8_t { mask, unmask, trigger };
struct DeviceSetIrqs {
  IrqSetBody body;  // start + count does not wrap
  IrqData data;
  IrqAction action;
  std::span<const std::byte> booleans;  // as many as count, with IrqData::boolean
};
struct RegionRead {
  RegionAccessBody body;  // 1 to longest_transfer bytes; the offset does not wrap
};
struct RegionWrite {
  RegionAccessBody body;  // as above
  std::span<const std::byte> data;
};
struct DeviceReset {};
struct RegionWriteMulti {
  std::vector<RegionWriteBody> writes;  // 1 to most_writes, each of 1 to 8 bytes
};
struct DeviceFeature {
  FeatureBody body;
  std::span<const std::byte> data;
};
struct MigDataRead {
  MigDataBody body;
};
struct MigDataWrite {
  std::span<const std::byte> data;
};
struct DmaRead {
  DmaAccessBody body;  // as RegionRead
};
struct DmaWrite {
  DmaAccessBody body;
  std::span<const std::byte> data;
};

using Request = std::variant<Version, DmaMap, DmaUnmap, DeviceGetInfo, DeviceGetRegionInfo, DeviceGetRegionIoFds,
                             DeviceGetIrqInfo, DeviceSetIrqs, RegionRead, RegionWrite, DmaRead, DmaWrite, DeviceReset,
                             RegionWriteMulti, DeviceFeature, MigDataRead, MigDataWrite>;

// Whether the bytes after this header can be told from the next message: if not, the connection is lost.
[[nodiscard]] bool has_usable_size(const Header& header) noexcept;

// Reads a request, whose body has header.size - sizeof(Header) bytes and came with `fds` descriptors. The error is an
// errno: EINVAL (malformed, an unknown command, a wrong number of descriptors, or not a command at all), EOPNOTSUPP
// (well-formed, but flags ask for what vfio-user has not).
[[nodiscard]] tl::expected<Request, int> parse_request(const Header& header, std::span<const std::byte> body,
                                                       std::size_t fds);

}  // namespace postern::vfio_user
