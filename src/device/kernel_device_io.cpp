// SPDX-License-Identifier: Apache-2.0
// KernelDeviceIo: a device behind a device fd of the kernel.
#include "device/kernel_device_io.hpp"

#include "kernel/vfio.hpp"

namespace postern {

int KernelDeviceIo::get_info(vfio_device_info& info) { return vfio::device_get_info(kernel(), fd(), info); }

int KernelDeviceIo::get_region_info(vfio_region_info& info) {
  return vfio::device_get_region_info(kernel(), fd(), info);
}

int KernelDeviceIo::get_irq_info(vfio_irq_info& info) { return vfio::device_get_irq_info(kernel(), fd(), info); }

int KernelDeviceIo::set_irqs(vfio_irq_set& irqs) { return vfio::device_set_irqs(kernel(), fd(), irqs); }

int KernelDeviceIo::ioeventfd(vfio_device_ioeventfd& ioeventfd) {
  return vfio::device_ioeventfd(kernel(), fd(), ioeventfd);
}

int KernelDeviceIo::feature(vfio_device_feature& feature) { return vfio::device_feature(kernel(), fd(), feature); }

int KernelDeviceIo::reset() { return vfio::device_reset(kernel(), fd()); }

int KernelDeviceIo::get_pci_hot_reset_info(vfio_pci_hot_reset_info& info) {
  return vfio::device_get_pci_hot_reset_info(kernel(), fd(), info);
}

int KernelDeviceIo::pci_hot_reset(vfio_pci_hot_reset& reset) {
  return vfio::device_pci_hot_reset(kernel(), fd(), reset);
}

ssize_t KernelDeviceIo::read(void* buffer, std::size_t length, std::uint64_t offset) {
  return kernel().pread(fd(), buffer, length, offset);
}

ssize_t KernelDeviceIo::write(const void* buffer, std::size_t length, std::uint64_t offset) {
  return kernel().pwrite(fd(), buffer, length, offset);
}

std::intptr_t KernelDeviceIo::mmap(void* address, std::size_t length, int protection, int flags, std::uint64_t offset) {
  return kernel().mmap(address, length, protection, flags, fd(), offset);
}

}  // namespace postern
