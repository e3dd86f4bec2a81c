// SPDX-License-Identifier: Apache-2.0
// VFIO_DEVICE_SET_IRQS: its requests, and what its refusals mean.
#pragma once

#include <cstdint>
#include <postern/region.hpp>
#include <postern/result.hpp>
#include <span>
#include <string>

#include "device/device_io.hpp"
#include "kernel/flex_array.hpp"
#include "kernel/ioctl.hpp"

namespace postern {

// A vector without an eventfd.
inline constexpr std::int32_t no_eventfd = -1;

// "0000:00:01.0 MSI-X", or "ccw interrupt 2" of what is no PCI device; and its vectors: ", all vectors", ", vector 5",
// ", vectors 2 to 5"; nothing where there is one vector.
[[nodiscard]] std::string interrupt_text(const std::string& device, bool is_pci, std::uint32_t index);
[[nodiscard]] std::string vectors_text(const Interrupt& interrupt, std::uint64_t first, std::uint64_t count);

// Vectors first, first+1, ... and their eventfds: a request of VFIO_DEVICE_SET_IRQS, made while there is memory for it.
using IrqEventfds = FlexArray<vfio_irq_set, std::int32_t>;
[[nodiscard]] IrqEventfds irq_eventfds(std::uint32_t action, std::uint32_t index, std::uint32_t first,
                                       std::span<const std::int32_t> eventfds);

// What the ioctl gives: 0, a negated errno, or how many vectors there are.
// Which eventfds vectors first, first+1, ... signal, or, with another action, obey.
[[nodiscard]] int set_irq_eventfds(DeviceIo& io, std::uint32_t action, std::uint32_t index, std::uint32_t first,
                                   std::span<const std::int32_t> eventfds);
// Acts on all of these vectors; VFIO_IRQ_SET_ACTION_TRIGGER of none turns the interrupt off.
[[nodiscard]] int set_irq_none(DeviceIo& io, std::uint32_t action, std::uint32_t index, std::uint32_t first,
                               std::uint32_t count);
// Acts on those of the vectors first, first+1, ... whose byte is not 0.
[[nodiscard]] int set_irq_bools(DeviceIo& io, std::uint32_t action, std::uint32_t index, std::uint32_t first,
                                std::span<const std::uint8_t> bools);

// Turns an interrupt off; succeeds where it is.
[[nodiscard]] int turn_irq_off(DeviceIo& io, std::uint32_t index);

// Refuses vectors that the interrupt does not have.
[[nodiscard]] Result<void> check_vectors(const Interrupt& interrupt, const std::string& object, std::uint64_t first,
                                         std::uint64_t count);

// The error of giving these eventfds to vectors first, first+1, ...; `is_first`: none of the kind was on.
[[nodiscard, gnu::cold]] tl::unexpected<Error> eventfds_failure(DeviceIo& io, CallFailed what, bool is_first,
                                                                std::uint32_t first,
                                                                std::span<const std::int32_t> eventfds);

}  // namespace postern
