// SPDX-License-Identifier: Apache-2.0
// SharingWorker: one of several threads that share a container as docs/threads.md allows: with a mutex for the calls on
// the container, and without one for the registers, config space and DMA of its devices.
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <mutex>
#include <postern/attach.hpp>
#include <postern/pci_device.hpp>
#include <postern/pci_function.hpp>
#include <postern/scoped_mapping.hpp>
#include <vector>

#include "stress/worker.hpp"
#include "support/edu.hpp"

namespace postern::stress {
namespace {

constexpr std::uint64_t page_bytes = 4096;
constexpr std::uint64_t worker_pages = 16;  // pages of memory and iovas for each worker
constexpr std::uint64_t first_iova = 1 << 20;

// The threads' common objects. The mutex guards the container; the devices need none.
struct Shared {
  std::mutex mutex;
  std::shared_ptr<Container> container;
  std::vector<PciDevice> devices;

  ~Shared() {
    devices.clear();
    container.reset();
  }
};

class SharingWorker final : public Worker {
 public:
  SharingWorker(std::shared_ptr<Shared> shared, std::size_t number, std::uint64_t seed)
      : shared_(std::move(shared)), number_(number), random_(seed) {
    void* const memory =
        ::mmap(nullptr, worker_pages * page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(memory != MAP_FAILED, "there is no memory");
    memory_ = static_cast<std::byte*>(memory);
  }
  ~SharingWorker() override {
    shared_.reset();
    ::munmap(memory_, worker_pages * page_bytes);
  }

  [[nodiscard]] std::string name() const override { return fmt::format("sharing {}", number_); }

  void step() override {
    switch (random_.below(4)) {
      case 0:
        return look_at_any_device();
      case 1:
        return map_for_a_moment();
      default:
        return copy();
    }
  }

  void finish() override {}

 private:
  [[nodiscard]] Iova iova(std::uint64_t number) const {
    return Iova{first_iova + (number_ * worker_pages + number) * page_bytes};
  }
  [[nodiscard]] PciDevice& mine() const { return shared_->devices[number_]; }

  // Maps a page, makes the worker's own device copy from and to it, and unmaps it. Only container calls take the lock.
  void copy() {
    const std::uint64_t at = random_.below(worker_pages);
    std::byte* const bytes = memory_ + at * page_bytes;
    const auto count = static_cast<std::uint32_t>(8 + random_.below(64) * 8);
    for (std::uint32_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>(random_.below(256));
    const std::vector<std::byte> sent(bytes, bytes + count);
    {
      const std::scoped_lock lock(shared_->mutex);
      must(shared_->container->map(iova(at), {bytes, page_bytes}));
    }
    const test::EduRegisters registers(mine().device());
    registers.copy(iova(at).value, test::EduRegisters::buffer, count, 0);
    std::fill_n(bytes, count, std::byte{0});
    registers.copy(test::EduRegisters::buffer, iova(at).value, count, test::EduRegisters::to_memory);
    check(std::equal(sent.begin(), sent.end(), bytes), "the device copied something else, or elsewhere");
    const std::scoped_lock lock(shared_->mutex);
    must(shared_->container->unmap(iova(at), page_bytes));
  }

  void map_for_a_moment() {
    const std::scoped_lock lock(shared_->mutex);
    const std::size_t before = shared_->container->mapping_count();
    {
      const ScopedMapping mapping =
          must(ScopedMapping::map(shared_->container, iova(0), std::span(memory_, page_bytes)));
      check(shared_->container->mapping_count() == before + 1, "another thread mapped in between");
    }
    check(shared_->container->mapping_count() == before, "another thread unmapped in between");
  }

  // May look at a device that another worker uses.
  void look_at_any_device() {
    const PciDevice& device = shared_->devices[random_.below(shared_->devices.size())];
    check(must(device.read_config<std::uint32_t>(0)) == 0x11e81234, "the device has other ids");
    check(device.interrupt(PciInterrupt::msi).count == 1, "the device has more or fewer interrupts");
    check(device.container() == shared_->container, "the device is in another container");
  }

  std::shared_ptr<Shared> shared_;
  std::size_t number_;
  Random random_;
  std::byte* memory_ = nullptr;
};

}  // namespace

std::vector<std::unique_ptr<Worker>> make_sharing_workers(Kernel& kernel, std::span<const PciAddress> edus,
                                                          std::uint64_t seed) {
  Random random(seed);
  auto shared = std::make_shared<Shared>();
  AttachOptions options{.backend = any_backend(random)};
  for (const PciAddress address : edus) {
    auto device = must(PciDevice::open(must(attach(kernel, must(find_pci_function(kernel, address)).host, options))));
    options.container = shared->container = device.container();
    must(device.enable_bus_master());
    shared->devices.push_back(std::move(device));
  }
  std::vector<std::unique_ptr<Worker>> workers;
  for (std::size_t number = 0; number < edus.size(); ++number) {
    workers.push_back(std::make_unique<SharingWorker>(shared, number, seed + number));
  }
  return workers;
}

}  // namespace postern::stress
