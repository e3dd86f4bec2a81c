// SPDX-License-Identifier: Apache-2.0
// World: what scenarios share of setting things up.
#include "contract/faults/scenario.hpp"

#include <sys/mman.h>

namespace postern::test {

World::World(WatchedKernel& kernel_under, Interface by, HostDevice first, HostDevice second)
    : kernel(kernel_under), interface(by), host(std::move(first)), other(std::move(second)) {
  constexpr std::size_t length = 8 * page;
  void* address = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) throw std::runtime_error("no memory for a test");
  memory = Mmap(test::kernel(), address, length);
}

World::~World() {
  kernel.refuse = nullptr;
  if (!is_moved) return;
  const auto back = bind_to_driver(test::kernel(), other, "vfio-pci");
  EXPECT_TRUE(back) << back.error().message();
}

void World::must(const Result<void>& done) {
  if (!done) throw std::runtime_error("set-up: " + done.error().message());
}

Result<void> World::open(const HostDevice& which, const AttachOptions& with, std::optional<PciDevice>& into) {
  auto attached = attach(kernel, which, with);
  if (!attached) return failure_of(attached);
  auto pci = PciDevice::open(std::move(*attached));
  if (!pci) return failure_of(pci);
  into.emplace(std::move(*pci));
  if (!container) container = into->device().container();
  return {};
}

void World::open_first() {
  must(open(host, options(), device));
  if (!is_spapr_v2()) return;
  must(container->map(base, piece(0)));  // the kernel makes it at the first call that needs it
  must(container->unmap_all());
}

void World::map_pieces(std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) must(container->map(base + 2 * i * page, piece(i)));
}

}  // namespace postern::test
