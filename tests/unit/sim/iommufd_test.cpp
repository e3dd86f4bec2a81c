// SPDX-License-Identifier: Apache-2.0
// The simulated /dev/iommu, ioctl by ioctl, by what Linux 7.3.4 answers to the same calls.
#include "sim/iommufd/iommufd.hpp"

#include <gmock/gmock.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>
#include <sys/mman.h>

#include <cstring>
#include <functional>

namespace postern::sim {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t most = ~std::uint64_t{0};
constexpr std::uint64_t msi = 0xfee00000;
constexpr std::uint32_t any = IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE;
constexpr std::uint32_t fixed = any | IOMMU_IOAS_MAP_FIXED_IOVA;
constexpr std::uint32_t read_only = IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_FIXED_IOVA;

struct NoHardware : Hardware {
  HardwareInfo nothing;
  [[nodiscard]] const HardwareInfo& info() const override { return nothing; }
  void connect(Slot& /*slot*/, const Bars& /*bars*/) override {}
  void reset() override {}
  [[nodiscard]] bool poll() override { return false; }
};

class SimulatedIommufd : public ::testing::Test {
 protected:
  static constexpr std::uint64_t pages = 64;  // as many behind them are read-only, then as many are not to be had

  SimulatedIommufd() {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    memory_ = reinterpret_cast<std::uint64_t>(::mmap(nullptr, 3 * pages * page, PROT_READ | PROT_WRITE, flags, -1, 0));
    for (std::byte* to : {at(pages), at(2 * pages) - 8})
      *reinterpret_cast<std::uint32_t*>(to) = sizeof(iommu_ioas_alloc);
    ::mprotect(at(pages), pages * page, PROT_READ);
    ::mprotect(at(2 * pages), pages * page, PROT_NONE);
  }
  ~SimulatedIommufd() override {
    for (const auto& function : functions_) iommufd_->unbind(*function);
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
  // Where it is mapped; `most` where that fails.
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
  // A function of the group, bound.
  Function& bound(int group = 1) {
    functions_.push_back(std::make_unique<Function>(PciAddress{}, group, std::make_unique<NoHardware>()));
    std::uint32_t id = 0;
    EXPECT_EQ(iommufd_->bind(*functions_.back(), id), 0);
    EXPECT_EQ(iommufd_->id_of(*functions_.back()), id);
    return *functions_.back();
  }
  int attach(Function& function, std::uint32_t page_table) {
    const int result = iommufd_->attach(function, page_table);
    if (result == 0) hwpt_ = page_table;
    return result;
  }
  [[nodiscard]] std::uint32_t id_of(const Function& function) const { return iommufd_->id_of(function); }

  IommuModel iommu_;
  Process process_;
  std::uint64_t memory_ = 0;
  std::vector<std::unique_ptr<Function>> functions_;
  std::shared_ptr<Iommufd> iommufd_ = std::make_shared<Iommufd>(iommu_, process_);
  std::uint64_t iova_ = 0;
  std::uint64_t length_ = 0;
  std::uint64_t value_ = 0;
  std::uint64_t alignment_ = 0;
  std::uint32_t hwpt_ = 0;
};

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
  EXPECT_EQ(iommufd_->ioctl(IOMMU_IOAS_ALLOC, at(pages)), -EFAULT);  // there to be read, not for the answer
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
  Function& function = bound();
  EXPECT_EQ(id_of(function), 3);
  EXPECT_EQ(attach(function, 2), 0);
  EXPECT_EQ(hwpt_, 4);
  iommufd_->unbind(function);
  EXPECT_EQ(id_of(function), 0);
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
      {"attach: nothing", [&] { return attach(*functions_[0], 99); }, -ENOENT},
      {"attach: a device", [&] { return attach(*functions_[0], device); }, -EINVAL},
  };
  for (const Row& row : rows) EXPECT_EQ(row.call(), row.result) << row.what;
  EXPECT_EQ(ioas(), 3);
}

TEST_F(SimulatedIommufd, TellsRangesAsFarAsThereIsRoom) {
  const std::uint32_t a = ioas();
  EXPECT_THAT(ranges(a), ElementsAre(Pair(0, most)));
  EXPECT_EQ(alignment_, 1);
  Function& function = bound();
  EXPECT_EQ(hwpt(id_of(function), a), 0);
  EXPECT_THAT(ranges(a), ElementsAre(Pair(0, 0x7fffffffff)));
  EXPECT_EQ(alignment_, page);
  EXPECT_EQ(attach(function, hwpt_), 0);
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
  iommufd_->detach(function);
  EXPECT_EQ(destroy(hwpt_), 0);
  EXPECT_THAT(ranges(a), ElementsAre(Pair(0, most)));
  EXPECT_EQ(alignment_, 1);
}

TEST_F(SimulatedIommufd, FindsRoomAsLinuxDoes) {
  const std::uint32_t a = ioas();
  const std::uint64_t huge = 0x200000;
  const std::uint64_t aligned = (memory_ + huge) & ~(huge - 1);  // nobody looks whether it is there
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
  EXPECT_EQ(map(a, aligned, page, 0x100000), 0);  // what is said need not be allowed
}

TEST_F(SimulatedIommufd, UnmapsWholeMappings) {
  const std::uint32_t a = ioas();
  EXPECT_EQ(unmap(a, 0, most), 0);
  EXPECT_EQ(length_, 0);
  for (const std::uint64_t iova : {0x10000UL, 0x11000UL}) EXPECT_EQ(map(a, va(0), page, iova), 0);
  EXPECT_EQ(map(a, va(0), 2 * page, 0x12000), 0);
  EXPECT_EQ(map(a, va(0), 1, 0x13fff), -EEXIST);
  EXPECT_EQ(unmap(a, 0x13000, page), -ENOENT);
  EXPECT_EQ(unmap(a, 0x10000, 3 * page), -ENOENT);  // and yet the first two are gone
  EXPECT_EQ(unmap(a, 0x10000, 2 * page), -ENOENT);
  EXPECT_EQ(map(a, va(0), page, most - page + 1), 0);
  EXPECT_EQ(unmap(a, 0, most), 0);
  EXPECT_EQ(length_, 3 * page);
}

TEST_F(SimulatedIommufd, PinsWhenThereIsAPageTable) {
  const std::uint32_t a = ioas();
  Function& function = bound();
  EXPECT_EQ(map(a, va(0), 2 * page, 0x1000), 0);
  EXPECT_EQ(map(a, va(pages), page, 0x5000), 0);  // read-only memory, to be written to
  EXPECT_EQ(pinned(), 0);
  EXPECT_EQ(attach(function, a), -EFAULT);
  EXPECT_EQ(hwpt(id_of(function), a), -EFAULT);
  EXPECT_EQ(pinned(), 0);
  EXPECT_EQ(function.domain, nullptr);
  EXPECT_EQ(unmap(a, 0x5000, page), 0);
  EXPECT_EQ(map(a, va(0), 3, 0x8000), 0);
  EXPECT_EQ(attach(function, a), -EADDRINUSE);  // no page of this IOMMU's
  EXPECT_EQ(unmap(a, 0x8000, 3), 0);
  process_.memory_limit = page;
  EXPECT_EQ(attach(function, a), -ENOMEM);
  EXPECT_EQ(pinned(), 0);
  process_.memory_limit = 3 * page;
  EXPECT_EQ(attach(function, a), 0);
  EXPECT_EQ(hwpt_, 3);
  EXPECT_EQ(pinned(), 2);
  EXPECT_EQ(map(a, va(0), 2 * page, 0x10000), -ENOMEM);
  EXPECT_EQ(map(a, va(pages), 2 * page, 0x10000), -EFAULT);
  EXPECT_EQ(map(a, va(pages), page, 0x10000, read_only), 0);
  EXPECT_EQ(map(a, va(0), page + 1, 0x20000), -EINVAL);
  EXPECT_EQ(map(a, va(0), page, msi), -EINVAL);
  EXPECT_EQ(hwpt(id_of(function), a), 0);  // a second page table pins nothing
  EXPECT_EQ(pinned(), 3);
  EXPECT_EQ(destroy(hwpt_), 0);
  iommufd_->detach(function);  // the last
  EXPECT_EQ(pinned(), 0);
  EXPECT_EQ(unmap(a, 0, most), 0);
  EXPECT_EQ(length_, 3 * page);
}

TEST_F(SimulatedIommufd, PinsMemoryOfCopiesOnce) {
  const std::uint32_t a = ioas();
  const std::uint32_t b = ioas();
  EXPECT_EQ(map(a, va(0), 8 * page, 0x100000), 0);
  EXPECT_EQ(copy(b, 0x200000, a, 0x102000, 4 * page), 0);
  EXPECT_EQ(copy(b, 0x300000, a, 0x104000, 4 * page), 0);
  EXPECT_EQ(attach(bound(1), b), 0);
  EXPECT_EQ(pinned(), 6);
  EXPECT_EQ(attach(bound(2), a), 0);
  EXPECT_EQ(pinned(), 8);
  EXPECT_EQ(unmap(a, 0x100000, 8 * page), 0);
  EXPECT_EQ(pinned(), 6);
  EXPECT_EQ(unmap(b, 0x200000, 4 * page), 0);
  EXPECT_EQ(pinned(), 4);
  EXPECT_EQ(copy(b, 0x400000, b, 0x301000, page), 0);
  EXPECT_EQ(unmap(b, 0x300000, 4 * page), 0);
  EXPECT_EQ(pinned(), 1);
  EXPECT_EQ(map(a, va(5), page, 0x500000), 0);  // the same memory, but no copy
  EXPECT_EQ(pinned(), 2);
  EXPECT_EQ(map(a, va(pages), page, 0x501000, read_only), 0);
  EXPECT_EQ(copy(b, 0x500000, a, 0x500000, 2 * page), -EPERM);
  EXPECT_EQ(copy(b, 0x500000, a, 0x500000, 2 * page, read_only), 0);
  EXPECT_EQ(pinned(), 3);
}

TEST_F(SimulatedIommufd, MovesDevicesBetweenPageTables) {
  const std::uint32_t a = ioas();
  const std::uint32_t b = ioas();
  Function& first = bound(1);
  Function& second = bound(2);
  EXPECT_EQ(attach(first, a), 0);
  const std::uint32_t automatic = hwpt_;
  EXPECT_EQ(attach(second, a), 0);
  EXPECT_EQ(hwpt_, automatic);
  EXPECT_EQ(first.domain, second.domain);
  EXPECT_EQ(hwpt(id_of(first), b), 0);
  const std::uint32_t own = hwpt_;
  EXPECT_EQ(attach(first, own), 0);
  EXPECT_NE(first.domain, second.domain);
  EXPECT_THAT(ranges(b), ElementsAre(Pair(0, msi - 1), Pair(msi + 0x100000, 0x7fffffffff)));
  EXPECT_EQ(destroy(b), -EBUSY);
  EXPECT_EQ(destroy(own), -EBUSY);
  EXPECT_EQ(attach(second, b), 0);  // none that was made by hand is taken
  EXPECT_NE(hwpt_, own);
  EXPECT_EQ(destroy(automatic), -ENOENT);
  EXPECT_EQ(map(a, va(0), page, msi), 0);
  EXPECT_EQ(attach(first, a), -EADDRINUSE);
  EXPECT_EQ(allow(a, {{0, most - 1}}), 0);
  EXPECT_EQ(hwpt(id_of(first), a), -EADDRINUSE);
  iommufd_->detach(first);
  iommufd_->detach(first);
  EXPECT_EQ(first.domain, nullptr);
  EXPECT_EQ(destroy(own), 0);
}

TEST_F(SimulatedIommufd, AttachesAGroupToOnePageTable) {
  const std::uint32_t a = ioas();
  const std::uint32_t b = ioas();
  Function& first = bound(7);
  EXPECT_EQ(attach(first, a), 0);
  Function& second = bound(7);
  EXPECT_EQ(second.domain, first.domain);
  EXPECT_TRUE(iommufd_->has_group(7));
  EXPECT_FALSE(iommufd_->has_group(8));
  EXPECT_EQ(attach(second, b), -EINVAL);
  EXPECT_EQ(attach(second, a), 0);
  EXPECT_EQ(attach(first, b), 0);
  EXPECT_EQ(second.domain, first.domain);
  EXPECT_EQ(ranges(a).size(), 1);
  EXPECT_EQ(map(a, va(0), page, msi), 0);
  EXPECT_EQ(attach(second, a), -EADDRINUSE);
  iommufd_->detach(first);
  EXPECT_NE(first.domain, nullptr);
  iommufd_->unbind(second);
  EXPECT_EQ(first.domain, nullptr);
  EXPECT_EQ(destroy(b), 0);
}

TEST_F(SimulatedIommufd, TellsVfioThatCachesAreCoherentWhereNoPageTableSaysOtherwise) {
  const auto is_coherent = [&] {
    return iommufd_->ioctl(VFIO_CHECK_EXTENSION, reinterpret_cast<void*>(VFIO_DMA_CC_IOMMU));
  };
  EXPECT_EQ(is_coherent(), -ENODEV);
  iommu_vfio_ioas given{0, ioas(), IOMMU_VFIO_IOAS_SET, 0};
  ASSERT_EQ(call(IOMMU_VFIO_IOAS, given), 0);
  EXPECT_EQ(is_coherent(), 1);
  ASSERT_EQ(attach(bound(), given.ioas_id), 0);
  EXPECT_EQ(is_coherent(), 0);
}

TEST_F(SimulatedIommufd, CombinesPagesUnlessTold) {
  EXPECT_EQ(option(IOMMU_OPTION_RLIMIT_MODE, 0, 0, 1), 0);
  EXPECT_EQ(option(IOMMU_OPTION_RLIMIT_MODE, 1, 0), 0);
  EXPECT_EQ(value_, 1);
  process_.memory_limit = page;
  EXPECT_EQ(option(IOMMU_OPTION_RLIMIT_MODE, 0, 0, 1), -EPERM);
  const std::uint32_t a = ioas();
  EXPECT_EQ(option(IOMMU_OPTION_HUGE_PAGES, 0, a, 0), 0);
  EXPECT_EQ(map(a, va(0), 100, 0), -EINVAL);
  EXPECT_EQ(option(IOMMU_OPTION_HUGE_PAGES, 0, a, 1), 0);
  EXPECT_EQ(map(a, va(0), 100, 0), 0);
  EXPECT_EQ(option(IOMMU_OPTION_HUGE_PAGES, 0, a, 0), -EADDRINUSE);
  EXPECT_EQ(unmap(a, 0, most), 0);
  EXPECT_EQ(attach(bound(), a), 0);
  EXPECT_EQ(map(a, va(0), page, 0), 0);
  EXPECT_EQ(option(IOMMU_OPTION_HUGE_PAGES, 0, a, 0), -EINVAL);
  EXPECT_EQ(option(IOMMU_OPTION_HUGE_PAGES, 1, a), 0);
  EXPECT_EQ(value_, 1);
}

TEST_F(SimulatedIommufd, TellsOfTheHardware) {
  iommu_.has_dirty_bits = true;
  std::array<iommu_hw_info_vtd, 2> vtd{};
  vtd[1].flags = 1;
  iommu_hw_info info{};
  info.dev_id = id_of(bound());
  info.data_len = sizeof vtd;
  info.data_uptr = reinterpret_cast<std::uintptr_t>(vtd.data());
  EXPECT_EQ(call(IOMMU_GET_HW_INFO, info), 0);
  EXPECT_EQ(info.out_data_type, IOMMU_HW_INFO_TYPE_INTEL_VTD);
  EXPECT_EQ(info.data_len, sizeof vtd[0]);
  EXPECT_EQ(info.out_capabilities, IOMMU_HW_CAP_DIRTY_TRACKING | IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED);
  EXPECT_EQ(vtd[0].cap_reg, 0xd2008c22260286);  // of QEMU's: 39 bits, 2 MiB, 1 GiB
  EXPECT_EQ(vtd[1].flags, 0);
  info.flags = IOMMU_HW_INFO_FLAG_INPUT_TYPE;
  info.in_data_type = IOMMU_HW_INFO_TYPE_ARM_SMMUV3;
  EXPECT_EQ(call(IOMMU_GET_HW_INFO, info), -EOPNOTSUPP);
  info.flags = 0;
  info.data_uptr = 8;
  EXPECT_EQ(call(IOMMU_GET_HW_INFO, info), -EFAULT);
}

TEST_F(SimulatedIommufd, TellsWhatDevicesWrote) {
  iommu_.has_dirty_bits = true;
  const std::uint32_t a = ioas();
  Function& function = bound();
  EXPECT_EQ(hwpt(id_of(function), a, IOMMU_HWPT_ALLOC_DIRTY_TRACKING), 0);
  EXPECT_EQ(attach(function, hwpt_), 0);
  EXPECT_EQ(map(a, va(0), 4 * page, 0x10000), 0);
  EXPECT_EQ(map(a, va(4), 4 * page, 0x14000), 0);
  EXPECT_EQ(map(a, va(8), 4 * page, 0x20000), 0);
  const auto track = [&](std::uint32_t flags) {
    iommu_hwpt_set_dirty_tracking command{0, flags, hwpt_, 5};
    return call(IOMMU_HWPT_SET_DIRTY_TRACKING, command);
  };
  const auto write = [&](std::uint64_t iova) {
    const std::byte byte{1};
    return function.domain->write({iova}, std::span(&byte, 1));
  };
  std::uint64_t bits = 0;
  const auto get = [&](std::uint64_t iova, std::uint64_t length, std::uint32_t flags = 0, std::uint64_t size = page) {
    bits = 0;
    iommu_hwpt_get_dirty_bitmap command{0,    hwpt_,  flags, 0,
                                        iova, length, size,  reinterpret_cast<std::uintptr_t>(&bits)};
    return call(IOMMU_HWPT_GET_DIRTY_BITMAP, command);
  };
  constexpr std::uint32_t keep = IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR;
  EXPECT_EQ(track(2), -EOPNOTSUPP);
  EXPECT_EQ(track(IOMMU_HWPT_DIRTY_TRACKING_ENABLE), 0);
  for (const std::uint64_t iova : {0x10001UL, 0x13fffUL, 0x15000UL, 0x22000UL}) EXPECT_TRUE(write(iova));
  EXPECT_FALSE(write(0x18000));
  EXPECT_EQ(get(0x10000, 8 * page, keep), 0);
  EXPECT_EQ(bits, 0x29);
  EXPECT_EQ(get(0x10000, 8 * page, keep, 2 * page), 0);
  EXPECT_EQ(bits, 0x7);
  EXPECT_EQ(get(0x10000, 0x14000, keep), 0);  // with a hole, behind which nothing is told
  EXPECT_EQ(bits, 0x29);
  EXPECT_EQ(get(0x11000, 3 * page), 0);
  EXPECT_EQ(bits, 0x4);
  EXPECT_EQ(get(0x10000, 8 * page), 0);
  EXPECT_EQ(bits, 0x21);
  EXPECT_EQ(get(0x10000, 0), -EINVAL);
  EXPECT_EQ(get(0x10000, page, 0, 0), -EINVAL);
  EXPECT_EQ(get(0x10000, page, 0, 2 * page), -EINVAL);
  EXPECT_EQ(get(most - page + 1, 2 * page), -EOVERFLOW);
  EXPECT_EQ(get(0x10000, page, 2), -EOPNOTSUPP);
  EXPECT_EQ(track(0), 0);
  EXPECT_TRUE(write(0x23000));
  EXPECT_EQ(get(0x20000, 4 * page, keep), 0);
  EXPECT_EQ(bits, 0x4);  // from before
  EXPECT_EQ(unmap(a, 0x20000, 4 * page), 0);
  EXPECT_EQ(map(a, va(8), 4 * page, 0x20000), 0);
  EXPECT_EQ(get(0x20000, 4 * page), 0);
  EXPECT_EQ(bits, 0);
  EXPECT_EQ(hwpt(id_of(function), a), 0);
  EXPECT_EQ(track(IOMMU_HWPT_DIRTY_TRACKING_ENABLE), -EOPNOTSUPP);
  EXPECT_EQ(get(0x20000, 4 * page), -EOPNOTSUPP);
}

TEST_F(SimulatedIommufd, LetsDmaThroughByItsMappings) {
  const std::uint32_t a = ioas();
  Function& function = bound();
  EXPECT_EQ(attach(function, a), 0);
  EXPECT_EQ(map(a, va(1), page, 0x10000), 0);
  EXPECT_EQ(map(a, va(0), page, 0x11000, read_only), 0);
  std::array<std::byte, 8> bytes{std::byte{1}, std::byte{2}};
  EXPECT_TRUE(function.domain->write({0x10ff8}, bytes));
  EXPECT_EQ(std::memcmp(at(2) - 8, bytes.data(), 8), 0);
  EXPECT_FALSE(function.domain->write({0x11000}, bytes));
  EXPECT_TRUE(function.domain->read({0x10ffc}, bytes));
  EXPECT_FALSE(function.domain->read({0x11ffc}, bytes));
}

}  // namespace
}  // namespace postern::sim
