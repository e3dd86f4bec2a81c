// SPDX-License-Identifier: Apache-2.0
// Uses something of every layer of an installed libpostern, and needs no device for it.
#include <cstdio>
#include <postern/attach.hpp>
#include <postern/iova_allocator.hpp>
#include <postern/pci_function.hpp>
#include <postern/version.hpp>

int main() {
  for (const postern::Backend* backend : postern::backends())
    std::printf("%.*s\n", static_cast<int>(backend->name.size()), backend->name.data());
  const postern::IovaRange usable{{0}, {0xffffff}};
  postern::IovaAllocator iovas(std::span(&usable, 1), 0x1000);
  const auto missing =
      postern::attach(postern::system_kernel(), {.name = "none", .bus = "pci", .sysfs_path = "/nowhere"});
  return iovas.allocate(4096) && !missing && !postern::version().empty() ? 0 : 1;
}
