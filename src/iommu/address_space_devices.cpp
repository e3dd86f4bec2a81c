// SPDX-License-Identifier: Apache-2.0
// AddressSpace: attaches and detaches devices, and checks that the mappings suit them.
#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <optional>
#include <system_error>
#include <thread>

#include "base/log.hpp"
#include "base/on_throw.hpp"
#include "base/words.hpp"
#include "iommu/address_space.hpp"
#include "iommu/address_space_errors.hpp"
#include "iommu/dirty_tracker.hpp"
#include "kernel/ioctl.hpp"

namespace postern {
namespace {

using Opened = Result<std::unique_ptr<Attached>>;

bool covered(const std::vector<IovaRange>& usable, IovaRange range) {
  return std::any_of(usable.begin(), usable.end(), [range](IovaRange candidate) { return candidate.contains(range); });
}

std::string attach_text(const std::string& device, std::string_view backend) {
  return fmt::format("attach {} to container {}", device, backend);
}

// Runs act(0), ..., act(count - 1), each in a thread of its own if there are several. Memory may run out in one.
template <typename Act>
void run_at_once(std::size_t count, const Act& act) {
  if (count == 1) return act(0);
  std::vector<std::exception_ptr> thrown(count);
  const auto guarded = [&](std::size_t number) {
    try {
      act(number);
    } catch (...) {
      thrown[number] = std::current_exception();
    }
  };
  std::vector<std::thread> threads;
  threads.reserve(count);
  for (std::size_t number = 0; number < count; ++number) {
    try {
      threads.emplace_back(guarded, number);
    } catch (const std::system_error&) {  // no more threads: runs it in this one
      guarded(number);
    }
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& exception : thrown) {
    if (exception) std::rethrow_exception(exception);
  }
}

}  // namespace

// Checks that all mappings comply with the limits that include a new device. Restores the mappings if the kernel has
// dropped them.
Result<void> AddressSpace::admit(const ContainerLimits& limits, const std::string& object) {
  const std::uint64_t misaligned = smallest_page_of(limits) - 1;
  Result<void> admitted;
  mappings_.for_each([&](const MappingRecord& mapping) {
    if (!admitted) return;
    // The address of the memory, or its offset in a file that the kernel maps itself.
    const std::uint64_t place =
        mapping.address != nullptr ? address_of(mapping.address) : mapping_of(mapping).memory.offset();
    const std::uint64_t ends = mapping.range.first.value | (mapping.range.last.value + 1) | place;
    CallFailed what{.kind = ErrorKind::cannot_share, .object = object};
    if (!covered(limits.usable_ranges, mapping.range)) {
      what.result = -EADDRINUSE;
      what.reason = fmt::format("{} is mapped, but with this device only {} is usable", to_string(mapping.range),
                                ranges_text(limits.usable_ranges));
    } else if ((ends & misaligned) != 0) {
      what.result = -EINVAL;
      what.reason = fmt::format("{} is mapped, but this device's IOMMU has pages of {}", to_string(mapping.range),
                                page_sizes_text(limits.page_sizes));
    } else {
      if (kernel_has_mappings_) return;
      const CallResult mapped =
          backend_->map(mapping.range.first, mapping.range.length(), mapping.address, mapping.access);
      if (mapped.result < 0) admitted = Errors(*this).map_failure(mapped, mapping.range, mapping.address);
      return;
    }
    what.remedy = Remedies(RemedyCode::unmap_first).add(RemedyCode::attach_to_new_container);
    admitted = refusal(std::move(what));
  });
  return admitted;
}

Result<void> AddressSpace::check_new(std::span<const HostDevice> devices) const {
  for (std::size_t i = 0; i < devices.size(); ++i) {
    const auto is_this = [&](const HostDevice& other) {
      return other.name == devices[i].name && other.bus == devices[i].bus;
    };
    POSTERN_TRY(require_open(attach_text(devices[i].name, name())));
    if (std::any_of(devices_.begin(), devices_.end(), [&](const auto& other) { return is_this(other->host); })) {
      return refusal(
          {.result = -EBUSY, .object = attach_text(devices[i].name, name()), .reason = "it is already attached"});
    }
    if (std::any_of(devices.begin(), devices.begin() + static_cast<std::ptrdiff_t>(i), is_this)) {
      return refusal(
          {.result = -EINVAL, .object = attach_text(devices[i].name, name()), .reason = "it is listed twice"});
    }
  }
  return {};
}

// Opens all devices and adds them to the list. After an error the list contains those that were opened.
Result<void> AddressSpace::open_all(std::span<const HostDevice> devices,
                                    const std::shared_ptr<const KvmVfioDevice>& kvm) {
  for (const HostDevice& device : devices) {
    POSTERN_TRY(backend_->prepare(device, kvm));
  }
  std::vector<std::optional<Opened>> opened(devices.size());
  run_at_once(devices.size(), [&](std::size_t number) { opened[number] = backend_->open(devices[number], kvm); });
  Result<void> all;
  for (auto& each : opened) {
    if (*each) {
      devices_.push_back(std::move(**each));
    } else if (all) {
      all = failure_of(*each);
    }
  }
  return all;
}

Result<std::vector<Attached*>> AddressSpace::attach(std::span<const HostDevice> devices,
                                                    const std::shared_ptr<const KvmVfioDevice>& kvm) {
  const OneThread::Use use(one_thread_);
  if (!use) return refuse_second_thread("attach");
  POSTERN_TRY(check_new(devices));
  std::vector<Attached*> attached;
  attached.reserve(devices.size());
  devices_.reserve(devices_.size() + devices.size());
  const std::size_t before = devices_.size();
  const auto undo = [&] {
    while (devices_.size() > before) {
      Attached& last = *devices_.back();
      const bool was_let_in = std::find(attached.begin(), attached.end(), &last) != attached.end();
      log_failure_of([&] { return was_let_in ? remove(last) : take_out(last); });
    }
    log_failure_of([&] { return backend_->release_unused(); });
  };
  const OnThrow on_throw(undo);
  auto done = open_all(devices, kvm);
  for (std::size_t i = before; done && i < devices_.size(); ++i) {
    done = let_in(*devices_[i]);
    if (done) attached.push_back(devices_[i].get());
  }
  if (done) return attached;
  undo();
  return failure_of(done);
}

Result<void> AddressSpace::let_in(Attached& device) {
  if (auto connected = backend_->connect(device); !connected)
    return failure(Errors(*this).connect_failure(connected.error()));
  return settle(device, attach_text(device.host.name, name()), false);
}

// Once the device is connected: checks that the mappings suit its IOMMU, restores them if the kernel has dropped them,
// and tracks its writes if those of the others are tracked. One that was moved may be writing already.
Result<void> AddressSpace::settle(Attached& device, const std::string& object, bool is_moved) {
  auto limits = POSTERN_TRY(backend_->read_limits());
  POSTERN_TRY(admit(limits, object));
  if (!kernel_has_mappings_ && !mappings_.empty()) {
    // The number of mappings left was read before these were restored.
    limits = POSTERN_TRY(backend_->read_limits());
  }
  if (dirty_tracker_) POSTERN_TRY(dirty_tracker_->impl().join(device, smallest_page_of(limits), object, is_moved));
  set_limits(std::move(limits));
  set_kernel_has_mappings(true);
  return {};
}

AddressSpace::Devices::const_iterator AddressSpace::find(const Attached& device) const noexcept {
  return std::find_if(devices_.begin(), devices_.end(), [&](const auto& each) { return each.get() == &device; });
}

Result<void> AddressSpace::take_out(Attached& device) {
  const auto place = devices_.begin() + (find(device) - devices_.begin());
  const std::unique_ptr<Attached> leaving = std::move(*place);
  devices_.erase(place);
  return backend_->detach(*leaving);
}

Result<void> AddressSpace::detach(Attached& device) {
  const OneThread::Use use(one_thread_);
  // A destructor cannot be refused.
  if (!use) log_failure_of([&]() -> Result<void> { return refuse_second_thread("detach a device"); });
  return remove(device);
}

Result<void> AddressSpace::remove(Attached& device) {
  if (dirty_tracker_) dirty_tracker_->impl().leave(device);
  auto detached = take_out(device);
  widen_limits();
  return detached;
}

// Without a device that has left, the limits may be wider. If they cannot be read, they stay as they are.
void AddressSpace::widen_limits() noexcept {
  if (!devices_.empty()) {
    try {
      if (auto limits = backend_->read_limits()) set_limits(std::move(*limits));
    } catch (const std::bad_alloc&) {
    }
  } else {
    likely_range_ = nowhere;
    if (backend_->traits().when_empty == BackendContainer::WhenEmpty::clears_mappings) set_kernel_has_mappings(false);
  }
}

}  // namespace postern
