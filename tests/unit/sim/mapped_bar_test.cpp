// SPDX-License-Identifier: Apache-2.0
// A mapped BAR on the simulated kernel: it keeps its device open, and can be mapped for DMA by interfaces that accept
// memory without struct pages (Linux 7.3).
#include <gtest/gtest.h>
#include <linux/iommufd.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <sys/mman.h>

#include <cstring>
#include <postern-sim/kernel.hpp>
#include <postern/locked_memory.hpp>

namespace postern {
namespace mapped_bar_test {

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t bar_length = 4 * page;
constexpr std::uint64_t config = std::uint64_t{VFIO_PCI_CONFIG_REGION_INDEX} << 40;

// A disk on a host whose locked-memory limit a test can set.
class MappedBar : public ::testing::Test {
 protected:
  int open(const char* path) { return kernel_->open(path, 0); }
  void limit_memory(std::uint64_t limit) {
    sim::Host host = sim::pc();
    host.locked_memory = limit;
    kernel_.emplace(host);
  }

  // Opens the disk through its group, in a type1 container.
  void open_in_container() {
    container_ = open("/dev/vfio/vfio");
    group_ = open("/dev/vfio/1");
    ASSERT_EQ(kernel_->ioctl(group_, VFIO_GROUP_SET_CONTAINER, &container_), 0);
    ASSERT_EQ(kernel_->ioctl(container_, VFIO_SET_IOMMU, reinterpret_cast<void*>(VFIO_TYPE1v2_IOMMU)), 0);
    char name[] = "0000:00:01.0";
    device_ = kernel_->ioctl(group_, VFIO_GROUP_GET_DEVICE_FD, name);
    ASSERT_GE(device_, 0);
  }
  int unset_container() { return kernel_->ioctl(group_, VFIO_GROUP_UNSET_CONTAINER, nullptr); }

  // Binds its cdev to an iommufd.
  int bind(int cdev) {
    vfio_device_bind_iommufd bind{.argsz = sizeof bind, .iommufd = iommufd_};
    return kernel_->ioctl(cdev, VFIO_DEVICE_BIND_IOMMUFD, &bind);
  }
  void open_cdev() {
    iommufd_ = open("/dev/iommu");
    device_ = open(cdev_node);
    ASSERT_EQ(bind(device_), 0);
    iommu_ioas_alloc ioas{.size = sizeof ioas};
    ASSERT_EQ(kernel_->ioctl(iommufd_, IOMMU_IOAS_ALLOC, &ioas), 0);
    ioas_ = ioas.out_ioas_id;
  }
  int attach() {
    vfio_device_attach_iommufd_pt attach{.argsz = sizeof attach, .flags = 0, .pt_id = ioas_};
    return kernel_->ioctl(device_, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach);
  }

  std::byte* map_bar(void* at = nullptr, std::uint64_t length = bar_length) {
    const int fixed = at != nullptr ? MAP_FIXED : 0;
    const std::intptr_t mapped = kernel_->mmap(at, length, PROT_READ | PROT_WRITE, MAP_SHARED | fixed, device_, 0);
    EXPECT_FALSE(is_errno(mapped));
    return reinterpret_cast<std::byte*>(mapped);
  }
  int unmap(std::byte* address, std::uint64_t length) { return kernel_->munmap(address, length); }
  std::byte* map_memory(std::uint64_t length, void* at = nullptr) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | (at != nullptr ? MAP_FIXED : 0);
    return reinterpret_cast<std::byte*>(kernel_->mmap(at, length, PROT_READ | PROT_WRITE, flags, -1, 0));
  }

  int map_for_dma(const std::byte* address, std::uint64_t length, std::uint64_t iova = 0x100000) {
    vfio_iommu_type1_dma_map map{.argsz = sizeof map,
                                 .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
                                 .vaddr = reinterpret_cast<std::uintptr_t>(address),
                                 .iova = iova,
                                 .size = length};
    return kernel_->ioctl(container_, VFIO_IOMMU_MAP_DMA, &map);
  }
  int unmap_from_dma(std::uint64_t length, std::uint64_t iova = 0x100000) {
    vfio_iommu_type1_dma_unmap unmap{};
    unmap.argsz = sizeof unmap;
    unmap.iova = iova;
    unmap.size = length;
    return kernel_->ioctl(container_, VFIO_IOMMU_UNMAP_DMA, &unmap);
  }
  int map_in_ioas(const std::byte* address, std::uint64_t length) {
    iommu_ioas_map map{.size = sizeof map,
                       .flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE,
                       .ioas_id = ioas_,
                       .__reserved = 0,
                       .user_va = reinterpret_cast<std::uintptr_t>(address),
                       .length = length,
                       .iova = 0x100000};
    return kernel_->ioctl(iommufd_, IOMMU_IOAS_MAP, &map);
  }
  [[nodiscard]] std::uint64_t locked() { return LockedMemory::read(*kernel_).value().locked; }
  void set_command(std::uint16_t command) {
    ASSERT_EQ(kernel_->pwrite(device_, &command, sizeof command, config + PCI_COMMAND), 2);
  }

  static constexpr const char* cdev_node = "/dev/vfio/devices/vfio0";
  std::optional<sim::Kernel> kernel_{std::in_place};
  int container_ = -1;
  int group_ = -1;
  int iommufd_ = -1;
  int device_ = -1;
  std::uint32_t ioas_ = 0;
};

TEST_F(MappedBar, KeepsADeviceOfAGroupOpen) {
  open_in_container();
  std::byte* const bar = map_bar();
  ASSERT_EQ(kernel_->close(device_), 0);
  EXPECT_EQ(unset_container(), -EBUSY);
  EXPECT_EQ(kernel_->close(device_), -EBADF) << "the fd is gone all the same";
  ASSERT_EQ(unmap(bar, bar_length), 0);
  EXPECT_EQ(unset_container(), 0);
}

TEST_F(MappedBar, KeepsADeviceOfACdevBound) {
  open_cdev();
  std::byte* const bar = map_bar();
  ASSERT_EQ(kernel_->close(device_), 0);
  EXPECT_EQ(open("/dev/vfio/1"), -EBUSY);
  const int again = open(cdev_node);
  ASSERT_GE(again, 0);
  EXPECT_EQ(bind(again), -EINVAL);
  ASSERT_EQ(unmap(bar, bar_length), 0);
  EXPECT_EQ(bind(again), 0);
}

TEST_F(MappedBar, KeepsItsDeviceOpenWithEachPieceOfItThatIsLeft) {
  open_in_container();
  std::byte* const bar = map_bar();
  ASSERT_EQ(kernel_->close(device_), 0);
  for (const std::uint64_t piece : {1, 0, 3}) {
    ASSERT_EQ(unmap(bar + piece * page, page), 0);
    EXPECT_EQ(unset_container(), -EBUSY) << piece;
  }
  ASSERT_EQ(unmap(bar + 2 * page, 1), 0) << "a page goes with its first byte";
  EXPECT_EQ(unset_container(), 0);
}

TEST_F(MappedBar, KeepsItsDeviceOpenWithEachMappingThereIs) {
  open_in_container();
  std::byte* const bar = map_bar();
  std::byte* const other = map_bar(nullptr, page / 2);  // rounded up to a page
  ASSERT_EQ(kernel_->close(device_), 0);
  ASSERT_EQ(unmap(bar, bar_length), 0);
  EXPECT_EQ(unset_container(), -EBUSY);
  ASSERT_EQ(unmap(other, page), 0);
  EXPECT_EQ(unset_container(), 0);
}

TEST_F(MappedBar, GoesWhenSomethingElseTakesItsPlace) {
  open_in_container();
  std::byte* const bar = map_bar();
  ASSERT_EQ(kernel_->close(device_), 0);
  EXPECT_EQ(map_memory(bar_length - page, bar), bar);
  EXPECT_EQ(unset_container(), -EBUSY);
  EXPECT_EQ(map_memory(bar_length, bar), bar);
  EXPECT_EQ(unset_container(), 0);
  EXPECT_EQ(unmap(bar, bar_length), 0);
}

TEST_F(MappedBar, DoesNotKeepADeviceWhoseFdIsOpen) {
  open_in_container();
  std::byte* const bar = map_bar();
  ASSERT_EQ(unmap(bar, bar_length), 0);
  EXPECT_EQ(unset_container(), -EBUSY);
  ASSERT_EQ(kernel_->close(device_), 0);
  EXPECT_EQ(unset_container(), 0);
}

// vaddr_get_pfns, vfio_pin_pages_remote: its pages are not pinned, so they do not count.
TEST_F(MappedBar, IsTakenByType1AndDoesNotCountAsLockedMemory) {
  limit_memory(2 * page);
  open_in_container();
  // With ordinary memory before and after it.
  std::byte* const memory = map_memory(bar_length + 2 * page);
  const std::byte* const bar = map_bar(memory + page);
  EXPECT_EQ(map_for_dma(bar, bar_length), 0);
  EXPECT_EQ(locked(), 0U);
  EXPECT_EQ(unmap_from_dma(bar_length), 0);
  EXPECT_EQ(map_for_dma(memory, bar_length + 2 * page), 0);
  EXPECT_EQ(locked(), 2 * page);
  EXPECT_EQ(unmap_from_dma(bar_length + 2 * page), 0);
  EXPECT_EQ(locked(), 0U);
  ASSERT_EQ(unmap(memory, bar_length + 2 * page), 0);
}

// vfio_pci_vmf_insert_pfn raises SIGBUS, for which follow_fault_pfn returns EFAULT.
TEST_F(MappedBar, CannotBeMappedForDmaWhileItsMemoryIsOff) {
  open_in_container();
  std::byte* const bar = map_bar();
  set_command(0);
  EXPECT_EQ(map_for_dma(bar, page), -EFAULT);
  set_command(PCI_COMMAND_MEMORY);
  EXPECT_EQ(map_for_dma(bar, page), 0);
  set_command(0);
  EXPECT_EQ(map_for_dma(bar + page, page, 0x200000), -EFAULT);
  EXPECT_EQ(unmap_from_dma(page), 0) << "what is mapped stays so";
  ASSERT_EQ(unmap(bar, bar_length), 0);
}

TEST_F(MappedBar, CannotBeMappedForDmaInLowPower) {
  open_in_container();
  std::byte* const bar = map_bar();
  const auto set = [&](std::uint32_t feature) {
    vfio_device_feature request{.argsz = sizeof request, .flags = VFIO_DEVICE_FEATURE_SET | feature};
    return kernel_->ioctl(device_, VFIO_DEVICE_FEATURE, &request);
  };
  ASSERT_EQ(set(VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY), 0);
  EXPECT_EQ(map_for_dma(bar, page), -EFAULT);
  ASSERT_EQ(set(VFIO_DEVICE_FEATURE_LOW_POWER_EXIT), 0);
  EXPECT_EQ(map_for_dma(bar, page), 0);
  ASSERT_EQ(unmap(bar, bar_length), 0);
}

// vma_permits_fault
TEST_F(MappedBar, ThatMayOnlyBeReadIsTakenForNothingElse) {
  open_in_container();
  std::byte* const bar = map_bar();
  ASSERT_EQ(::mprotect(bar, bar_length, PROT_READ), 0);
  EXPECT_EQ(map_for_dma(bar, page), -EFAULT);
  ASSERT_EQ(unmap(bar, bar_length), 0);
}

// check_vma_flags: an IOAS with a page table pins pages, which a BAR does not have.
TEST_F(MappedBar, IsRefusedByAnIoasAsSoonAsItHasAPageTable) {
  open_cdev();
  std::byte* const bar = map_bar();
  ASSERT_EQ(map_in_ioas(bar, bar_length), 0);
  EXPECT_EQ(attach(), -EFAULT);
  iommu_ioas_unmap unmap_all{.size = sizeof unmap_all, .ioas_id = ioas_, .iova = 0, .length = ~std::uint64_t{0}};
  ASSERT_EQ(kernel_->ioctl(iommufd_, IOMMU_IOAS_UNMAP, &unmap_all), 0);
  ASSERT_EQ(attach(), 0);
  EXPECT_EQ(map_in_ioas(bar, bar_length), -EFAULT);
  ASSERT_EQ(unmap(bar, bar_length), 0);
}

// The argument of a call may be in a mapped BAR.
TEST_F(MappedBar, HoldsAnArgumentAsOtherMemoryDoesUnlessItsMemoryIsOff) {
  open_in_container();
  std::byte* const bar = map_bar();
  const vfio_group_status wanted{.argsz = sizeof wanted, .flags = 0};
  std::memcpy(bar + 3 * page, &wanted, sizeof wanted);
  EXPECT_EQ(kernel_->ioctl(group_, VFIO_GROUP_GET_STATUS, bar + 3 * page), 0);
  set_command(0);
  EXPECT_EQ(kernel_->ioctl(group_, VFIO_GROUP_GET_STATUS, bar + 3 * page), -EFAULT);
  ASSERT_EQ(unmap(bar, bar_length), 0);
}

TEST_F(MappedBar, GoesWithTheKernelItIsOf) {
  open_in_container();
  std::byte* const bar = map_bar();
  ASSERT_EQ(kernel_->close(device_), 0);
  kernel_.reset();
  EXPECT_EQ(::munmap(bar, bar_length), 0);
}

}  // namespace mapped_bar_test
}  // namespace postern
