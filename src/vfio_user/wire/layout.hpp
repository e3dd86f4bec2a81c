// SPDX-License-Identifier: Apache-2.0
// The messages of vfio-user as they are on the socket: a header, and the start of each command's body. Numbers are in
// the host's byte order. Flags that equal those of linux/vfio.h have no names here.
#pragma once

#include <cstdint>

namespace postern::vfio_user {

enum class Command : std::uint16_t {
  version = 1,
  dma_map = 2,
  dma_unmap = 3,
  device_get_info = 4,
  device_get_region_info = 5,
  device_get_region_io_fds = 6,
  device_get_irq_info = 7,
  device_set_irqs = 8,
  region_read = 9,
  region_write = 10,
  dma_read = 11,   // from server to client
  dma_write = 12,  // from server to client
  device_reset = 13,
  region_write_multi = 15,
  device_feature = 16,
  mig_data_read = 17,
  mig_data_write = 18,
};

struct Header {
  std::uint16_t id;  // chosen by the sender; the reply has the same
  std::uint16_t command;
  std::uint32_t size;   // bytes, with this header
  std::uint32_t flags;  // below
  std::uint32_t error;  // an errno, with flag_error
};
static_assert(sizeof(Header) == 16);

constexpr std::uint32_t type_mask = 0xf;
constexpr std::uint32_t type_command = 0;
constexpr std::uint32_t type_reply = 1;
constexpr std::uint32_t flag_no_reply = 1U << 4;
constexpr std::uint32_t flag_error = 1U << 5;

// DMA_MAP. argsz is the size of the request, here and in SET_IRQS; elsewhere that of the longest reply.
struct DmaMapBody {
  std::uint32_t argsz;
  std::uint32_t flags;   // 1: devices may read, 2: write
  std::uint64_t offset;  // in the file
  std::uint64_t iova;
  std::uint64_t size;
};
static_assert(sizeof(DmaMapBody) == 32);

struct DmaUnmapBody {
  std::uint32_t argsz;
  std::uint32_t flags;
  std::uint64_t iova;
  std::uint64_t size;
};
static_assert(sizeof(DmaUnmapBody) == 24);
constexpr std::uint32_t unmap_all = 2;

struct DeviceInfoBody {
  std::uint32_t argsz;
  std::uint32_t flags;
  std::uint32_t num_regions;
  std::uint32_t num_irqs;
};
static_assert(sizeof(DeviceInfoBody) == 16);

struct RegionInfoBody {
  std::uint32_t argsz;
  std::uint32_t flags;
  std::uint32_t index;
  std::uint32_t cap_offset;
  std::uint64_t size;
  std::uint64_t offset;  // in the file that comes with the reply
};
static_assert(sizeof(RegionInfoBody) == 32);

struct RegionIoFdsBody {
  std::uint32_t argsz;
  std::uint32_t flags;
  std::uint32_t index;
  std::uint32_t count;
};
static_assert(sizeof(RegionIoFdsBody) == 16);

struct IrqInfoBody {
  std::uint32_t argsz;
  std::uint32_t flags;
  std::uint32_t index;
  std::uint32_t count;
};
static_assert(sizeof(IrqInfoBody) == 16);

struct IrqSetBody {
  std::uint32_t argsz;
  std::uint32_t flags;
  std::uint32_t index;
  std::uint32_t start;
  std::uint32_t count;
};
static_assert(sizeof(IrqSetBody) == 20);

// REGION_READ and REGION_WRITE, and their replies.
struct RegionAccessBody {
  std::uint64_t offset;
  std::uint32_t region;
  std::uint32_t count;
};
static_assert(sizeof(RegionAccessBody) == 16);

// One write of REGION_WRITE_MULTI, which begins with their number.
struct RegionWriteBody {
  RegionAccessBody access;
  std::uint8_t data[8];
};
static_assert(sizeof(RegionWriteBody) == 24);

// DMA_READ and DMA_WRITE, and their replies.
struct DmaAccessBody {
  std::uint64_t address;
  std::uint64_t count;
};
static_assert(sizeof(DmaAccessBody) == 16);

struct FeatureBody {
  std::uint32_t argsz;
  std::uint32_t flags;
};
static_assert(sizeof(FeatureBody) == 8);

struct MigDataBody {
  std::uint32_t argsz;
  std::uint32_t size;
};
static_assert(sizeof(MigDataBody) == 8);

}  // namespace postern::vfio_user
