// SPDX-License-Identifier: Apache-2.0
// Arguments and buffers at invalid or read-only addresses.
#include <linux/vfio.h>

#include <vector>

#include "transcript/operations.hpp"
#include "transcript/text.hpp"

namespace postern::transcript {
namespace {

constexpr std::uint64_t page = 4096;

// An unmapped or inaccessible address; the last four bytes before unmapped memory; or read-only memory, which is filled
// with 0x5a.
std::uint64_t some_pointer(World& world) {
  return world.random.pick<std::uint64_t>({0, Memory::start + Memory::hole + page, Memory::start + Memory::no_access,
                                           std::uint64_t{1} << 63, Memory::start + Memory::end - 4,
                                           Memory::start + Memory::read_only + 8 * page,
                                           Memory::start + Memory::read_only + 8 * page});
}

std::string call(World& world, const Place& place, unsigned long request) {
  const std::uint64_t pointer = some_pointer(world);
  const int result = world.kernel.ioctl(place.fd, request, reinterpret_cast<void*>(pointer));
  return fmt::format("{} ioctl {:#x} of {} -> {}", place.name, request & 0xffff, address(pointer), outcome(result));
}

std::string ask_container(World& world) {
  const unsigned long first =
      world.random.pick<unsigned long>({VFIO_IOMMU_GET_INFO, VFIO_IOMMU_MAP_DMA, VFIO_IOMMU_UNMAP_DMA});
  // The number of the first is also that of VFIO_IOMMU_DIRTY_PAGES.
  const unsigned long second =
      world.random.pick<unsigned long>({VFIO_IOMMU_SPAPR_REGISTER_MEMORY, VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY,
                                        VFIO_IOMMU_SPAPR_TCE_CREATE, VFIO_IOMMU_SPAPR_TCE_REMOVE, VFIO_EEH_PE_OP});
  const bool is_first = world.random.chance(60);
  const Place& container = world.usable_one(world.containers);
  return call(world, container, is_first ? first : second);
}

std::string ask_group(World& world) {
  const Place& group = world.open_one(world.groups);
  const auto request =
      world.random.pick<unsigned long>({VFIO_GROUP_GET_STATUS, VFIO_GROUP_SET_CONTAINER, VFIO_GROUP_GET_DEVICE_FD});
  return call(world, group, request);
}

std::string ask_device(World& world) {
  const Place& device = any_device(world);
  const auto request = world.random.pick<unsigned long>(
      {VFIO_DEVICE_GET_INFO, VFIO_DEVICE_GET_REGION_INFO, VFIO_DEVICE_GET_IRQ_INFO, VFIO_DEVICE_SET_IRQS,
       VFIO_DEVICE_IOEVENTFD, VFIO_DEVICE_FEATURE, VFIO_DEVICE_BIND_IOMMUFD, VFIO_DEVICE_ATTACH_IOMMUFD_PT,
       VFIO_DEVICE_DETACH_IOMMUFD_PT});
  return call(world, device, request);
}

// Accesses config space, and the MSI-X table, where writes have no effect.
std::string read_or_write(World& world) {
  const Place& device = any_device(world);
  const std::uint64_t offset = world.random.pick<std::uint64_t>(
      {std::uint64_t{VFIO_PCI_CONFIG_REGION_INDEX} << 40, (std::uint64_t{VFIO_PCI_CONFIG_REGION_INDEX} << 40) + 4096,
       0x2000, 0x2000, 0x100000, std::uint64_t{VFIO_PCI_BAR1_REGION_INDEX} << 40});
  const std::size_t length = world.random.pick<std::size_t>({0, 1, 4, 8});
  const std::uint64_t pointer = some_pointer(world);
  auto* const buffer = reinterpret_cast<void*>(pointer);
  const bool reads = world.random.chance(50);
  const ssize_t result = reads ? world.kernel.pread(device.fd, buffer, length, offset)
                               : world.kernel.pwrite(device.fd, buffer, length, offset);
  return fmt::format("{} {} at {:#x} length {} of {} -> {}", device.name, reads ? "reads" : "writes", offset, length,
                     address(pointer), outcome(result));
}

bool has_container(const World& world) { return World::has_usable(world.containers); }
bool has_group(const World& world) { return World::has_open(world.groups); }

constexpr Operation operations[] = {
    {ask_container, 12, 1, has_container},
    {ask_group, 6, 2, has_group},
    {ask_device, 10, 12, has_device},
    {read_or_write, 6, 6, has_device},
};

}  // namespace

std::span<const Operation> pointer_operations() { return operations; }

}  // namespace postern::transcript
