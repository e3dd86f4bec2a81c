// SPDX-License-Identifier: Apache-2.0
// VfioPci: the DeviceOps of vfio-pci and its variants (vfio_pci_core_device).
#pragma once

#include <linux/vfio.h>

#include "sim/driver/device_ops.hpp"
#include "sim/machine/machine.hpp"

namespace postern::sim {

class VfioPci final : public DeviceOps {
 public:
  VfioPci(Machine& machine, Function& function) : machine_(machine), function_(function) {}

  ~VfioPci() override;

  void resume() override;
  void open_device() override { function_.enable(machine_.process); }
  void close_device() override;
  [[nodiscard]] int ioctl(unsigned long request, void* argument) override;
  [[nodiscard]] ssize_t read(void* buffer, std::size_t length, std::uint64_t offset) override;
  [[nodiscard]] ssize_t write(const void* buffer, std::size_t length, std::uint64_t offset) override;
  [[nodiscard]] std::intptr_t mmap(void* address, std::size_t length, int protection, int flags,
                                   std::uint64_t offset) override;
  [[nodiscard]] std::int64_t place_in_bars(std::uint64_t offset) const override;
  [[nodiscard]] bool answers() const override;
  void request() override { function_.interrupts().notify(VFIO_PCI_REQ_IRQ_INDEX); }
  [[nodiscard]] int match(std::string_view text) const override;
  [[nodiscard]] int device_feature(const vfio_device_feature& feature, void* data) override;
  [[nodiscard]] Variant* variant() override { return function_.variant ? &*function_.variant : nullptr; }

 private:
  [[nodiscard]] int get_info(vfio_device_info& info) const;
  [[nodiscard]] int get_region_info(vfio_region_info& info) const;
  [[nodiscard]] int get_irq_info(vfio_irq_info& info) const;
  [[nodiscard]] int set_ioeventfd(const vfio_device_ioeventfd& wanted);
  [[nodiscard]] int reset();
  [[nodiscard]] int enter_low_power(const vfio_device_feature& feature, const void* data);
  void leave_low_power();
  [[nodiscard]] int export_dma_buf(const vfio_device_feature& feature, const void* data);
  [[nodiscard]] bool is_there(const void* buffer, std::size_t length, bool writable);
  [[nodiscard]] std::uint64_t region_size(std::uint64_t index) const;
  template <typename Access>
  [[nodiscard]] ssize_t access_bar(std::uint64_t index, std::uint64_t at, std::size_t length, bool is_there,
                                   Access access);

  Machine& machine_;
  Function& function_;
  int wake_event_ = -1;  // an eventfd, with which low power was entered
};

}  // namespace postern::sim
