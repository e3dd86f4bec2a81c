// SPDX-License-Identifier: Apache-2.0
// What a container, a device and attaching promise, errors included. The same program runs on a real kernel, as root
// and with devices to take (in a guest), and on simulated ones, anywhere: postern-contract-tests --host sim:pseries.
#include <gmock/gmock.h>

#include <cstdio>
#include <exception>
#include <optional>
#include <postern/sim.hpp>
#include <string_view>

#include "support/host_devices.hpp"
#include "support/kernel_under_test.hpp"

namespace {

// Takes "--host sim" or "--host sim:NAME" out of the arguments; false where it names no host.
bool take_host(int& argc, char** argv, std::optional<postern::SimulatedKernel>& simulated) {
  if (argc < 3 || std::string_view(argv[1]) != "--host") return true;
  const std::string_view name(argv[2]);
  auto host = name == "sim"                 ? postern::simulated_pc()
              : name.substr(0, 4) == "sim:" ? postern::simulated_host(name.substr(4))
                                            : std::nullopt;
  if (!host) return false;
  host->dirty_bits = true;  // so that there is something to track
  postern::test::chosen_kernel() = &simulated.emplace(*host);
  for (int i = 1; i + 2 <= argc; ++i) argv[i] = argv[i + 2];  // and the null at the end
  argc -= 2;
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  static std::optional<postern::SimulatedKernel> simulated;  // the tests keep its address
  const bool known = take_host(argc, argv, simulated);       // first, since it decides which tests there are
  try {
    ::testing::InitGoogleMock(&argc, argv);
  } catch (const std::exception& error) {
    (void)std::fprintf(stderr, "%s: %s\n", argv[0], error.what());
    return 2;
  }
  if (!known || argc != 1) {
    (void)std::fprintf(stderr, "Usage: %s [--host sim[:pc|:pseries|:powernv]] [--gtest_...]\n", argv[0]);
    return 2;
  }
  return RUN_ALL_TESTS();
}
