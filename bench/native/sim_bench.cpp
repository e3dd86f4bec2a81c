// SPDX-License-Identifier: Apache-2.0
// Measures the simulated kernel: what a map and unmap on it cost, and how much memory 1 TiB mapped in pieces of 2 MiB
// takes.
#include <sys/mman.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <postern/attach.hpp>
#include <postern/pci_function.hpp>
#include <postern/sim.hpp>

#include "figure.hpp"

namespace postern {
namespace {

constexpr std::uint64_t mib = 1 << 20;
constexpr std::uint64_t tib = std::uint64_t{1} << 40;

// Bytes of this process that are in memory.
double resident() {
  std::ifstream status("/proc/self/statm");
  std::uint64_t pages = 0;
  status >> pages >> pages;
  return static_cast<double>(pages) * 4096;
}

Device attach_disk(Kernel& kernel, std::string_view backend) {
  return attach(kernel, find_pci_function(kernel, {.device = 1}).value().host, {.backend = backend}).value();
}

void measure_map(std::string_view backend) {
  SimulatedKernel kernel;
  const Device device = attach_disk(kernel, backend);
  Container& container = *device.container();
  static std::byte memory[8192];
  auto* const page =
      reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(memory) + 4095) & ~std::uintptr_t{4095});
  std::vector<double> rounds;
  for (int round = 0; round < 15; ++round) {
    constexpr int pairs = 20'000;
    const auto start = std::chrono::steady_clock::now();
    for (std::uint64_t i = 0; i < pairs; ++i) {
      const Iova iova{0x10000000 + i * 4096};
      if (!container.map(iova, {page, 4096}) || !container.unmap(iova, 4096)) std::abort();
    }
    const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
    rounds.push_back(took.count() / pairs);
  }
  bench::print_figure("sim-map-unmap-" + std::string(backend), bench::median(rounds), "ns", 2000);
}

void measure_memory() {
  void* const memory = ::mmap(nullptr, tib, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  const double before = resident();
  SimulatedHost host = simulated_pc();
  host.address_bits = 48;
  SimulatedKernel kernel(host);
  const Device device = attach_disk(kernel, "iommufd");
  Container& container = *device.container();
  for (std::uint64_t at = 0; at < tib; at += 2 * mib) {
    if (!container.map(Iova{4 * tib + at}, {static_cast<std::byte*>(memory) + at, 2 * mib})) std::abort();
  }
  bench::print_figure("sim-1-TiB-mapped", (resident() - before) / static_cast<double>(mib), "MiB", 256);
}

}  // namespace
}  // namespace postern

int main() {
  postern::measure_map("type1");
  postern::measure_map("iommufd");
  postern::measure_memory();
  return postern::bench::all_ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
