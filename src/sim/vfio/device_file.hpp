// SPDX-License-Identifier: Apache-2.0
// DeviceFile: an open VFIO device of any kind, through its group or by its cdev. Its DeviceOps implement the kind.
#pragma once

#include <linux/vfio.h>

#include <memory>

#include "sim/machine/machine.hpp"
#include "sim/process/file.hpp"

namespace postern::sim {

class DeviceFile final : public File {
 public:
  // By its cdev: usable once it is bound to an iommufd.
  DeviceFile(Machine& machine, Device& device) : machine_(machine), device_(device) {}
  // By its group: usable at once. `iommufd` is the group's container; null: the group is in a VFIO container.
  [[nodiscard]] int open_by_group(std::shared_ptr<File> group, const std::shared_ptr<Iommufd>& iommufd);

  void release() override;
  [[nodiscard]] int ioctl(unsigned long request, void* argument) override;
  [[nodiscard]] ssize_t pread(void* buffer, std::size_t length, std::uint64_t offset) override;
  [[nodiscard]] ssize_t pwrite(const void* buffer, std::size_t length, std::uint64_t offset) override;
  [[nodiscard]] std::intptr_t mmap(void* address, std::size_t length, int protection, int flags,
                                   std::uint64_t offset) override;
  [[nodiscard]] std::int64_t place_in_bars(std::uint64_t offset) const override {
    return usable_ ? device_.ops->place_in_bars(offset) : -EINVAL;
  }
  [[nodiscard]] bool answers() const override { return device_.ops->answers(); }

 private:
  void enable();
  [[nodiscard]] int bind_to(const std::shared_ptr<Iommufd>& iommufd, std::uint32_t& id);
  [[nodiscard]] int bind_to_compat(const std::shared_ptr<Iommufd>& iommufd);
  void unbind();
  [[nodiscard]] int bind(void* argument);
  [[nodiscard]] int attach(vfio_device_attach_iommufd_pt& attach);
  [[nodiscard]] int detach(const vfio_device_detach_iommufd_pt& detach);
  [[nodiscard]] int feature(void* argument);
  [[nodiscard]] int feature_migration(vfio_device_feature& feature);
  [[nodiscard]] int feature_mig_device_state(std::uint32_t flags, void* data);
  [[nodiscard]] int feature_mig_data_size(vfio_device_feature& feature);
  [[nodiscard]] int feature_mig_precopy_info(vfio_device_feature& feature);
  [[nodiscard]] int feature_dma_logging_start(vfio_device_feature& feature);
  [[nodiscard]] int feature_dma_logging_stop(vfio_device_feature& feature);
  [[nodiscard]] int feature_dma_logging_report(vfio_device_feature& feature);

  Machine& machine_;
  Device& device_;
  std::shared_ptr<File> group_;  // kept open by its devices if it is in a container
  bool is_cdev_ = true;
  bool usable_ = false;
};

}  // namespace postern::sim
