// SPDX-License-Identifier: Apache-2.0
// VF tokens: how they are passed to the kernel by group and by cdev, and the meaning of its refusals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/vfio.h>

#include <algorithm>
#include <postern-sim/faults.hpp>
#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/pci_device.hpp>
#include <postern/pci_function.hpp>

namespace postern {
namespace vf_token_test {

using testing::AllOf;
using testing::HasSubstr;

constexpr std::string_view uuid = "bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3";

TEST(VfToken, IsAUuidWithItsBytesInTheOrderInWhichTheyAreWritten) {
  const auto token = VfToken::parse("BD8D9D2B-5a5f-4f5a-a211-f591514ba1f3");
  ASSERT_TRUE(token);
  EXPECT_EQ(token->bytes[0], 0xbd);
  EXPECT_EQ(token->bytes[4], 0x5a);
  EXPECT_EQ(token->bytes[15], 0xf3);
  EXPECT_EQ(to_string(*token), uuid);
}

TEST(VfToken, IsNothingElse) {
  for (const char* const text :
       {"", "bd8d9d2b", "bd8d9d2b-5a5f-4f5a-a211-f591514ba1f", "bd8d9d2b-5a5f-4f5a-a211-f591514ba1f33",
        "bd8d9d2b+5a5f-4f5a-a211-f591514ba1f3", "gd8d9d2b-5a5f-4f5a-a211-f591514ba1f3",
        "-d8d9d2b-5a5f-4f5a-a211-f591514ba1f3", "bg8d9d2b-5a5f-4f5a-a211-f591514ba1f3"}) {
    const auto token = VfToken::parse(text);
    ASSERT_FALSE(token) << text;
    EXPECT_EQ(token.error().code(), EINVAL);
  }
  for (const std::size_t at : {8U, 13U, 18U, 23U}) {
    std::string text(uuid);
    text[at] = '0';
    EXPECT_FALSE(VfToken::parse(text)) << text;
  }
}

// Records the arguments with which a device is opened, and returns an error of the test's choice.
class TokenOnKernel : public testing::TestWithParam<std::string_view> {
 protected:
  TokenOnKernel() {
    kernel_.refuse = [this](unsigned long request, void* argument) {
      if (request == VFIO_GROUP_GET_DEVICE_FD) {
        name_ = static_cast<const char*>(argument);
      } else if (request == VFIO_DEVICE_BIND_IOMMUFD) {
        bind_ = *static_cast<vfio_device_bind_iommufd*>(argument);
        if ((bind_.flags & VFIO_DEVICE_BIND_FLAG_TOKEN) != 0)
          std::copy_n(reinterpret_cast<const std::uint8_t*>(bind_.token_uuid_ptr), 16, bytes_.begin());
      } else {
        return 0;
      }
      return refusal_;
    };
  }
  Result<Device> try_attach(std::optional<VfToken> token) {
    const auto function = find_pci_function(kernel_, {.device = 1}).value();
    return attach(kernel_, function.host, {.backend = GetParam(), .vf_token = token});
  }

  sim::Kernel simulated_;
  sim::FailingKernel kernel_{simulated_};
  int refusal_ = 0;
  std::string name_;
  vfio_device_bind_iommufd bind_{};
  std::array<std::uint8_t, 16> bytes_{};
};

TEST_P(TokenOnKernel, IsWantedInWordsOnEveryRoute) {
  refusal_ = -EACCES;
  const auto refused = try_attach(std::nullopt);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EACCES);
  EXPECT_THAT(refused.error().message(), AllOf(HasSubstr("needs the VF token"), HasSubstr("AttachOptions::vf_token")));
  const auto wrong = try_attach(VfToken::parse(uuid).value());
  ASSERT_FALSE(wrong);
  EXPECT_THAT(wrong.error().message(), HasSubstr("the VF token is not the one"));
}

TEST_P(TokenOnKernel, IsGivenAsTheRouteHasIt) {
  refusal_ = -EACCES;
  const VfToken token = VfToken::parse(uuid).value();
  EXPECT_FALSE(try_attach(token));
  if (GetParam() == "iommufd") {
    EXPECT_EQ(bind_.flags, VFIO_DEVICE_BIND_FLAG_TOKEN);
    EXPECT_EQ(bind_.argsz, sizeof bind_);
    EXPECT_EQ(bytes_, token.bytes);
  } else {
    EXPECT_EQ(name_, "0000:00:01.0 vf_token=bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3");
  }
}

TEST_P(TokenOnKernel, IsLeftOutWithoutOne) {
  EXPECT_TRUE(try_attach(std::nullopt));
  EXPECT_EQ(bind_.flags, 0U);
  if (GetParam() != "iommufd") {
    EXPECT_EQ(name_, "0000:00:01.0");
  }
}

// The simulated kernel behaves like vfio_pci_core_match and vfio_df_check_token for a device without virtual functions.
TEST_P(TokenOnKernel, IsRefusedByWhatHasNone) {
  const auto refused = try_attach(VfToken::parse(uuid).value());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EINVAL);
  EXPECT_THAT(refused.error().message(), HasSubstr("takes no VF token"));
}

TEST_P(TokenOnKernel, IsSetOnAPhysicalFunction) {
  auto device = PciDevice::open(try_attach(std::nullopt).value()).value();
  const VfToken token = VfToken::parse(uuid).value();
  const auto none = device.set_vf_token(token);
  ASSERT_FALSE(none) << "it has no virtual functions";
  EXPECT_EQ(none.error().code(), ENOTTY);
  std::array<std::uint8_t, 16> set{};
  std::uint32_t flags = 0;
  kernel_.answer = [&](unsigned long request, void* argument, int result) {
    if (request != VFIO_DEVICE_FEATURE) return result;
    const auto& feature = *static_cast<vfio_device_feature*>(argument);
    flags = feature.flags;
    if (feature.argsz == sizeof feature + set.size()) std::copy_n(feature.data, set.size(), set.begin());
    return 0;
  };
  EXPECT_TRUE(device.set_vf_token(token));
  EXPECT_EQ(flags, VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_PCI_VF_TOKEN);
  EXPECT_EQ(set, token.bytes);
}

INSTANTIATE_TEST_SUITE_P(Backends, TokenOnKernel, testing::Values("type1", "iommufd"));

}  // namespace vf_token_test
}  // namespace postern
