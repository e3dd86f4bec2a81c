// SPDX-License-Identifier: Apache-2.0
// Container: the checks, the shadow map and the words that every backend shares.
#include <postern/container.hpp>

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <postern/dirty_tracker.hpp>

#include "base/log.hpp"
#include "base/on_throw.hpp"
#include "base/words.hpp"
#include "iommu/container_errors.hpp"
#include "kernel/ioctl.hpp"
#include "memory/shadow_map.hpp"

namespace postern {
namespace {

constexpr IovaRange nowhere{{1}, {0}};

std::uint64_t address_of(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }

// Whether there is a byte in it, and it ends below 2^64: what cannot be said of the last page of all.
bool ends_behind(std::uint64_t first, std::uint64_t length) { return first < first + length; }

// The range of so many bytes, by the carries of the two sums that find its end; false where it is empty, or runs past
// 2^64.
[[gnu::always_inline]] inline bool find_range(Iova first, std::uint64_t length, IovaRange& range) {
  range.first = first;
  return !__builtin_sub_overflow(length, std::uint64_t{1}, &range.last.value) &&
         !__builtin_add_overflow(range.last.value, first.value, &range.last.value);
}

bool covered(const std::vector<IovaRange>& usable, IovaRange range) {
  return std::any_of(usable.begin(), usable.end(), [range](IovaRange candidate) { return candidate.contains(range); });
}

// Sub-page mappings are no use to anyone, and an IOMMU that tells no page sizes still has pages.
std::uint64_t smallest_page(const ContainerLimits& limits) {
  constexpr std::uint64_t least = 4096;
  return std::max(limits.page_sizes & -limits.page_sizes, least);
}

std::string attach_text(const std::string& device, std::string_view backend) {
  return fmt::format("attach {} to container {}", device, backend);
}

}  // namespace

Container::Container(Kernel& kernel, const Traits& traits)
    : kernel_(&kernel),
      traits_(traits),
      process_(::getpid()),
      likely_range_(nowhere),
      mappings_(std::make_unique<ShadowMap>()) {}

Container::~Container() = default;

// map() and unmap() keep nothing of their arguments over a call: what they need again the shadow map has.
Result<void> Container::map(Iova iova, std::span<std::byte> memory, Access access) {
  void* const address = memory.data();
  const std::uint64_t length = memory.size();
  IovaRange range{};
  // What is nearly always so is asked first and quickly; which rule was broken is found out when one was.
  const bool fits = ((iova.value | address_of(address) | length) & misaligned_) == 0 &&
                    ends_behind(address_of(address), length) && find_range(iova, length, range) &&
                    likely_range_.contains(range) && mappings_->size() < mapping_limit_ &&
                    mappings_->insert_surely(range, address, access);
  if (!fits) [[unlikely]]
    return map_slowly({iova, iova + (length - 1)}, memory, access);
  return map_latest();
}

// The same, with every question asked.
Result<void> Container::map_slowly(IovaRange range, std::span<std::byte> memory, Access access) {
  const auto bits = range.first.value | address_of(memory.data()) | memory.size();
  const bool fits = (bits & misaligned_) == 0 && ends_behind(address_of(memory.data()), memory.size()) &&
                    range.first <= range.last && is_usable(range) && mappings_->size() < mapping_limit_;
  if (!fits) return Errors(*this).refuse_map(range, memory);
  if (const auto* taken = mappings_->insert(range, memory.data(), access))
    return Errors(*this).refuse_overlap(range, taken->range);
  return map_latest();
}

[[gnu::always_inline]] inline Result<void> Container::map_latest() {
  const MappingRecord& mapping = mappings_->latest();
  int result = 0;
  try {
    result = do_map(mapping.range.first, mapping.range.length(), mapping.address, mapping.access);
  } catch (...) {  // OnThrow would take fifty instructions where nothing is thrown
    mappings_->erase(mappings_->latest().range);
    throw;
  }
  if (result < 0) [[unlikely]]
    return undo_latest(result);
  return {};
}

Result<void> Container::undo_latest(int result) {
  const MappingRecord mapping = mappings_->latest();
  mappings_->erase(mapping.range);
  return Errors(*this).map_failure(result, mapping.range, mapping.address);
}

Result<void> Container::unmap(Iova iova, std::uint64_t length) {
  IovaRange range{};
  // Nearly always one mapping is unmapped as it was mapped, and what was mapped is well formed.
  if (!find_range(iova, length, range) || !kernel_has_mappings_ || !mappings_->seek(range)) [[unlikely]]
    return unmap_several({iova, iova + (length - 1)}, length);
  if (const int result = do_unmap(iova, length); result != 0) [[unlikely]]
    return Errors(*this).unmap_failure(result, mappings_->latest().range);
  mappings_->erase_found();
  return {};
}

// Whether the range has mappings, and cuts none of them in two.
Result<void> Container::check_unmap(IovaRange range, std::uint64_t length) const {
  const bool well_formed =
      length != 0 && ((range.first.value | length) & misaligned_) == 0 && range.first <= range.last;
  if (!well_formed || closed_) return Errors(*this).refuse_unmap(range, length);
  const auto cover = mappings_->cover(range);
  if (cover.kind == ShadowMap::Cover::Kind::whole) return {};
  return Errors(*this).refuse_split(range, cover.mapping != nullptr ? &cover.mapping->range : nullptr);
}

// One mapping, by something else than do_unmap().
Result<void> Container::unmap_by(IovaRange mapping, const std::function<int()>& unmap) {
  const int result = kernel_has_mappings_ ? unmap() : 0;
  if (result < 0) return Errors(*this).unmap_failure(result, mapping);
  mappings_->erase(mapping);
  return {};
}

Result<void> Container::unmap_several(IovaRange range, std::uint64_t length) {
  if (auto checked = check_unmap(range, length); !checked) return checked;
  const int result = kernel_has_mappings_ ? do_unmap_several(range) : 0;
  if (result != 0) return Errors(*this).unmap_failure(result, range);
  mappings_->erase_within(range);
  return {};
}

Result<void> Container::unmap_all() {
  if (closed_) return Errors(*this).closed(fmt::format("unmap all of container {}", backend()));
  if (kernel_has_mappings_ && !mappings_->empty()) {
    if (const int result = do_unmap_all(); result < 0) {
      return call_failure(traits_.unmap,
                          {.result = result, .object = fmt::format("unmap all of container {}", backend())});
    }
  }
  mappings_->clear();
  return {};
}

// Each mapping is forgotten when it is unmapped, so that after a refusal the next try meets what is left. ENOENT is no
// refusal: there is nothing to unmap.
int Container::do_unmap_all() {
  while (const MappingRecord* mapping = mappings_->at_or_above({0})) {
    const IovaRange range = mapping->range;
    const int result = do_unmap(range.first, range.length());
    if (result < 0 && result != -ENOENT) return result;
    mappings_->erase(range);
  }
  return 0;
}

Result<void> Container::close() {
  if (closed_) return Errors(*this).closed(fmt::format("close container {}", backend()));
  if (!devices_.empty()) {
    return refusal({.result = -EBUSY,
                    .object = fmt::format("close container {}", backend()),
                    .reason = "devices are attached: " + list_text(devices_),
                    .remedy = "detach them first"});
  }
  if (auto unmapped = unmap_all(); !unmapped) return unmapped;
  auto done = do_close();
  closed_ = done.has_value();
  return done;
}

std::optional<std::uint64_t> Container::mappings_left() const noexcept {
  if (!limits_.mapping_limit) return std::nullopt;
  const std::uint64_t used = mappings_->size();
  return *limits_.mapping_limit > used ? *limits_.mapping_limit - used : 0;
}

std::size_t Container::mapping_count() const noexcept { return mappings_->size(); }

std::optional<Mapping> Container::find(Iova iova) const {
  const auto* found = mappings_->find(iova);
  if (found == nullptr) return std::nullopt;
  return Mapping{.range = found->range, .address = found->address, .access = found->access};
}

void Container::for_each_mapping(const std::function<void(const Mapping&)>& visitor) const {
  mappings_->for_each(
      [&](const auto& entry) { visitor({.range = entry.range, .address = entry.address, .access = entry.access}); });
}

bool Container::is_usable(IovaRange range) {
  if (devices_.empty()) return false;     // without one there is no IOMMU, and what it could do is not known
  if (range.length() == 0) return false;  // 2^64 bytes, which is what zero bytes from 0 look like
  const auto found = std::find_if(limits_.usable_ranges.begin(), limits_.usable_ranges.end(),
                                  [range](IovaRange usable) { return usable.contains(range); });
  if (found == limits_.usable_ranges.end()) return false;
  likely_range_ = {found->first, {std::min(found->last.value, ~std::uint64_t{0} - 1)}};
  return true;
}

void Container::set_limits(ContainerLimits limits) {
  limits_ = std::move(limits);
  likely_range_ = nowhere;
  mapping_limit_ = limits_.mapping_limit.value_or(~std::uint64_t{0});
  misaligned_ = smallest_page(limits_) - 1;
}

// Whether everything that is mapped fits what the IOMMUs can do now that `device` is among them; where the kernel
// forgot the mappings, they are made anew.
Result<void> Container::admit(const ContainerLimits& limits, const HostDevice& device) {
  const std::uint64_t misaligned = smallest_page(limits) - 1;
  Result<void> admitted;
  for_each_mapping([&](const Mapping& mapping) {
    if (!admitted) return;
    const std::uint64_t ends = mapping.range.first.value | (mapping.range.last.value + 1) | address_of(mapping.address);
    CallFailed what{.object = attach_text(device.name, backend())};
    if (!covered(limits.usable_ranges, mapping.range)) {
      what.result = -EADDRINUSE;
      what.reason = fmt::format("{} is mapped, and with this device only {} can be used", to_string(mapping.range),
                                ranges_text(limits.usable_ranges));
    } else if ((ends & misaligned) != 0) {
      what.result = -EINVAL;
      what.reason = fmt::format("{} is mapped, and this device's IOMMU has pages of {}", to_string(mapping.range),
                                page_sizes_text(limits.page_sizes));
    } else {
      const int result = kernel_has_mappings_
                             ? 0
                             : do_map(mapping.range.first, mapping.range.length(), mapping.address, mapping.access);
      if (result < 0) admitted = Errors(*this).map_failure(result, mapping.range, mapping.address);
      return;
    }
    what.remedy = "unmap it first, or attach the device to a container of its own";
    admitted = refusal(std::move(what));
  });
  return admitted;
}

Result<Fd> Container::attach(const HostDevice& device) {
  if (closed_) return Errors(*this).closed(attach_text(device.name, backend()));
  if (std::find(devices_.begin(), devices_.end(), device.name) != devices_.end()) {
    return refusal(
        {.result = -EBUSY, .object = attach_text(device.name, backend()), .reason = "it is attached already"});
  }
  std::string name = device.name;
  devices_.reserve(devices_.size() + 1);
  auto fd = do_attach(device);
  if (!fd) return fd;
  // Where the kernel forgets, it forgets again what was replayed so far.
  const auto take_out = [&] { log_failure_of([&] { return do_detach(device.name, std::move(*fd)); }); };
  const OnThrow undo(take_out);
  auto limits = let_in(device, fd->get());
  if (!limits) {
    take_out();
    return failure_of(limits);
  }
  set_limits(std::move(*limits));
  kernel_has_mappings_ = true;
  devices_.push_back(std::move(name));
  return fd;
}

// What is mapped fits what can be mapped with the device, and its writes are tracked if those of the others are. Gives
// the limits.
Result<ContainerLimits> Container::let_in(const HostDevice& device, int fd) {
  auto limits = read_limits();
  if (!limits) return limits;
  if (auto admitted = admit(*limits, device); !admitted) return failure_of(admitted);
  if (!kernel_has_mappings_ && !mappings_->empty()) {
    limits = read_limits();  // how many mappings are left was asked before the kernel had these again
    if (!limits) return limits;
  }
  if (dirty_tracker() != nullptr) {
    if (auto joined = dirty_tracker()->join(device.name, fd, smallest_page(*limits)); !joined) {
      return failure_of(joined);
    }
  }
  return limits;
}

Result<void> Container::detach(const std::string& device, Fd fd) {
  if (dirty_tracker() != nullptr) dirty_tracker()->leave(device);
  std::erase(devices_, device);
  auto detached = do_detach(device, std::move(fd));
  if (!devices_.empty()) {
    // Without this device more may be usable; where that cannot be had, what was usable stays so.
    try {
      if (auto limits = read_limits()) set_limits(std::move(*limits));
    } catch (const std::bad_alloc&) {
    }
  } else if (traits_.when_empty == WhenEmpty::forgets_mappings) {
    kernel_has_mappings_ = false;
  }
  if (devices_.empty()) likely_range_ = nowhere;
  return detached;
}

}  // namespace postern
