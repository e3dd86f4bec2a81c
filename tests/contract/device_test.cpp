// SPDX-License-Identifier: Apache-2.0
// The contract of Device for each backend: regions, config space, interrupts, notifiers, reset.
#include <gmock/gmock.h>
#include <linux/vfio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <postern-nvme/controller.hpp>
#include <postern/iova_allocator.hpp>
#include <postern/registers.hpp>
#include <thread>

#include "support/host_devices.hpp"

namespace postern {
namespace device_test {

using namespace std::chrono_literals;
using test::Bound;
using test::ResourceUse;
using ::testing::HasSubstr;

constexpr std::uint16_t msix_capability = 0x11;
constexpr std::uint16_t pci_express_capability = 0x10;
constexpr std::uint32_t config_region = 7;
constexpr std::uint32_t vga_region = 8;
const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));

class DeviceOnKernel : public ::testing::TestWithParam<test::Interface> {
 protected:
  DeviceOnKernel() : before_(ResourceUse::now()) {}
  ~DeviceOnKernel() override {
    disk_.reset();
    EXPECT_TRUE(before_ == ResourceUse::now()) << "something was left behind";
  }

  static PciDevice open(const Bound& bound) {
    return PciDevice::open(attach(test::kernel(), bound.host(), test::options_for(GetParam())).value()).value();
  }
  PciDevice& disk() {
    if (!disk_) disk_.emplace(open(bound_));
    return *disk_;
  }
  static std::vector<Event> events(std::size_t count) {
    std::vector<Event> made;
    for (std::size_t i = 0; i < count; ++i) made.push_back(Event::create(test::kernel()).value());
    return made;
  }

 private:
  Bound bound_{test::first_nvme()};
  ResourceUse before_;
  std::optional<PciDevice> disk_;
};

TEST_P(DeviceOnKernel, TellsItsRegionsAndInterrupts) {
  const auto regions = disk().device().regions();
  ASSERT_GT(regions.size(), vga_region);
  EXPECT_TRUE(regions[0].readable && regions[0].writable && regions[0].mappable);
  EXPECT_GE(regions[0].length, 0x2000U) << "registers, and doorbells behind them";
  EXPECT_TRUE(regions[0].msix_mappable);
  EXPECT_FALSE(regions[config_region].mappable);
  EXPECT_EQ(regions[config_region].length, disk().find_capability(pci_express_capability) != nullptr ? 4096U : 256U);
  EXPECT_EQ(regions[vga_region].length, 0U) << "which it is not";
  EXPECT_GE(disk().interrupt(PciInterrupt::msix).count, 2U);
  EXPECT_TRUE(disk().interrupt(PciInterrupt::msix).eventfd);
  EXPECT_TRUE(disk().interrupt(PciInterrupt::intx).automasked);
  EXPECT_TRUE(disk().device().can_reset());
}

TEST_P(DeviceOnKernel, WalksTheCapabilitiesOfConfigSpace) {
  EXPECT_EQ(disk().read_config<std::uint16_t>(0x0a).value(), 0x0108) << "the class: storage, non-volatile memory";
  EXPECT_NE(disk().find_capability(msix_capability), nullptr);
  EXPECT_EQ(disk().find_capability(0xee), nullptr);
}

TEST_P(DeviceOnKernel, ARegisterReadsTheSameThroughTheFdAndThroughAMapping) {
  ASSERT_TRUE(disk().enable_bus_master());
  std::uint64_t through_fd = 0;
  ASSERT_TRUE(disk().device().read(0, 0, std::as_writable_bytes(std::span(&through_fd, 1))));
  const Mmap bar = disk().map_bar(0).value();
  EXPECT_EQ(bar.size(), disk().device().regions()[0].length);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(bar.data()) % bar.size(), 0U) << "aligned like the BAR";
  through_fd = little_endian(through_fd);
  EXPECT_EQ(registers_at<Register<std::uint32_t>>(bar.bytes(), 0).value()->read(), through_fd & 0xffffffff);
  EXPECT_EQ(registers_at<Register<std::uint32_t>>(bar.bytes(), 4).value()->read(), through_fd >> 32);
}

TEST_P(DeviceOnKernel, ItsFdTakesTheKernelsCallsUntilItIsDetached) {
  Device& device = disk().device();
  EXPECT_EQ(test::kernel().ioctl(device.fd(), VFIO_DEVICE_RESET, nullptr), 0);
  ASSERT_TRUE(device.detach());
  EXPECT_EQ(device.fd(), -1);
  EXPECT_EQ(disk().reset().error().code(), EBADF);
  EXPECT_EQ(disk().map_bar(0).error().code(), EBADF);
  EXPECT_EQ(disk().check_responds().error().code(), EBADF);
  const PciDevice elsewhere = std::move(disk());
  EXPECT_EQ(disk().reset().error().code(), EBADF) << "moved from";  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(disk().map_bar(0).error().code(), EBADF);
  EXPECT_EQ(disk().check_responds().error().code(), EBADF);
  EXPECT_EQ(disk().enable_bus_master().error().code(), EBADF);
}

TEST_P(DeviceOnKernel, ABarIsMappedWhereTheCallerReservedAddresses) {
  const Device& device = disk().device();
  const std::uint64_t length = device.regions()[0].length;
  Mmap reserved(test::kernel(), ::mmap(nullptr, 4 * page + length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                4 * page + length);
  const auto place = reserved.bytes().subspan(page, length);
  std::uint32_t version = 0;
  {
    const auto mapped = device.map_region(0, 0, place);
    ASSERT_TRUE(mapped) << mapped.error().message();
    EXPECT_EQ(mapped->data(), place.data());
    ASSERT_TRUE(device.read(0, 8, std::as_writable_bytes(std::span(&version, 1))));
    EXPECT_EQ(registers_at<Register<std::uint32_t>>(mapped->bytes(), 8).value()->read(), version);
  }
  EXPECT_EQ(device.map_region(0, 0, reserved.bytes().subspan(1, length)).error().code(), EINVAL) << "unaligned";
  EXPECT_EQ(device.map_region(0, 0, std::span<std::byte>()).error().code(), EINVAL);
  EXPECT_FALSE(device.map_region(0, page, place)) << "past its end";
}

TEST_P(DeviceOnKernel, AccessPastARegionOrToOneThatIsNotThereIsRefused) {
  const Device& device = disk().device();
  const std::uint64_t end = device.regions()[0].length;
  std::uint32_t word = 0;
  const auto bytes = std::as_writable_bytes(std::span(&word, 1));
  EXPECT_EQ(device.read(0, end - 2, bytes).error().code(), ERANGE);
  EXPECT_EQ(device.read(0, ~std::uint64_t{0}, bytes).error().code(), EOVERFLOW);
  EXPECT_EQ(device.map_region(0, ~(page - 1), 2 * page).error().code(), EOVERFLOW);
  EXPECT_EQ(device.write(0, end, bytes).error().code(), ERANGE);
  EXPECT_EQ(device.read(vga_region, 0, bytes).error().code(), ENODEV);
  EXPECT_EQ(device.read(99, 0, bytes).error().code(), ENODEV);
  EXPECT_EQ(device.map_region(0, end, page).error().code(), ERANGE);
  EXPECT_EQ(device.map_region(0, 0, end + page).error().code(), ERANGE);
  EXPECT_EQ(device.map_region(0, 1, page).error().code(), EINVAL);
  EXPECT_EQ(device.map_region(0, 0, 0).error().code(), EINVAL);
  EXPECT_THAT(device.map_region(config_region, 0, page).error().message(), HasSubstr("none"));
}

TEST_P(DeviceOnKernel, MsixVectorsAreTurnedOnTogetherAndMoreAreAddedLaterWhereTheKernelCan) {
  const auto first = events(3);
  const auto later = events(2);
  ASSERT_TRUE(disk().enable(PciInterrupt::msix, first));
  const auto added = disk().add(PciInterrupt::msix, 3, later);
  ASSERT_EQ(added.has_value(), disk().interrupt(PciInterrupt::msix).resizable) << "Linux 6.5 and newer";
  ASSERT_TRUE(disk().disable(PciInterrupt::msix));
  ASSERT_TRUE(disk().disable(PciInterrupt::msix)) << "of what is off already";
}

TEST_P(DeviceOnKernel, MoreVectorsThanTheDeviceHasAreRefusedAndTheNumberIsSaid) {
  constexpr auto msix = static_cast<std::uint32_t>(PciInterrupt::msix);
  const std::uint32_t count = disk().interrupt(PciInterrupt::msix).count;
  const auto one = events(1);
  auto refused = disk().device().enable_interrupts(msix, count, one);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ERANGE);
  EXPECT_THAT(refused.error().message(), HasSubstr(std::to_string(count)));
  EXPECT_EQ(disk().device().enable_interrupts(msix, 0, {}).error().code(), EINVAL);
  EXPECT_EQ(disk().enable(PciInterrupt::msi, one).error().code(), ENODEV) << "this disk has no MSI";
  EXPECT_EQ(disk().device().enable_interrupts(77, 0, one).error().code(), ENODEV);
}

TEST_P(DeviceOnKernel, TwoKindsOfInterruptExcludeEachOther) {
  const auto event = events(2);
  ASSERT_TRUE(disk().enable(PciInterrupt::msix, std::span(event).first(1)));
  auto refused = disk().enable(PciInterrupt::intx, std::span(event).last(1));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EINVAL);
  EXPECT_THAT(refused.error().message(), HasSubstr("exclude each other"));
}

TEST_P(DeviceOnKernel, ADeviceThatIsTakenAwayRequestsItsRelease) {
  const PciAddress address = test::last_nvme();
  const auto driver = find_pci_function(test::kernel(), address).value().host.driver;
  if (driver == "vfio-pci") GTEST_SKIP() << "its driver before is vfio-pci: it would not be unbound";
  auto bound = std::make_unique<Bound>(address);
  PciDevice leaving = open(*bound);
  const auto event = events(1);
  ASSERT_TRUE(leaving.notify(PciInterrupt::request, event[0]));
  // The kernel blocks unbinding until the device is closed.
  std::thread admin([&] { bound.reset(); });
  EXPECT_GE(event[0].wait(30s).value(), 1U);
  EXPECT_TRUE(leaving.device().detach());
  admin.join();
  EXPECT_EQ(find_pci_function(test::kernel(), address).value().host.driver, driver);
}

TEST_P(DeviceOnKernel, ErrorNotifiersCanBeSetWhereTheDeviceIsPciExpress) {
  const bool is_express = disk().find_capability(pci_express_capability) != nullptr;
  const auto event = events(1);
  EXPECT_EQ(disk().interrupt(PciInterrupt::error).count, is_express ? 1U : 0U);
  EXPECT_EQ(disk().notify(PciInterrupt::error, event[0]).has_value(), is_express);
  EXPECT_EQ(disk().disable(PciInterrupt::error).has_value(), is_express);
}

TEST_P(DeviceOnKernel, AResetStopsARunningControllerAndTellsWhichWayItWent) {
  const auto container = disk().device().container();
  IovaAllocator iovas(container->usable_ranges(), container->page_sizes());
  const auto controller = nvme::Controller::open(disk(), iovas);
  ASSERT_TRUE(controller) << controller.error().message();
  EXPECT_TRUE(test::is_running(disk()));
  EXPECT_EQ(disk().reset().value(), "flr");
  EXPECT_FALSE(test::is_running(disk()));
}

TEST_P(DeviceOnKernel, TheBusMasterBitIsSetAndCleared) {
  constexpr std::uint16_t command = 0x04;
  ASSERT_TRUE(disk().enable_bus_master());
  EXPECT_EQ(disk().read_config<std::uint16_t>(command).value() & 6, 6);
  ASSERT_TRUE(disk().disable_bus_master());
  EXPECT_EQ(disk().read_config<std::uint16_t>(command).value() & 6, 2);
}

TEST_P(DeviceOnKernel, FeaturesAreProbed) {
  constexpr std::uint32_t migration = 1;
  EXPECT_FALSE(disk().device().has_feature(migration)) << "this disk cannot migrate through VFIO";
  EXPECT_FALSE(disk().device().has_feature(0xfff));
}

INSTANTIATE_TEST_SUITE_P(Backends, DeviceOnKernel, ::testing::ValuesIn(test::interfaces()), test::interface_name);

}  // namespace device_test
}  // namespace postern
