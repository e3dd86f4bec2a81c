// SPDX-License-Identifier: Apache-2.0
// KernelEeh: EEH by VFIO_EEH_PE_OP on a container.
#pragma once

#include <postern/eeh.hpp>
#include <postern/fd.hpp>

namespace postern::spapr {

class KernelEeh final : public Eeh {
 public:
  // The container must outlive it.
  explicit KernelEeh(const Fd& container) : container_(container) {}

  [[nodiscard]] Result<State> state() override;
  [[nodiscard]] Result<void> enable() override;
  [[nodiscard]] Result<void> disable() override;
  [[nodiscard]] Result<void> unfreeze_io() override;
  [[nodiscard]] Result<void> unfreeze_dma() override;
  [[nodiscard]] Result<void> reset(Reset kind) override;
  [[nodiscard]] Result<void> configure() override;

 private:
  // The kernel's answer, 0 or more.
  [[nodiscard]] Result<int> call(std::uint32_t operation, std::string_view name);
  [[nodiscard]] Result<void> act(std::uint32_t operation, std::string_view name);

  const Fd& container_;
};

}  // namespace postern::spapr
