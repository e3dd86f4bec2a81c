// SPDX-License-Identifier: Apache-2.0
// AddressSpace: what it takes from another one without opening or pinning it anew: devices that move, and copies of
// mappings.
#include <fmt/format.h>

#include "base/log.hpp"
#include "base/on_throw.hpp"
#include "host/requirements.hpp"
#include "iommu/address_space.hpp"
#include "iommu/address_space_errors.hpp"
#include "iommu/dirty_tracker.hpp"
#include "kernel/ioctl.hpp"

namespace postern {
namespace {

std::string move_text(const Attached& device, const AddressSpace& to) {
  return fmt::format("move {} to container {}", device.host.name, to.name());
}

// What can be known before the kernel is asked. `to` would take over the device.
Result<void> check_move(const AddressSpace& from, const Attached& device, const AddressSpace& to) {
  CallFailed what{.result = -EINVAL, .object = move_text(device, to)};
  POSTERN_TRY(to.require_open(what.object));
  POSTERN_TRY(from.require_open(what.object));
  if (&to == &from) {
    what.reason = "it is in this container already";
  } else if (&to.kernel() != &from.kernel()) {
    what.reason = "the containers were opened on different Kernels";
  } else if (to.name() == from.name()) {
    return to.backend().check_take_over(device, from.backend(), what.object);
  } else {
    what.result = -EOPNOTSUPP;
    what.reason = fmt::format("it is open in a container {}, and bound to that for as long as it is open", from.name());
    what.remedy = RemedyCode::attach_anew;
  }
  return refusal(std::move(what));
}

}  // namespace

Result<void> AddressSpace::take_over(AddressSpace& from, Attached& device) {
  const OneThread::Use use(one_thread_);
  if (!use) return refuse_second_thread("move_device");
  const OneThread::Use use_of_from(from.one_thread_);
  if (!use_of_from) return from.refuse_second_thread("move_device");
  POSTERN_TRY(check_move(from, device, *this));
  const std::string object = move_text(device, *this);
  const bool is_tracked = dirty_tracker_ && POSTERN_TRY(dirty_tracker_->impl().source_of(device)) == DirtySource::iommu;
  const auto place = from.find(device) - from.devices_.begin();
  devices_.reserve(devices_.size() + 1);  // memory may run out here, but not between the next steps
  POSTERN_TRY(backend_->take_over(device, is_tracked));
  // The page table that it has left still tells which pages it wrote there.
  if (from.dirty_tracker_) from.dirty_tracker_->impl().leave(device);
  devices_.push_back(std::move(from.devices_[static_cast<std::size_t>(place)]));
  from.devices_.erase(from.devices_.begin() + place);
  const auto follow = [&] {
    log_failure_of([&] { return from.backend_->release_unused(); });
    from.widen_limits();
  };
  bool is_back = false;
  const auto undo = [&] {
    is_back = give_back(from, device, place);
    if (!is_back) follow();
  };
  Result<void> settled;
  {
    const OnThrow on_throw(undo);
    settled = settle(device, object, true);
  }
  if (settled) {
    follow();
    return settled;
  }
  undo();
  if (is_back) return settled;
  Error::Details details = settled.error().details();
  details.reason = fmt::format(
      "{}; the kernel does not take it back either, so it has moved, and every page of its new container counts as "
      "dirty",
      settled.error().reason_text());
  return failure(std::move(details));
}

// Gives the device back to the address space from which it came, where it had this place in the list, if the kernel
// can.
bool AddressSpace::give_back(AddressSpace& to, Attached& device, std::ptrdiff_t place) noexcept {
  bool is_back = false;
  device.source = DirtySource::none;
  log_failure_of([&] {
    auto taken = to.backend_->take_over(device, false);  // onto its old page table, which is tracked if it was
    is_back = taken.has_value();
    return taken;
  });
  if (!is_back) return false;
  to.devices_.insert(to.devices_.begin() + place, std::move(devices_.back()));  // it had room for it before
  devices_.pop_back();
  log_failure_of([this] { return backend_->release_unused(); });
  if (to.dirty_tracker_) to.dirty_tracker_->impl().come_back(device);
  return true;
}

Result<bool> AddressSpace::copy(const AddressSpace& from, const Mapping& mapping) {
  const OneThread::Use use(one_thread_);
  if (!use) return refuse_second_thread("map");
  const Memory& memory = mapping.memory;
  const bool is_file = memory.kind() == Memory::Kind::file;
  // Of a dma-buf nothing is pinned, and a copy of one that is revoked would be dead without an error.
  if (memory.kind() == Memory::Kind::dma_buf || from.name() != name()) return false;
  const MappingRecord* const original = from.mappings_.find(mapping.range.first);
  if (original == nullptr || original->range != mapping.range) return false;
  if (!may_map(mapping.range, is_file ? memory.offset() : address_of(memory.address()), memory.length()))
    return Errors(*this).refuse_map(mapping.range, memory);
  if (const auto* taken = mappings_.insert(mapping.range, memory.address(), mapping.access))
    return Errors(*this).refuse_overlap(mapping.range, taken->range);
  CallResult copied;
  {
    const OnThrow undo([&] { erase(mapping.range); });
    if (is_file) files_.emplace(mapping.range.first, MappedMemory{.memory = memory});
    decide_on_quick_unmaps();
    copied = backend_->copy(*from.backend_, mapping.range, mapping.access);
  }
  if (copied.result >= 0) return true;
  erase(mapping.range);
  if (copied.result == -ENOTTY) return false;
  CallFailed what{.result = copied.result, .object = Errors(*this).map_text(mapping.range)};
  // Without a device there, it is the copy that pins the pages.
  if (copied.result == -ENOMEM && from.devices_.empty())
    explain_locked_memory(what, kernel(), memory.length(), backend_->locked_memory_counter());
  return call_failure(copied.call, std::move(what));
}

}  // namespace postern
