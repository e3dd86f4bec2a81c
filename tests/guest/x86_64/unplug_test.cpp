// SPDX-License-Identifier: Apache-2.0
// A device that is unplugged or unbound while others share its container.
#include <gmock/gmock.h>
#include <linux/vfio.h>
#include <poll.h>
#include <sys/mman.h>

#include <postern-sim/faults.hpp>
#include <postern/event.hpp>
#include <thread>

#include "guest/x86_64/devices.hpp"

namespace postern {
namespace unplug_test {

using test::Bound;

constexpr std::uint64_t page = 4096;
constexpr Iova base{0x10000000};

void write_file(const std::string& path, const std::string& text) {
  ASSERT_EQ(system_kernel().write_file(path, text), 0) << path;
}

class HotUnplug : public ::testing::TestWithParam<test::Interface> {};

// On unplug the kernel requests the device's release (VFIO_PCI_REQ_IRQ_INDEX), and waits for it.
TEST_P(HotUnplug, OneOfSeveralGoesAndTheOthersStay) {
  const Bound stays(test::nvme_disk);
  const auto goes = find_pci_function(system_kernel(), test::edu).value().host;
  ASSERT_TRUE(bind_to_driver(system_kernel(), goes, "vfio-pci"));
  const Mmap memory(system_kernel(), ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                    page);
  const Device first = attach(system_kernel(), stays.host(), test::options_for(GetParam())).value();
  const auto& container = first.container();
  ASSERT_TRUE(container->map(base, memory.bytes()));
  {
    PciDevice leaving =
        PciDevice::open(attach(system_kernel(), find_pci_function(system_kernel(), test::edu).value().host,
                               {.container = container})
                            .value())
            .value();
    const Event wanted = Event::create(system_kernel()).value();
    ASSERT_TRUE(leaving.notify(PciInterrupt::request, wanted));
    std::thread unplug([&] { write_file(goes.sysfs_path + "/remove", "1"); });
    pollfd event{.fd = wanted.fd(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(::poll(&event, 1, 30'000), 1) << "nobody asked for the device";
    EXPECT_TRUE(leaving.device().detach());
    unplug.join();
  }
  EXPECT_FALSE(find_pci_function(system_kernel(), test::edu));
  ASSERT_EQ(container->devices().size(), 1U);
  EXPECT_EQ(container->devices().front().name, stays.host().name);
  EXPECT_TRUE(container->map(base + page, memory.bytes()));
  EXPECT_TRUE(container->unmap_all());
  write_file("/sys/bus/pci/rescan", "1");
  EXPECT_TRUE(find_pci_function(system_kernel(), test::edu));
}

// When the last device of a group is unbound, the kernel removes the group from its container before we can.
TEST(UnboundGroup, LeavesItsContainerWithoutAnError) {
  const Bound bound(test::nvme_disk);
  sim::FailingKernel kernel(system_kernel());
  Device device = attach(kernel, bound.host(), {.backend = "type1"}).value();
  kernel.fail_ioctl(VFIO_GROUP_UNSET_CONTAINER, EINVAL);
  const auto detached = device.detach();
  EXPECT_TRUE(detached) << detached.error().message();
}

INSTANTIATE_TEST_SUITE_P(Backends, HotUnplug, ::testing::ValuesIn(test::interfaces()), test::interface_name);

}  // namespace unplug_test
}  // namespace postern
