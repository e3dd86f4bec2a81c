// SPDX-License-Identifier: Apache-2.0
// Two containers of one iommufd that map the same memory: the second one's mappings are copies, so each page is pinned
// and counted once, for as long as one of them maps it.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>
#include <sys/mman.h>

#include <postern/guest_memory.hpp>
#include <utility>

#include "support/host_devices.hpp"
#include "support/watched_kernel.hpp"

namespace postern {
namespace copying_test {

using test::Bound;
using test::ResourceUse;
using ::testing::HasSubstr;

constexpr std::uint64_t page = 65536;
constexpr Iova base{0x4000000};

class CopyingOnKernel : public ::testing::TestWithParam<test::Interface> {
 protected:
  CopyingOnKernel()
      : bound_(test::first_nvme()),
        other_(test::last_nvme()),
        bytes_(test::kernel(), ::mmap(nullptr, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
               4 * page),
        file_(std::make_shared<const Fd>(test::kernel(), test::kernel().memfd_create("ram", 0))),
        before_(ResourceUse::now()) {}
  ~CopyingOnKernel() override { EXPECT_TRUE(before_ == ResourceUse::now()) << "something was left behind"; }

  void SetUp() override {
    if (GetParam().backend != "iommufd") GTEST_SKIP() << "the other backends count memory in each container";
    ASSERT_EQ(test::kernel().ftruncate(file_->get(), 2 * page), 0);
  }
  [[nodiscard]] GuestMemory layout() {
    GuestMemory made(kernel_, {.backend = GetParam().backend});
    EXPECT_TRUE(made.add(base, bytes_.bytes()));
    EXPECT_TRUE(made.add(base + 8 * page, bytes_.bytes().first(page), Access::read));
    EXPECT_TRUE(made.add(base + 16 * page, Memory::of_file(file_, 0, 2 * page)));
    return made;
  }
  // The first container refuses the next device.
  void refuse_to_share() {
    refuses_ = true;
    kernel_.refuse = [this, page_table = std::uint32_t{0}](unsigned long request, void* argument) mutable {
      if (request == IOMMU_IOAS_COPY) {
        ++copies_;
        return refusal_;
      }
      if (request != VFIO_DEVICE_ATTACH_IOMMUFD_PT) return 0;
      const std::uint32_t id = static_cast<vfio_device_attach_iommufd_pt*>(argument)->pt_id;
      if (page_table == 0)
        page_table = id;
      else if (id == page_table && std::exchange(refuses_, false))
        return -EIO;
      return 0;
    };
  }
  [[nodiscard]] std::uint64_t pinned() const { return ResourceUse::now().pinned - before_.pinned; }

  test::WatchedKernel kernel_{test::kernel()};
  Bound bound_;
  Bound other_;
  Mmap bytes_;
  std::shared_ptr<const Fd> file_;
  ResourceUse before_;
  bool refuses_ = false;
  int copies_ = 0;
  int refusal_ = 0;  // of a copy
};

TEST_P(CopyingOnKernel, ASecondContainerOfAGuestPinsNothingAgain) {
  GuestMemory guest = layout();
  refuse_to_share();
  std::optional<Device> first(guest.attach(bound_.host()).value().device);
  const std::uint64_t once = pinned();
  EXPECT_EQ(once, 7 * page) << "each piece, also the memory that two of them have";
  const auto second = guest.attach(other_.host());
  ASSERT_TRUE(second) << second.error().message();
  ASSERT_EQ(guest.containers().size(), 2U);
  EXPECT_EQ(copies_, 3);
  EXPECT_EQ(pinned(), once);
  EXPECT_EQ(guest.containers()[1]->mapping_count(), 3U);
  EXPECT_EQ(guest.containers()[1]->find(base + 8 * page)->access, Access::read);
  EXPECT_EQ(guest.containers()[1]->find(base + 16 * page)->memory.file(), file_);
  ASSERT_TRUE(guest.remove({base + 8 * page, base + 9 * page - 1}));
  EXPECT_EQ(pinned(), 6 * page);
  first.reset();
  ASSERT_TRUE(guest.close_unused());
  ASSERT_EQ(guest.containers().size(), 1U);
  EXPECT_EQ(pinned(), 6 * page) << "the copy has them";
  ASSERT_TRUE(guest.remove({base, base + 4 * page - 1}));
  EXPECT_EQ(pinned(), 2 * page);
}

TEST_P(CopyingOnKernel, AKernelWithoutCopiesMapsAgain) {
  GuestMemory guest = layout();
  refuse_to_share();
  refusal_ = -ENOTTY;
  const auto first = guest.attach(bound_.host()).value();
  const std::uint64_t once = pinned();
  const auto second = guest.attach(other_.host());
  ASSERT_TRUE(second) << second.error().message();
  EXPECT_EQ(copies_, 3);
  EXPECT_EQ(pinned(), 2 * once);
}

TEST_P(CopyingOnKernel, AnyOtherFailureOfACopyIsTheError) {
  GuestMemory guest = layout();
  refuse_to_share();
  refusal_ = -ENOMEM;
  const auto first = guest.attach(bound_.host()).value();
  const std::uint64_t once = pinned();
  const auto second = guest.attach(other_.host());
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().operation(), "IOMMU_IOAS_COPY");
  EXPECT_EQ(second.error().code(), ENOMEM);
  EXPECT_THAT(second.error().message(), HasSubstr("map " + to_string(base)));
  EXPECT_EQ(pinned(), once);
  EXPECT_EQ(guest.containers().size(), 1U);
}

TEST_P(CopyingOnKernel, ContainersThatJoiningOpensAreCopiesToo) {
  refuse_to_share();
  const auto first = attach(kernel_, bound_.host(), test::options_for(GetParam())).value();
  ASSERT_TRUE(first.container()->map(base, bytes_.bytes()));
  AttachOptions options = test::options_for(GetParam());
  options.join = {first.container()};
  {
    const auto second = attach(kernel_, other_.host(), options);
    ASSERT_TRUE(second) << second.error().message();
    ASSERT_NE(second->container(), first.container());
    EXPECT_EQ(pinned(), 4 * page);
    EXPECT_EQ(second->container()->find(base)->memory.address(), bytes_.data());
  }
  EXPECT_EQ(copies_, 1);
  refuses_ = true;
  // Not in another open /dev/iommu.
  options.container_options.fd = std::make_shared<const Fd>(kernel_, kernel_.open("/dev/iommu", O_RDWR | O_CLOEXEC));
  const auto elsewhere = attach(kernel_, other_.host(), options);
  ASSERT_TRUE(elsewhere) << elsewhere.error().message();
  EXPECT_EQ(copies_, 1);
  EXPECT_EQ(pinned(), 8 * page);
}

INSTANTIATE_TEST_SUITE_P(Backends, CopyingOnKernel, ::testing::ValuesIn(test::newest_interfaces()),
                         test::interface_name);

}  // namespace copying_test
}  // namespace postern
