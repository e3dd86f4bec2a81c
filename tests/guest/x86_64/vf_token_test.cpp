// SPDX-License-Identifier: Apache-2.0
// A virtual function whose physical function is bound to vfio-pci opens only with the token that the latter has set.
#include <gmock/gmock.h>

#include <cerrno>
#include <postern/attach.hpp>
#include <postern/pci_device.hpp>

#include "guest/x86_64/devices.hpp"

namespace postern {
namespace vf_token_test {

using test::Bound;
using ::testing::HasSubstr;

void write_file(const std::string& path, const std::string& text) {
  ASSERT_EQ(system_kernel().write_file(path, text), 0) << path;
}

// The physical function, open, with one virtual function bound to vfio-pci.
class VirtualFunction : public ::testing::TestWithParam<test::Interface> {
 protected:
  void SetUp() override {
    write_file("/sys/module/vfio_pci/parameters/enable_sriov", "1");
    physical_.emplace(test::nvme_with_sriov);
    auto attached = attach(system_kernel(), physical_->host(), test::options_for(GetParam()));
    ASSERT_TRUE(attached) << attached.error().message();
    open_.emplace(PciDevice::open(std::move(*attached)).value());
    ASSERT_TRUE(open_->set_vf_token(token_));
    write_file(physical_->host().sysfs_path + "/sriov_drivers_autoprobe", "0");
    write_file(physical_->host().sysfs_path + "/sriov_numvfs", "1");
    virtual_.emplace(test::virtual_nvme);
  }
  void TearDown() override {
    virtual_.reset();
    write_file(physical_->host().sysfs_path + "/sriov_numvfs", "0");
    open_.reset();
    physical_.reset();
    write_file("/sys/module/vfio_pci/parameters/enable_sriov", "0");
  }
  [[nodiscard]] Result<Device> attach_with(std::optional<VfToken> token) const {
    AttachOptions options = test::options_for(GetParam());
    options.vf_token = token;
    return attach(system_kernel(), virtual_->host(), options);
  }

  const VfToken token_ = VfToken::parse("bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3").value();
  std::optional<Bound> physical_;
  std::optional<PciDevice> open_;
  std::optional<Bound> virtual_;
};

TEST_P(VirtualFunction, OpensWithTheTokenAndWithNoOther) {
  EXPECT_EQ(find_pci_function(system_kernel(), test::virtual_nvme)->vendor_id, 0x1b36);
  const auto without = attach_with(std::nullopt);
  ASSERT_FALSE(without);
  EXPECT_EQ(without.error().code(), EACCES);
  EXPECT_THAT(without.error().message(),
              AllOf(HasSubstr("needs the VF token"), HasSubstr(physical_->host().name), HasSubstr("vf_token")));
  VfToken wrong = token_;
  wrong.bytes[15] ^= 1;
  const auto refused = attach_with(wrong);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EACCES);
  EXPECT_THAT(refused.error().message(), HasSubstr("is not the one"));
  auto device = attach_with(token_);
  ASSERT_TRUE(device) << device.error().message();
  const auto opened = PciDevice::open(std::move(*device));
  ASSERT_TRUE(opened) << opened.error().message();
}

// Whoever has opened it may change the token: the new one counts for what is opened from then on.
TEST_P(VirtualFunction, OpensWithTheNewestToken) {
  const VfToken newer = VfToken::parse("00000000-0000-0000-0000-000000000001").value();
  ASSERT_TRUE(open_->set_vf_token(newer));
  EXPECT_EQ(attach_with(token_).error().code(), EACCES);
  EXPECT_TRUE(attach_with(newer));
}

INSTANTIATE_TEST_SUITE_P(EachBackend, VirtualFunction, ::testing::ValuesIn(test::newest_interfaces()),
                         test::interface_name);

}  // namespace vf_token_test
}  // namespace postern
