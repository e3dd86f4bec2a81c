// SPDX-License-Identifier: Apache-2.0
// attach() with arguments that contradict each other, belong to another host, or are out of date.
#include <gmock/gmock.h>

#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/binding.hpp>
#include <postern/pci_function.hpp>

namespace postern {
namespace attach_arguments_test {

using ::testing::HasSubstr;

class AttachArguments : public ::testing::Test {
 protected:
  HostDevice host(std::uint8_t device) { return find_pci_function(kernel_, {.device = device}).value().host; }
  Error refusal(const HostDevice& device, const AttachOptions& options = {}) {
    auto refused = attach(kernel_, device, options);
    EXPECT_FALSE(refused);
    auto all = attach_all(kernel_, std::span(&device, 1), options);
    EXPECT_FALSE(all);
    if (refused || all) return Error({});
    EXPECT_EQ(all.error().kind(), refused.error().kind()) << all.error().message();
    return refused.error();
  }

  sim::Kernel kernel_;
};

TEST_F(AttachArguments, ADeviceThatWasReadBeforeItWasBoundIsToBeReadAgain) {
  const HostDevice before = host(2);
  ASSERT_EQ(before.driver, "nvme");
  EXPECT_EQ(refusal(before).kind(), ErrorKind::not_bound) << "it is still true";
  const NewBinding bound = bind_and_read(kernel_, before, "vfio-pci").value();
  for (const char* backend : {"auto", "type1", "iommufd"}) {
    const Error error = refusal(before, {.backend = backend});
    EXPECT_EQ(error.kind(), ErrorKind::stale) << error.message();
    EXPECT_EQ(error.code(), ESTALE);
    EXPECT_THAT(error.message(), HasSubstr("bound to vfio-pci now"));
    EXPECT_EQ(error.message().find("bound to nvme"), std::string::npos) << error.message();
    EXPECT_TRUE(error.remedies().contains(RemedyCode::read_device_again));
  }
  EXPECT_TRUE(attach(kernel_, bound.device));
}

TEST_F(AttachArguments, ADeviceThatTheHostDoesNotHaveIsNotFound) {
  HostDevice unknown;
  unknown.name = "0000:00:1f.7";
  unknown.bus = "pci";
  for (const HostDevice& device : {HostDevice{}, unknown}) {
    for (const char* backend : {"auto", "type1", "iommufd"}) {
      const Error error = refusal(device, {.backend = backend});
      EXPECT_EQ(error.kind(), ErrorKind::not_found) << error.message();
      EXPECT_TRUE(error.remedies().contains(RemedyCode::list_devices)) << error.message();
    }
  }
  EXPECT_THAT(refusal(unknown).message(), HasSubstr("attach 0000:00:1f.7: refused: ENOENT"));
}

TEST_F(AttachArguments, AContainerOfAnotherKernelIsRefused) {
  sim::Kernel other;
  const auto container = Container::open(other, *backends().front()).value();
  EXPECT_EQ(refusal(host(1), {.container = container}).kind(), ErrorKind::invalid_argument);
  const Error error = refusal(host(1), {.join = {container}});
  EXPECT_EQ(error.code(), EINVAL);
  EXPECT_THAT(error.message(), HasSubstr("another Kernel"));
}

TEST_F(AttachArguments, AContainerOfAnotherBackendIsRefused) {
  const auto container = Container::open(kernel_, *find_backend("type1").value()).value();
  const Error error = refusal(host(1), {.backend = "iommufd", .container = container});
  EXPECT_EQ(error.code(), EINVAL);
  EXPECT_THAT(error.message(), HasSubstr("the backend iommufd was requested, with a container of the backend type1"));
  EXPECT_TRUE(attach(kernel_, host(1), {.backend = "type1", .container = container}));
  EXPECT_TRUE(attach(kernel_, host(1), {.container = container}));
}

TEST_F(AttachArguments, ANullContainerToJoinIsRefused) {
  const Error error = refusal(host(1), {.join = {nullptr}});
  EXPECT_EQ(error.code(), EINVAL);
  EXPECT_THAT(error.message(), HasSubstr("null"));
}

TEST_F(AttachArguments, APciFunctionIsFoundByItsNameOrAddressOrGiven) {
  PciDevice named = attach_pci(kernel_, "0000:00:01.0").value();
  EXPECT_TRUE(named.detach());
  EXPECT_EQ(named.detach().error().kind(), ErrorKind::closed);
  PciDevice addressed = attach_pci(kernel_, PciAddress{.device = 1}).value();
  EXPECT_TRUE(addressed.detach());
  const PciFunction function = find_pci_function(kernel_, "0000:00:01.0").value();
  EXPECT_EQ(function.address, PciAddress{.device = 1});
  EXPECT_TRUE(attach_pci(kernel_, function));
  EXPECT_EQ(find_pci_function(kernel_, "disk").error().code(), EINVAL);
}

}  // namespace attach_arguments_test
}  // namespace postern
