// SPDX-License-Identifier: Apache-2.0
// World: the set-up that scenarios share.
#include "contract/faults/scenario.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace postern::test {

World::World(WatchedKernel& kernel_under, Interface by, HostDevice first, HostDevice second)
    : kernel(kernel_under), interface(by), host(std::move(first)), other(std::move(second)) {
  constexpr std::size_t length = 8 * page;
  void* address = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) throw std::runtime_error("no memory for a test");
  memory = Mmap(test::kernel(), address, length);
}

void World::refuse_to_share() {
  const bool by_page_table = interface.backend == "iommufd";  // whose ioctls share numbers with sPAPR's
  kernel.refuse = [by_page_table, first = -1, pt = std::uint32_t{0}](unsigned long request, void* argument) mutable {
    if (request == VFIO_GROUP_SET_CONTAINER) {
      const int fd = *static_cast<const int*>(argument);
      if (first < 0)
        first = fd;
      else if (fd == first)
        return -EIO;
    } else if (by_page_table && request == VFIO_DEVICE_ATTACH_IOMMUFD_PT) {
      const std::uint32_t id = static_cast<vfio_device_attach_iommufd_pt*>(argument)->pt_id;
      if (pt == 0)
        pt = id;
      else if (id == pt)
        return -EIO;
    }
    return 0;
  };
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
  auto attached = POSTERN_TRY(attach(kernel, which, with));
  into.emplace(POSTERN_TRY(PciDevice::open(std::move(attached))));
  if (!container) container = into->device().container();
  return {};
}

void World::open_first() {
  must(open(host, options(), device));
  if (!is_spapr_v2()) return;
  must(container->map(base, piece(0)));  // the kernel creates the default window at the first map
  must(container->unmap_all());
}

void World::make_file(std::uint64_t length) {
  file = std::make_shared<const Fd>(kernel, kernel.memfd_create("test", 0));
  if (::fallocate(file->get(), 0, 0, static_cast<off_t>(length)) != 0 || ::pwrite(file->get(), "x", 1, 0) != 1) {
    throw std::runtime_error("no file for a test");
  }
}

void World::map_pieces(std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) must(container->map(base + 2 * i * page, piece(i)));
}

}  // namespace postern::test
