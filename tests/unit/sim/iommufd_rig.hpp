// SPDX-License-Identifier: Apache-2.0
// SimulatedIommufd: an open simulated /dev/iommu, memory to map, and helpers for its ioctls.
#pragma once

#include <gmock/gmock.h>
#include <linux/iommufd.h>
#include <sys/mman.h>

#include <array>
#include <memory>
#include <utility>
#include <vector>

#include "sim/iommufd/iommufd.hpp"

namespace postern::sim::iommufd_test {

inline constexpr std::uint64_t page = 4096;
inline constexpr std::uint64_t most = ~std::uint64_t{0};
inline constexpr std::uint64_t msi = 0xfee00000;
inline constexpr std::uint32_t any = IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE;
inline constexpr std::uint32_t fixed = any | IOMMU_IOAS_MAP_FIXED_IOVA;
inline constexpr std::uint32_t read_only = IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_FIXED_IOVA;

class SimulatedIommufd : public ::testing::Test {
 protected:
  static constexpr std::uint64_t pages = 64;  // followed by as many read-only and as many inaccessible ones

  SimulatedIommufd() {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    memory_ = reinterpret_cast<std::uint64_t>(::mmap(nullptr, 3 * pages * page, PROT_READ | PROT_WRITE, flags, -1, 0));
    for (std::byte* to : {at(pages), at(2 * pages) - 8})
      *reinterpret_cast<std::uint32_t*>(to) = sizeof(iommu_ioas_alloc);
    ::mprotect(at(pages), pages * page, PROT_READ);
    ::mprotect(at(2 * pages), pages * page, PROT_NONE);
  }
  ~SimulatedIommufd() override {
    for (const auto& device : devices_) iommufd_->unbind(*device);
    iommufd_.reset();
    EXPECT_EQ(process_.pinned(), 0);
    ::munmap(at(0), 3 * pages * page);
  }

  [[nodiscard]] std::byte* at(std::uint64_t number) const {
    return reinterpret_cast<std::byte*>(memory_ + number * page);
  }
  [[nodiscard]] std::uint64_t va(std::uint64_t number) const { return memory_ + number * page; }
  [[nodiscard]] std::uint64_t pinned() const { return process_.pinned() / page; }

  template <typename Command>
  int call(unsigned long request, Command& command) {
    command.size = sizeof command;
    return iommufd_->ioctl(request, &command);
  }
  std::uint32_t ioas() {
    iommu_ioas_alloc command{};
    EXPECT_EQ(call(IOMMU_IOAS_ALLOC, command), 0);
    return command.out_ioas_id;
  }
  int destroy(std::uint32_t id) {
    iommu_destroy command{0, id};
    return call(IOMMU_DESTROY, command);
  }
  int map(std::uint32_t ioas, std::uint64_t va, std::uint64_t length, std::uint64_t iova, std::uint32_t flags = fixed) {
    iommu_ioas_map command{0, flags, ioas, 0, va, length, iova};
    const int result = call(IOMMU_IOAS_MAP, command);
    iova_ = command.iova;
    return result;
  }
  // Returns the iova; `most` if it fails.
  std::uint64_t map_anywhere(std::uint32_t ioas, std::uint64_t va, std::uint64_t length) {
    return map(ioas, va, length, 0, any) == 0 ? iova_ : most;
  }
  int unmap(std::uint32_t ioas, std::uint64_t iova, std::uint64_t length) {
    iommu_ioas_unmap command{0, ioas, iova, length};
    const int result = call(IOMMU_IOAS_UNMAP, command);
    length_ = command.length;
    return result;
  }
  int copy(std::uint32_t to, std::uint64_t iova, std::uint32_t from, std::uint64_t source, std::uint64_t length,
           std::uint32_t flags = fixed) {
    iommu_ioas_copy command{0, flags, to, from, length, iova, source};
    return call(IOMMU_IOAS_COPY, command);
  }
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges(std::uint32_t ioas) {
    std::array<iommu_iova_range, 8> room{};
    iommu_ioas_iova_ranges command{0, ioas, room.size(), 0, reinterpret_cast<std::uintptr_t>(room.data()), 0};
    EXPECT_EQ(call(IOMMU_IOAS_IOVA_RANGES, command), 0);
    alignment_ = command.out_iova_alignment;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> found;
    for (std::size_t i = 0; i < command.num_iovas; ++i) found.emplace_back(room[i].start, room[i].last);
    return found;
  }
  int allow(std::uint32_t ioas, std::vector<iommu_iova_range> list) {
    const auto size = static_cast<std::uint32_t>(list.size());
    iommu_ioas_allow_iovas command{0, ioas, size, 0, reinterpret_cast<std::uintptr_t>(list.data())};
    return call(IOMMU_IOAS_ALLOW_IOVAS, command);
  }
  int option(std::uint32_t number, std::uint16_t op, std::uint32_t object, std::uint64_t value = 0) {
    iommu_option command{0, number, op, 0, object, value};
    const int result = call(IOMMU_OPTION, command);
    value_ = command.val64;
    return result;
  }
  int hwpt(std::uint32_t device, std::uint32_t page_table, std::uint32_t flags = 0, std::uint32_t type = 0,
           std::uint32_t length = 0) {
    iommu_hwpt_alloc command{};
    command.flags = flags;
    command.dev_id = device;
    command.pt_id = page_table;
    command.data_type = type;
    command.data_len = length;
    const int result = call(IOMMU_HWPT_ALLOC, command);
    hwpt_ = command.out_hwpt_id;
    return result;
  }
  // A bound device of the group.
  Device& bound(int group = 1) {
    devices_.push_back(std::make_unique<Device>("device", group));
    std::uint32_t id = 0;
    EXPECT_EQ(iommufd_->bind(*devices_.back(), id), 0);
    EXPECT_EQ(iommufd_->id_of(*devices_.back()), id);
    return *devices_.back();
  }
  int attach(Device& device, std::uint32_t page_table) {
    const int result = iommufd_->attach(device, page_table);
    if (result == 0) hwpt_ = page_table;
    return result;
  }
  [[nodiscard]] std::uint32_t id_of(const Device& device) const { return iommufd_->id_of(device); }

  IommuModel iommu_;
  Process process_;
  std::uint64_t memory_ = 0;
  std::vector<std::unique_ptr<Device>> devices_;
  std::shared_ptr<Iommufd> iommufd_ = std::make_shared<Iommufd>(iommu_, process_);
  std::uint64_t iova_ = 0;
  std::uint64_t length_ = 0;
  std::uint64_t value_ = 0;
  std::uint64_t alignment_ = 0;
  std::uint32_t hwpt_ = 0;
};

}  // namespace postern::sim::iommufd_test
