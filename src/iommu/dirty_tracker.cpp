// SPDX-License-Identifier: Apache-2.0
// DirtyTracker: chooses the source that tracks each device, and merges the reports of all sources.
#include "iommu/dirty_tracker.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "base/log.hpp"
#include "base/on_throw.hpp"
#include "base/words.hpp"
#include "iommu/container_call.hpp"
#include "kernel/ioctl.hpp"
#include "memory/page_bits.hpp"

namespace postern {
namespace {

std::string tracking_text(std::string_view what, const AddressSpace& space) {
  return fmt::format("{} dirty tracking in container {}", what, space.name());
}

std::string pages_text(IovaRange range, const AddressSpace& space) {
  return fmt::format("dirty pages of {} in container {}", to_string(range), space.name());
}

Iova end_of(IovaRange range) { return range.last + 1; }

// Returns the first address of the range that is not mapped.
std::optional<Iova> find_hole(const AddressSpace& space, IovaRange range) {
  for (Iova at = range.first;;) {
    const MappingRecord* const mapping = space.mappings().find(at);
    if (mapping == nullptr) return at;
    if (mapping->range.last >= range.last) return std::nullopt;
    at = end_of(mapping->range);
  }
}

// Extends a range, all of which is mapped, to whole mappings.
IovaRange whole_mappings(const AddressSpace& space, IovaRange range) {
  return {space.mappings().find(range.first)->range.first, space.mappings().find(range.last)->range.last};
}

// Copies the bits of this part of the request to the caller's bitmap, which starts at `start`.
void hand_over(const DirtyRequest& request, IovaRange part, const DirtyBitmap& bitmap, Iova start) {
  const auto shift = static_cast<unsigned>(std::countr_zero(bitmap.page_size) - std::countr_zero(request.page_size));
  memory::fold_bits({bitmap.words.data(), (part.first - start) / request.page_size},
                    {request.bits, (part.first - request.range.first) / request.page_size},
                    part.length() / request.page_size, shift);
}

// Returns the mapped ranges, with neighbours joined.
std::vector<IovaRange> mapped_ranges(const AddressSpace& space) {
  std::vector<IovaRange> ranges;
  ranges.reserve(space.mappings().size());
  space.mappings().for_each([&](const MappingRecord& mapping) {
    if (!ranges.empty() && end_of(ranges.back()) == mapping.range.first) {
      ranges.back().last = mapping.range.last;
    } else {
      ranges.push_back(mapping.range);
    }
  });
  return ranges;
}

}  // namespace

std::string_view to_string(DirtySource source) {
  switch (source) {
    case DirtySource::device:
      return "device";
    case DirtySource::iommu:
      return "iommu";
    case DirtySource::none:
      break;
  }
  return "none";
}

DirtyTracker::DirtyTracker(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
DirtyTracker::~DirtyTracker() = default;

Result<void> DirtyTracker::start(std::optional<DirtySource> only) {
  const ContainerCall call(impl_->space());
  POSTERN_TRY(call.check("dirty tracking, start"));
  return impl_->start(only);
}
Result<void> DirtyTracker::stop() {
  const ContainerCall call(impl_->space());
  POSTERN_TRY(call.check("dirty tracking, stop"));
  return impl_->stop();
}
bool DirtyTracker::is_on() const noexcept { return impl_->is_on(); }
Result<DirtyAnswer> DirtyTracker::query(IovaRange range, const DirtyBitmap& bitmap, AfterQuery after) {
  const ContainerCall call(impl_->space());
  POSTERN_TRY(call.check("dirty tracking, query"));
  return impl_->query(range, bitmap, after);
}
Result<DirtyAnswer> DirtyTracker::unmap(Iova iova, std::uint64_t length, const DirtyBitmap& bitmap) {
  const ContainerCall call(impl_->space());
  POSTERN_TRY(call.check("dirty tracking, unmap"));
  return impl_->unmap(iova, length, bitmap);
}
std::vector<TrackedDevice> DirtyTracker::devices() const { return impl_->devices(); }

std::vector<TrackedDevice> DirtyTracker::Impl::devices() const {
  std::vector<TrackedDevice> devices;
  for (const auto& device : space_->devices()) devices.push_back(choose(*device));
  return devices;
}

TrackedDevice DirtyTracker::Impl::choose(const Attached& device) const {
  const bool by_itself = only_ != DirtySource::iommu && device.log.available();
  if (by_itself) return {.device = device.host.name, .source = DirtySource::device, .note = ""};
  if (only_ != DirtySource::device) return log_->probe(device);
  return {.device = device.host.name,
          .source = DirtySource::none,
          .note = "it does not log its own writes (VFIO_DEVICE_FEATURE_DMA_LOGGING_START)"};
}

bool DirtyTracker::Impl::is_everything_dirty() const {
  const auto& devices = space_->devices();
  return lost_ || std::any_of(devices.begin(), devices.end(),
                              [](const auto& device) { return device->source == DirtySource::none; });
}

DirtyAnswer DirtyTracker::Impl::answer() const {
  const auto& devices = space_->devices();
  const bool all = is_everything_dirty() || std::any_of(devices.begin(), devices.end(),
                                                        [](const auto& device) { return device->marks_everything; });
  return all ? DirtyAnswer::everything : DirtyAnswer::pages;
}

tl::unexpected<Error> DirtyTracker::Impl::refuse_untracked(const std::vector<std::string>& devices) const {
  return refusal({.result = -EOPNOTSUPP,
                  .object = tracking_text("start", *space_),
                  .reason = list_text(devices),
                  .remedy = RemedyCode::omit_dirty_source});
}

Result<DirtySource> DirtyTracker::Impl::source_of(const Attached& device) const {
  if (!on_) return DirtySource::none;
  const TrackedDevice choice = choose(device);
  if (only_ && choice.source == DirtySource::none)
    return refuse_untracked({fmt::format("{}: {}", choice.device, choice.note)});
  return choice.source;
}

// Starts tracking for all of these devices, or for none.
Result<void> DirtyTracker::Impl::start_devices(std::span<Attached* const> devices) {
  std::vector<const Attached*> by_iommu;
  std::vector<std::string> lacking;
  for (Attached* const device : devices) {
    const TrackedDevice choice = choose(*device);
    device->source = choice.source;
    device->marks_everything = choice.marks_everything;
    if (choice.source == DirtySource::iommu) by_iommu.push_back(device);
    if (choice.source == DirtySource::none) lacking.push_back(fmt::format("{}: {}", choice.device, choice.note));
  }
  if (only_ && !lacking.empty()) return refuse_untracked(lacking);
  const std::vector<IovaRange> mapped = mapped_ranges(*space_);
  Result<void> started;
  std::size_t logging = 0;  // the number of devices that were started
  const auto stop_started = [&] {
    for (Attached* const device : devices.first(logging)) log_failure_of([&] { return device->log.stop(); });
  };
  const OnThrow undo(stop_started);
  for (; started && logging < devices.size(); ++logging) {
    Attached& device = *devices[logging];
    if (device.source == DirtySource::device) started = device.log.start(mapped, page_size_);
  }
  if (started && !by_iommu.empty()) started = log_->start(by_iommu);
  if (!started) stop_started();
  return started;
}

Result<void> DirtyTracker::Impl::start(std::optional<DirtySource> only) {
  CallFailed what{.object = tracking_text("start", *space_)};
  if (on_) {
    what.result = -EBUSY;
    what.reason = "it is already on";
    what.remedy = RemedyCode::stop_tracking;
  } else if (space_->devices().empty()) {
    what.result = -ENODEV;
    what.kind = ErrorKind::invalid_argument;
    what.reason = "no device is attached";
    what.remedy = RemedyCode::attach_device_first;
  }
  if (what.result != 0) return refusal(std::move(what));
  page_size_ = space_->smallest_page();
  pending_ = std::make_unique<memory::PageSet>(page_size_);
  lost_ = false;
  only_ = only == DirtySource::none ? std::nullopt : only;
  const OnThrow undo([this] { only_.reset(); });
  std::vector<Attached*> devices;
  for (const auto& device : space_->devices()) devices.push_back(device.get());
  auto started = start_devices(devices);
  if (!started) only_.reset();
  on_ = started.has_value();
  return started;
}

Result<void> DirtyTracker::Impl::stop() {
  if (!on_) {
    return refusal({.result = -EINVAL, .object = tracking_text("stop", *space_), .reason = "it is not on"});
  }
  on_ = lost_ = false;
  only_.reset();
  pending_.reset();
  scratch_ = {};
  auto stopped = log_->stop();
  for (const auto& device : space_->devices()) {
    auto off = device->log.stop();
    if (stopped) stopped = std::move(off);
  }
  return stopped;
}

Result<void> DirtyTracker::Impl::join(Attached& device, std::uint64_t smallest_page, const std::string& object,
                                      bool is_moved) {
  if (!on_) return {};
  if (smallest_page != page_size_) {
    return refusal({.result = -EBUSY,
                    .kind = ErrorKind::cannot_share,
                    .object = object,
                    .reason = fmt::format("dirty pages are tracked by {}, but with this device the smallest page is {}",
                                          size_text(page_size_), size_text(smallest_page)),
                    .remedy = RemedyCode::stop_tracking});
  }
  Attached* const joining = &device;
  POSTERN_TRY(start_devices(std::span(&joining, 1)));
  if (is_moved && device.source == DirtySource::device) keep_everything();  // what it wrote before its log started
  return {};
}

void DirtyTracker::Impl::come_back(Attached& device) noexcept {
  device.source = DirtySource::none;
  if (!on_) return;
  bool is_tracked = false;
  log_failure_of([&] {
    auto joined = join(device, page_size_, {}, true);
    is_tracked = joined.has_value();
    return joined;
  });
  if (!is_tracked) device.source = DirtySource::none;
}

// While the device and its source still exist.
void DirtyTracker::Impl::leave(Attached& device) noexcept {
  try {
    if (on_) collect_pending();
  } catch (const std::bad_alloc&) {
    lost_ = true;
  }
  log_failure_of([&] { return device.log.stop(); });
}

void DirtyTracker::Impl::collect_pending() {
  for (const IovaRange range : mapped_ranges(*space_)) {
    if (is_everything_dirty()) {
      pending_->add(range);
      continue;
    }
    const DirtyRequest request{.range = range, .page_size = page_size_, .bits = cleared_words(range)};
    auto collected = collect(request, AfterQuery::clear);
    if (collected) pending_->add(range, request.bits);
    log_failure(collected, LogKind::remark);
  }
}

void DirtyTracker::Impl::keep_everything() noexcept {
  try {
    for (const IovaRange range : mapped_ranges(*space_)) pending_->add(range);
  } catch (const std::bad_alloc&) {
    lost_ = true;
  }
}

std::uint64_t* DirtyTracker::Impl::cleared_words(IovaRange range) {
  scratch_.assign(DirtyBitmap::words_for(range.length(), page_size_), 0);
  return scratch_.data();
}

// After an error it is unknown what was lost, so the whole range counts as dirty.
Result<void> DirtyTracker::Impl::collect(const DirtyRequest& request, AfterQuery after) {
  auto collected = collect_devices(request);
  if (collected && space_->kernel_has_mappings()) collected = log_->collect(request, after);
  if (!collected) pending_->add(request.range);
  return collected;
}

Result<void> DirtyTracker::Impl::collect_devices(const DirtyRequest& request) {
  for (const auto& device : space_->devices()) {
    if (device->source != DirtySource::device) continue;
    POSTERN_TRY(device->log.collect(request));
  }
  return {};
}

Result<void> DirtyTracker::Impl::check(IovaRange range, const DirtyBitmap& bitmap) const {
  CallFailed what{.result = -EINVAL, .object = pages_text(range, *space_)};
  const std::uint64_t length = range.length();
  const std::uint64_t page = bitmap.page_size;
  if (!on_) {
    what.reason = "dirty tracking is not on";
    what.remedy = RemedyCode::start_tracking;
  } else if (!std::has_single_bit(page) || page < page_size_) {
    what.reason =
        fmt::format("the bitmap's page size, {}, is not a power of two of at least {}, the IOMMU's smallest page",
                    size_text(page), size_text(page_size_));
  } else if (length == 0) {
    what.reason = "the range is empty, or the whole space";
  } else if (range.last < range.first) {
    what.reason = inverted_text(range);
  } else if (((range.first.value | length) & (page - 1)) != 0) {
    what.reason = fmt::format("iova and length must be multiples of the bitmap's page size, {}; {}", size_text(page),
                              length_text(range));
  } else if (bitmap.words.size() < DirtyBitmap::words_for(length, page)) {
    what.reason = fmt::format("the bitmap has {} words, and this range needs {}", bitmap.words.size(),
                              DirtyBitmap::words_for(length, page));
  } else {
    return {};
  }
  return refusal(std::move(what));
}

Result<DirtyAnswer> DirtyTracker::Impl::query(IovaRange range, const DirtyBitmap& bitmap, AfterQuery after) {
  POSTERN_TRY(check(range, bitmap));
  if (const auto hole = find_hole(*space_, range)) {
    return refusal({.result = -ENOENT,
                    .object = pages_text(range, *space_),
                    .reason = fmt::format("nothing is mapped at {}", to_string(*hole)),
                    .remedy = RemedyCode::query_mapped_ranges});
  }
  if (is_everything_dirty()) {
    memory::set_bits(bitmap.words.data(), 0, range.length() / bitmap.page_size);
    return DirtyAnswer::everything;
  }
  const OnThrow lose([this] { lost_ = true; });
  const IovaRange queried = log_->reports_whole_mappings() ? whole_mappings(*space_, range) : range;
  // Usually all sources can write directly to the caller's bitmap.
  const bool in_place = bitmap.page_size == page_size_ && queried == range && after == AfterQuery::clear;
  const DirtyRequest request{
      .range = queried, .page_size = page_size_, .bits = in_place ? bitmap.words.data() : cleared_words(queried)};
  POSTERN_TRY(collect(request, after));
  if (queried != range || after == AfterQuery::keep) pending_->add(queried, request.bits);
  pending_->mark(queried, request.bits);
  if (!in_place) hand_over(request, range, bitmap, range.first);
  if (after == AfterQuery::clear) pending_->remove(range);
  return answer();
}

Result<DirtyAnswer> DirtyTracker::Impl::unmap(Iova iova, std::uint64_t length, const DirtyBitmap& bitmap) {
  const IovaRange range{iova, iova + (length - 1)};
  if (on_ && length != 0 && range.last < range.first) {
    return refusal({.result = -EOVERFLOW,
                    .object = pages_text(range, *space_),
                    .reason = "it runs past the last address, 2^64-1"});
  }
  POSTERN_TRY(check(range, bitmap));
  POSTERN_TRY(space_->check_unmap(range, length));
  const DirtyAnswer answered = answer();
  while (const MappingRecord* mapping = space_->mappings().at_or_above(iova)) {
    if (!range.contains(mapping->range)) break;
    POSTERN_TRY(unmap_one(mapping->range, iova, bitmap));
  }
  return answered;
}

Result<void> DirtyTracker::Impl::unmap_one(IovaRange range, Iova first, const DirtyBitmap& bitmap) {
  const OnThrow lose([this] { lost_ = true; });
  const DirtyRequest request{.range = range, .page_size = page_size_, .bits = cleared_words(range)};
  Result<void> collected;
  if (is_everything_dirty()) {
    memory::set_bits(request.bits, 0, request.pages());
  } else {
    collected = collect_devices(request);
  }
  if (collected && space_->kernel_has_mappings()) collected = log_->prepare_unmap(request);
  if (!collected) {
    pending_->add(range);
    return collected;
  }
  auto unmapped = space_->unmap_by(range, [&] { return log_->unmap(request); });
  if (!unmapped) {
    pending_->add(range, request.bits);
    return unmapped;
  }
  pending_->mark(range, request.bits);
  pending_->remove(range);
  hand_over(request, range, bitmap, first);
  return {};
}

}  // namespace postern
