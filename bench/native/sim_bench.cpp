// SPDX-License-Identifier: Apache-2.0
// Measures the simulated kernel: the time of a map and unmap, how that grows with the number of mappings, the memory
// used by 1 TiB mapped in pieces of 2 MiB, and the time to start a host of 2,000 functions.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/pci_function.hpp>

#include "figure.hpp"

namespace postern {
namespace {

constexpr std::uint64_t mib = 1 << 20;
constexpr std::uint64_t tib = std::uint64_t{1} << 40;

// The resident set size of this process, in bytes.
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
  sim::Kernel kernel;
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
  sim::Host host = sim::pc();
  host.address_bits = 48;
  sim::Kernel kernel(host);
  const Device device = attach_disk(kernel, "iommufd");
  Container& container = *device.container();
  for (std::uint64_t at = 0; at < tib; at += 2 * mib) {
    if (!container.map(Iova{4 * tib + at}, {static_cast<std::byte*>(memory) + at, 2 * mib})) std::abort();
  }
  bench::print_figure("sim-1-TiB-mapped", (resident() - before) / static_cast<double>(mib), "MiB", 256);
}

// Nanoseconds per map when 64 GiB of an empty memfd are mapped in this many pieces.
double measure_pieces(std::uint64_t pieces) {
  constexpr std::uint64_t all = std::uint64_t{64} << 30;
  const int file = ::memfd_create("memory of a guest", MFD_CLOEXEC);
  if (file < 0 || ::ftruncate(file, static_cast<off_t>(all)) != 0) std::abort();
  void* const memory = ::mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) std::abort();
  sim::Host host = sim::pc();
  host.address_bits = 48;
  sim::Kernel kernel(host);
  const Device device = attach_disk(kernel, "iommufd");
  Container& container = *device.container();
  const std::uint64_t length = all / pieces;
  const auto start = std::chrono::steady_clock::now();
  for (std::uint64_t at = 0; at < all; at += length) {
    if (!container.map(Iova{4 * tib + at}, {static_cast<std::byte*>(memory) + at, length})) std::abort();
  }
  const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
  if (!container.unmap_all()) std::abort();
  ::munmap(memory, all);
  ::close(file);
  return took.count() / static_cast<double>(pieces);
}

// Uses the minimum of three runs, since other load on the machine can only add.
void measure_growth() {
  const auto least = [](std::uint64_t pieces) {
    return std::min({measure_pieces(pieces), measure_pieces(pieces), measure_pieces(pieces)});
  };
  bench::print_figure("sim-64-GiB-piece-cost-growth", least(524'288) / least(32'768), "x", 3);
}

// Seconds of processor time, of all threads.
double processor_time() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Starts a host whose functions have a group each and are bound to vfio-pci.
void measure_start() {
  sim::Host host = sim::pc();
  host.functions.clear();
  for (int i = 0; i < 2000; ++i) {
    host.functions.push_back({.address = {.bus = static_cast<std::uint8_t>(1 + i / 256),
                                          .device = static_cast<std::uint8_t>(i / 8 % 32),
                                          .function = static_cast<std::uint8_t>(i % 8)},
                              .iommu_group = i,
                              .driver = "vfio-pci"});
  }
  std::vector<double> rounds;
  for (int round = 0; round < 5; ++round) {
    const double before = processor_time();
    const sim::Kernel kernel(host);
    rounds.push_back((processor_time() - before) * 1e3);
  }
  bench::print_figure("sim-start-2000-functions", bench::median(rounds), "ms", 100);
}

}  // namespace
}  // namespace postern

int main() {
  postern::measure_map("type1");
  postern::measure_map("iommufd");
  postern::measure_growth();
  postern::measure_memory();
  postern::measure_start();
  return postern::bench::all_ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
