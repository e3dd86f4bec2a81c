// SPDX-License-Identifier: Apache-2.0
// SpaprContainer: an address space of the spapr backend: DMA windows, registered memory, and a release of its own.
#pragma once

#include <postern/backend.hpp>
#include <postern/dma_windows.hpp>
#include <postern/preregistration.hpp>

#include "iommu/kernel_container.hpp"
#include "iommu/spapr/eeh.hpp"
#include "iommu/spapr/registered_memory.hpp"
#include "iommu/spapr/window_table.hpp"

namespace postern::spapr {

class SpaprContainer final : public Container, private DmaWindows, private Preregistration {
 public:
  // `memory` is ContainerOptions::memory.
  SpaprContainer(Fd fd, const KernelContainer::Extension& extension, std::uint64_t memory);

  [[nodiscard]] Facts facts() const override;
  [[nodiscard]] DmaWindows* dma_windows() noexcept override { return is_v2() ? this : nullptr; }
  [[nodiscard]] Preregistration* preregistration() noexcept override { return is_v2() ? this : nullptr; }
  [[nodiscard]] Eeh* eeh() noexcept override { return eeh_ ? &*eeh_ : nullptr; }

 private:
  [[nodiscard]] int do_map(Iova iova, std::uint64_t length, void* address, Access access) override;
  [[nodiscard]] int do_unmap(Iova iova, std::uint64_t length) override;
  [[nodiscard]] int do_unmap_several(IovaRange range) override;
  [[nodiscard]] int do_unmap_all() override;
  [[nodiscard]] Result<Fd> do_attach(const HostDevice& device) override;
  [[nodiscard]] const Group* group_of(const std::string& device) const override { return container_.group_of(device); }
  [[nodiscard]] Result<void> do_detach(const std::string& device, Fd fd) override;
  [[nodiscard]] Result<void> do_close() override;
  [[nodiscard]] Result<ContainerLimits> read_limits() override;
  [[nodiscard]] Explanation explain_map(int result, IovaRange range, const void* address) const override;

  // DmaWindows
  [[nodiscard]] DmaWindowLimits limits() const override { return windows_.limits(); }
  [[nodiscard]] std::vector<DmaWindow> list() const override { return windows_.list(); }
  [[nodiscard]] Result<DmaWindow> create(const DmaWindowRequest& request) override;
  [[nodiscard]] Result<void> remove(Iova start) override;
  [[nodiscard]] Result<DmaWindow> make_room(std::uint64_t bytes, std::uint64_t page_of_memory) override;

  // Preregistration
  [[nodiscard]] Result<void> add(std::span<std::byte> memory) override;
  [[nodiscard]] Result<void> remove(std::span<std::byte> memory) override;

  [[nodiscard]] bool is_v2() const noexcept { return extension_.version == 2; }
  [[nodiscard]] int register_and_map(Iova iova, std::uint64_t length, void* address, Access access);
  [[nodiscard]] int unmap_in_kernel(Iova iova, std::uint64_t length);
  [[nodiscard]] Result<void> set_up(const HostDevice& device);
  [[nodiscard]] ContainerLimits window_limits(std::optional<Iova> without = std::nullopt) const;
  [[nodiscard]] Result<void> enable();
  [[nodiscard]] Result<void> restore();
  [[nodiscard]] Result<void> restore_windows();
  void tear_down();
  [[nodiscard]] Result<void> settle_default_window(const HostDevice& newcomer);
  [[nodiscard]] Result<DmaWindow> create_in_kernel(vfio_iommu_spapr_tce_create create);
  [[nodiscard]] int remove_in_kernel(Iova start);
  [[nodiscard]] Result<void> require_device(std::string object) const;

  KernelContainer container_;
  KernelContainer::Extension extension_;  // VFIO_SPAPR_TCE_v2_IOMMU or VFIO_SPAPR_TCE_IOMMU
  std::uint64_t memory_to_come_;
  bool begun_ = false;            // the IOMMU was asked what it has: windows_ is true
  bool default_pending_ = false;  // the kernel makes the default window at the first call that needs it
  // What the last do_map() failed at.
  enum class FailedAt : std::uint8_t { mapping, registering, checking } failed_at_ = FailedAt::mapping;
  WindowTable windows_;
  RegisteredMemory registered_;
  std::optional<KernelEeh> eeh_;
};

}  // namespace postern::spapr
