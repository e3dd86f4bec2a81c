// SPDX-License-Identifier: Apache-2.0
// Devices of a guest: attached to a container that shows its memory, or to a new one that then does.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "core/causes.hpp"
#include "core/guest_memory/impl.hpp"
#include "core/replay.hpp"
#include "kernel/ioctl.hpp"

namespace postern {

Result<GuestDevice> GuestMemory::Impl::attach(const HostDevice& device) {
  for (const auto& container : containers_) {
    const auto devices = container->devices();
    if (std::any_of(devices.begin(), devices.end(), [&](const HostDevice& each) { return each.name == device.name; })) {
      return refusal({.result = -EBUSY,
                      .kind = ErrorKind::in_use,
                      .object = fmt::format("attach {} to guest memory", device.name),
                      .reason = "it is attached to it already",
                      .remedy = RemedyCode::detach_first});
    }
  }
  POSTERN_TRY(settle());
  std::vector<Error> refusals;
  for (const auto& container : containers_) {
    auto joined = postern::attach(*kernel_, device, {.container = container, .kvm = kvm_});
    if (joined) return GuestDevice{.device = std::move(*joined), .joined = true, .refusals = std::move(refusals)};
    refusals.push_back(std::move(joined).error());
  }
  containers_.reserve(containers_.size() + 1);
  auto attached = attach_to_new(device);
  if (!attached) return failure_with(std::move(refusals), attached.error());
  containers_.push_back(attached->container());
  return GuestDevice{.device = std::move(*attached), .joined = false, .refusals = std::move(refusals)};
}

Result<Device> GuestMemory::Impl::attach_to_new(const HostDevice& device) {
  AttachOptions options{.backend = backend_, .container_options = container_options_, .kvm = kvm_};
  if (options.container_options.memory == 0) options.container_options.memory = layout_.total_length();
  auto attached = POSTERN_TRY(postern::attach(*kernel_, device, options));
  POSTERN_TRY(show_layout(*attached.container()));
  if (dirty_) POSTERN_TRY(start_tracking_in(*attached.container()));
  return attached;
}

Result<void> GuestMemory::Impl::show_layout(Container& container) {
  POSTERN_TRY(check_ranges(container, layout_.pieces()));
  ExaminedFiles files(ExaminedFiles::AddedPages::stay);  // the guest may have written to them
  const auto original = std::find_if(containers_.begin(), containers_.end(),
                                     [&](const auto& each) { return each->backend() == container.backend(); });
  for (const auto& [first, piece] : layout_.pieces()) {
    POSTERN_TRY(original != containers_.end() ? map_as_in(**original, container, piece, files)
                                              : map_one(container, piece, files));
  }
  return {};
}

Result<void> GuestMemory::Impl::close_unused() {
  return close_unused_if([](const std::shared_ptr<Container>&) { return true; });
}

Result<void> GuestMemory::Impl::close_unused_if(const std::function<bool(const std::shared_ptr<Container>&)>& goes) {
  for (auto container = containers_.begin(); container != containers_.end();) {
    if (!(*container)->devices().empty() || !goes(*container)) {
      ++container;
      continue;
    }
    if (dirty_) keep_dirty_pages(**container);
    POSTERN_TRY((*container)->close());
    std::erase_if(owed_, [&](const Step& step) { return step.container == *container; });
    container = containers_.erase(container);
  }
  return {};
}

}  // namespace postern
