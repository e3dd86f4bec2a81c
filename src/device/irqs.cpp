// SPDX-License-Identifier: Apache-2.0
// VFIO_DEVICE_SET_IRQS: its requests, and what its refusals mean.
#include "device/irqs.hpp"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "kernel/vfio.hpp"

namespace postern {
namespace {

// VFIO_PCI_*_IRQ_INDEX
constexpr std::array<std::string_view, VFIO_PCI_NUM_IRQS> pci_names = {
    "INTx", "MSI", "MSI-X", "error interrupt", "request interrupt",
};

// With room for what stands behind it.
template <typename Element>
FlexArray<vfio_irq_set, Element> request_of(std::uint32_t flags, std::uint32_t index, std::uint32_t first,
                                            std::span<const Element> elements) {
  FlexArray<vfio_irq_set, Element> irqs(elements.size());
  irqs.head().flags = flags;
  irqs.head().index = index;
  irqs.head().start = first;
  irqs.head().count = static_cast<std::uint32_t>(elements.size());
  std::copy(elements.begin(), elements.end(), irqs.tail());
  return irqs;
}

// Why a descriptor cannot be signalled; empty where it can be.
std::string why_no_eventfd(Kernel& kernel, std::int32_t fd) {
  if (kernel.fcntl(fd, F_GETFL) == -EBADF) return "is not open";
  std::string file;
  const int result = kernel.read_link(fmt::format("/proc/self/fd/{}", fd), file);
  return result < 0 || file == "anon_inode:[eventfd]" ? "" : "is no eventfd, but " + file;
}

}  // namespace

std::string interrupt_text(const std::string& device, bool is_pci, std::uint32_t index) {
  if (is_pci && index < pci_names.size()) return fmt::format("{} {}", device, pci_names[index]);
  return fmt::format("{} interrupt {}", device, index);
}

std::string vectors_text(const Interrupt& interrupt, std::uint64_t first, std::uint64_t count) {
  if (interrupt.count == 1 && first == 0 && count == 1) return "";
  if (count == 0 || (first == 0 && count == interrupt.count)) return ", all vectors";
  if (count == 1) return fmt::format(", vector {}", first);
  return fmt::format(", vectors {} to {}", first, first + (count - 1));
}

IrqEventfds irq_eventfds(std::uint32_t action, std::uint32_t index, std::uint32_t first,
                         std::span<const std::int32_t> eventfds) {
  return request_of(VFIO_IRQ_SET_DATA_EVENTFD | action, index, first, eventfds);
}

int set_irq_eventfds(DeviceIo& io, std::uint32_t action, std::uint32_t index, std::uint32_t first,
                     std::span<const std::int32_t> eventfds) {
  IrqEventfds request = irq_eventfds(action, index, first, eventfds);
  return io.set_irqs(request.head());
}

int set_irq_none(DeviceIo& io, std::uint32_t action, std::uint32_t index, std::uint32_t first, std::uint32_t count) {
  vfio_irq_set irqs{};
  irqs.argsz = sizeof irqs;
  irqs.flags = VFIO_IRQ_SET_DATA_NONE | action;
  irqs.index = index;
  irqs.start = first;
  irqs.count = count;
  return io.set_irqs(irqs);
}

int set_irq_bools(DeviceIo& io, std::uint32_t action, std::uint32_t index, std::uint32_t first,
                  std::span<const std::uint8_t> bools) {
  auto request = request_of(VFIO_IRQ_SET_DATA_BOOL | action, index, first, bools);
  return io.set_irqs(request.head());
}

int turn_irq_off(DeviceIo& io, std::uint32_t index) {
  // EINVAL says that none is on (vfio_pci_set_msi_trigger).
  const int result = set_irq_none(io, VFIO_IRQ_SET_ACTION_TRIGGER, index, 0, 0);
  return result == -EINVAL ? 0 : result;
}

Result<void> check_vectors(const Interrupt& interrupt, const std::string& object, std::uint64_t first,
                           std::uint64_t count) {
  if (count <= interrupt.count && first <= interrupt.count - count) return {};
  return refusal({.result = -ERANGE,
                  .object = object,
                  .reason = fmt::format("the device has {} {} of this kind", interrupt.count,
                                        interrupt.count == 1 ? "vector" : "vectors")});
}

tl::unexpected<Error> eventfds_failure(DeviceIo& io, CallFailed what, bool is_first, std::uint32_t first,
                                       std::span<const std::int32_t> eventfds) {
  // vfio_msi_enable answers how many vectors it could have had instead of an errno.
  if (what.result > 0) {
    what.reason = fmt::format("the host has only {} vectors left for it", what.result);
    what.result = -ENOSPC;
    return refusal(std::move(what));
  }
  if (what.result == -EINVAL || what.result == -EBADF) {
    for (std::size_t i = 0; i < eventfds.size() && what.reason.empty(); ++i) {
      const std::string why = eventfds[i] >= 0 ? why_no_eventfd(io.kernel(), eventfds[i]) : "";
      if (!why.empty()) what.reason = fmt::format("fd {}, the event of vector {}, {}", eventfds[i], first + i, why);
    }
    if (!what.reason.empty()) what.kind = ErrorKind::invalid_argument;
  }
  if (what.result == -EINVAL && what.reason.empty() && is_first) {
    what.kind = ErrorKind::in_use;
    what.reason = "another kind of interrupt is enabled: INTx, MSI and MSI-X exclude each other";
  }
  return call_failure(vfio::device_set_irqs.symbol, std::move(what));
}

}  // namespace postern
