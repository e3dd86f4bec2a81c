// SPDX-License-Identifier: Apache-2.0
// A device behind no IOMMU is refused, whichever call fails meanwhile.
#include <gtest/gtest.h>

#include <postern-sim/faults.hpp>
#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>

namespace postern {
namespace requirements_test {

class NoIommu : public ::testing::TestWithParam<const char*> {};

TEST_P(NoIommu, IsNotTakenForAnIommuWhereACallFails) {
  for (const int code : {EIO, EACCES, ENOMEM}) {
    for (int number = 0;; ++number) {
      sim::Kernel simulated({.functions = {{.address = {.device = 1}, .iommu_group = -1, .driver = "vfio-pci"},
                                           {.address = {.device = 2}, .iommu_group = 5, .driver = "vfio-pci"}},
                             .locked_memory = {},
                             .enable_unsafe_noiommu_mode = true});
      sim::FailingKernel kernel(simulated);
      kernel.fail_call(number, code);
      EXPECT_FALSE(attach_pci(kernel, "0000:00:01.0", {.backend = GetParam()})) << "call " << number << ": " << code;
      if (!kernel.failed()) break;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, NoIommu, ::testing::Values("auto", "iommufd", "type1"));

}  // namespace requirements_test
}  // namespace postern
