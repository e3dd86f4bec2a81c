// SPDX-License-Identifier: Apache-2.0
// SpaprRig: a simulated POWER host with its disks bound to vfio-pci, and helpers for a container's calls.
#pragma once

#include <gtest/gtest.h>
#include <linux/vfio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <postern-sim/kernel.hpp>
#include <postern/locked_memory.hpp>
#include <string>

namespace postern::sim::spapr_test {

inline constexpr std::uint64_t kib = 1024;
inline constexpr std::uint64_t mib = 1024 * kib;
inline constexpr std::uint64_t gib = 1024 * mib;
inline constexpr std::uint64_t high = 0x800000000000000;  // start of the second window on both machines

// Ordinary memory, filled with zeros.
class Memory {
 public:
  explicit Memory(std::uint64_t length, int flags = 0)
      : length_(length),
        address_(::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0)) {}
  ~Memory() {
    if (is_there()) ::munmap(address_, length_);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  [[nodiscard]] bool is_there() const { return address_ != MAP_FAILED; }
  [[nodiscard]] std::uint64_t at(std::uint64_t offset = 0) const {
    return reinterpret_cast<std::uintptr_t>(address_) + offset;
  }
  [[nodiscard]] std::byte* data() const { return static_cast<std::byte*>(address_); }

 private:
  std::uint64_t length_;
  void* address_;
};

inline sim::Host host_of(sim::Platform platform, std::optional<std::uint64_t> limit = {}) {
  sim::Host host = platform == sim::Platform::pseries ? sim::pseries() : sim::powernv();
  for (sim::HostFunction& function : host.functions) {
    if (function.model == sim::HostFunction::Model::nvme) function.driver = "vfio-pci";
  }
  host.locked_memory = limit;
  return host;
}

// An open container.
class Handle {
 public:
  explicit Handle(Kernel& kernel) : kernel_(kernel), container_(kernel.open("/dev/vfio/vfio", 0)) {}
  ~Handle() {
    for (const int group : groups_) kernel_.close(group);
    kernel_.close(container_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  template <typename Argument>
  [[nodiscard]] int call(unsigned long request, Argument& argument) {
    return kernel_.ioctl(container_, request, &argument);
  }
  [[nodiscard]] int call(unsigned long request, std::uintptr_t value = 0) {
    return kernel_.ioctl(container_, request, reinterpret_cast<void*>(value));
  }
  [[nodiscard]] int join(int group) {
    const int fd = kernel_.open(("/dev/vfio/" + std::to_string(group)).c_str(), 0);
    if (fd < 0) return fd;
    groups_.push_back(fd);
    return kernel_.ioctl(fd, VFIO_GROUP_SET_CONTAINER, &container_);
  }
  [[nodiscard]] int leave(std::size_t which) {
    return kernel_.ioctl(groups_.at(which), VFIO_GROUP_UNSET_CONTAINER, nullptr);
  }
  [[nodiscard]] int group_fd(std::size_t which) const { return groups_.at(which); }

  [[nodiscard]] int set_iommu(int type) { return call(VFIO_SET_IOMMU, static_cast<std::uintptr_t>(type)); }
  [[nodiscard]] int enable() { return call(VFIO_IOMMU_ENABLE); }
  [[nodiscard]] int info(vfio_iommu_spapr_tce_info& info, std::uint32_t argsz = sizeof(vfio_iommu_spapr_tce_info)) {
    info.argsz = argsz;
    return call(VFIO_IOMMU_SPAPR_TCE_GET_INFO, info);
  }
  [[nodiscard]] int map(std::uint64_t iova, std::uint64_t address, std::uint64_t size,
                        std::uint32_t flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE) {
    vfio_iommu_type1_dma_map map{.argsz = sizeof map, .flags = flags, .vaddr = address, .iova = iova, .size = size};
    return call(VFIO_IOMMU_MAP_DMA, map);
  }
  [[nodiscard]] int unmap(std::uint64_t iova, std::uint64_t size, std::uint32_t flags = 0) {
    vfio_iommu_type1_dma_unmap unmap{};
    unmap.argsz = sizeof unmap;
    unmap.flags = flags;
    unmap.iova = iova;
    unmap.size = size;
    const int result = call(VFIO_IOMMU_UNMAP_DMA, unmap);
    EXPECT_EQ(unmap.size, size) << "it is never changed";
    return result;
  }
  [[nodiscard]] int add(std::uint64_t address, std::uint64_t size, std::uint32_t flags = 0) {
    vfio_iommu_spapr_register_memory memory{.argsz = sizeof memory, .flags = flags, .vaddr = address, .size = size};
    return call(VFIO_IOMMU_SPAPR_REGISTER_MEMORY, memory);
  }
  [[nodiscard]] int drop(std::uint64_t address, std::uint64_t size) {
    vfio_iommu_spapr_register_memory memory{.argsz = sizeof memory, .flags = 0, .vaddr = address, .size = size};
    return call(VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY, memory);
  }
  // Returns 0 and sets `start`, or returns a negated errno.
  [[nodiscard]] int create(std::uint32_t page_shift, std::uint64_t size, std::uint32_t levels = 1) {
    vfio_iommu_spapr_tce_create create{};
    create.argsz = sizeof create;
    create.page_shift = page_shift;
    create.window_size = size;
    create.levels = levels;
    const int result = call(VFIO_IOMMU_SPAPR_TCE_CREATE, create);
    start = create.start_addr;
    return result;
  }
  [[nodiscard]] int remove(std::uint64_t address) {
    vfio_iommu_spapr_tce_remove remove{.argsz = sizeof remove, .flags = 0, .start_addr = address};
    return call(VFIO_IOMMU_SPAPR_TCE_REMOVE, remove);
  }
  [[nodiscard]] int eeh(std::uint32_t operation, std::uint32_t flags = 0) {
    vfio_eeh_pe_op argument{};
    argument.argsz = sizeof argument;
    argument.flags = flags;
    argument.op = operation;
    return call(VFIO_EEH_PE_OP, argument);
  }

  std::uint64_t start = 0;  // of the last window created

 private:
  Kernel& kernel_;
  int container_;
  std::vector<int> groups_;
};

// A host, and a container with its group 0.
class SpaprRig : public ::testing::Test {
 protected:
  void begin(sim::Platform platform, int version, std::optional<std::uint64_t> limit = {}) {
    container.reset();
    kernel.emplace(host_of(platform, limit));
    container.emplace(*kernel);
    ASSERT_EQ(container->join(0), 0);
    if (version == 0) return;
    ASSERT_EQ(container->set_iommu(version == 1 ? VFIO_SPAPR_TCE_IOMMU : VFIO_SPAPR_TCE_v2_IOMMU), 0);
  }
  [[nodiscard]] std::uint64_t locked() { return LockedMemory::read(*kernel).value().locked; }

  std::optional<sim::Kernel> kernel;
  std::optional<Handle> container;
  const std::uint64_t page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
};

}  // namespace postern::sim::spapr_test
