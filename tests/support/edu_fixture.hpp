// SPDX-License-Identifier: Apache-2.0
// EduFixture: QEMU's edu device on the kernel under test, attached by one interface.
#pragma once

#include <gtest/gtest.h>

#include <optional>

#include "support/edu.hpp"
#include "support/host_devices.hpp"

namespace postern::test {

// Skips the test if the host has no such device.
class EduFixture : public ::testing::TestWithParam<Interface> {
 protected:
  void SetUp() override {
    const auto address = find_edu();
    if (!address) GTEST_SKIP() << "this host has no edu device";
    bound_.emplace(*address);
    auto device = attach(kernel(), bound_->host(), options_for(GetParam()));
    ASSERT_TRUE(device) << device.error().message();
    pci_.emplace(PciDevice::open(std::move(*device)).value());
    edu_.emplace(pci_->device());
  }

  std::optional<Bound> bound_;
  std::optional<PciDevice> pci_;
  std::optional<EduRegisters> edu_;
};

}  // namespace postern::test
