// SPDX-License-Identifier: Apache-2.0
// Reads the first block of an NVMe disk in user space: read_block 0000:00:01.0 [type1|iommufd]
#include <cstdio>
#include <postern-nvme/controller.hpp>
#include <postern/attach.hpp>

using namespace postern;

static Result<void> read_block(const char* address, const char* backend) {
  auto device = POSTERN_TRY(attach_pci(system_kernel(), address, {.backend = backend}));  // into an IOMMU address space
  auto buffer = POSTERN_TRY(DmaBuffer::allocate(device.container(), 4096));               // memory for the disk's DMA
  auto disk = POSTERN_TRY(nvme::Controller::open(device));
  POSTERN_TRY(disk.read(disk.namespaces().at(0), 0, 1, buffer.iova()));
  std::printf("%s: %02x %02x %02x %02x ...\n", disk.info().model.c_str(), static_cast<unsigned>(buffer.data()[0]),
              static_cast<unsigned>(buffer.data()[1]), static_cast<unsigned>(buffer.data()[2]),
              static_cast<unsigned>(buffer.data()[3]));
  return {};
}

int main(int argc, char** argv) {
  const auto done = read_block(argc > 1 ? argv[1] : "", argc > 2 ? argv[2] : "auto");
  if (!done) std::fprintf(stderr, "%s\n", done.error().message().c_str());
  return done ? 0 : 1;
}
