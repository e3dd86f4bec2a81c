// SPDX-License-Identifier: Apache-2.0
// A device's memory (a BAR) as memory for the DMA of other devices: peer to peer.
#pragma once

#include <cstdint>
#include <postern/device.hpp>
#include <postern/export.hpp>
#include <postern/iova.hpp>
#include <postern/memory.hpp>
#include <postern/result.hpp>

namespace postern {

// How to map a BAR for other devices depends on the backend:
// - iommufd takes a dma-buf: Container::map(iova, export_dma_buf(device, bar, offset, length)).
// - type1 takes the address: map the BAR (Device::map_region()), then Container::map(iova, bytes of that mapping). Keep
//   the mapping of the BAR until it is unmapped from the container.
// Neither counts as locked memory. When the device's memory stops answering, type1 keeps its mapping, but iommufd's is
// revoked: see remap_dma_bufs().

/// Exports part of a region, on PCI of a BAR, as a dma-buf, and returns all of it as memory, which Container::map() and
/// GuestMemory take. Memory::file() is its descriptor, for other users of dma-bufs. The memory does not keep the device
/// open. Offset and length are multiples of the host's page size. Each call makes another dma-buf. Thread safety: as
/// Device. Kernel: VFIO_DEVICE_FEATURE_DMA_BUF (Linux 6.19, CONFIG_PCI_P2PDMA), with one range, since iommufd maps no
/// dma-buf of several. Errors: EBADF (detached), ENODEV (no such region, or no BAR), EINVAL (empty or unaligned; or the
/// BAR has I/O ports), ERANGE or EOVERFLOW (past its end), ENOTTY (the kernel or device exports none), others of the
/// ioctl.
[[nodiscard]] POSTERN_API Result<Memory> export_dma_buf(const Device& device, std::uint32_t region,
                                                        std::uint64_t offset, std::uint64_t length);

/// Remaps the dma-bufs that overlap the range; a revoked mapping does not recover by itself. Call it when the memory of
/// their device answers again.
///
/// The kernel revokes all dma-bufs of a device when its memory stops answering: its memory decoding is turned off
/// (PCI_COMMAND_MEMORY), it enters D3hot or low power (low_power.hpp), is reset, or is closed. The kernel sends no
/// notification. DMA of other devices to the mapping faults from then on, even when the memory answers again. Until it
/// does, Container::map() of these dma-bufs fails with ENODEV. A device that was closed needs a new dma-buf: unmap the
/// old one.
///
/// DMA to a mapping that was not revoked faults for a moment. Before a mapping is touched, a page of its dma-buf is
/// mapped elsewhere: if that fails, this mapping and those behind it stay as they were. If the device's memory stops
/// answering during the call, the mapping may be gone. Query dirty pages before, if they matter. Thread safety: as
/// Container.
/// Errors: ENODEV (revoked still), ENOSPC (no iova is free for that page), those of Container::map() and unmap().
[[nodiscard]] POSTERN_API Result<void> remap_dma_bufs(Container& container,
                                                      IovaRange range = {{0}, {~std::uint64_t{0}}});

}  // namespace postern
