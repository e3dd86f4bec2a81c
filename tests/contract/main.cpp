// SPDX-License-Identifier: Apache-2.0
// What a container, a device and attaching promise, errors included. The same program runs on a real kernel, as root and
// with devices to take (in a guest), and on the simulated one, anywhere: postern-contract-tests --host sim.
#include <gmock/gmock.h>

#include <cstdio>
#include <optional>
#include <postern/sim.hpp>
#include <string_view>

#include "support/kernel_under_test.hpp"

int main(int argc, char** argv) {
  ::testing::InitGoogleMock(&argc, argv);
  std::optional<postern::SimulatedKernel> simulated;
  if (argc == 3 && std::string_view(argv[1]) == "--host" && std::string_view(argv[2]) == "sim") {
    postern::test::chosen_kernel() = &simulated.emplace();
  } else if (argc != 1) {
    (void)std::fprintf(stderr, "Usage: %s [--host sim] [--gtest_...]\n", argv[0]);
    return 2;
  }
  return RUN_ALL_TESTS();
}
