// SPDX-License-Identifier: Apache-2.0
// Resets on the real kernel: of one function, and of all that a hot reset takes along, in each way to prove whose it
// is.
#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <postern/dma_buffer.hpp>
#include <postern/nvme.hpp>
#include <postern/reset_set.hpp>

#include "guest/x86_64/devices.hpp"

namespace postern {
namespace {

using test::Bound;
using test::Holdings;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string sysfs_path(PciAddress address) { return "/sys/bus/pci/devices/" + to_string(address); }

// Whether an NVMe controller is running: CSTS.RDY. Its registers can be read while its memory is on.
bool is_running(const PciDevice& pci) {
  std::uint32_t status = 0;
  EXPECT_TRUE(pci.enable_bus_master());
  EXPECT_TRUE(pci.device().read(0, 0x1c, std::as_writable_bytes(std::span(&status, 1))));
  return (status & 1) != 0;
}

// The other ways of a function's reset, for as long as this lives.
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
  ResetOnKernel() : before_(Holdings::now()) {}
  ~ResetOnKernel() override { EXPECT_TRUE(before_ == Holdings::now()) << "something was left behind"; }

  static PciDevice open(const Bound& bound, std::shared_ptr<Container> container = nullptr) {
    AttachOptions options = test::options_for(GetParam());
    options.container = std::move(container);
    return PciDevice::open(attach(system_kernel(), bound.host(), options).value()).value();
  }
  static bool by_group() { return GetParam().backend == "type1"; }

 private:
  Holdings before_;
};

TEST_P(ResetOnKernel, AHotResetStopsEveryDeviceOfTheBusAndMappingsStay) {
  const Bound bound_a(test::twin_a);
  const Bound bound_b(test::twin_b);
  PciDevice a = open(bound_a);
  PciDevice b = open(bound_b, a.device().container());
  const auto container = a.device().container();
  IovaAllocator iovas(container->usable_ranges(), container->page_sizes());
  const auto buffer = DmaBuffer::allocate(container, iovas, 4096).value();
  {
    const auto first = nvme::Controller::open(a, iovas);
    ASSERT_TRUE(first) << first.error().message();
    const auto second = nvme::Controller::open(b, iovas);
    ASSERT_TRUE(second) << second.error().message();
    EXPECT_TRUE(is_running(a));
    EXPECT_TRUE(is_running(b));

    const std::array<const Device*, 1> lent = {&b.device()};
    const auto set = ResetSet::of(a.device(), lent);
    ASSERT_TRUE(set) << set.error().message();
    ASSERT_EQ(set->members().size(), 2U);
    EXPECT_EQ(set->members()[0].address, test::twin_a);
    EXPECT_EQ(set->members()[1].address, test::twin_b);
    EXPECT_EQ(set->members()[0].group, bound_a.host().iommu_group);
    EXPECT_EQ(set->members()[1].device_id.has_value(), !by_group());
    ASSERT_TRUE(set->complete());
    const std::size_t mappings = container->mapping_count();
    const auto done = set->reset();
    ASSERT_TRUE(done) << done.error().message();
    EXPECT_FALSE(is_running(a));
    EXPECT_FALSE(is_running(b));
    EXPECT_EQ(container->mapping_count(), mappings);
  }
  // Both work again, into memory that was mapped before the reset, and by interrupts that are set up anew.
  std::uint8_t number = 0;
  for (PciDevice* pci : {&a, &b}) {
    auto again = nvme::Controller::open(*pci, iovas, {.completion = nvme::Completion::msix});
    ASSERT_TRUE(again) << again.error().message();
    EXPECT_EQ(again->info().serial, "twin" + std::to_string(number++));
    std::ranges::fill(buffer.bytes(), std::byte{0xa5});
    ASSERT_TRUE(again->read(again->namespaces().at(0), 0, 8, buffer.iova()));
    EXPECT_LT(std::ranges::count(buffer.bytes(), std::byte{0xa5}), 128) << "nothing came from the disk";
  }
}

TEST_P(ResetOnKernel, ATwinThatIsNotOpenedIsOursThroughItsGroup) {
  const Bound bound_a(test::twin_a);
  const Bound bound_b(test::twin_b);
  PciDevice a = open(bound_a);
  IovaAllocator iovas(a.device().container()->usable_ranges(), a.device().container()->page_sizes());
  const auto controller = nvme::Controller::open(a, iovas);
  ASSERT_TRUE(controller) << controller.error().message();
  const auto set = ResetSet::of(a.device());
  ASSERT_TRUE(set) << set.error().message();
  ASSERT_TRUE(set->complete());
  EXPECT_EQ(set->members()[0].device_id.has_value(), !by_group());
  EXPECT_FALSE(set->members()[1].device_id);
  const auto done = set->reset();
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_FALSE(is_running(a));
}

TEST_P(ResetOnKernel, ATwinWithoutADriverIsInTheWayThoughItsGroupIsOurs) {
  const Bound bound_a(test::twin_a);
  const Bound bound_b(test::twin_b);
  ASSERT_EQ(system_kernel().write_file(sysfs_path(test::twin_b) + "/driver/unbind", to_string(test::twin_b)), 0);
  PciDevice a = open(bound_a);
  IovaAllocator iovas(a.device().container()->usable_ranges(), a.device().container()->page_sizes());
  const auto controller = nvme::Controller::open(a, iovas);
  ASSERT_TRUE(controller) << controller.error().message();
  const auto set = ResetSet::of(a.device());
  ASSERT_TRUE(set) << set.error().message();
  EXPECT_FALSE(set->complete());
  const auto refused = set->reset();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EPERM);
  EXPECT_THAT(refused.error().message(),
              AllOf(HasSubstr("0000:02:00.1 (bound to no driver)"), HasSubstr("\"postern bind 0000:02:00.1\"")));
  EXPECT_TRUE(is_running(a)) << "it was not touched";
}

TEST_P(ResetOnKernel, ATwinThatAnotherDriverTookSinceIsTheKernelsToRefuse) {
  const Bound bound_a(test::twin_a);
  const Bound bound_b(test::twin_b);
  const PciDevice a = open(bound_a);
  const auto set = ResetSet::of(a.device());
  ASSERT_TRUE(set) << set.error().message();
  ASSERT_TRUE(set->complete());
  ASSERT_EQ(system_kernel().write_file(sysfs_path(test::twin_b) + "/driver/unbind", to_string(test::twin_b)), 0);
  const auto refused = set->reset();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EINVAL);
  EXPECT_THAT(refused.error().message(), HasSubstr("has changed"));
}

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
  // A group has one opener; of a cdev the group's owner is asked for when it is bound (iommu_device_claim_dma_owner).
  EXPECT_EQ(refused ? 0 : refused.error().code(), by_group() ? EBUSY : EPERM);
  EXPECT_THAT(refused ? "" : refused.error().message(),
              HasSubstr(by_group() ? "open already" : "another process has a device of its group"));
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
  const std::array<const Device*, 1> lent = {&edu.device()};
  const auto done = ResetSet::of(disk.device(), lent).value().reset();
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

}  // namespace
}  // namespace postern
