// SPDX-License-Identifier: Apache-2.0
// What refuses a device, on the real kernel: every refusal says what stands in the way and what to do about it.
#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "guest/x86_64/devices.hpp"

namespace postern {
namespace {

using test::Bound;
using test::Holdings;
using ::testing::AllOf;
using ::testing::HasSubstr;

// Another user, without privileges, for as long as this lives.
class AsUser {
 public:
  AsUser() { EXPECT_EQ(::seteuid(1000), 0); }
  ~AsUser() { EXPECT_EQ(::seteuid(0), 0); }
  AsUser(const AsUser&) = delete;
  AsUser& operator=(const AsUser&) = delete;
};

class AttachOnKernel : public ::testing::TestWithParam<const char*> {
 protected:
  AttachOnKernel() : before_(Holdings::now()) {}
  ~AttachOnKernel() override { EXPECT_TRUE(before_ == Holdings::now()) << "something was left behind"; }

  static std::string refusal(const HostDevice& device, int code) {
    auto refused = attach(system_kernel(), device, {.backend = GetParam()});
    EXPECT_FALSE(refused);
    if (refused) return "";
    EXPECT_EQ(refused.error().code(), code) << refused.error().message();
    return refused.error().message();
  }

 private:
  Holdings before_;
};

TEST_P(AttachOnKernel, ADeviceOfAnotherDriverIsRefusedAndTheDriverIsNamed) {
  const auto disk = find_pci_function(system_kernel(), test::nvme_disk).value();
  EXPECT_THAT(refusal(disk.host, ENODEV), AllOf(HasSubstr("bound to nvme"), HasSubstr("postern bind 0000:00:01.0")));
}

TEST_P(AttachOnKernel, AGroupThatIsNotViableIsRefusedAndEveryMemberInTheWayIsNamed) {
  const Bound bound(test::twin_a);
  EXPECT_THAT(refusal(bound.host(), EPERM), AllOf(HasSubstr("not viable"), HasSubstr("0000:02:00.1 (driver nvme)"),
                                                  HasSubstr("postern bind 0000:02:00.1")));
}

TEST_P(AttachOnKernel, ANodeThatThisUserMayNotOpenIsNamedWithItsMode) {
  const Bound bound(test::nvme_disk);
  const AsUser user;
  EXPECT_THAT(refusal(bound.host(), ENODEV), AllOf(HasSubstr("EACCES"), HasSubstr("/dev/"), HasSubstr("crw-------")));
}

TEST_P(AttachOnKernel, ADeviceThatIsInUseIsRefused) {
  const Bound bound(test::nvme_disk);
  for (const char* holder : {"type1", "iommufd"}) {
    auto first = attach(system_kernel(), bound.host(), {.backend = holder});
    ASSERT_TRUE(first) << first.error().message();
    auto second = attach(system_kernel(), bound.host(), {.backend = GetParam()});
    ASSERT_FALSE(second) << holder;
    EXPECT_EQ(second.error().code(), EBUSY) << second.error().message();
  }
}

TEST_P(AttachOnKernel, MoreThanTheLockedMemoryLimitIsRefusedAndTheNeedIsSaid) {
  const Bound bound(test::nvme_disk);
  auto device = attach(system_kernel(), bound.host(), {.backend = GetParam()});
  ASSERT_TRUE(device);
  constexpr std::size_t length = std::size_t{16} << 20;
  void* address = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const Mmap memory(system_kernel(), address, length);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_MEMLOCK, &before), 0);
  const rlimit small{.rlim_cur = std::size_t{1} << 20, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_MEMLOCK, &small), 0);
  {
    const AsUser user;
    auto refused = device->container()->map({0x100000000}, memory.bytes());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ENOMEM);
    EXPECT_THAT(refused.error().message(),
                AllOf(HasSubstr("limited to 1 MiB"), HasSubstr("needs 16 MiB"), HasSubstr("ulimit -l 16384")));
    EXPECT_EQ(device->container()->mapping_count(), 0U);
    EXPECT_TRUE(device->container()->map({0x100000000}, memory.bytes().first(1 << 19))) << "half of the limit fits";
    EXPECT_TRUE(device->container()->unmap_all());
  }
  EXPECT_TRUE(device->container()->map({0x100000000}, memory.bytes())) << "root may";
  EXPECT_TRUE(device->container()->unmap_all());
  EXPECT_EQ(::setrlimit(RLIMIT_MEMLOCK, &before), 0);
}

TEST_P(AttachOnKernel, AfterBindingAndRestoringTheOldDriverIsBack) {
  { const Bound bound(test::nvme_disk); }
  EXPECT_EQ(find_pci_function(system_kernel(), test::nvme_disk).value().host.driver, "nvme");
  { const Bound bound(test::edu); }
  EXPECT_FALSE(find_pci_function(system_kernel(), test::edu).value().host.driver) << "it had none";
  std::string override;
  ASSERT_EQ(system_kernel().read_file("/sys/bus/pci/devices/0000:00:01.0/driver_override", override), 0);
  EXPECT_EQ(override, "(null)\n");
}

INSTANTIATE_TEST_SUITE_P(Backends, AttachOnKernel, ::testing::Values("type1", "iommufd"),
                         [](const auto& test) { return std::string(test.param); });

TEST(AutoOnKernel, TakesIommufdFirst) {
  const Bound bound(test::nvme_disk);
  EXPECT_EQ(attach(system_kernel(), bound.host()).value().container()->backend(), "iommufd");
}

TEST(AutoOnKernel, ReportsEveryRefusal) {
  const auto disk = find_pci_function(system_kernel(), test::nvme_disk).value();
  auto refused = attach(system_kernel(), disk.host);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ENODEV);
  EXPECT_EQ(refused.error().causes().size(), backends().size());
}

}  // namespace
}  // namespace postern
