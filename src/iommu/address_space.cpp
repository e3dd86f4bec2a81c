// SPDX-License-Identifier: Apache-2.0
// AddressSpace: the checks, the shadow map and the errors that all backends share.
#include "iommu/address_space.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <new>

#include "base/log.hpp"
#include "base/on_throw.hpp"
#include "base/words.hpp"
#include "iommu/address_space_errors.hpp"
#include "iommu/address_space_inline.hpp"
#include "iommu/backend_ops.hpp"
#include "iommu/dirty_tracker.hpp"
#include "iommu/file_memory.hpp"
#include "kernel/ioctl.hpp"
#include "memory/free_range.hpp"

namespace postern {
namespace {

std::vector<std::string> names_of(const AddressSpace::Devices& devices) {
  std::vector<std::string> names;
  for (const auto& device : devices) names.push_back(device->host.name);
  return names;
}

}  // namespace

AddressSpace::AddressSpace(std::unique_ptr<BackendContainer> backend)
    : backend_(std::move(backend)), likely_range_(nowhere), on_fork_(become_copy, this) {
  backend_->belong_to(*this);
  if (DirtyLog* const log = backend_->dirty_log(); log != nullptr) {
    dirty_tracker_ = std::make_unique<DirtyTracker>(std::make_unique<DirtyTracker::Impl>(*this, *log));
  }
}

AddressSpace::~AddressSpace() = default;

// Disables the fast paths of map() and unmap().
void AddressSpace::become_copy(void* space) noexcept {
  auto& copy = *static_cast<AddressSpace*>(space);
  copy.is_copy_ = true;
  copy.likely_range_ = nowhere;
  copy.decide_on_quick_unmaps();
}

void AddressSpace::set_kernel_has_mappings(bool has_mappings) noexcept {
  kernel_has_mappings_ = has_mappings;
  decide_on_quick_unmaps();
}

Result<std::shared_ptr<Container>> AddressSpace::open(Probed probed, Kernel& kernel, const Backend& backend,
                                                      const ContainerOptions& options) {
  auto opened = POSTERN_TRY(backend.ops->open(std::move(probed), kernel, options));
  return std::make_shared<Container>(std::make_unique<AddressSpace>(std::move(opened)));
}

// All checks of map() except for overlaps. `place` is the address of the memory, or its offset in a file. is_usable()
// is called after the check of is_copy_, since it enables the fast path.
bool AddressSpace::may_map(IovaRange range, std::uint64_t place, std::uint64_t length) {
  return ((range.first.value | place | length) & misaligned_) == 0 && ends_behind(place, length) &&
         range.first <= range.last && !is_copy_ && is_usable(range) && !mappings_.is_full();
}

Result<void> AddressSpace::map_slowly(IovaRange range, std::span<std::byte> memory, Access access) {
  if (!may_map(range, address_of(memory.data()), memory.size())) return Errors(*this).refuse_map(range, memory);
  if (const auto* taken = mappings_.insert(range, memory.data(), access))
    return Errors(*this).refuse_overlap(range, taken->range);
  return map_latest();
}

Result<void> AddressSpace::map_inserting(ShadowMap::Place place, MappingRecord* mapping) {
  mappings_.finish_insert(place, mapping);
  return map_latest();
}

Result<void> AddressSpace::map_latest() {
  const MappingRecord& mapping = mappings_.latest();
  return map_inserted(mapping.range.first, mapping.range.length(), mapping.address, mapping.access);
}

Result<void> AddressSpace::unmap_seeking(IovaRange range, std::uint64_t length) {
  if (!ends_behind(range.first.value, length) || !unmaps_quickly_ || !mappings_.seek(range)) {
    return unmap_several(range, length);
  }
  return unmap_found(range.first, length);
}

Result<void> AddressSpace::undo_latest(CallResult failed) {
  const MappingRecord mapping = mappings_.latest();
  mappings_.erase(mapping.range);
  return Errors(*this).map_failure(failed, mapping.range, mapping.address);
}

tl::unexpected<Error> AddressSpace::refuse_access(Iova iova, std::uint64_t length, Access access) const {
  return Errors(*this).refuse_access(iova, length, access);
}

Result<Iova> AddressSpace::map_anywhere(const Memory& memory, Access access, IovaRange within) {
  const std::uint64_t length = memory.length();
  if (!is_valid(access)) return Errors(*this).refuse_anywhere(length, access_fault(access));
  if (within.last < within.first) return Errors(*this).refuse_anywhere(length, inverted_text(within));
  const bool is_file = memory.kind() != Memory::Kind::address;
  Iova iova{smallest_page()};  // any valid iova: map() then reports what else is wrong
  if (length != 0 && (length & misaligned_) == 0 && !devices_.empty() && !closed_) {
    const FreeRangeRequest request{
        .length = length, .page_sizes = limits_.page_sizes | smallest_page(), .within = within};
    const auto found = find_free_range(mappings_, limits_.usable_ranges, request, free_hint_);
    if (!found) return Errors(*this).no_free_range(length, within);
    iova = *found;
  }
  ExaminedFiles files;
  POSTERN_TRY(is_file ? map_file(iova, memory, access, files) : map(iova, {memory.address(), length}, access));
  files.keep();
  return iova;
}

void AddressSpace::erase(IovaRange mapping) noexcept {
  mappings_.erase(mapping);
  erase_files(mapping);
}

// Whether the range contains mappings, and splits none.
Result<void> AddressSpace::check_unmap(IovaRange range, std::uint64_t length) const {
  const bool well_formed =
      length != 0 && ((range.first.value | length) & misaligned_) == 0 && range.first <= range.last;
  if (!well_formed || closed_ || is_copy_) return Errors(*this).refuse_unmap(range, length);
  const auto cover = mappings_.cover(range);
  if (cover.kind == ShadowMap::Cover::Kind::whole) return {};
  return Errors(*this).refuse_split(range, cover.mapping != nullptr ? &cover.mapping->range : nullptr);
}

Result<void> AddressSpace::unmap_failed(int result) const {
  return Errors(*this).unmap_failure(result, mappings_.latest().range);
}

// Unmaps one mapping by another function than BackendContainer::unmap().
Result<void> AddressSpace::unmap_by(IovaRange mapping, const std::function<int()>& unmap) {
  const int result = kernel_has_mappings_ ? unmap() : 0;
  if (result < 0) return Errors(*this).unmap_failure(result, mapping);
  erase(mapping);
  return {};
}

Result<void> AddressSpace::unmap_several(IovaRange range, std::uint64_t length) {
  POSTERN_TRY(check_unmap(range, length));
  const int result = kernel_has_mappings_ ? backend_->unmap_several(range) : 0;
  if (result != 0) return Errors(*this).unmap_failure(result, range);
  mappings_.erase_within(range);
  erase_files(range);
  return {};
}

Result<void> AddressSpace::unmap_all() {
  POSTERN_TRY(require_open(fmt::format("unmap all of container {}", name())));
  if (kernel_has_mappings_ && !mappings_.empty()) {
    if (const int result = backend_->unmap_all(); result != 0)
      return Errors(*this).unmap_failure(result, fmt::format("unmap all of container {}", name()));
  }
  mappings_.clear();
  files_.clear();
  decide_on_quick_unmaps();
  return {};
}

Result<void> AddressSpace::close() {
  POSTERN_TRY(require_open(fmt::format("close container {}", name())));
  if (!devices_.empty()) {
    return refusal({.result = -EBUSY,
                    .object = fmt::format("close container {}", name()),
                    .reason = "devices are attached: " + list_text(names_of(devices_)),
                    .remedy = RemedyCode::detach_devices_first});
  }
  POSTERN_TRY(unmap_all());
  auto done = backend_->close();
  closed_ = done.has_value();
  return done;
}

std::optional<std::uint64_t> AddressSpace::mappings_left() const noexcept {
  if (!limits_.mapping_limit) return std::nullopt;
  const std::uint64_t used = mappings_.size();
  return *limits_.mapping_limit > used ? *limits_.mapping_limit - used : 0;
}

Result<void> AddressSpace::require_open(std::string what) const {
  if (!closed_ && !is_copy_) return {};
  return Errors(*this).not_open(std::move(what));
}

tl::unexpected<Error> AddressSpace::refuse_second_thread(std::string_view call) const {
  return refusal({.result = -EBUSY,
                  .object = fmt::format("{} of container {}", call, name()),
                  .reason = "another thread is using the container",
                  .remedy = RemedyCode::use_one_thread});
}

void* AddressSpace::find_capability(std::string_view name) noexcept {
  if (name == DirtyTracker::capability) return dirty_tracker_.get();
  return backend_->find_capability(name);
}

bool AddressSpace::is_usable(IovaRange range) {
  if (devices_.empty()) return false;     // without a device there is no IOMMU, and its limits are unknown
  if (range.length() == 0) return false;  // 2^64 bytes, or zero bytes from 0
  const auto found = std::find_if(limits_.usable_ranges.begin(), limits_.usable_ranges.end(),
                                  [range](IovaRange usable) { return usable.contains(range); });
  if (found == limits_.usable_ranges.end()) return false;
  likely_range_ = {found->first, {std::min(found->last.value, ~std::uint64_t{0} - 1)}};
  return true;
}

void AddressSpace::set_limits(ContainerLimits limits) {
  limits_ = std::move(limits);
  likely_range_ = nowhere;
  mappings_.set_limit(limits_.mapping_limit.value_or(~std::uint64_t{0}));
  misaligned_ = smallest_page_of(limits_) - 1;
  unusual_ = misaligned_ | std::uint64_t{1} << 63;
}

// If there is no memory to keep it in the list, it is never freed.
void AddressSpace::leave_behind(Mmap memory) noexcept {
  try {
    left_behind_.reserve(left_behind_.size() + 1);
    left_behind_.push_back(std::move(memory));
  } catch (const std::bad_alloc&) {
    alignas(Mmap) std::byte never_destroyed[sizeof(Mmap)];
    ::new (static_cast<void*>(never_destroyed)) Mmap(std::move(memory));
  }
}

}  // namespace postern
