// SPDX-License-Identifier: Apache-2.0
// Eeh: EEH operations by VFIO_EEH_PE_OP on a container.
#include <postern/eeh.hpp>

#include <fmt/format.h>

#include "base/log.hpp"
#include "iommu/container_call.hpp"
#include "kernel/spapr.hpp"

namespace postern {

Result<int> Eeh::call(std::uint32_t operation, std::string_view name) {
  const ContainerCall use(*space_);
  POSTERN_TRY(use.check(name));
  vfio_eeh_pe_op argument{};
  argument.argsz = sizeof argument;
  argument.op = operation;
  const int result = spapr::eeh_pe_op(container_->kernel(), container_->get(), argument);
  if (result >= 0) return result;
  return call_failure(
      spapr::eeh_pe_op.symbol,
      {.result = result,
       .object = fmt::format("{} of container spapr", name),
       .reason = result == -EIO ? "the firmware refused; the kernel's log (dmesg) has its answer" : ""});
}

Result<void> Eeh::act(std::uint32_t operation, std::string_view name) {
  POSTERN_TRY(call(operation, name));
  return {};
}

Result<Eeh::State> Eeh::state() {
  const int state = POSTERN_TRY(call(VFIO_EEH_PE_GET_STATE, "VFIO_EEH_PE_GET_STATE"));
  switch (state) {
    case VFIO_EEH_PE_STATE_NORMAL:
    case VFIO_EEH_PE_STATE_RESET:
    case VFIO_EEH_PE_STATE_STOPPED:
    case VFIO_EEH_PE_STATE_STOPPED_DMA:
    case VFIO_EEH_PE_STATE_UNAVAIL:
      return static_cast<State>(state);
    default:
      return refusal({.result = -EPROTO,
                      .object = "VFIO_EEH_PE_GET_STATE of container spapr",
                      .reason = fmt::format("unknown state {}", state)});
  }
}

Result<void> Eeh::enable() { return act(VFIO_EEH_PE_ENABLE, "VFIO_EEH_PE_ENABLE"); }
Result<void> Eeh::disable() { return act(VFIO_EEH_PE_DISABLE, "VFIO_EEH_PE_DISABLE"); }
Result<void> Eeh::unfreeze_io() { return act(VFIO_EEH_PE_UNFREEZE_IO, "VFIO_EEH_PE_UNFREEZE_IO"); }
Result<void> Eeh::unfreeze_dma() { return act(VFIO_EEH_PE_UNFREEZE_DMA, "VFIO_EEH_PE_UNFREEZE_DMA"); }
Result<void> Eeh::configure() { return act(VFIO_EEH_PE_CONFIGURE, "VFIO_EEH_PE_CONFIGURE"); }

Result<void> Eeh::reset(Reset kind) {
  auto asserted = kind == Reset::hot ? act(VFIO_EEH_PE_RESET_HOT, "VFIO_EEH_PE_RESET_HOT")
                                     : act(VFIO_EEH_PE_RESET_FUNDAMENTAL, "VFIO_EEH_PE_RESET_FUNDAMENTAL");
  // A device must not be left in reset, even if the call failed.
  auto released = act(VFIO_EEH_PE_RESET_DEACTIVATE, "VFIO_EEH_PE_RESET_DEACTIVATE");
  return asserted ? std::move(released) : std::move(asserted);
}

}  // namespace postern
