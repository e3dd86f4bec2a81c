// SPDX-License-Identifier: Apache-2.0
// DeviceFile: VFIO_DEVICE_FEATURE, by the rules of vfio_main.c (Linux 7.3): migration and DMA logging if the device's
// driver has them; other features are passed to the driver.
#include <algorithm>
#include <cstring>
#include <iterator>
#include <vector>

#include "sim/migration/variant.hpp"
#include "sim/process/argument.hpp"
#include "sim/process/user_bitmap.hpp"
#include "sim/vfio/device_file.hpp"

namespace postern::sim {
namespace {

constexpr std::uint32_t get = VFIO_DEVICE_FEATURE_GET;
constexpr std::uint32_t set = VFIO_DEVICE_FEATURE_SET;

template <typename Data>
Data& data_of(vfio_device_feature& feature) {
  return *reinterpret_cast<Data*>(feature.data);
}

bool is_aligned(std::uint64_t value, std::uint64_t alignment) { return (value & (alignment - 1)) == 0; }

bool overflows(std::uint64_t iova, std::uint64_t length) { return iova + length < iova; }

}  // namespace

// vfio_ioctl_device_feature: reads the header first, and the data after it only if needed.
int DeviceFile::feature(void* argument) {
  struct Rule {
    std::uint32_t which;
    std::uint32_t actions;
    std::size_t length;                            // of the data after the header
    int (DeviceFile::*run)(vfio_device_feature&);  // null: handled by the function itself
  };
  static constexpr Rule rules[] = {
      {VFIO_DEVICE_FEATURE_MIGRATION, get, sizeof(vfio_device_feature_migration), &DeviceFile::feature_migration},
      {VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, get | set, sizeof(vfio_device_feature_mig_state), nullptr},
      {VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, get, sizeof(vfio_device_feature_mig_data_size),
       &DeviceFile::feature_mig_data_size},
      {VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2, set, 0, &DeviceFile::feature_mig_precopy_info},
      {VFIO_DEVICE_FEATURE_DMA_LOGGING_START, set, sizeof(vfio_device_feature_dma_logging_control),
       &DeviceFile::feature_dma_logging_start},
      {VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, set, 0, &DeviceFile::feature_dma_logging_stop},
      {VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, get, sizeof(vfio_device_feature_dma_logging_report),
       &DeviceFile::feature_dma_logging_report},
  };
  constexpr std::uint32_t known = VFIO_DEVICE_FEATURE_MASK | get | set | VFIO_DEVICE_FEATURE_PROBE;
  vfio_device_feature head{};
  if (machine_.process.copy_from_user(&head, argument, sizeof head) < 0) return -EFAULT;
  const bool probes = (head.flags & VFIO_DEVICE_FEATURE_PROBE) != 0;
  if (head.argsz < sizeof head || (head.flags & ~known) != 0) return -EINVAL;
  if (!probes && (head.flags & (get | set)) == (get | set)) return -EINVAL;
  const std::uint32_t which = head.flags & VFIO_DEVICE_FEATURE_MASK;
  const Rule* const rule =
      std::find_if(std::begin(rules), std::end(rules), [&](const Rule& each) { return each.which == which; });
  void* const data = static_cast<std::byte*>(argument) + sizeof head;
  if (rule == std::end(rules)) return device_.ops->device_feature(head, data);
  if (device_.ops->variant() == nullptr) {
    return which == VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 ? -EINVAL : -ENOTTY;
  }
  if (const int result = check_feature(head, rule->actions, rule->length); result != 1) return result;
  if (rule->run == nullptr) return feature_mig_device_state(head.flags, data);
  return with_argument<vfio_device_feature>(machine_.process, argument, sizeof head + rule->length,
                                            [this, rule](auto& feature) { return (this->*rule->run)(feature); });
}

int DeviceFile::feature_migration(vfio_device_feature& feature) {
  data_of<vfio_device_feature_migration>(feature).flags = Migration::flags;
  return 0;
}

// vfio_ioctl_device_feature_mig_device_state, vfio_ioct_mig_return_fd: if the result cannot be written, the device has
// still changed its state, and the stream is lost.
int DeviceFile::feature_mig_device_state(std::uint32_t flags, void* data) {
  vfio_device_feature_mig_state answer{};
  if (machine_.process.copy_from_user(&answer, data, sizeof answer) < 0) return -EFAULT;
  const bool has_room =
      machine_.process.check_argument(reinterpret_cast<std::uintptr_t>(data), sizeof answer, true) == 0;
  Migration& migration = device_.ops->variant()->migration;
  std::shared_ptr<File> opened;
  int result = 0;
  if ((flags & get) != 0) {
    answer.device_state = migration.state();
  } else {
    result = migration.set_state(answer.device_state, opened);
  }
  if (!has_room) return -EFAULT;
  answer.data_fd = result == 0 && opened ? machine_.process.files.give(opened) : -1;
  std::memcpy(data, &answer, sizeof answer);
  return result;
}

int DeviceFile::feature_mig_data_size(vfio_device_feature& feature) {
  data_of<vfio_device_feature_mig_data_size>(feature).stop_copy_length = device_.ops->variant()->migration.data_size();
  return 0;
}

// vfio_ioctl_device_feature_migration_precopy_info_v2
int DeviceFile::feature_mig_precopy_info(vfio_device_feature& /*feature*/) {
  device_.ops->variant()->migration.tell_precopy_flags();
  return 0;
}

// vfio_ioctl_device_feature_logging_start; the result of a second start is that of mlx5.
int DeviceFile::feature_dma_logging_start(vfio_device_feature& feature) {
  using Range = vfio_device_feature_dma_logging_range;
  auto& control = data_of<vfio_device_feature_dma_logging_control>(feature);
  if (control.num_ranges == 0) return -EINVAL;
  if (control.num_ranges > 4096 / sizeof(Range)) return -E2BIG;  // LOG_MAX_RANGES
  std::vector<IovaRange> ranges;
  for (std::uint32_t i = 0; i < control.num_ranges; ++i) {
    const std::uintptr_t address = static_cast<std::uintptr_t>(control.ranges) + i * sizeof(Range);
    Range range;
    const auto* const at = reinterpret_cast<const void*>(address);
    if (machine_.process.copy_from_user(&range, at, sizeof range) < 0) return -EFAULT;
    if (!is_aligned(range.iova, control.page_size) || !is_aligned(range.length, control.page_size)) return -EINVAL;
    if (overflows(range.iova, range.length)) return -EOVERFLOW;
    const IovaRange logged{{range.iova}, {range.iova + range.length - 1}};
    for (const IovaRange other : ranges) {
      if (other.overlaps(logged)) return -EINVAL;
    }
    ranges.push_back(logged);
  }
  DmaLog& log = device_.ops->variant()->log;
  if (log.is_on()) return -EINVAL;
  log.start(std::move(ranges));
  control.page_size = DmaLog::page_size;
  return 0;
}

int DeviceFile::feature_dma_logging_stop(vfio_device_feature& /*feature*/) {
  device_.ops->variant()->log.stop();
  return 0;
}

// vfio_ioctl_device_feature_logging_report: clears what it reports.
int DeviceFile::feature_dma_logging_report(vfio_device_feature& feature) {
  const auto& report = data_of<vfio_device_feature_dma_logging_report>(feature);
  if (report.page_size < 4096 || (report.page_size & (report.page_size - 1)) != 0) return -EINVAL;
  if (overflows(report.iova, report.length)) return -EOVERFLOW;
  DmaLog& log = device_.ops->variant()->log;
  if (!log.is_on()) return -EINVAL;
  const auto range = IovaRange::from_length({report.iova}, report.length);
  if (!range) return 0;  // an empty range
  const UserBitmap bitmap{
      .bits = static_cast<std::uintptr_t>(report.bitmap), .iova = {report.iova}, .page_size = report.page_size};
  bitmap.tell(machine_.process, log.pages(), *range);
  clear_pages(log.pages(), *range);
  return 0;
}

}  // namespace postern::sim
