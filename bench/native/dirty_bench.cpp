// SPDX-License-Identifier: Apache-2.0
// Measures a query for the dirty pages of 64 GiB from three sources, against a memcpy of the three bitmaps; and the
// start of tracking by a device with its own log, which accepts fewer ranges than are mapped. The kernel is a fake in
// memory that merges bitmaps word by word.
#include <sys/mman.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <postern/attach.hpp>
#include <postern/dirty_tracker.hpp>
#include <random>

#include "figure.hpp"
#include "support/iommufd_kernel.hpp"

namespace postern {
namespace {

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t length = std::uint64_t{64} << 30;
constexpr std::size_t sources = 3;
constexpr std::size_t words = length / page / 64;
using Words = std::vector<std::uint64_t>;

// Seconds.
template <typename Work>
double time_of(Work work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Nanoseconds per mapping to start tracking `mappings` separate mappings.
double cost_of_start(std::uint64_t mappings) {
  test::IommufdKernel kernel;
  const Device device =
      attach(kernel, kernel.add("0000:00:00.0", {.logs_itself = true}), {.backend = "iommufd"}).value();
  Container& container = *device.container();
  DirtyTracker& tracker = *container.get<DirtyTracker>();
  alignas(page) static std::byte memory[page];
  std::mt19937_64 random(1);
  Iova at{page};
  for (std::uint64_t i = 0; i < mappings; ++i) {
    if (!container.map(at, memory)) std::abort();
    at = at + page * (2 + random() % 16);
  }
  std::vector<double> times;
  for (int round = 0; round < 21; ++round) {
    times.push_back(time_of([&] {
      if (!tracker.start()) std::abort();
    }));
    if (!tracker.stop()) std::abort();
  }
  return bench::median(times) * 1e9 / static_cast<double>(mappings);
}

void measure_start() {
  const double few = cost_of_start(6'000);
  const double many = cost_of_start(60'000);
  bench::print_figure("dirty-start-6000", few, "ns a mapping");
  bench::print_figure("dirty-start-60000", many, "ns a mapping");
  bench::print_figure("dirty-start-60000-to-6000", many / few, "times a mapping", 2);
}

int run() {
  measure_start();
  test::IommufdKernel kernel;
  std::vector<Device> devices;
  for (int i = 0; i < static_cast<int>(sources); ++i) {
    const HostDevice host =
        kernel.add("0000:00:0" + std::to_string(i) + ".0",
                   {.iommu = i, .logs_itself = i == 2, .reserved = {{length}, {length + page - 1}}});
    const auto container = devices.empty() ? nullptr : devices.front().container();
    devices.push_back(attach(kernel, host, {.backend = "iommufd", .container = container}).value());
  }
  Container& container = *devices.front().container();
  DirtyTracker& tracker = *container.get<DirtyTracker>();
  void* const memory = ::mmap(nullptr, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  if (!container.map(Iova{0}, {static_cast<std::byte*>(memory), length}) || !tracker.start()) std::abort();

  std::mt19937_64 random(1);
  Words dirty(words);
  for (std::uint64_t& word : dirty) {
    word = random();
    word &= random();
  }
  std::vector<Words> copies(sources, Words(words));
  std::vector<Words> originals(sources, dirty);
  std::vector<double> ratios;
  for (int round = 0; round < 41; ++round) {
    for (std::size_t i = 0; i < sources; ++i) kernel.bits_of(i).words = dirty;
    Words answer(words);
    const double query = time_of([&] {
      if (!tracker.query({{0}, {length - 1}}, {page, answer})) std::abort();
    });
    if (answer != dirty) std::abort();
    const double copy = time_of([&] {
      for (std::size_t i = 0; i < sources; ++i) std::memcpy(copies[i].data(), originals[i].data(), words * 8);
    });
    ratios.push_back(query / copy);
  }
  bench::print_figure("dirty-query-64-GiB", bench::median(ratios), "of memcpy", 2);
  return bench::all_ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace
}  // namespace postern

int main() { return postern::run(); }
