// SPDX-License-Identifier: Apache-2.0
// The simulated /dev/iommu, ioctl by ioctl: arguments and mappings, with the same results as Linux 7.3.4.
#include "unit/sim/iommufd_rig.hpp"

#include <cstring>
#include <functional>

namespace postern::sim {
namespace iommufd_test {

using namespace iommufd_test;
using ::testing::ElementsAre;
using ::testing::Pair;

TEST_F(SimulatedIommufd, LooksAtTheSizeBeforeAnythingElse) {
  struct Row {
    unsigned long request;
    std::vector<std::uint32_t> words;
    int result;
  };
  const std::vector<Row> rows = {
      {IOMMU_DESTROY, {0, 1}, -EINVAL},
      {IOMMU_DESTROY, {4, 1}, -EINVAL},
      {IOMMU_DESTROY, {8, 1}, -ENOENT},
      {IOMMU_DESTROY, {12, 1, 0}, -ENOENT},
      {IOMMU_DESTROY, {12, 1, 1}, -E2BIG},
      {IOMMU_GET_HW_INFO, {16, 0, 0, 0, 0, 0, 0, 0, 1}, -EINVAL},
      {IOMMU_GET_HW_INFO, {32, 0, 0, 0, 0, 0, 0, 0, 1}, -ENOENT},
      {IOMMU_HWPT_ALLOC, {20, 0, 0, 0, 0, 0}, -EINVAL},
      {IOMMU_HWPT_ALLOC, {24, 0, 0, 0, 0, 0}, -ENOENT},
      {_IOWR(IOMMUFD_TYPE, IOMMUFD_CMD_DESTROY, int), {8, 1}, -ENOTTY},
      {_IO(IOMMUFD_TYPE, 0x40), {8, 1}, -ENOTTY},
      {_IO(IOMMUFD_TYPE, 0xf0), {8, 1}, -ENOTTY},
      {_IO('x', IOMMUFD_CMD_DESTROY), {8, 1}, -ENOTTY},
  };
  for (Row row : rows) EXPECT_EQ(iommufd_->ioctl(row.request, row.words.data()), row.result) << row.request;
}

TEST_F(SimulatedIommufd, TakesItsArgumentFromMemoryThatIsThere) {
  EXPECT_EQ(iommufd_->ioctl(IOMMU_DESTROY, nullptr), -EFAULT);
  EXPECT_EQ(iommufd_->ioctl(_IO(IOMMUFD_TYPE, 0x95), nullptr), -EFAULT);
  EXPECT_EQ(iommufd_->ioctl(IOMMU_IOAS_ALLOC, at(2 * pages) - 8), -EFAULT);
  EXPECT_EQ(iommufd_->ioctl(IOMMU_IOAS_ALLOC, at(pages)), -EFAULT);  // readable, but the answer cannot be written
  iommu_ioas_alloc command{.size = sizeof command, .flags = 0, .out_ioas_id = 0};
  std::memcpy(at(1) - 6, &command, sizeof command);
  EXPECT_EQ(iommufd_->ioctl(IOMMU_IOAS_ALLOC, at(1) - 6), 0);
  command.size = 16;
  std::memcpy(at(pages) - sizeof command, &command, sizeof command);
  EXPECT_EQ(iommufd_->ioctl(IOMMU_IOAS_ALLOC, at(pages) - sizeof command), -E2BIG);
  EXPECT_EQ(ioas(), 2);
}

TEST_F(SimulatedIommufd, GivesTheLowestFreeId) {
  EXPECT_EQ(ioas(), 1);
  EXPECT_EQ(ioas(), 2);
  EXPECT_EQ(destroy(1), 0);
  EXPECT_EQ(destroy(1), -ENOENT);
  EXPECT_EQ(destroy(0), -ENOENT);
  EXPECT_EQ(ioas(), 1);
  Device& device = bound();
  EXPECT_EQ(id_of(device), 3);
  EXPECT_EQ(attach(device, 2), 0);
  EXPECT_EQ(hwpt_, 4);
  iommufd_->unbind(device);
  EXPECT_EQ(id_of(device), 0);
  EXPECT_EQ(ioas(), 3);
}

TEST_F(SimulatedIommufd, RefusesWrongCallsAsLinuxDoes) {
  const std::uint32_t a = ioas();
  const std::uint32_t device = id_of(bound());
  struct Row {
    const char* what;
    std::function<int()> call;
    int result;
  };
  const std::vector<Row> rows = {
      {"map: flags", [&] { return map(a, va(0), page, 0, 15); }, -EOPNOTSUPP},
      {"map: iova", [&] { return map(a, va(0), page, most); }, -EOVERFLOW},
      {"map: length", [&] { return map(a, va(0), most, 0); }, -EOVERFLOW},
      {"map: no access", [&] { return map(99, va(0), page, 0, 1); }, -EINVAL},
      {"map: no IOAS", [&] { return map(99, va(0), 0, 0); }, -ENOENT},
      {"map: a device", [&] { return map(device, va(0), page, 0); }, -ENOENT},
      {"map: empty", [&] { return map(a, va(0), 0, 0); }, -EINVAL},
      {"map: memory past the end", [&] { return map(a, most - 10, 100, 0); }, -EOVERFLOW},
      {"map: too much", [&] { return map(a, 0, most - 100, 0); }, -EINVAL},
      {"map: iovas past the end", [&] { return map(a, va(0), page, most - 100); }, -EOVERFLOW},
      {"unmap: no IOAS", [&] { return unmap(99, 0, page); }, -ENOENT},
      {"unmap: empty", [&] { return unmap(a, 0, 0); }, -EINVAL},
      {"unmap: iova", [&] { return unmap(a, most, 1); }, -EOVERFLOW},
      {"unmap: length", [&] { return unmap(a, 1, most); }, -EOVERFLOW},
      {"unmap: past the end", [&] { return unmap(a, 100, most - 10); }, -EOVERFLOW},
      {"unmap: nothing there", [&] { return unmap(a, 0, page); }, -ENOENT},
      {"copy: flags", [&] { return copy(a, 0, a, 0, page, 15); }, -EOPNOTSUPP},
      {"copy: length", [&] { return copy(a, 0, a, 0, most); }, -EOVERFLOW},
      {"copy: no access", [&] { return copy(a, 0, a, 0, page, 1); }, -EINVAL},
      {"copy: empty", [&] { return copy(a, 0, a, 0, 0); }, -EINVAL},
      {"copy: nothing there", [&] { return copy(99, 0, a, 0, page); }, -ENOENT},
      {"allow: backwards",
       [&] {
         return allow(a, {{5, 4}});
       },
       -EINVAL},
      {"allow: one byte",
       [&] {
         return allow(a, {{5, 5}});
       },
       -EINVAL},
      {"allow: overlap",
       [&] {
         return allow(a, {{0x1000, 0x2000}, {0, 0x1000}});
       },
       -EINVAL},
      {"option: unknown", [&] { return option(2, 1, 0); }, -EOPNOTSUPP},
      {"option: op", [&] { return option(IOMMU_OPTION_HUGE_PAGES, 3, a); }, -EOPNOTSUPP},
      {"option: value", [&] { return option(IOMMU_OPTION_HUGE_PAGES, 0, a, 2); }, -EINVAL},
      {"option: no IOAS", [&] { return option(IOMMU_OPTION_HUGE_PAGES, 1, 99); }, -ENOENT},
      {"option: object", [&] { return option(IOMMU_OPTION_RLIMIT_MODE, 1, 1); }, -EOPNOTSUPP},
      {"option: busy", [&] { return option(IOMMU_OPTION_RLIMIT_MODE, 0, 0, 2); }, -EBUSY},
      {"destroy: device", [&] { return destroy(device); }, -EBUSY},
      {"hwpt: data without a type", [&] { return hwpt(device, a, 0, 0, 4); }, -EINVAL},
      {"hwpt: type without data", [&] { return hwpt(device, a, 0, 1); }, -EINVAL},
      {"hwpt: data", [&] { return hwpt(device, a, 0, 1, 4); }, -EOPNOTSUPP},
      {"hwpt: no device", [&] { return hwpt(99, a); }, -ENOENT},
      {"hwpt: an IOAS for a device", [&] { return hwpt(a, a); }, -ENOENT},
      {"hwpt: no IOAS", [&] { return hwpt(device, 99); }, -EINVAL},
      {"hwpt: of a device", [&] { return hwpt(device, device); }, -EINVAL},
      {"hwpt: nested", [&] { return hwpt(device, a, IOMMU_HWPT_ALLOC_NEST_PARENT); }, -EOPNOTSUPP},
      {"hwpt: dirty", [&] { return hwpt(device, a, IOMMU_HWPT_ALLOC_DIRTY_TRACKING); }, -EOPNOTSUPP},
      {"hwpt: flags", [&] { return hwpt(device, a, 16); }, -EOPNOTSUPP},
      {"hwpt: no fault queue", [&] { return hwpt(device, a, IOMMU_HWPT_FAULT_ID_VALID); }, -ENOENT},
      {"attach: nothing", [&] { return attach(*devices_[0], 99); }, -ENOENT},
      {"attach: a device", [&] { return attach(*devices_[0], device); }, -EINVAL},
  };
  for (const Row& row : rows) EXPECT_EQ(row.call(), row.result) << row.what;
  EXPECT_EQ(ioas(), 3);
}

TEST_F(SimulatedIommufd, TellsRangesAsFarAsThereIsRoom) {
  const std::uint32_t a = ioas();
  EXPECT_THAT(ranges(a), ElementsAre(Pair(0, most)));
  EXPECT_EQ(alignment_, 1);
  Device& device = bound();
  EXPECT_EQ(hwpt(id_of(device), a), 0);
  EXPECT_THAT(ranges(a), ElementsAre(Pair(0, 0x7fffffffff)));
  EXPECT_EQ(alignment_, page);
  EXPECT_EQ(attach(device, hwpt_), 0);
  EXPECT_THAT(ranges(a), ElementsAre(Pair(0, msi - 1), Pair(msi + 0x100000, 0x7fffffffff)));
  iommu_iova_range one{};
  iommu_ioas_iova_ranges command{0, a, 1, 0, reinterpret_cast<std::uintptr_t>(&one), 0};
  EXPECT_EQ(call(IOMMU_IOAS_IOVA_RANGES, command), -EMSGSIZE);
  EXPECT_EQ(command.num_iovas, 2);
  EXPECT_EQ(one.last, msi - 1);
  command.allowed_iovas = 0;
  EXPECT_EQ(call(IOMMU_IOAS_IOVA_RANGES, command), -EFAULT);
  command.__reserved = 1;
  EXPECT_EQ(call(IOMMU_IOAS_IOVA_RANGES, command), -EOPNOTSUPP);
  iommufd_->detach(device);
  EXPECT_EQ(destroy(hwpt_), 0);
  EXPECT_THAT(ranges(a), ElementsAre(Pair(0, most)));
  EXPECT_EQ(alignment_, 1);
}

TEST_F(SimulatedIommufd, FindsRoomAsLinuxDoes) {
  const std::uint32_t a = ioas();
  const std::uint64_t huge = 0x200000;
  const std::uint64_t aligned = (memory_ + huge) & ~(huge - 1);  // the address is not checked
  EXPECT_EQ(map_anywhere(a, aligned, page), 0x1000);
  EXPECT_EQ(map_anywhere(a, aligned + page, page), 0x2000);
  EXPECT_EQ(map_anywhere(a, aligned, huge), huge);
  EXPECT_EQ(map_anywhere(a, aligned + huge / 2, 3 * huge / 2), 2 * huge);
  EXPECT_EQ(map_anywhere(a, aligned + 0x123, 0x100), 0x3123);
  EXPECT_EQ(map_anywhere(a, aligned + 5, 1), 0x3005);
  EXPECT_EQ(map(a, 0, most / 2, 0, any), -EOVERFLOW);
  EXPECT_EQ(allow(a, {{0x20000, 0x20fff}, {0x21000, 0x22fff}, {0x4000, 0x4fff}}), 0);
  EXPECT_EQ(map_anywhere(a, aligned, page), 0x4000);
  EXPECT_EQ(map_anywhere(a, aligned, 2 * page), 0x20000);
  EXPECT_EQ(map(a, aligned, 2 * page, 0, any), -ENOSPC);
  EXPECT_EQ(map(a, aligned, page, 0x100000), 0);  // a fixed iova may be outside of the allowed ranges
}

TEST_F(SimulatedIommufd, UnmapsWholeMappings) {
  const std::uint32_t a = ioas();
  EXPECT_EQ(unmap(a, 0, most), 0);
  EXPECT_EQ(length_, 0);
  for (const std::uint64_t iova : {0x10000UL, 0x11000UL}) EXPECT_EQ(map(a, va(0), page, iova), 0);
  EXPECT_EQ(map(a, va(0), 2 * page, 0x12000), 0);
  EXPECT_EQ(map(a, va(0), 1, 0x13fff), -EEXIST);
  EXPECT_EQ(unmap(a, 0x13000, page), -ENOENT);
  EXPECT_EQ(unmap(a, 0x10000, 3 * page), -ENOENT);  // although the first two were unmapped
  EXPECT_EQ(unmap(a, 0x10000, 2 * page), -ENOENT);
  EXPECT_EQ(map(a, va(0), page, most - page + 1), 0);
  EXPECT_EQ(unmap(a, 0, most), 0);
  EXPECT_EQ(length_, 3 * page);
}

}  // namespace iommufd_test
}  // namespace postern::sim
