// SPDX-License-Identifier: Apache-2.0
// KernelDeviceIo: a device that the kernel gave an fd for.
#include "device/kernel_device_io.hpp"

#include "kernel/vfio.hpp"

namespace postern {

int KernelDeviceIo::get_info(vfio_device_info& info) { return vfio::device_get_info(kernel(), attachment_.fd(), info); }

int KernelDeviceIo::get_region_info(vfio_region_info& info) {
  return vfio::device_get_region_info(kernel(), attachment_.fd(), info);
}

int KernelDeviceIo::get_irq_info(vfio_irq_info& info) {
  return vfio::device_get_irq_info(kernel(), attachment_.fd(), info);
}

int KernelDeviceIo::set_irqs(vfio_irq_set& irqs) { return vfio::device_set_irqs(kernel(), attachment_.fd(), irqs); }

int KernelDeviceIo::feature(vfio_device_feature& feature) {
  return vfio::device_feature(kernel(), attachment_.fd(), feature);
}

int KernelDeviceIo::reset() { return vfio::device_reset(kernel(), attachment_.fd()); }

int KernelDeviceIo::get_pci_hot_reset_info(vfio_pci_hot_reset_info& info) {
  return vfio::device_get_pci_hot_reset_info(kernel(), attachment_.fd(), info);
}

int KernelDeviceIo::pci_hot_reset(vfio_pci_hot_reset& reset) {
  return vfio::device_pci_hot_reset(kernel(), attachment_.fd(), reset);
}

ssize_t KernelDeviceIo::read(void* buffer, std::size_t length, std::uint64_t offset) {
  return kernel().pread(attachment_.fd(), buffer, length, offset);
}

ssize_t KernelDeviceIo::write(const void* buffer, std::size_t length, std::uint64_t offset) {
  return kernel().pwrite(attachment_.fd(), buffer, length, offset);
}

std::intptr_t KernelDeviceIo::mmap(void* address, std::size_t length, int protection, int flags, std::uint64_t offset) {
  return kernel().mmap(address, length, protection, flags, attachment_.fd(), offset);
}

}  // namespace postern
