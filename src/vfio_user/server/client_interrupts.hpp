// SPDX-License-Identifier: Apache-2.0
// ClientInterrupts: the interrupts that a client has turned on, with the eventfds that it sent for them.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <postern/device.hpp>
#include <postern/fd.hpp>
#include <postern/interrupt_set.hpp>
#include <vector>

#include "vfio_user/wire/request.hpp"

namespace postern::vfio_user {

// The kernel signals a client's eventfd itself. This class never writes to one: that could block, since the client
// shares the open file, and may clear its O_NONBLOCK.
class ClientInterrupts {
 public:
  explicit ClientInterrupts(const Device& device) noexcept : device_(device) {}

  // Makes a SET_IRQS. Returns 0 or an errno: EINVAL (no such interrupt or vector, or it is off), those of InterruptSet
  // and Device.
  [[nodiscard]] int set(const DeviceSetIrqs& request, std::vector<Fd> eventfds);
  // Turns all interrupts off. Goes on after a failure, and returns the first.
  [[nodiscard]] Result<void> disable_all();

 private:
  // One index. The set is destroyed before the eventfds that it refers to.
  struct Interrupts {
    std::vector<Fd> eventfds;  // by vector
    Fd unmask;
    std::optional<InterruptSet> set;
  };

  [[nodiscard]] int set_eventfds(const DeviceSetIrqs& request, std::vector<Fd> eventfds);
  [[nodiscard]] int disable(std::uint32_t index);
  [[nodiscard]] int trigger(const DeviceSetIrqs& request);
  [[nodiscard]] int change_mask(const DeviceSetIrqs& request, std::vector<Fd> eventfds);

  const Device& device_;
  std::map<std::uint32_t, Interrupts> on_;  // by index
};

}  // namespace postern::vfio_user
