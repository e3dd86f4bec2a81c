// SPDX-License-Identifier: Apache-2.0
// Tests the documented behaviour of attaching, containers and devices, errors included. Runs on a real kernel as root
// in a guest, and on simulated kernels anywhere: postern-contract-tests --host sim:pseries.
#include <gmock/gmock.h>

#include <cstdio>
#include <exception>
#include <optional>
#include <postern-sim/kernel.hpp>
#include <string>
#include <string_view>

#include "support/host_devices.hpp"
#include "support/kernel_under_test.hpp"

namespace {

// Removes "--host sim[:NAME|:FILE]" from the arguments. Returns an error message; empty: none.
std::string take_host(int& argc, char** argv, std::optional<postern::sim::Kernel>& simulated) {
  if (argc < 3 || std::string_view(argv[1]) != "--host") return "";
  const auto host = postern::sim::find_host(argv[2]);
  if (!host) return host.error().message();
  postern::test::chosen_kernel() = &simulated.emplace(*host);
  for (int i = 1; i + 2 <= argc; ++i) argv[i] = argv[i + 2];  // and the null at the end
  argc -= 2;
  return "";
}

}  // namespace

int main(int argc, char** argv) {
  static std::optional<postern::sim::Kernel> simulated;        // static: the tests keep its address
  const std::string wrong = take_host(argc, argv, simulated);  // first: which tests exist depends on the host
  if (!wrong.empty()) {
    (void)std::fprintf(stderr, "%s: %s\n", argv[0], wrong.c_str());
    return 2;
  }
  try {
    ::testing::InitGoogleMock(&argc, argv);
  } catch (const std::exception& error) {
    (void)std::fprintf(stderr, "%s: %s\n", argv[0], error.what());
    return 2;
  }
  if (argc != 1) {
    (void)std::fprintf(stderr, "Usage: %s [--host sim[:NAME|:FILE]] [--gtest_...]\n", argv[0]);
    return 2;
  }
  return RUN_ALL_TESTS();
}
