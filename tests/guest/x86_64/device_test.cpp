// SPDX-License-Identifier: Apache-2.0
// What a device promises, on the real kernel, for each backend: regions, config space, interrupts, notifiers, reset.
#include <gmock/gmock.h>

#include <postern/iova_allocator.hpp>
#include <postern/nvme.hpp>
#include <thread>

#include "guest/x86_64/devices.hpp"

namespace postern {
namespace {

using namespace std::chrono_literals;
using test::Bound;
using ::testing::HasSubstr;

constexpr std::uint16_t msix_capability = 0x11;
constexpr std::uint16_t pci_express_capability = 0x10;
constexpr auto msix = static_cast<std::uint32_t>(PciInterrupt::msix);

class DeviceOnKernel : public ::testing::TestWithParam<const char*> {
 protected:
  static PciDevice open(const Bound& bound) {
    return PciDevice::open(attach(system_kernel(), bound.host(), {.backend = GetParam()}).value()).value();
  }
  static std::vector<Event> events(std::size_t count) {
    std::vector<Event> made;
    for (std::size_t i = 0; i < count; ++i) made.push_back(Event::create(system_kernel()).value());
    return made;
  }
  // How many of a device's vectors the kernel has handlers for, as /proc/interrupts has them:
  // "vfio-msix[2](0000:00:01.0)".
  static int vectors_in_proc(const std::string& device) {
    std::string text;
    EXPECT_EQ(system_kernel().read_file("/proc/interrupts", text), 0);
    int count = 0;
    for (auto at = text.find("(" + device + ")"); at != std::string::npos; at = text.find("(" + device + ")", at + 1))
      ++count;
    return count;
  }
};

TEST_P(DeviceOnKernel, TellsItsRegionsAndInterrupts) {
  const Bound bound(test::nvme_disk);
  const PciDevice disk = open(bound);
  const auto regions = disk.device().regions();
  ASSERT_GE(regions.size(), 9U);
  EXPECT_EQ(regions[0].length, 0x4000U);
  EXPECT_TRUE(regions[0].readable && regions[0].writable && regions[0].mappable);
  EXPECT_TRUE(regions[0].msix_mappable);
  ASSERT_EQ(regions[0].mappable_areas.size(), 1U);
  EXPECT_EQ(regions[7].length, 0x1000U);
  EXPECT_FALSE(regions[7].mappable);
  EXPECT_EQ(regions[8].length, 0U) << "VGA, which it is not";
  EXPECT_GE(disk.interrupt(PciInterrupt::msix).count, 2U);
  EXPECT_TRUE(disk.interrupt(PciInterrupt::msix).eventfd);
  EXPECT_TRUE(disk.interrupt(PciInterrupt::intx).automasked);
  EXPECT_TRUE(disk.device().can_reset());
}

TEST_P(DeviceOnKernel, WalksTheCapabilitiesOfConfigSpace) {
  const Bound bound(test::nvme_disk);
  const PciDevice disk = open(bound);
  EXPECT_EQ(disk.read_config<std::uint16_t>(0).value(), 0x1b36);
  EXPECT_NE(disk.find_capability(msix_capability), nullptr);
  EXPECT_NE(disk.find_capability(pci_express_capability), nullptr);
  EXPECT_EQ(disk.find_capability(0xee), nullptr);
}

TEST_P(DeviceOnKernel, ARegisterReadsTheSameThroughTheFdAndThroughAMapping) {
  const Bound bound(test::nvme_disk);
  const PciDevice disk = open(bound);
  ASSERT_TRUE(disk.enable_bus_master());
  std::uint64_t through_fd = 0;
  ASSERT_TRUE(disk.device().read(0, 0, std::as_writable_bytes(std::span(&through_fd, 1))));
  const Mmap bar = disk.map_bar(0).value();
  EXPECT_EQ(bar.size(), 0x4000U);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(bar.data()) % 0x4000, 0U) << "aligned like the BAR";
  const auto* words = reinterpret_cast<const volatile std::uint32_t*>(bar.data());
  EXPECT_EQ(words[0], static_cast<std::uint32_t>(through_fd));
  EXPECT_EQ(words[1], static_cast<std::uint32_t>(through_fd >> 32));
}

TEST_P(DeviceOnKernel, AccessPastARegionOrToOneThatIsNotThereIsRefused) {
  const Bound bound(test::nvme_disk);
  const PciDevice disk = open(bound);
  std::uint32_t word = 0;
  const auto bytes = std::as_writable_bytes(std::span(&word, 1));
  EXPECT_EQ(disk.device().read(0, 0x3ffe, bytes).error().code(), ERANGE);
  EXPECT_EQ(disk.device().read(0, ~std::uint64_t{0}, bytes).error().code(), ERANGE);
  EXPECT_EQ(disk.device().write(0, 0x4000, bytes).error().code(), ERANGE);
  EXPECT_EQ(disk.device().read(8, 0, bytes).error().code(), ENODEV);
  EXPECT_EQ(disk.device().read(99, 0, bytes).error().code(), ENODEV);
  EXPECT_EQ(disk.device().map_region(0, 0x4000, 0x1000).error().code(), ERANGE);
  EXPECT_EQ(disk.device().map_region(0, 0, 0x5000).error().code(), ERANGE);
  EXPECT_EQ(disk.device().map_region(0, 1, 0x1000).error().code(), EINVAL);
  EXPECT_EQ(disk.device().map_region(0, 0, 0).error().code(), EINVAL);
  EXPECT_THAT(disk.device().map_region(7, 0, 0x1000).error().message(), HasSubstr("none"));
}

TEST_P(DeviceOnKernel, MsixVectorsAreTurnedOnTogetherAndMoreAreAddedLater) {
  const Bound bound(test::nvme_disk);
  const PciDevice disk = open(bound);
  ASSERT_TRUE(disk.interrupt(PciInterrupt::msix).resizable) << "Linux 6.5 and newer";
  const auto first = events(3);
  const auto later = events(2);
  ASSERT_TRUE(disk.enable(PciInterrupt::msix, first));
  EXPECT_EQ(vectors_in_proc(disk.name()), 3);
  ASSERT_TRUE(disk.add(PciInterrupt::msix, 3, later));
  EXPECT_EQ(vectors_in_proc(disk.name()), 5);
  ASSERT_TRUE(disk.disable(PciInterrupt::msix));
  EXPECT_EQ(vectors_in_proc(disk.name()), 0);
  ASSERT_TRUE(disk.disable(PciInterrupt::msix)) << "of what is off already";
}

TEST_P(DeviceOnKernel, MoreVectorsThanTheDeviceHasAreRefusedAndTheNumberIsSaid) {
  const Bound bound(test::nvme_disk);
  const PciDevice disk = open(bound);
  const std::uint32_t count = disk.interrupt(PciInterrupt::msix).count;
  const auto one = events(1);
  auto refused = disk.device().enable_interrupts(msix, count, one);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ERANGE);
  EXPECT_THAT(refused.error().message(), HasSubstr(std::to_string(count)));
  EXPECT_EQ(disk.device().enable_interrupts(msix, 0, {}).error().code(), ERANGE);
  EXPECT_EQ(disk.enable(PciInterrupt::msi, one).error().code(), ENODEV) << "this disk has no MSI";
  EXPECT_EQ(disk.device().enable_interrupts(77, 0, one).error().code(), ENODEV);
}

TEST_P(DeviceOnKernel, TwoKindsOfInterruptExcludeEachOther) {
  const Bound bound(test::nvme_disk);
  const PciDevice disk = open(bound);
  const auto event = events(2);
  ASSERT_TRUE(disk.enable(PciInterrupt::msix, std::span(event).first(1)));
  auto refused = disk.enable(PciInterrupt::intx, std::span(event).last(1));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EINVAL);
  EXPECT_THAT(refused.error().message(), HasSubstr("exclude each other"));
}

TEST_P(DeviceOnKernel, ADeviceThatIsTakenAwayRequestsItsRelease) {
  auto bound = std::make_unique<Bound>(test::nvme_behind_port);
  PciDevice disk = open(*bound);
  const auto event = events(1);
  ASSERT_TRUE(disk.notify(PciInterrupt::request, event[0]));
  // Unbinding waits in the kernel until the device is let go.
  std::thread admin([&] { bound.reset(); });
  EXPECT_GE(event[0].wait(30s).value(), 1U);
  EXPECT_TRUE(disk.device().detach());
  admin.join();
  EXPECT_EQ(find_pci_function(system_kernel(), test::nvme_behind_port).value().host.driver, "nvme");
}

TEST_P(DeviceOnKernel, ErrorNotifiersCanBeSetWhereTheDeviceIsPciExpress) {
  const Bound bound(test::nvme_disk);
  const PciDevice disk = open(bound);
  const auto event = events(1);
  EXPECT_EQ(disk.interrupt(PciInterrupt::error).count, 1U);
  EXPECT_TRUE(disk.notify(PciInterrupt::error, event[0]));
  EXPECT_TRUE(disk.disable(PciInterrupt::error));
}

TEST_P(DeviceOnKernel, AResetStopsARunningController) {
  const Bound bound(test::nvme_disk);
  PciDevice disk = open(bound);
  const auto container = disk.device().container();
  IovaAllocator iovas(container->usable_ranges(), container->page_sizes());
  const auto controller = nvme::Controller::open(disk, iovas);
  ASSERT_TRUE(controller) << controller.error().message();
  const auto ready = [&disk] {
    std::uint32_t status = 0;
    EXPECT_TRUE(disk.device().read(0, 0x1c, std::as_writable_bytes(std::span(&status, 1))));  // CSTS
    return (status & 1) != 0;
  };
  EXPECT_TRUE(ready());
  ASSERT_TRUE(disk.device().reset());
  ASSERT_TRUE(disk.enable_bus_master());
  EXPECT_FALSE(ready());
}

TEST_P(DeviceOnKernel, TheBusMasterBitIsSetAndCleared) {
  const Bound bound(test::nvme_disk);
  const PciDevice disk = open(bound);
  constexpr std::uint16_t command = 0x04;
  ASSERT_TRUE(disk.enable_bus_master());
  EXPECT_EQ(disk.read_config<std::uint16_t>(command).value() & 6, 6);
  ASSERT_TRUE(disk.disable_bus_master());
  EXPECT_EQ(disk.read_config<std::uint16_t>(command).value() & 6, 2);
}

TEST_P(DeviceOnKernel, FeaturesAreProbed) {
  const Bound bound(test::nvme_disk);
  const PciDevice disk = open(bound);
  constexpr std::uint32_t migration = 1;
  EXPECT_FALSE(disk.device().has_feature(migration)) << "QEMU's disk cannot migrate through VFIO";
  EXPECT_FALSE(disk.device().has_feature(0xfff));
}

INSTANTIATE_TEST_SUITE_P(Backends, DeviceOnKernel, ::testing::Values("type1", "iommufd"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace postern
