// SPDX-License-Identifier: Apache-2.0
// DeviceLog: the three device features of DMA logging.
#include "iommu/device_log.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "kernel/flex_array.hpp"
#include "kernel/vfio.hpp"
#include "memory/page_bits.hpp"

namespace postern {
namespace {

// The kernel accepts as many as fit in a page (LOG_MAX_RANGES in vfio_main.c, Linux 6.1): 256 with 4 KiB pages.
constexpr std::size_t most_ranges = 4096 / sizeof(vfio_device_feature_dma_logging_range);

constexpr std::uint32_t set = VFIO_DEVICE_FEATURE_SET;
constexpr std::uint32_t get = VFIO_DEVICE_FEATURE_GET;

// A feature without an argument.
int ask(const Fd& fd, std::uint32_t flags) {
  vfio_device_feature feature{};
  feature.argsz = sizeof feature;
  feature.flags = flags;
  return vfio::device_feature(fd.kernel(), fd.get(), feature);
}

// Joins the nearest neighbours until few enough ranges are left, separated by the widest gaps. Reads the list once, in
// order, since that of a large container does not fit in the cache.
std::vector<IovaRange> few(const std::vector<IovaRange>& ranges) {
  if (ranges.size() <= most_ranges) return ranges;
  using Gap = std::pair<std::uint64_t, std::size_t>;  // its width, and the range after it
  std::vector<Gap> widest;                            // a heap, with the narrowest in front
  widest.reserve(most_ranges - 1);
  for (std::size_t i = 1; i < ranges.size(); ++i) {
    const Gap gap{ranges[i].first - ranges[i - 1].last, i};
    if (widest.size() == most_ranges - 1) {
      if (gap.first <= widest.front().first) continue;
      std::pop_heap(widest.begin(), widest.end(), std::greater<>());
      widest.pop_back();
    }
    widest.push_back(gap);
    std::push_heap(widest.begin(), widest.end(), std::greater<>());
  }
  std::sort(widest.begin(), widest.end(), [](const Gap& a, const Gap& b) { return a.second < b.second; });
  std::vector<IovaRange> joined{ranges.front()};
  for (const Gap& gap : widest) {
    joined.back().last = ranges[gap.second - 1].last;
    joined.push_back(ranges[gap.second]);
  }
  joined.back().last = ranges.back().last;
  return joined;
}

}  // namespace

bool DeviceLog::available() const {
  return ask(*fd_, VFIO_DEVICE_FEATURE_PROBE | set | VFIO_DEVICE_FEATURE_DMA_LOGGING_START) >= 0;
}

Result<void> DeviceLog::start(const std::vector<IovaRange>& ranges, std::uint64_t page_size) {
  POSTERN_TRY(stop());  // if that failed before
  std::vector<IovaRange> logged = few(ranges);
  if (logged.empty()) return {};  // the kernel accepts no empty list, and the device cannot write anything
  std::vector<vfio_device_feature_dma_logging_range> list;
  list.reserve(logged.size());
  for (const IovaRange range : logged) list.push_back({.iova = range.first.value, .length = range.length()});
  FlexArray<vfio_device_feature, vfio_device_feature_dma_logging_control> start;
  start.head().flags = set | VFIO_DEVICE_FEATURE_DMA_LOGGING_START;
  start.tail()->page_size = page_size;
  start.tail()->num_ranges = static_cast<std::uint32_t>(list.size());
  start.tail()->ranges = reinterpret_cast<std::uintptr_t>(list.data());
  const int result = vfio::device_feature(fd_->kernel(), fd_->get(), start.head());
  if (result >= 0) {
    logged_ = std::move(logged);
    return {};
  }
  CallFailed what{.result = result, .object = fmt::format("{}, {} ranges", *device_, list.size())};
  if (result == -E2BIG || result == -ENOMEM) {
    what.kind = ErrorKind::limit_reached;
    what.reason = "the device cannot log that much";
    what.remedy = RemedyCode::map_fewer_ranges;
  }
  return call_failure("VFIO_DEVICE_FEATURE_DMA_LOGGING_START", std::move(what));
}

Result<void> DeviceLog::stop() {
  if (logged_.empty()) return {};
  const int result = ask(*fd_, set | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP);
  if (result >= 0) {
    logged_.clear();
    return {};
  }
  return call_failure("VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP", {.result = result, .object = *device_});
}

Result<void> DeviceLog::collect(const DirtyRequest& request) {
  // Uses offsets in the request, since the end of the last page is not an iova.
  const auto mark = [&](std::uint64_t first, std::uint64_t end) {
    if (first < end) {
      memory::set_bits(request.bits, first / request.page_size, (end - first) / request.page_size);
    }
  };
  std::uint64_t reported = 0;  // reported up to here
  for (const IovaRange logged : logged_) {
    if (!logged.overlaps(request.range)) continue;
    const IovaRange part{std::max(logged.first, request.range.first), std::min(logged.last, request.range.last)};
    mark(reported, part.first - request.range.first);
    POSTERN_TRY(report(request, part));
    reported = part.last - request.range.first + 1;
  }
  mark(reported, request.range.length());
  return {};
}

Result<void> DeviceLog::report(const DirtyRequest& request, IovaRange part) {
  const std::uint64_t first = (part.first - request.range.first) / request.page_size;
  const std::uint64_t pages = part.length() / request.page_size;
  // The kernel puts bit 0 at the start of a word (iova_bitmap_alloc), and only ever sets bits (iova_bitmap_set).
  const bool in_place = first % memory::word_bits == 0;
  std::vector<std::uint64_t> apart(in_place ? 0 : memory::words_for(pages));
  std::uint64_t* const bits = in_place ? request.bits + first / memory::word_bits : apart.data();
  FlexArray<vfio_device_feature, vfio_device_feature_dma_logging_report> wanted;
  wanted.head().flags = get | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT;
  wanted.tail()->iova = part.first.value;
  wanted.tail()->length = part.length();
  wanted.tail()->page_size = request.page_size;
  wanted.tail()->bitmap = reinterpret_cast<std::uintptr_t>(bits);
  if (const int result = vfio::device_feature(fd_->kernel(), fd_->get(), wanted.head()); result < 0) {
    return call_failure("VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT",
                        {.result = result, .object = fmt::format("{}, {}", *device_, to_string(part))});
  }
  if (!in_place) memory::merge_bits({request.bits, first}, {bits, 0}, pages);
  return {};
}

}  // namespace postern
