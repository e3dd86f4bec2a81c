// SPDX-License-Identifier: Apache-2.0
// KernelDeviceIo: a device behind a device fd of the kernel, from a group or a cdev.
#pragma once

#include "device/device_io.hpp"
#include "iommu/attachment.hpp"

namespace postern {

class KernelDeviceIo final : public DeviceIo {
 public:
  explicit KernelDeviceIo(Attachment attachment) noexcept : attachment_(std::move(attachment)) {}

  [[nodiscard]] const std::string& name() const override { return attachment_.device()->host.name; }
  [[nodiscard]] int fd() const noexcept override { return attachment_.device()->fd.get(); }
  [[nodiscard]] int get_info(vfio_device_info& info) override;
  [[nodiscard]] int get_region_info(vfio_region_info& info) override;
  [[nodiscard]] int get_irq_info(vfio_irq_info& info) override;
  [[nodiscard]] int set_irqs(vfio_irq_set& irqs) override;
  [[nodiscard]] int ioeventfd(vfio_device_ioeventfd& ioeventfd) override;
  [[nodiscard]] int feature(vfio_device_feature& feature) override;
  [[nodiscard]] int reset() override;
  [[nodiscard]] int get_pci_hot_reset_info(vfio_pci_hot_reset_info& info) override;
  [[nodiscard]] int pci_hot_reset(vfio_pci_hot_reset& reset) override;
  [[nodiscard]] const Group* group() const override { return attachment_.device()->group; }
  [[nodiscard]] ssize_t read(void* buffer, std::size_t length, std::uint64_t offset) override;
  [[nodiscard]] ssize_t write(const void* buffer, std::size_t length, std::uint64_t offset) override;
  [[nodiscard]] std::intptr_t mmap(void* address, std::size_t length, int protection, int flags,
                                   std::uint64_t offset) override;
  [[nodiscard]] Kernel& kernel() override { return attachment_.device()->fd.kernel(); }
  [[nodiscard]] std::shared_ptr<Container> container() const override { return attachment_.container(); }
  [[nodiscard]] Result<void> move_to(const std::shared_ptr<Container>& container) override {
    return attachment_.move_to(container);
  }
  [[nodiscard]] Result<void> close() override { return attachment_.detach(); }

 private:
  Attachment attachment_;
};

}  // namespace postern
