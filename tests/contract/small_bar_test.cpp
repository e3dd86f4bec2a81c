// SPDX-License-Identifier: Apache-2.0
// A BAR smaller than a page, on the kernel under test: read and written through the device's fd, and mapped if it is
// alone in its page.
#include <gmock/gmock.h>
#include <unistd.h>

#include <postern/registers.hpp>

#include "support/edu.hpp"
#include "support/host_devices.hpp"

namespace postern {
namespace small_bar_test {

using ::testing::AllOf;
using ::testing::HasSubstr;

// The simulated device with small BARs, or QEMU's SD host controller, whose first register keeps the value written.
std::optional<PciAddress> find_small_bar() {
  const auto simulated = test::find_function(0x1234, 0x11ea);
  return simulated ? simulated : test::find_function(0x1b36, 0x0007);
}

class SmallBarOnKernel : public ::testing::TestWithParam<test::Interface> {
 protected:
  void SetUp() override {
    const auto address = find_small_bar();
    if (!address) GTEST_SKIP() << "this host has no device with a small BAR";
    bound_.emplace(*address);
    device_.emplace(attach(test::kernel(), bound_->host(), test::options_for(GetParam())).value());
    for (const Region& region : device_->regions().first(6)) {
      if (region.length > 0 && region.length < page_) small_.push_back(region);
    }
    ASSERT_FALSE(small_.empty());
  }

  const std::uint64_t page_ = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  std::optional<test::Bound> bound_;
  std::optional<Device> device_;
  std::vector<Region> small_;
};

TEST_P(SmallBarOnKernel, KeepsWhatIsWrittenByTheFd) {
  for (const Region& region : small_) {
    std::uint32_t value = 0x12345678;
    const auto bytes = std::as_writable_bytes(std::span(&value, 1));
    ASSERT_TRUE(device_->write(region.index, 0, bytes));
    value = 0;
    ASSERT_TRUE(device_->read(region.index, 0, bytes));
    EXPECT_EQ(value, 0x12345678U) << "region " << region.index;
  }
}

TEST_P(SmallBarOnKernel, IsReadToItsEndAndNotFurther) {
  for (const Region& region : small_) {
    std::vector<std::byte> all(region.length);
    EXPECT_TRUE(device_->read(region.index, 0, all));
    EXPECT_TRUE(device_->read(region.index, region.length - 1, std::span(all).first(1)));
    EXPECT_EQ(device_->read(region.index, region.length, std::span(all).first(1)).error().code(), ERANGE);
    EXPECT_EQ(device_->read(region.index, region.length - 2, std::span(all).first(4)).error().code(), ERANGE);
  }
}

TEST_P(SmallBarOnKernel, AMappingOfItIsAsLongAsItIsWhereThereIsOne) {
  bool any = false;
  for (const Region& region : small_) {
    if (!region.mappable) continue;
    any = true;
    const auto mapped = device_->map_region(region.index, 0, region.length).value();
    EXPECT_EQ(mapped.size(), region.length);
    auto* const first = registers_at<Register<std::uint32_t>>(mapped.bytes()).value();
    std::uint32_t value = 0x12345678;
    const auto bytes = std::as_writable_bytes(std::span(&value, 1));
    ASSERT_TRUE(device_->write(region.index, 0, bytes));
    EXPECT_EQ(first->read(), 0x12345678U);
    first->write(0x9abcdef0);
    ASSERT_TRUE(device_->read(region.index, 0, bytes));
    EXPECT_EQ(value, 0x9abcdef0U);
  }
  EXPECT_TRUE(any);
}

TEST_P(SmallBarOnKernel, AMappingBeyondItIsRefusedAndReadsAreAdvised) {
  for (const Region& region : small_) {
    EXPECT_EQ(region.mappable_areas.empty(), !region.mappable);
    const auto part = device_->map_region(region.index, 0, region.length / 2);
    const auto inner_part = device_->map_region(region.index, region.length / 2, region.length / 2);
    const auto whole_page = device_->map_region(region.index, 0, page_);
    EXPECT_EQ(part.error().code(), EINVAL);
    EXPECT_EQ(inner_part.error().code(), EINVAL);
    EXPECT_EQ(whole_page.error().code(), ERANGE);
    for (const auto* refused : {&part, &inner_part, &whole_page}) {
      EXPECT_THAT(refused->error().message(), AllOf(HasSubstr("read()"), HasSubstr("write()")));
    }
    if (!region.mappable) {
      EXPECT_EQ(device_->map_region(region.index, 0, region.length).error().code(), ERANGE);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, SmallBarOnKernel, ::testing::ValuesIn(test::newest_interfaces()),
                         test::interface_name);

}  // namespace small_bar_test
}  // namespace postern
