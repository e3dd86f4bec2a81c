// SPDX-License-Identifier: Apache-2.0
// Measures what a container adds to the raw ioctls: the instructions of a map and unmap of 4 KiB with 1, 1,000 and
// 60,000 live mappings, for each backend of this guest's kernel and each of its versions. Also counts the ioctls for
// 1 GiB.
//
// Runs in a guest under -icount, where a nanosecond of the guest's clock is one instruction; the kernel's instructions
// count. The raw side makes the same system calls on the same device without the library. The live mappings occupy
// every second page; each pair maps one page in a gap chosen at random. "pair" unmaps that page again, "fifo" the one
// mapped a hundred pairs before. The figures are means over 40,000 pairs, including other work of the kernel.
#include <sys/mman.h>

#include <algorithm>
#include <postern-sim/faults.hpp>
#include <postern/attach.hpp>
#include <postern/dma_windows.hpp>
#include <postern/preregistration.hpp>
#include <random>

#include "figure.hpp"
#include "guest/raw_kernel.hpp"

namespace postern::bench {
namespace {

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t base = 0x1000'0000;  // all mappings fit into sPAPR's default window of 1 GiB
constexpr std::size_t pairs = 40000;

class Library {
 public:
  Library(const HostDevice& device, std::string_view backend, std::uint32_t version, std::span<std::byte> memory) {
    auto attached = attach(system_kernel(), device, {.backend = backend, .container_options = {.version = version}});
    if (!attached) give_up(attached.error().message());
    device_.emplace(std::move(*attached));
    container_ = device_->container().get();
    if (Preregistration* registrations = container_->get<Preregistration>(); registrations != nullptr) {
      if (auto done = registrations->add(memory); !done) give_up(done.error().message());
    }
  }
  void map(std::uint64_t iova, void* address, std::uint64_t length) {
    if (auto done = container_->map({iova}, {static_cast<std::byte*>(address), length}); !done)
      give_up(done.error().message());
  }
  void unmap(std::uint64_t iova, std::uint64_t length) {
    if (auto done = container_->unmap({iova}, length); !done) give_up(done.error().message());
  }

 private:
  std::optional<Device> device_;
  Container* container_;
};

struct Cost {
  double pair, fifo;
};

template <typename Side>
Cost measure(Side& side, std::size_t live, void* memory) {
  std::vector<std::uint64_t> places(live);
  for (std::size_t i = 0; i < live; ++i) places[i] = base + 2 * i * page;
  std::mt19937_64 random(live);
  std::shuffle(places.begin(), places.end(), random);
  for (const std::uint64_t place : places) side.map(place, memory, page);

  std::vector<std::uint64_t> gaps(pairs);
  for (std::uint64_t& gap : gaps) gap = places[random() % live] + page;
  double start = instructions();
  for (const std::uint64_t gap : gaps) {
    side.map(gap, memory, page);
    side.unmap(gap, page);
  }
  Cost cost{.pair = (instructions() - start) / pairs, .fifo = 0};

  // A queue of a hundred mappings in different gaps. Not measured if there are too few live mappings for that.
  constexpr std::size_t depth = 100;
  if (live >= 4 * depth) {
    const auto nth_gap = [&](std::size_t n) { return places[n % live] + page; };
    for (std::size_t n = 0; n < depth; ++n) side.map(nth_gap(n), memory, page);
    start = instructions();
    for (std::size_t n = 0; n < pairs; ++n) {
      side.map(nth_gap(n + depth), memory, page);
      side.unmap(nth_gap(n), page);
    }
    cost.fifo = (instructions() - start) / pairs;
    for (std::size_t n = pairs; n < pairs + depth; ++n) side.unmap(nth_gap(n), page);
  }
  for (const std::uint64_t place : places) side.unmap(place, page);
  return cost;
}

void report(const std::string& name, double raw, double library, std::optional<double> limit) {
  print_figure(name + "-raw", raw, "instructions");
  print_figure(name + "-container", library, "instructions");
  print_figure(name + "-overhead", 100 * (library - raw) / raw, "percent", limit);
}

Cost measure_raw(const HostDevice& device, std::string_view backend, std::uint32_t version, std::size_t live,
                 void* memory) {
  if (backend == "iommufd") {
    RawIommufd side(device);
    return measure(side, live, memory);
  }
  if (backend == "type1") {
    RawContainer side(device, version == 2 ? VFIO_TYPE1v2_IOMMU : VFIO_TYPE1_IOMMU);
    return measure(side, live, memory);
  }
  RawContainer side(device, version == 2 ? VFIO_SPAPR_TCE_v2_IOMMU : VFIO_SPAPR_TCE_IOMMU);
  if (version == 2) {
    side.register_memory(memory, page);
  } else {
    side.enable();
  }
  return measure(side, live, memory);
}

void measure_backend(const HostDevice& device, const Backend& backend, std::uint32_t version, void* memory) {
  const std::string name = std::string(backend.name) + (version == 0 ? "" : "-v" + std::to_string(version));
  for (const std::size_t live : {1, 1000, 60000}) {
    const Cost raw = measure_raw(device, backend.name, version, live, memory);
    Library side(device, backend.name, version, {static_cast<std::byte*>(memory), page});
    const Cost library = measure(side, live, memory);
    report(name + "-" + std::to_string(live) + "-pair", raw.pair, library.pair,
           backend.name == "iommufd" ? 1.7
           : backend.name == "type1" ? 2.9
                                     : 3.0);
    if (raw.fifo > 0) report(name + "-" + std::to_string(live) + "-fifo", raw.fifo, library.fifo, {});
  }
}

// Maps 1 GiB in a window created for it. Takes three ioctls: the window, the registration, the mapping.
void count_ioctls(const HostDevice& device) {
  constexpr std::uint64_t length = std::uint64_t{1} << 30;
  sim::FailingKernel kernel(system_kernel());
  auto attached = attach(kernel, device, {.backend = "spapr"});
  if (!attached) give_up(attached.error().message());
  void* memory = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  int count = 0;
  kernel.answer = [&](unsigned long, void*, int result) {
    ++count;
    return result;
  };
  Container& container = *attached->container();
  const auto window = container.get<DmaWindows>()->create({.size = length, .page_size = page});
  if (!window) give_up(window.error().message());
  const auto mapped = container.map(window->range.first, {static_cast<std::byte*>(memory), length});
  if (!mapped) give_up(mapped.error().message());
  print_figure("spapr-1GiB-window-and-map", count, "ioctls", 3);
  kernel.answer = nullptr;
}

// Opening a device resets it, and the kernel sleeps meanwhile. So attaching devices in parallel saves time even on a
// single processor.
void time_attach(std::span<const HostDevice> devices, std::string_view backend) {
  const double start = instructions();
  {
    AttachOptions options{.backend = backend};
    std::vector<Device> attached;
    for (const HostDevice& device : devices) {
      auto next = attach(system_kernel(), device, options);
      if (!next) give_up(next.error().message());
      options.container = next->container();
      attached.push_back(std::move(*next));
    }
  }
  const double middle = instructions();
  if (auto attached = attach_all(system_kernel(), devices, {.backend = backend}); !attached)
    give_up(attached.error().message());
  const double in_turn = (middle - start) / 1e6;
  const double at_once = (instructions() - middle) / 1e6;
  const std::string name = std::string(backend) + "-attach-" + std::to_string(devices.size());
  print_figure(name + "-in-turn", in_turn, "ms");
  print_figure(name + "-at-once", at_once, "ms");
  print_figure(name + "-ratio", at_once / in_turn, "of the time in turn");
}

}  // namespace
}  // namespace postern::bench

int main() {
  using namespace postern;
  using namespace postern::bench;
  const std::vector<HostDevice> disks = bind_disks();
  const HostDevice& device = disks.front();

  void* memory = ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  for (const Backend* backend : backends()) {
    if (auto usable = backend->probe(system_kernel(), &device); !usable) {
      std::fprintf(stderr, "left out: %s\n", usable.error().message().c_str());
      continue;
    }
    // Version 1 of type1 does not differ in what is measured.
    const auto versions = backend->name == "type1" ? backend->versions.first(1) : backend->versions;
    if (versions.empty()) measure_backend(device, *backend, 0, memory);
    for (const std::uint32_t version : versions) measure_backend(device, *backend, version, memory);
    if (backend->name == "spapr") {
      count_ioctls(device);
    } else if (disks.size() > 1) {
      time_attach(disks, backend->name);
    }
  }
  return all_ok ? 0 : 1;
}
