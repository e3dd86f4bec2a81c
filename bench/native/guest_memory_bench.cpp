// SPDX-License-Identifier: Apache-2.0
// Measures GuestMemory without the kernel's work, on a simulated host whose map and unmap ioctls do nothing: the number
// of ioctls for a layout, and the time of a change among many pieces. Also measures populate() with two threads, and a
// pass over the dirty bitmap of a guest of 1 TiB.
#include <linux/iommufd.h>
#include <linux/vfio.h>
#include <sys/mman.h>

#include <chrono>
#include <cstdlib>
#include <postern-sim/faults.hpp>
#include <postern-sim/kernel.hpp>
#include <postern/guest_memory.hpp>
#include <postern/pci_function.hpp>
#include <postern/populate.hpp>
#include <random>

#include "figure.hpp"

namespace postern {
namespace {

constexpr std::uint64_t page = 4096;
constexpr Iova base{0x10000000};

// Counts maps and unmaps, and returns success without executing them.
class QuickKernel final : public ForwardingKernel {
 public:
  using ForwardingKernel::ForwardingKernel;
  int ioctl(int fd, unsigned long request, void* argument) override {
    if (request != VFIO_IOMMU_MAP_DMA && request != VFIO_IOMMU_UNMAP_DMA)
      return ForwardingKernel::ioctl(fd, request, argument);
    ++maps_and_unmaps;
    return 0;
  }
  int maps_and_unmaps = 0;
};

void require(const Result<void>& done) {
  if (done) return;
  std::fprintf(stderr, "guest-memory-bench: %s\n", done.error().message().c_str());
  std::exit(2);
}

template <typename Work>
double seconds_of(Work work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

Mmap reserve(std::uint64_t length) {
  void* const address =
      ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) std::exit(2);
  return {system_kernel(), address, length};
}

struct Guest {
  sim::Kernel simulated;
  QuickKernel kernel{simulated};
  GuestMemory memory{kernel, {.backend = "type1"}};
  GuestDevice device = memory.attach(find_pci_function(kernel, {.device = 1}).value().host).value();
};

void count_ioctls() {
  constexpr std::uint64_t pieces = 100'000;
  const Mmap bytes = reserve(pieces * page);
  Guest guest;
  auto change = guest.memory.begin().value();
  for (std::uint64_t i = 0; i < pieces; ++i)
    require(change.add(base + i * page, bytes.bytes().subspan(i * page, page)));
  guest.kernel.maps_and_unmaps = 0;
  require(change.commit());
  bench::print_figure("guest-memory-100000-adjacent-pieces", guest.kernel.maps_and_unmaps, "ioctls", 1);
}

// Removes one of 10,000 regions and adds it again.
void time_change() {
  constexpr std::uint64_t pieces = 10'000;
  const Mmap bytes = reserve(2 * pieces * page);
  Guest guest;
  const auto piece = [&](std::uint64_t i) { return bytes.bytes().subspan(2 * i * page, page); };
  auto change = guest.memory.begin().value();
  for (std::uint64_t i = 0; i < pieces; ++i) require(change.add(base + 2 * i * page, piece(i)));
  require(change.commit());
  std::vector<double> times;
  for (std::uint64_t i = 0; i < pieces; i += 7) {
    const Iova at = base + 2 * i * page;
    times.push_back(seconds_of([&] {
      require(guest.memory.remove({at, at + (page - 1)}));
      require(guest.memory.add(at, piece(i)));
    }));
  }
  bench::print_figure("guest-memory-change-1-of-10000", bench::median(times) * 1e6 / 2, "us beyond the ioctl", 10);
}

void time_populate() {
  constexpr std::uint64_t length = std::uint64_t{2} << 30;
  const auto populate_by = [&](unsigned threads) {
    const Mmap bytes = reserve(length);
    return seconds_of(
        [&] { require(populate(system_kernel(), bytes.bytes(), {.threads = threads, .huge_pages = false})); });
  };
  const double one = populate_by(1);
  const double two = populate_by(2);
  bench::print_figure("populate-2GiB-1-thread", one, "seconds");
  bench::print_figure("populate-2GiB-2-threads", two, "seconds");
  bench::print_figure("populate-2GiB-ratio", two / one, "of the time of one");
}

// One page in ten thousand is dirty.
void time_scan() {
  constexpr std::uint64_t pages = (std::uint64_t{1} << 40) / page;
  std::vector<std::uint64_t> words(pages / 64);
  std::mt19937_64 random(1);
  std::uint64_t dirty = 0;
  while (dirty < pages / 10'000) {
    const std::uint64_t at = random() % pages;
    const std::uint64_t bit = std::uint64_t{1} << (at % 64);
    dirty += (words[at / 64] & bit) == 0 ? 1 : 0;
    words[at / 64] |= bit;
  }
  const DirtyBitmap bitmap{.page_size = page, .words = words};
  std::vector<double> times;
  for (int round = 0; round < 21; ++round) {
    std::uint64_t seen = 0;
    times.push_back(
        seconds_of([&] { bitmap.for_each_run(pages, [&](std::uint64_t, std::uint64_t count) { seen += count; }); }));
    if (seen != dirty) std::exit(2);
  }
  bench::print_figure("guest-memory-scan-1TiB-bitmap", bench::median(times) * 1e3, "ms", 5);
}

}  // namespace
}  // namespace postern

int main() {
  postern::count_ioctls();
  postern::time_change();
  postern::time_scan();
  postern::time_populate();
  return postern::bench::all_ok ? 0 : 1;
}
