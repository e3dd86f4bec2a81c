// SPDX-License-Identifier: Apache-2.0
// Names of PCI ids: asked for by those who want them, by several threads at once.
#include <gtest/gtest.h>

#include <array>
#include <ctime>
#include <postern-sim/kernel.hpp>
#include <postern/pci_function.hpp>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace postern {
namespace pci_names_test {

double processor_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Reading the list of names takes 8 ms; this would be 1.6 s.
TEST(FindPciFunction, DoesNotReadTheListOfNames) {
  sim::Kernel kernel;
  const double before = processor_seconds();
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(find_pci_function(kernel, {.device = 1}));
  EXPECT_LT(processor_seconds() - before, 0.5);
}

TEST(PciNames, AreReadOnce) {
  const PciFunction disk{.address = {}, .host = {}, .vendor_id = 0x8086, .device_id = 0x0953, .class_code = 0x010802};
  const PciNames first = find_pci_names(disk);
  const double before = processor_seconds();
  for (int i = 0; i < 200; ++i) ASSERT_EQ(find_pci_names(disk).vendor, first.vendor);
  EXPECT_LT(processor_seconds() - before, 0.5);
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

// A look-up that another comes into finds no name, or another; the thread sanitizer sees it surely.
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
