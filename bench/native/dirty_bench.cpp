// SPDX-License-Identifier: Apache-2.0
// Measures a query for the dirty pages of 64 GiB from three sources, against a memcpy of the three bitmaps; what merges
// such bitmaps, against a memcpy of one; and the start of tracking by a device with its own log, which accepts fewer
// ranges than are mapped. The kernel is a fake in memory that merges bitmaps word by word.
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <postern/attach.hpp>
#include <postern/dirty_tracker.hpp>
#include <random>

#include "figure.hpp"
#include "memory/page_bits.hpp"
#include "memory/page_set.hpp"
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

// A bitmap of which a quarter is set.
Words some_dirty() {
  std::mt19937_64 random(1);
  Words dirty(words);
  for (std::uint64_t& word : dirty) {
    word = random();
    word &= random();
  }
  return dirty;
}

// Compares merge(), which merges a bitmap of 64 GiB, with a memcpy of it, in turns. A merge reads its target, too, and
// has to run at more than 60 % of the speed.
template <typename Merge>
void report_merge(const std::string& name, const Words& dirty, Merge merge, std::optional<double> limit = {}) {
  Words copied(words);
  std::vector<double> ratios;
  for (int round = 0; round < 101; ++round) {
    const double merging = time_of(merge);
    const double copying = time_of([&] { std::memcpy(copied.data(), dirty.data(), words * 8); });
    if (copied != dirty) std::abort();
    ratios.push_back(merging / copying);
  }
  bench::print_figure(name, bench::median(ratios), "of memcpy", limit);
}

// Bitmaps are merged word for word, or shifted where a mapping begins within a word of the range that is queried. Pages
// that no query has reported yet wait in a PageSet.
void measure_merge() {
  const Words dirty = some_dirty();
  Words merged(words + 1);
  report_merge(
      "dirty-merge-64-GiB", dirty,
      [&] {
        memory::merge_bits({merged.data(), 0}, {dirty.data(), 0}, words * 64);
      },
      100.0 / 60);
  if (!std::equal(dirty.begin(), dirty.end(), merged.begin())) std::abort();
  std::fill(merged.begin(), merged.end(), 0);
  report_merge("dirty-merge-shifted-64-GiB", dirty, [&] {
    memory::merge_bits({merged.data(), 13}, {dirty.data(), 0}, words * 64);
  });
  if (merged[1] != (dirty[0] >> 51 | dirty[1] << 13)) std::abort();

  constexpr IovaRange all{{0}, {length - 1}};
  memory::PageSet pages(page);
  pages.add(all, dirty.data());  // allocates
  report_merge("dirty-merge-into-set-64-GiB", dirty, [&] { pages.add(all, dirty.data()); });
  std::fill(merged.begin(), merged.end(), 0);
  report_merge("dirty-merge-from-set-64-GiB", dirty, [&] { pages.mark(all, merged.data()); });
  if (!std::equal(dirty.begin(), dirty.end(), merged.begin())) std::abort();
}

int run() {
  measure_start();
  measure_merge();
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

  const Words dirty = some_dirty();
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
