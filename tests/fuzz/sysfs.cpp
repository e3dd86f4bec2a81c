// SPDX-License-Identifier: Apache-2.0
// Fuzzes the contents of files in sysfs and /proc.
#include <postern/binding.hpp>
#include <postern/locked_memory.hpp>
#include <postern/pci_function.hpp>

#include "fuzz/bytes.hpp"
#include "support/tree_kernel.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace postern;
  fuzz::Bytes bytes(data, size);
  test::TreeKernel kernel;
  const std::string device = "/sys/bus/pci/devices/0000:00:01.0";
  for (const char* file : {"/vendor", "/device", "/subsystem_vendor", "/subsystem_device", "/class", "/revision",
                           "/numa_node", "/reset_method", "/driver_override", "/vfio-dev/vfio0/dev"}) {
    kernel.file(device + file, bytes.text());
  }
  for (const char* link : {"/driver", "/iommu_group"}) kernel.link(device + link, bytes.text());
  for (const char* file : {"/proc/self/limits", "/proc/self/status", "/proc/self/smaps"})
    kernel.file(file, bytes.text());
  kernel.link("/sys/kernel/iommu_groups/1/devices/" + bytes.text() + "/subsystem", bytes.text());

  (void)PciAddress::parse(bytes.text());
  const auto function = find_pci_function(kernel, {.device = 1});
  if (function) (void)bind_to_driver(kernel, function->host, "vfio-pci");
  (void)list_pci_functions(kernel);
  if (const auto group = find_iommu_group(kernel, GroupId{1})) (void)group->viable();
  (void)LockedMemory::read(kernel);
  (void)backing_page_size(kernel, data);
  return 0;
}
