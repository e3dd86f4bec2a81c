// SPDX-License-Identifier: Apache-2.0
// Names of PCI ids: read only when needed, and by several threads concurrently.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <fstream>
#include <postern-sim/kernel.hpp>
#include <postern/pci_function.hpp>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace postern {
namespace pci_names_test {

// The bytes that this process has read so far. The list of names has more than a megabyte, or 200 KiB if compressed.
std::uint64_t bytes_read() {
  std::ifstream io("/proc/self/io");
  std::string name;
  std::uint64_t bytes = 0;
  io >> name >> bytes;
  EXPECT_EQ(name, "rchar:");
  return bytes;
}
constexpr std::uint64_t little = 65536;

TEST(FindPciFunction, DoesNotReadTheListOfNames) {
  sim::Kernel kernel;
  const std::uint64_t before = bytes_read();
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(find_pci_function(kernel, {.device = 1}));
  EXPECT_LT(bytes_read() - before, little);
}

TEST(PciNames, AreReadOnce) {
  const PciFunction disk{.address = {}, .host = {}, .vendor_id = 0x8086, .device_id = 0x0953, .class_code = 0x010802};
  const PciNames first = find_pci_names(disk);
  const std::uint64_t before = bytes_read();
  for (int i = 0; i < 200; ++i) ASSERT_EQ(find_pci_names(disk).vendor, first.vendor);
  EXPECT_LT(bytes_read() - before, little);
  if (first.vendor.empty()) GTEST_SKIP() << "this machine has no pci.ids";
  EXPECT_EQ(first.vendor, "Intel Corporation");
  EXPECT_EQ(first.device_class, "Non-Volatile memory controller");
}

TEST(PciNames, OfWhatHasNoneAreEmpty) {
  PciFunction unknown;
  unknown.vendor_id = 0xfff0;
  EXPECT_EQ(find_pci_names(unknown).vendor, "");
  EXPECT_EQ(find_pci_names(unknown).device, "");
}

// Concurrent look-ups must not return wrong or no names; the thread sanitizer detects any race.
TEST(PciFunctions, AreFoundAndNamedByThreadsAtOnce) {
  sim::Kernel kernel;
  const std::vector<PciFunction> all = list_pci_functions(kernel).value();
  const auto names_of_all = [&all] {
    std::string names;
    for (const PciFunction& function : all) {
      const PciNames found = find_pci_names(function);
      names += found.vendor + "," + found.device + "," + found.device_class + ";";
    }
    return names;
  };
  std::array<std::set<std::string>, 4> seen;
  std::vector<std::thread> threads;
  threads.reserve(seen.size());
  for (auto& names : seen) {
    threads.emplace_back([&] {
      for (int round = 0; round < 10; ++round) {
        EXPECT_TRUE(find_pci_function(kernel, {.device = 1}));
        EXPECT_TRUE(list_pci_functions(kernel));
        for (int i = 0; i < 100; ++i) names.insert(names_of_all());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& names : seen) EXPECT_EQ(names, std::set<std::string>{names_of_all()});
}

}  // namespace pci_names_test
}  // namespace postern
