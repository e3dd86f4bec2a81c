// SPDX-License-Identifier: Apache-2.0
// Reads the first block of an NVMe disk in user space: read_block 0000:00:01.0 [type1|iommufd]
#include <cstdio>
#include <postern-nvme/controller.hpp>
#include <postern/attach.hpp>
#include <postern/pci_function.hpp>

using namespace postern;

static Result<void> read_block(const char* where, const char* backend) {
  auto address = PciAddress::parse(where);
  if (!address) return failure_of(address);
  auto function = find_pci_function(system_kernel(), *address);  // what the host knows of it
  if (!function) return failure_of(function);
  auto device = attach(system_kernel(), function->host, {.backend = backend});  // from here on it is ours
  if (!device) return failure_of(device);
  auto pci = PciDevice::open(std::move(*device));
  if (!pci) return failure_of(pci);

  const auto container = pci->device().container();
  IovaAllocator iovas(container->usable_ranges(), container->page_sizes());
  auto buffer = DmaBuffer::allocate(container, iovas, 4096);  // memory that the disk can reach
  if (!buffer) return failure_of(buffer);
  auto disk = nvme::Controller::open(*pci, iovas);
  if (!disk) return failure_of(disk);
  if (auto done = disk->read(disk->namespaces().at(0), 0, 1, buffer->iova()); !done) return done;
  std::printf("%s: %02x %02x %02x %02x ...\n", disk->info().model.c_str(), static_cast<unsigned>(buffer->data()[0]),
              static_cast<unsigned>(buffer->data()[1]), static_cast<unsigned>(buffer->data()[2]),
              static_cast<unsigned>(buffer->data()[3]));
  return {};
}

int main(int argc, char** argv) {
  const auto done = read_block(argc > 1 ? argv[1] : "", argc > 2 ? argv[2] : "auto");
  if (!done) std::fprintf(stderr, "%s\n", done.error().message().c_str());
  return done ? 0 : 1;
}
