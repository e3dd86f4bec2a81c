// SPDX-License-Identifier: Apache-2.0
// Joining where this guest's kernel can show more: from one backend into another, up to the mapping limit, and a device
// that the kernel takes away.
#include <gmock/gmock.h>
#include <poll.h>
#include <sys/mman.h>

#include <fstream>
#include <postern/event.hpp>
#include <thread>

#include "guest/x86_64/devices.hpp"

namespace postern {
namespace {

using test::Bound;
using test::Holdings;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr std::uint64_t page = 4096;
constexpr Iova base{0x10000000};

void write_file(const std::string& path, const std::string& text) {
  ASSERT_EQ(system_kernel().write_file(path, text), 0) << path;
}

// vfio_iommu_type1's dma_entry_limit, of containers that are opened while this lives.
class MappingLimit {
 public:
  explicit MappingLimit(const std::string& limit) {
    EXPECT_EQ(system_kernel().read_file(path, before_), 0);
    write_file(path, limit);
  }
  ~MappingLimit() { write_file(path, before_); }
  MappingLimit(const MappingLimit&) = delete;
  MappingLimit& operator=(const MappingLimit&) = delete;

 private:
  static constexpr const char* path = "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit";
  std::string before_;
};

TEST(JoiningAcrossBackends, AReplayThatRunsIntoTheMappingLimitLeavesNothing) {
  const Bound a(test::nvme_disk);
  const Bound b(test::nvme_behind_port);
  const Mmap memory(system_kernel(), ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                    page);
  const Device first = attach(system_kernel(), a.host(), {.backend = "iommufd"}).value();
  for (std::uint64_t i = 0; i < 12; ++i) ASSERT_TRUE(first.container()->map(base + i * page, memory.bytes()));
  const Holdings before = Holdings::now();
  std::vector<Error> refusals;
  const AttachOptions options{.backend = "type1", .join = {first.container()}, .refusals = &refusals};
  {
    const MappingLimit limit("10");
    const auto refused = attach(system_kernel(), b.host(), options);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ENOSPC);
    EXPECT_THAT(refused.error().message(),
                AllOf(HasSubstr("the backend type1 is asked for"), HasSubstr("10 of 12 mappings could be replayed"),
                      HasSubstr("dma_entry_limit")));
    EXPECT_TRUE(before == Holdings::now());
  }
  const auto second = attach(system_kernel(), b.host(), options);
  ASSERT_TRUE(second) << second.error().message();
  EXPECT_EQ(second->container()->backend(), "type1");
  EXPECT_EQ(second->container()->mapping_count(), 12U);
  ASSERT_EQ(refusals.size(), 1U);
}

class HotUnplug : public ::testing::TestWithParam<test::Interface> {};

// The kernel asks for a device that is unplugged (VFIO_PCI_REQ_IRQ_INDEX), and waits until it is let go.
TEST_P(HotUnplug, OneOfSeveralGoesAndTheOthersStay) {
  const Bound stays(test::nvme_disk);
  const auto goes = find_pci_function(system_kernel(), test::edu).value().host;
  ASSERT_TRUE(bind_to_driver(system_kernel(), goes, "vfio-pci"));
  const Mmap memory(system_kernel(), ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                    page);
  const Device first = attach(system_kernel(), stays.host(), test::options_for(GetParam())).value();
  const auto container = first.container();
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
  EXPECT_EQ(container->devices(), std::vector<std::string>{stays.host().name});
  EXPECT_TRUE(container->map(base + page, memory.bytes()));
  EXPECT_TRUE(container->unmap_all());
  write_file("/sys/bus/pci/rescan", "1");
  EXPECT_TRUE(find_pci_function(system_kernel(), test::edu));
}

INSTANTIATE_TEST_SUITE_P(Backends, HotUnplug, ::testing::ValuesIn(test::interfaces()), test::interface_name);

}  // namespace
}  // namespace postern
