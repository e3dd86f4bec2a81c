// SPDX-License-Identifier: Apache-2.0
// A user with a limit of locked memory is refused (ENOMEM) exactly where locked_memory_needed() says so: by type1, and
// by iommufd counting by user and by process.
#include <gtest/gtest.h>
#include <linux/iommufd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstring>
#include <postern/forwarding_kernel.hpp>
#include <postern/locked_memory_need.hpp>

#include "guest/x86_64/devices.hpp"
#include "support/in_child.hpp"

namespace postern {
namespace locked_memory_test {

constexpr std::size_t mib = std::size_t{1} << 20;
constexpr std::size_t page = 4096;
constexpr std::size_t limit = 8 * mib;
constexpr Iova base{0x100000000};

struct Way {
  const char* backend;
  bool by_process;  // of iommufd: IOMMU_OPTION_RLIMIT_MODE is set before the first object is made
};

class Accounting : public ForwardingKernel {
 public:
  explicit Accounting(bool by_process) : ForwardingKernel(system_kernel()), by_process_(by_process) {}
  int open(const char* path, int flags) override {
    const int fd = ForwardingKernel::open(path, flags);
    if (fd >= 0 && by_process_ && std::strcmp(path, "/dev/iommu") == 0) {
      iommu_option option{};
      option.size = sizeof option;
      option.option_id = IOMMU_OPTION_RLIMIT_MODE;
      option.op = IOMMU_OPTION_OP_SET;
      option.val64 = 1;
      EXPECT_EQ(::ioctl(fd, IOMMU_OPTION, &option), 0);
    }
    return fd;
  }

 private:
  bool by_process_;
};

// In a child that is user 1000 with a limit of 8 MiB: compares the verdict with what the kernel does.
class User {
 public:
  User(Way way, const HostDevice& host)
      : way_(way),
        kernel_(way.by_process),
        bytes_(kernel_, ::mmap(nullptr, 2 * limit, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
               2 * limit),
        device_(attach(kernel_, host, {.backend = way.backend})) {
    const rlimit small{.rlim_cur = limit, .rlim_max = limit};
    EXPECT_TRUE(device_) << device_.error().message();
    EXPECT_EQ(::setrlimit(RLIMIT_MEMLOCK, &small), 0);
    EXPECT_EQ(::setresuid(1000, 1000, 1000), 0);
  }

  // Maps, and unmaps again. No other process of this user pins anything, so that "uncertain" is "allowed".
  void compare(const std::vector<std::size_t>& lengths, LockedMemoryVerdict expected) {
    std::vector<Mapping> layout;
    for (const std::size_t length : lengths) {
      const Iova iova = base + layout.size() * 2 * limit;
      layout.push_back({.range = IovaRange::from_length(iova, length).value(), .memory = bytes_.bytes().first(length)});
    }
    const Backend& backend = *find_backend(way_.backend).value();
    const auto needs = locked_memory_needed(kernel_, backend, layout).value();
    EXPECT_EQ(needs.front().counter == LockedMemoryCounter::user, needs_user());
    const LockedMemory memory = LockedMemory::read(kernel_).value();
    const LockedMemoryVerdict verdict = needs.front().judge(memory);
    if (expected == LockedMemoryVerdict::allowed && needs_user()) expected = LockedMemoryVerdict::uncertain;
    EXPECT_EQ(verdict, expected);
    Container& container = *device_->container();
    Result<void> mapped;
    for (const Mapping& each : layout) {
      mapped = container.map(each.range.first, each.memory);
      if (!mapped) break;
    }
    if (verdict == LockedMemoryVerdict::refused) {
      ASSERT_FALSE(mapped) << "the kernel took what was said to be too much";
      EXPECT_EQ(mapped.error().code(), ENOMEM);
      EXPECT_EQ(mapped.error().kind(), ErrorKind::locked_memory);
      EXPECT_EQ(mapped.error().remedies(), memory.raise_limit(needs.front().at_most(), needs.front().counter));
    } else {
      EXPECT_TRUE(mapped) << mapped.error().message();
    }
    EXPECT_TRUE(container.unmap_all());
  }

  [[nodiscard]] bool needs_user() const { return std::strcmp(way_.backend, "iommufd") == 0 && !way_.by_process; }

 private:
  Way way_;
  Accounting kernel_;
  Mmap bytes_;
  Result<Device> device_;
};

class LockedMemoryOfAUser : public ::testing::TestWithParam<Way> {};

TEST_P(LockedMemoryOfAUser, IsRefusedExactlyWhereTheNeedIsTooMuch) {
  const test::Bound bound(test::nvme_disk);
  const HostDevice host = bound.host();
  const int failed = test::in_child([&] {
    User user(GetParam(), host);
    const auto allowed = LockedMemoryVerdict::allowed;
    const auto refused = LockedMemoryVerdict::refused;
    user.compare({limit}, allowed);
    user.compare({limit + page}, refused);
    user.compare({2 * limit}, refused);
    // The same memory counts as often as it is mapped.
    user.compare({limit / 2, limit / 2}, allowed);
    user.compare({limit - mib, limit - mib}, refused);
    // mlock(2) has a part of the process's limit, and none of the user's.
    const Mmap locked(system_kernel(),
                      ::mmap(nullptr, 2 * mib, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 2 * mib);
    EXPECT_EQ(::mlock(locked.data(), 2 * mib), 0);
    user.compare({limit}, user.needs_user() ? allowed : refused);
    user.compare({limit - 2 * mib}, allowed);
    return ::testing::Test::HasFailure() ? 1 : 0;
  });
  EXPECT_EQ(failed, 0) << "in the child, whose failures are above";
}

INSTANTIATE_TEST_SUITE_P(Ways, LockedMemoryOfAUser,
                         ::testing::Values(Way{"type1", false}, Way{"iommufd", false}, Way{"iommufd", true}),
                         [](const auto& test) {
                           return std::string(test.param.backend) + (test.param.by_process ? "_by_process" : "");
                         });

}  // namespace locked_memory_test
}  // namespace postern
