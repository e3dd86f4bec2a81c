// SPDX-License-Identifier: Apache-2.0
// AttachOptions::join on the kernel under test, for each backend: a device shares the memory of others, in their
// container if the kernel allows it, else in a new container with the same mappings.
#include <gmock/gmock.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <postern-nvme/controller.hpp>
#include <postern-sim/faults.hpp>

#include "support/host_devices.hpp"

namespace postern {
namespace joining_test {

using test::Bound;
using test::ResourceUse;
using ::testing::HasSubstr;

constexpr std::uint64_t page = 65536;  // a multiple of every guest's page size
constexpr Iova base{0x10000000};       // usable with every IOMMU

// Reads the first page of the disk by DMA to `data`; the controller's queues are mapped at `queues`.
std::vector<std::byte> read_disk(PciDevice& pci, Iova data, Iova queues) {
  IovaAllocator iovas(std::vector<IovaRange>{{queues, queues + 0xffffff}}, 4096);
  auto controller = nvme::Controller::open(pci, iovas);
  EXPECT_TRUE(controller) << controller.error().message();
  const nvme::Namespace& ns = controller->namespaces().at(0);
  const auto done = controller->read(ns, 0, static_cast<std::uint32_t>(page / ns.block_size), data);
  EXPECT_TRUE(done) << done.error().message();
  const auto mapping = pci.device().container()->find(data).value();
  const auto* const bytes = mapping.memory.address() + (data - mapping.range.first);
  return {bytes, bytes + page};
}

class JoiningOnKernel : public ::testing::TestWithParam<test::Interface> {
 protected:
  JoiningOnKernel()
      : bound_(test::first_nvme()),
        other_(test::last_nvme()),
        before_(ResourceUse::now()),
        memory_(test::kernel(), ::mmap(nullptr, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                4 * page),
        first_(PciDevice::open(attach(kernel_, bound_.host(), test::options_for(GetParam())).value()).value()) {}
  ~JoiningOnKernel() override {
    if (first_) {
      EXPECT_TRUE(first_->device().detach());
    }
    first_.reset();
    memory_ = {};
    EXPECT_EQ(kernel_.open_files(), 0);
    EXPECT_TRUE(before_ == ResourceUse::now()) << "something was left behind";
  }

  std::shared_ptr<Container> container() { return first_->device().container(); }
  AttachOptions joining(std::vector<Error>* refusals = nullptr) {
    AttachOptions options = test::options_for(GetParam());
    options.join = {container()};
    options.refusals = refusals;
    return options;
  }
  void map_each_page() {
    for (std::uint64_t at = 0; at < 4 * page; at += page) {
      ASSERT_TRUE(container()->map(base + at, memory_.bytes().subspan(at, page)));
    }
  }

  sim::FailingKernel kernel_{test::kernel()};
  Bound bound_;
  Bound other_;
  ResourceUse before_;
  Mmap memory_;
  std::optional<PciDevice> first_;
};

TEST_P(JoiningOnKernel, BothReachTheSameMemoryWhetherTheyShareAContainerOrNot) {
  map_each_page();
  std::vector<Error> refusals;
  auto attached = attach(kernel_, other_.host(), joining(&refusals));
  ASSERT_TRUE(attached) << attached.error().message();
  PciDevice second = PciDevice::open(std::move(*attached)).value();
  if (second.device().container() == container()) {
    EXPECT_TRUE(refusals.empty());
    EXPECT_EQ(container()->devices().size(), 2U);
  } else {
    EXPECT_EQ(GetParam().backend, "spapr") << "the others share";
    ASSERT_EQ(refusals.size(), 1U);
    EXPECT_THAT(refusals[0].message(), HasSubstr("cannot share this container"));
    EXPECT_EQ(second.device().container()->mapping_count(), 4U);
  }
  const auto first_disk = read_disk(*first_, base, base + 0x1000000);
  const auto second_disk = read_disk(second, base + page, base + 0x2000000);
  EXPECT_TRUE(test::came_from_disk(first_disk) && test::came_from_disk(second_disk));
  EXPECT_NE(first_disk, second_disk);
  EXPECT_EQ(std::memcmp(memory_.data(), first_disk.data(), page), 0) << "the second changed what the first read";
}

TEST_P(JoiningOnKernel, WhenOneOfSeveralLeavesTheOthersGoOn) {
  map_each_page();
  PciDevice second = PciDevice::open(attach(kernel_, other_.host(), joining()).value()).value();
  ASSERT_TRUE(first_->device().detach());
  first_.reset();
  EXPECT_TRUE(test::came_from_disk(read_disk(second, base + 2 * page, base + 0x2000000)));
  first_.emplace(PciDevice::open(attach(kernel_, bound_.host(),
                                        {.backend = GetParam().backend,
                                         .join = {second.device().container()},
                                         .container_options = {.version = GetParam().version}})
                                     .value())
                     .value());
  EXPECT_TRUE(test::came_from_disk(read_disk(*first_, base + 3 * page, base + 0x1000000)));
}

// The container refuses the device, and then one of the mappings cannot be replayed into a new container.
TEST_P(JoiningOnKernel, AReplayThatFailsHalfWayLeavesNothingAndASecondTrySucceeds) {
  for (int failing = 1; failing <= 4; ++failing) {
    map_each_page();
    const ResourceUse alone = ResourceUse::now();
    const int files = kernel_.open_files();
    int joins = 0;
    int maps = 0;
    kernel_.answer = [&](unsigned long request, void*, int result) {
      const bool joins_now = request == VFIO_GROUP_SET_CONTAINER || request == VFIO_DEVICE_ATTACH_IOMMUFD_PT;
      if (joins_now && ++joins == 1) return -EIO;
      if ((request == VFIO_IOMMU_MAP_DMA || request == IOMMU_IOAS_COPY) && ++maps == failing) return -ENOMEM;
      return result;
    };
    const auto refused = attach(kernel_, other_.host(), joining());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ENOMEM) << refused.error().message();
    EXPECT_THAT(refused.error().message(), HasSubstr(std::to_string(failing - 1) + " of 4 mappings could be replayed"));
    EXPECT_EQ(refused.error().causes().size(), 2U) << "the refusal, and why the new one failed";
    kernel_.answer = nullptr;
    EXPECT_EQ(kernel_.open_files(), files);
    ASSERT_TRUE(alone == ResourceUse::now()) << "when the mapping " << failing << " failed";
    auto again = attach(kernel_, other_.host(), joining());
    ASSERT_TRUE(again) << again.error().message();
    EXPECT_TRUE(again->detach());
    ASSERT_TRUE(container()->unmap_all()) << "until then its group may stay (spapr)";
  }
}

TEST_P(JoiningOnKernel, WhenNoContainerTakesADeviceEveryRefusalIsReported) {
  auto refused = attach(kernel_, bound_.host(), joining());  // already attached
  ASSERT_FALSE(refused);
  ASSERT_EQ(refused.error().causes().size(), 1U);
  EXPECT_THAT(refused.error().causes()[0].message(), HasSubstr("already attached"));
}

INSTANTIATE_TEST_SUITE_P(Backends, JoiningOnKernel, ::testing::ValuesIn(test::interfaces()), test::interface_name);

}  // namespace joining_test
}  // namespace postern
