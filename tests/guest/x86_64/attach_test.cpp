// SPDX-License-Identifier: Apache-2.0
// Attaching and mapping as a user without privileges: node permissions and the locked-memory limit are refused with a
// remedy.
#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "guest/x86_64/devices.hpp"

namespace postern {
namespace attach_test {

using test::Bound;
using test::ResourceUse;
using ::testing::AllOf;
using ::testing::HasSubstr;

// Switches to an unprivileged user during its lifetime.
class AsUser {
 public:
  AsUser() { EXPECT_EQ(::seteuid(1000), 0); }
  ~AsUser() { EXPECT_EQ(::seteuid(0), 0); }
  AsUser(const AsUser&) = delete;
  AsUser& operator=(const AsUser&) = delete;
};

class AttachAsUser : public ::testing::TestWithParam<const char*> {
 protected:
  AttachAsUser() : before_(ResourceUse::now()) {}
  ~AttachAsUser() override { EXPECT_TRUE(before_ == ResourceUse::now()) << "something was left behind"; }

 private:
  ResourceUse before_;
};

TEST_P(AttachAsUser, ANodeThatThisUserMayNotOpenIsNamedWithItsMode) {
  const Bound bound(test::nvme_disk);
  const AsUser user;
  const auto refused = attach(system_kernel(), bound.host(), {.backend = GetParam()});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EACCES);
  EXPECT_THAT(refused.error().message(), AllOf(HasSubstr("EACCES"), HasSubstr("/dev/"), HasSubstr("crw-------")));
}

TEST_P(AttachAsUser, MoreThanTheLockedMemoryLimitIsRefusedAndTheNeedIsSaid) {
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

INSTANTIATE_TEST_SUITE_P(Backends, AttachAsUser, ::testing::Values("type1", "iommufd"),
                         [](const auto& test) { return std::string(test.param); });

TEST(Binding, ADeviceThatHadNoDriverHasNoneAgain) {
  { const Bound bound(test::edu); }
  EXPECT_FALSE(find_pci_function(system_kernel(), test::edu).value().host.driver);
}

}  // namespace attach_test
}  // namespace postern
