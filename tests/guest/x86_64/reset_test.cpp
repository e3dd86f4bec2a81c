// SPDX-License-Identifier: Apache-2.0
// Resets beyond the contract tests: a twin held by another process, this guest's buses, and the effect of reset_method.
#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <postern/reset_set.hpp>

#include "guest/x86_64/devices.hpp"

namespace postern {
namespace reset_test {

using test::Bound;
using test::ResourceUse;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string sysfs_path(PciAddress address) { return "/sys/bus/pci/devices/" + to_string(address); }

// Sets the reset_method of a function during its lifetime.
class ResetMethod {
 public:
  ResetMethod(PciAddress address, const std::string& methods) : path_(sysfs_path(address) + "/reset_method") {
    EXPECT_EQ(system_kernel().write_file(path_, methods + "\n"), 0);
  }
  ~ResetMethod() { EXPECT_EQ(system_kernel().write_file(path_, "default\n"), 0); }
  ResetMethod(const ResetMethod&) = delete;
  ResetMethod& operator=(const ResetMethod&) = delete;

 private:
  std::string path_;
};

class ResetOnKernel : public ::testing::TestWithParam<test::Interface> {
 protected:
  ResetOnKernel() : before_(ResourceUse::now()) {}
  ~ResetOnKernel() override { EXPECT_TRUE(before_ == ResourceUse::now()) << "something was left behind"; }

  static PciDevice open(const Bound& bound, std::shared_ptr<Container> container = nullptr) {
    AttachOptions options = test::options_for(GetParam());
    options.container = std::move(container);
    return PciDevice::open(attach(system_kernel(), bound.host(), options).value()).value();
  }
  static bool by_group() { return GetParam().backend == "type1"; }

 private:
  ResourceUse before_;
};

TEST_P(ResetOnKernel, ATwinInAnotherProcessKeepsTheGroupFromUs) {
  const Bound bound_a(test::twin_a);
  const Bound bound_b(test::twin_b);
  int opened[2];
  int over[2];
  ASSERT_EQ(::pipe(opened), 0);
  ASSERT_EQ(::pipe(over), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const auto b = attach(system_kernel(), bound_b.host(), test::options_for(GetParam()));
    const char told = b ? 'y' : 'n';
    (void)!::write(opened[1], &told, 1);
    char end = 0;
    (void)!::read(over[0], &end, 1);
    ::_exit(0);
  }
  char told = 0;
  EXPECT_EQ(::read(opened[0], &told, 1), 1);
  EXPECT_EQ(told, 'y');
  const auto refused = attach(system_kernel(), bound_a.host(), test::options_for(GetParam()));
  // A group can be open only once; binding a cdev checks the owner of its group (iommu_device_claim_dma_owner).
  EXPECT_EQ(refused ? 0 : refused.error().code(), by_group() ? EBUSY : EPERM);
  EXPECT_THAT(refused ? "" : refused.error().message(),
              HasSubstr(by_group() ? "already open" : "another process has a device of its group"));
  EXPECT_EQ(::write(over[1], &told, 1), 1);
  EXPECT_EQ(::waitpid(child, nullptr, 0), child);
  for (const int fd : {opened[0], opened[1], over[0], over[1]}) ::close(fd);
}

TEST_P(ResetOnKernel, ADeviceAloneOnItsBusNeedsNobodyElse) {
  const Bound bound(test::nvme_behind_port);
  const PciDevice disk = open(bound);
  const auto set = ResetSet::of(disk.device());
  ASSERT_TRUE(set) << set.error().message();
  EXPECT_EQ(set->members().size(), 1U);
  EXPECT_TRUE(set->reset());
}

TEST_P(ResetOnKernel, AGroupOfAnotherBusIsNotGivenToTheKernel) {
  const Bound bound(test::nvme_behind_port);
  const Bound elsewhere(test::edu);
  const PciDevice disk = open(bound);
  const PciDevice edu = open(elsewhere, disk.device().container());
  const std::array<const Device*, 1> also_owned = {&edu.device()};
  const auto done = ResetSet::of(disk.device(), also_owned).value().reset();
  EXPECT_TRUE(done) << done.error().message();
}

TEST_P(ResetOnKernel, OnTheRootBusThereIsNoHotReset) {
  const Bound bound(test::nvme_disk);
  const PciDevice disk = open(bound);
  const auto set = ResetSet::of(disk.device());
  ASSERT_FALSE(set);
  EXPECT_EQ(set.error().code(), ENODEV);
  EXPECT_THAT(set.error().message(), AllOf(HasSubstr("0000:00:01.0"), HasSubstr("root bus")));
}

TEST_P(ResetOnKernel, AFunctionsResetTellsWhichWayItWent) {
  const Bound disk(test::nvme_disk);
  EXPECT_EQ(open(disk).reset().value(), "flr");
  const Bound behind_port(test::nvme_behind_port);
  EXPECT_EQ(open(behind_port).reset().value(), "flr") << "though its bus could be reset";
  const ResetMethod only(test::nvme_behind_port, "bus");
  const PciDevice pci = open(behind_port);
  const auto method = pci.reset();
  ASSERT_TRUE(method) << method.error().message();
  EXPECT_EQ(*method, "bus") << "as the administrator wants it";
}

TEST_P(ResetOnKernel, ADeviceWithoutAResetOfItsOwnCanBeResetWithItsBus) {
  const ResetMethod none(test::nvme_behind_port, "");
  const Bound bound(test::nvme_behind_port);
  const PciDevice disk = open(bound);
  EXPECT_EQ(disk.reset().error().code(), EOPNOTSUPP);
  const auto done = ResetSet::of(disk.device()).value().reset();
  EXPECT_TRUE(done) << done.error().message();
}

INSTANTIATE_TEST_SUITE_P(Backends, ResetOnKernel, ::testing::ValuesIn(test::interfaces()), test::interface_name);

}  // namespace reset_test
}  // namespace postern
