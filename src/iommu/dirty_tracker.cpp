// SPDX-License-Identifier: Apache-2.0
// DirtyTracker: who tracks which device, and the merging of what all of them know.
#include <postern/dirty_tracker.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "base/log.hpp"
#include "base/on_throw.hpp"
#include "base/words.hpp"
#include "iommu/device_log.hpp"
#include "iommu/dirty_log.hpp"
#include "kernel/ioctl.hpp"
#include "memory/page_bits.hpp"
#include "memory/page_set.hpp"
#include "memory/shadow_map.hpp"

namespace postern {
namespace {

std::string tracking_text(std::string_view what, const Container& container) {
  return fmt::format("{} dirty tracking in container {}", what, container.backend());
}

std::string pages_text(IovaRange range, const Container& container) {
  return fmt::format("dirty pages of {} in container {}", to_string(range), container.backend());
}

Iova end_of(IovaRange range) { return range.last + 1; }

// The first address of the range that nothing is mapped at.
std::optional<Iova> find_hole(const Container& container, IovaRange range) {
  for (Iova at = range.first;;) {
    const auto mapping = container.find(at);
    if (!mapping) return at;
    if (mapping->range.last >= range.last) return std::nullopt;
    at = end_of(mapping->range);
  }
}

// The whole of all mappings that the range, all of it mapped, has a part of.
IovaRange whole_mappings(const Container& container, IovaRange range) {
  return {container.find(range.first)->range.first, container.find(range.last)->range.last};
}

// Sets in the caller's bitmap, which begins at `start`, what was told of this part of the request.
void hand_over(const DirtyRequest& told, IovaRange part, const DirtyBitmap& bitmap, Iova start) {
  const auto shift = static_cast<unsigned>(std::countr_zero(bitmap.page_size) - std::countr_zero(told.page_size));
  memory::fold_bits({bitmap.words.data(), (part.first - start) / told.page_size},
                    {told.bits, (part.first - told.range.first) / told.page_size}, part.length() / told.page_size,
                    shift);
}

// What is mapped, with neighbours joined.
std::vector<IovaRange> mapped_ranges(const Container& container) {
  std::vector<IovaRange> ranges;
  ranges.reserve(container.mapping_count());
  container.for_each_mapping([&](const Mapping& mapping) {
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
    case DirtySource::nobody:
      break;
  }
  return "nobody";
}

struct DirtyTracker::Member {
  std::string device;
  DeviceLog log;
  DirtySource source = DirtySource::nobody;  // while on
};

DirtyTracker::DirtyTracker(Container& container, DirtyLog& log) : container_(&container), log_(&log) {}

DirtyTracker::~DirtyTracker() = default;

std::vector<TrackedDevice> DirtyTracker::devices() const {
  std::vector<TrackedDevice> devices;
  for (const Member& member : members_) devices.push_back(choose(member));
  return devices;
}

TrackedDevice DirtyTracker::choose(const Member& member) const {
  const bool by_itself = only_ != DirtySource::iommu && member.log.available();
  if (by_itself) return {.device = member.device, .source = DirtySource::device, .note = ""};
  if (only_ != DirtySource::device) return log_->probe(member.device);
  return {.device = member.device,
          .source = DirtySource::nobody,
          .note = "it does not log what it writes (VFIO_DEVICE_FEATURE_DMA_LOGGING_START)"};
}

bool DirtyTracker::misses_one() const {
  return lost_ || std::any_of(members_.begin(), members_.end(),
                              [](const Member& member) { return member.source == DirtySource::nobody; });
}

// For these devices as a whole, or not at all.
Result<void> DirtyTracker::start_members(std::span<Member> members) {
  std::vector<std::string> by_iommu;
  std::vector<std::string> lacking;
  for (Member& member : members) {
    const TrackedDevice choice = choose(member);
    member.source = choice.source;
    if (choice.source == DirtySource::iommu) by_iommu.push_back(member.device);
    if (choice.source == DirtySource::nobody) lacking.push_back(fmt::format("{}: {}", member.device, choice.note));
  }
  if (only_ && !lacking.empty()) {
    return refusal({.result = -EOPNOTSUPP,
                    .object = tracking_text("start", *container_),
                    .reason = list_text(lacking),
                    .remedy = "name no source: what nobody tracks counts as written as a whole"});
  }
  const std::vector<IovaRange> mapped = mapped_ranges(*container_);
  Result<void> started;
  auto member = members.begin();
  const auto stop_started = [&] {
    for (Member& one : std::span(members.begin(), member)) log_failure_of([&] { return one.log.stop(); });
  };
  const OnThrow undo(stop_started);
  for (; started && member != members.end(); ++member) {
    if (member->source == DirtySource::device) started = member->log.start(mapped, page_size_);
  }
  if (started && !by_iommu.empty()) started = log_->start(by_iommu);
  if (started) return started;
  stop_started();
  return started;
}

Result<void> DirtyTracker::start(std::optional<DirtySource> only) {
  CallFailed what{.object = tracking_text("start", *container_)};
  if (on_) {
    what.result = -EBUSY;
    what.reason = "it is on already";
    what.remedy = "stop it first";
  } else if (members_.empty()) {
    what.result = -ENODEV;
    what.reason = "no device is attached, so there is nobody who could write";
    what.remedy = "attach a device first";
  }
  if (what.result != 0) return refusal(std::move(what));
  page_size_ = container_->misaligned_ + 1;
  pending_ = std::make_unique<memory::PageSet>(page_size_);
  lost_ = false;
  only_ = only == DirtySource::nobody ? std::nullopt : only;
  const OnThrow undo([this] { only_.reset(); });
  auto started = start_members(members_);
  if (!started) only_.reset();
  on_ = started.has_value();
  return started;
}

Result<void> DirtyTracker::stop() {
  if (!on_) {
    return refusal({.result = -EINVAL, .object = tracking_text("stop", *container_), .reason = "it is not on"});
  }
  on_ = lost_ = false;
  only_.reset();
  pending_.reset();
  scratch_ = {};
  auto stopped = log_->stop();
  for (Member& member : members_) {
    auto off = member.log.stop();
    if (stopped) stopped = std::move(off);
  }
  return stopped;
}

Result<void> DirtyTracker::join(const std::string& device, int fd, std::uint64_t smallest_page) {
  Member joining{.device = device, .log = DeviceLog(container_->kernel(), fd, device)};
  if (on_) {
    if (smallest_page != page_size_) {
      return refusal({.result = -EBUSY,
                      .object = fmt::format("attach {} to container {}", device, container_->backend()),
                      .reason = fmt::format("dirty pages are tracked by {}, and with this device the "
                                            "smallest page is {}",
                                            size_text(page_size_), size_text(smallest_page)),
                      .remedy = "stop dirty tracking first"});
    }
    members_.reserve(members_.size() + 1);
    if (auto started = start_members(std::span(&joining, 1)); !started) return started;
  }
  members_.push_back(std::move(joining));
  return {};
}

// While the device, and what tracks it, are still there.
void DirtyTracker::leave(const std::string& device) noexcept {
  try {
    if (on_) remember_all();
  } catch (const std::bad_alloc&) {
    lost_ = true;
  }
  const auto leaving =
      std::find_if(members_.begin(), members_.end(), [&](const Member& member) { return member.device == device; });
  if (leaving == members_.end()) return;
  log_failure_of([&] { return leaving->log.stop(); });
  members_.erase(leaving);
}

void DirtyTracker::remember_all() {
  for (const IovaRange range : mapped_ranges(*container_)) {
    if (misses_one()) {
      pending_->add(range);
      continue;
    }
    const DirtyRequest request{.range = range, .page_size = page_size_, .bits = cleared_words(range)};
    auto collected = collect(request, AfterQuery::forget);
    if (collected) pending_->add(range, request.bits);
    log_failure(collected, LogKind::remark);
  }
}

std::uint64_t* DirtyTracker::cleared_words(IovaRange range) {
  scratch_.assign(DirtyBitmap::words_for(range.length(), page_size_), 0);
  return scratch_.data();
}

// After an error nobody can say what has been lost, so that all of the range counts as written.
Result<void> DirtyTracker::collect(const DirtyRequest& request, AfterQuery after) {
  auto collected = collect_devices(request);
  if (collected && container_->kernel_has_mappings_) collected = log_->collect(request, after);
  if (!collected) pending_->add(request.range);
  return collected;
}

Result<void> DirtyTracker::collect_devices(const DirtyRequest& request) {
  for (Member& member : members_) {
    if (member.source != DirtySource::device) continue;
    if (auto told = member.log.collect(request); !told) return told;
  }
  return {};
}

Result<void> DirtyTracker::check(IovaRange range, const DirtyBitmap& bitmap) const {
  CallFailed what{.result = -EINVAL, .object = pages_text(range, *container_)};
  const std::uint64_t length = range.length();
  const std::uint64_t page = bitmap.page_size;
  if (!on_) {
    what.reason = "dirty tracking is not on";
    what.remedy = "start it first";
  } else if (!std::has_single_bit(page) || page < page_size_) {
    what.reason =
        fmt::format("the bitmap's page size, {}, is no power of two of at least {}, the IOMMU's smallest page",
                    size_text(page), size_text(page_size_));
  } else if (length == 0) {
    what.reason = "the range is empty, or the whole space";
  } else if (((range.first.value | length) & (page - 1)) != 0) {
    what.reason = fmt::format("iova and length must be multiples of the bitmap's page size, {}", size_text(page));
  } else if (range.last < range.first) {
    what.result = -EOVERFLOW;
    what.reason = "it runs past the last address, 2^64-1";
  } else if (bitmap.words.size() < DirtyBitmap::words_for(length, page)) {
    what.reason = fmt::format("the bitmap has {} words, and this range needs {}", bitmap.words.size(),
                              DirtyBitmap::words_for(length, page));
  } else {
    return {};
  }
  return refusal(std::move(what));
}

Result<DirtyAnswer> DirtyTracker::query(IovaRange range, const DirtyBitmap& bitmap, AfterQuery after) {
  if (auto fine = check(range, bitmap); !fine) return failure_of(fine);
  if (const auto hole = find_hole(*container_, range)) {
    return refusal({.result = -ENOENT,
                    .object = pages_text(range, *container_),
                    .reason = fmt::format("nothing is mapped at {}", to_string(*hole)),
                    .remedy = "ask for what is mapped; for_each_mapping() tells"});
  }
  if (misses_one()) {
    memory::set_bits(bitmap.words.data(), 0, range.length() / bitmap.page_size);
    return DirtyAnswer::everything;
  }
  const OnThrow lose([this] { lost_ = true; });
  const IovaRange told = log_->tells_whole_mappings() ? whole_mappings(*container_, range) : range;
  // Nearly always the caller's bitmap is one that everybody can write to.
  const bool in_place = bitmap.page_size == page_size_ && told == range && after == AfterQuery::forget;
  const DirtyRequest request{
      .range = told, .page_size = page_size_, .bits = in_place ? bitmap.words.data() : cleared_words(told)};
  if (auto collected = collect(request, after); !collected) return failure_of(collected);
  if (told != range || after == AfterQuery::keep) pending_->add(told, request.bits);
  pending_->mark(told, request.bits);
  if (!in_place) hand_over(request, range, bitmap, range.first);
  if (after == AfterQuery::forget) pending_->remove(range);
  return DirtyAnswer::pages;
}

Result<DirtyAnswer> DirtyTracker::unmap(Iova iova, std::uint64_t length, const DirtyBitmap& bitmap) {
  const IovaRange range{iova, iova + (length - 1)};
  if (auto fine = check(range, bitmap); !fine) return failure_of(fine);
  if (auto whole = container_->check_unmap(range, length); !whole) return failure_of(whole);
  const DirtyAnswer answer = misses_one() ? DirtyAnswer::everything : DirtyAnswer::pages;
  while (const MappingRecord* mapping = container_->mappings_->at_or_above(iova)) {
    if (!range.contains(mapping->range)) break;
    if (auto done = unmap_one(mapping->range, iova, bitmap); !done) return failure_of(done);
  }
  return answer;
}

Result<void> DirtyTracker::unmap_one(IovaRange range, Iova first, const DirtyBitmap& bitmap) {
  const OnThrow lose([this] { lost_ = true; });
  const DirtyRequest request{.range = range, .page_size = page_size_, .bits = cleared_words(range)};
  Result<void> told;
  if (misses_one()) {
    memory::set_bits(request.bits, 0, request.pages());
  } else {
    told = collect_devices(request);
  }
  if (told && container_->kernel_has_mappings_) told = log_->prepare_unmap(request);
  if (!told) {
    pending_->add(range);
    return told;
  }
  auto unmapped = container_->unmap_by(range, [&] { return log_->unmap(request); });
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
