// SPDX-License-Identifier: Apache-2.0
// SpaprContainer: the spapr backend's part of a container: DMA windows, registered memory, and the order of release.
#pragma once

#include <cstdint>
#include <optional>
#include <postern/dma_windows.hpp>
#include <postern/eeh.hpp>
#include <postern/preregistration.hpp>
#include <string>
#include <vector>

#include "iommu/capabilities.hpp"
#include "iommu/group_container.hpp"
#include "iommu/spapr/registered_memory.hpp"
#include "iommu/spapr/window_table.hpp"

namespace postern::spapr {

class SpaprContainer final : public GroupContainer, private DmaWindows::Impl, private Preregistration::Impl {
 public:
  // `memory` is ContainerOptions::memory.
  SpaprContainer(Opened opened, std::uint64_t memory);

  [[nodiscard]] CallResult map(Iova iova, std::uint64_t length, void* address, Access access) override;
  [[nodiscard]] int unmap(Iova iova, std::uint64_t length) override;
  [[nodiscard]] int unmap_several(IovaRange range) override;
  [[nodiscard]] int unmap_all() override;
  [[nodiscard]] Result<void> prepare(const HostDevice& device,
                                     const std::shared_ptr<const KvmVfioDevice>& kvm) override;
  [[nodiscard]] Result<ContainerLimits> read_limits() override;
  [[nodiscard]] Explanation explain_map(CallResult failed, IovaRange range, const void* address) const override;
  [[nodiscard]] Container::Properties properties() const override;
  [[nodiscard]] void* find_capability(std::string_view name) noexcept override;

 private:
  // GroupContainer
  [[nodiscard]] Result<void> set_up(const HostDevice& device) override;
  void tear_down() override;
  [[nodiscard]] bool keeps_groups() const override;

  // DmaWindows and Preregistration
  [[nodiscard]] AddressSpace& address_space() const noexcept override { return space(); }

  // DmaWindows
  [[nodiscard]] DmaWindowLimits limits() const override { return windows_.limits(); }
  [[nodiscard]] std::vector<DmaWindow> list() const override { return windows_.list(); }
  [[nodiscard]] Result<DmaWindow> create(const DmaWindowRequest& request) override;
  [[nodiscard]] Result<void> remove(Iova start) override;
  [[nodiscard]] Result<DmaWindow> make_room(std::uint64_t bytes, std::uint64_t page_of_memory) override;

  // Preregistration
  [[nodiscard]] Result<void> add(std::span<std::byte> memory) override;
  [[nodiscard]] Result<void> remove(std::span<std::byte> memory) override;

  [[nodiscard]] bool is_v2() const noexcept { return extension().version == 2; }
  [[nodiscard]] CallResult register_and_map(Iova iova, std::uint64_t length, void* address, Access access);
  [[nodiscard]] CallResult map_in_kernel(Iova iova, std::uint64_t length, void* address, Access access);
  [[nodiscard]] int unmap_in_kernel(Iova iova, std::uint64_t length);
  [[nodiscard, gnu::cold, gnu::noinline]] int end_unmap(Iova iova, std::uint64_t length, int result);
  [[nodiscard]] ContainerLimits window_limits(std::optional<Iova> without = std::nullopt) const;
  [[nodiscard]] Result<void> enable();
  [[nodiscard]] Result<void> restore();
  [[nodiscard]] Result<void> restore_windows();
  [[nodiscard]] Result<void> settle_default_window(const HostDevice& newcomer);
  [[nodiscard]] Result<DmaWindow> create_in_kernel(vfio_iommu_spapr_tce_create create);
  [[nodiscard]] int remove_in_kernel(Iova start);
  [[nodiscard]] Result<void> require_device(std::string object) const;
  // The remedy where so many more bytes of locked memory are needed.
  [[nodiscard]] Remedies raise_limit(std::uint64_t bytes) const;

  std::uint64_t memory_to_come_;
  bool begun_ = false;            // the IOMMU's windows were read, so windows_ is valid
  bool default_pending_ = false;  // the kernel will create the default window at the first call that needs it
  WindowTable windows_;
  RegisteredMemory registered_;

  DmaWindows dma_windows_{*this};
  Preregistration preregistration_{*this};
  bool has_eeh_ = false;  // the platform's
  std::optional<Eeh> eeh_;
};

}  // namespace postern::spapr
