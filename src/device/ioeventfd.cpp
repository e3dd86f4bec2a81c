// SPDX-License-Identifier: Apache-2.0
// Ioeventfd: what the kernel takes and should not is refused here.
#include <postern/ioeventfd.hpp>

#include <fmt/format.h>

#include <postern/device.hpp>

#include "base/log.hpp"
#include "base/maker.hpp"
#include "device/device_io.hpp"
#include "kernel/vfio.hpp"

namespace postern {
namespace {

// VFIO_DEVICE_IOEVENTFD_8 to _64 are the widths themselves.
static_assert(VFIO_DEVICE_IOEVENTFD_8 == 1 && VFIO_DEVICE_IOEVENTFD_64 == 8);

std::string why_refused(const RegisterWrite& write, EventRef event) {
  if (write.width != 1 && write.width != 2 && write.width != 4 && write.width != 8) {
    return "a register has 1, 2, 4 or 8 bytes";
  }
  if (write.offset % write.width != 0) return "the offset is not a multiple of the width";
  if (write.width < 8 && write.value >> (8 * write.width) != 0) {
    return fmt::format("the value {:#x} does not fit the width", write.value);
  }
  return event.is_none() ? "no event is given" : "";
}

void explain(CallFailed& what) {
  switch (what.result) {
    case -ENOTTY:
      what.reason = "the kernel has no ioeventfds for this device";
      break;
    case -EINVAL:
      what.reason =
          "the kernel writes registers in BARs only, outside of the MSI-X table, of 8 bytes on 64-bit hosts only, and "
          "takes eventfds only";
      break;
    case -ENOSPC:
      what.reason = "the device has as many as the kernel allows (VFIO_PCI_IOEVENTFD_MAX)";
      break;
    case -EEXIST:
      what.reason = "the same value is written there for another event, or for this one already";
      break;
    default:
      break;
  }
}

}  // namespace

struct Ioeventfd::State {
  std::weak_ptr<DeviceIo> io;
  std::string object;
  vfio_device_ioeventfd request;
  Maker maker = {};

  State(std::weak_ptr<DeviceIo> of, std::string named, const vfio_device_ioeventfd& asked)
      : io(std::move(of)), object(std::move(named)), request(asked) {}
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (maker.is_this_process()) log_failure_of([this] { return remove(); });
  }

  // Removes it, if it is there.
  [[nodiscard]] Result<void> remove() {
    const auto device = io.lock();
    if (!device) return {};
    vfio_device_ioeventfd removal = request;
    removal.fd = -1;
    const int result = device->ioeventfd(removal);
    if (result < 0) return call_failure(vfio::device_ioeventfd.symbol, {.result = result, .object = object});
    io.reset();
    return {};
  }
};

Ioeventfd::Ioeventfd(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
Ioeventfd::Ioeventfd(Ioeventfd&&) noexcept = default;
Ioeventfd& Ioeventfd::operator=(Ioeventfd&&) noexcept = default;
Ioeventfd::~Ioeventfd() = default;

Result<Ioeventfd> Ioeventfd::add(const Device& device, const RegisterWrite& write, EventRef event) {
  CallFailed what{.object = fmt::format("{} region {} offset {:#x}+{}, ioeventfd", device.name(), write.region,
                                        write.offset, write.width)};
  auto found = POSTERN_TRY(device.find_region(write.region));
  const Region& region = *found;
  what.reason = why_refused(write, event);
  if (!what.reason.empty()) {
    what.result = -EINVAL;
    return refusal(std::move(what));
  }
  if (!event.is_valid()) {
    what.result = -EBADF;
    what.kind = ErrorKind::invalid_argument;
    what.reason = "the event is a moved-from Event or a negative descriptor";
    return refusal(std::move(what));
  }
  if (write.width > region.length || write.offset > region.length - write.width) {
    what.result = write.offset + write.width < write.offset ? -EOVERFLOW : -ERANGE;
    what.reason = fmt::format("the region has {:#x} bytes", region.length);
    return refusal(std::move(what));
  }
  const vfio_device_ioeventfd request{.argsz = sizeof request,
                                      .flags = write.width,
                                      .offset = region.offset + write.offset,
                                      .data = write.value,
                                      .fd = event.fd(),
                                      .reserved = 0};
  // It is of no device until it was added.
  auto state = std::make_unique<State>(std::weak_ptr<DeviceIo>(), what.object, request);
  vfio_device_ioeventfd addition = request;
  what.result = device.io_->ioeventfd(addition);
  if (what.result >= 0) {
    state->io = device.io_;
    return Ioeventfd(std::move(state));
  }
  explain(what);
  return call_failure(vfio::device_ioeventfd.symbol, std::move(what));
}

Result<void> Ioeventfd::remove() {
  if (state_ && !state_->io.expired()) return state_->remove();
  return refusal({.result = -EBADF,
                  .object = state_ ? state_->object : "Ioeventfd",
                  .reason = "it was removed or moved from, or the device was detached"});
}

}  // namespace postern
