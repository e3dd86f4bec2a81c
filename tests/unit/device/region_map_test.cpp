// SPDX-License-Identifier: Apache-2.0
// Mapping a region whose length a kernel makes up.
#include <gtest/gtest.h>
#include <linux/vfio.h>

#include <cerrno>
#include <postern/attach.hpp>
#include <postern/pci_function.hpp>
#include <postern/sim.hpp>

#include "support/failing_kernel.hpp"

namespace postern {
namespace region_map_test {

TEST(MappingARegion, ThatIsLongerThanAnyAddressSpaceIsRefusedWithoutAskingForIt) {
  SimulatedKernel simulated;
  test::FailingKernel kernel(simulated);
  for (const std::uint64_t length : {~std::uint64_t{0}, ~std::uint64_t{0} - 4095}) {
    kernel.answer = [length](unsigned long request, void* argument, int result) {
      if (request == VFIO_DEVICE_GET_REGION_INFO) static_cast<vfio_region_info*>(argument)->size = length;
      return result;
    };
    const auto device = attach(kernel, find_pci_function(kernel, {.device = 1}).value().host).value();
    kernel.fail_call(-1, 0);
    const auto mapped = device.map_region(0, 0, length);
    ASSERT_FALSE(mapped);
    EXPECT_EQ(mapped.error().code(), ENOMEM);
    EXPECT_EQ(kernel.calls(), 0);
  }
}

}  // namespace region_map_test
}  // namespace postern
