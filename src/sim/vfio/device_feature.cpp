// SPDX-License-Identifier: Apache-2.0
// DeviceFile: VFIO_DEVICE_FEATURE, by the rules of vfio_main.c and vfio_pci_core.c (Linux 7.3): migration and DMA
// logging where the function's driver has them, low power.
#include <cstring>
#include <vector>

#include "sim/user_bitmap.hpp"
#include "sim/vfio/device_file.hpp"

namespace postern::sim {
namespace {

constexpr std::uint32_t get = VFIO_DEVICE_FEATURE_GET;
constexpr std::uint32_t set = VFIO_DEVICE_FEATURE_SET;

// vfio_check_feature: 1 where the feature is to be got or set, else the answer.
int check_feature(const vfio_device_feature& feature, std::uint32_t supported, std::size_t least) {
  const std::uint32_t action = feature.flags & (get | set);
  if ((action & ~supported) != 0) return -EINVAL;
  if ((feature.flags & VFIO_DEVICE_FEATURE_PROBE) != 0) return 0;
  return action != 0 && feature.argsz - sizeof feature >= least ? 1 : -EINVAL;
}

template <typename Data>
Data& data_of(vfio_device_feature& feature) {
  return *reinterpret_cast<Data*>(feature.data);
}
template <typename Data>
const Data& data_of(const vfio_device_feature& feature) {
  return *reinterpret_cast<const Data*>(feature.data);
}

bool is_aligned(std::uint64_t value, std::uint64_t alignment) { return (value & (alignment - 1)) == 0; }

bool overflows(std::uint64_t iova, std::uint64_t length) { return iova + length < iova; }

}  // namespace

// vfio_ioctl_device_feature
int DeviceFile::feature(vfio_device_feature& feature) {
  constexpr std::uint32_t known = VFIO_DEVICE_FEATURE_MASK | get | set | VFIO_DEVICE_FEATURE_PROBE;
  const bool probes = (feature.flags & VFIO_DEVICE_FEATURE_PROBE) != 0;
  if (feature.argsz < sizeof feature || (feature.flags & ~known) != 0) return -EINVAL;
  if (!probes && (feature.flags & (get | set)) == (get | set)) return -EINVAL;
  const std::uint32_t which = feature.flags & VFIO_DEVICE_FEATURE_MASK;
  if (which == VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2) return feature_mig_precopy_info(feature);
  if (function_.variant) {
    switch (which) {
      case VFIO_DEVICE_FEATURE_MIGRATION:
        return feature_migration(feature);
      case VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE:
        return feature_mig_device_state(feature);
      case VFIO_DEVICE_FEATURE_MIG_DATA_SIZE:
        return feature_mig_data_size(feature);
      case VFIO_DEVICE_FEATURE_DMA_LOGGING_START:
        return feature_dma_logging_start(feature);
      case VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP:
        return feature_dma_logging_stop(feature);
      case VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT:
        return feature_dma_logging_report(feature);
      default:
        break;
    }
  }
  switch (which) {
    case VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY:
    case VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP:
    case VFIO_DEVICE_FEATURE_LOW_POWER_EXIT:
      return feature_low_power(feature);
    default:
      return -ENOTTY;
  }
}

int DeviceFile::feature_migration(vfio_device_feature& feature) {
  auto& migration = data_of<vfio_device_feature_migration>(feature);
  if (const int result = check_feature(feature, get, sizeof migration); result != 1) return result;
  migration.flags = Migration::flags;
  return 0;
}

// vfio_ioctl_device_feature_mig_device_state
int DeviceFile::feature_mig_device_state(vfio_device_feature& feature) {
  auto& answer = data_of<vfio_device_feature_mig_state>(feature);
  if (const int result = check_feature(feature, get | set, sizeof answer); result != 1) return result;
  Migration& migration = function_.variant->migration;
  answer.data_fd = -1;
  if ((feature.flags & get) != 0) {
    answer.device_state = migration.state();
    return 0;
  }
  std::shared_ptr<File> opened;
  const int result = migration.set_state(answer.device_state, opened);
  if (result == 0 && opened) answer.data_fd = files_.give(opened);
  return result;
}

int DeviceFile::feature_mig_data_size(vfio_device_feature& feature) {
  auto& size = data_of<vfio_device_feature_mig_data_size>(feature);
  if (const int result = check_feature(feature, get, sizeof size); result != 1) return result;
  size.stop_copy_length = function_.variant->migration.data_size();
  return 0;
}

// vfio_ioctl_device_feature_migration_precopy_info_v2
int DeviceFile::feature_mig_precopy_info(const vfio_device_feature& feature) {
  if (!function_.variant) return -EINVAL;
  if (const int result = check_feature(feature, set, 0); result != 1) return result;
  function_.variant->migration.tell_precopy_flags();
  return 0;
}

// vfio_ioctl_device_feature_logging_start; what a driver answers that logs already is mlx5's.
int DeviceFile::feature_dma_logging_start(vfio_device_feature& feature) {
  using Range = vfio_device_feature_dma_logging_range;
  auto& control = data_of<vfio_device_feature_dma_logging_control>(feature);
  if (const int result = check_feature(feature, set, sizeof control); result != 1) return result;
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
  DmaLog& log = function_.variant->log;
  if (log.is_on()) return -EINVAL;
  log.start(std::move(ranges));
  control.page_size = DmaLog::page_size;
  return 0;
}

int DeviceFile::feature_dma_logging_stop(const vfio_device_feature& feature) {
  if (const int result = check_feature(feature, set, 0); result != 1) return result;
  function_.variant->log.stop();
  return 0;
}

// vfio_ioctl_device_feature_logging_report: what is told is forgotten.
int DeviceFile::feature_dma_logging_report(const vfio_device_feature& feature) {
  const auto& report = data_of<vfio_device_feature_dma_logging_report>(feature);
  if (const int result = check_feature(feature, get, sizeof report); result != 1) return result;
  if (report.page_size < 4096 || (report.page_size & (report.page_size - 1)) != 0) return -EINVAL;
  if (overflows(report.iova, report.length)) return -EOVERFLOW;
  DmaLog& log = function_.variant->log;
  if (!log.is_on()) return -EINVAL;
  const auto range = IovaRange::from_length({report.iova}, report.length);
  if (!range) return 0;  // of nothing
  const UserBitmap bitmap{
      .bits = static_cast<std::uintptr_t>(report.bitmap), .iova = {report.iova}, .page_size = report.page_size};
  bitmap.tell(machine_.process, log.pages(), *range);
  forget(log.pages(), *range);
  return 0;
}

// vfio_pci_runtime_pm_entry, vfio_pci_core_pm_exit
int DeviceFile::feature_low_power(const vfio_device_feature& feature) {
  if (const int result = check_feature(feature, set, 0); result != 1) return result;
  const bool enters = (feature.flags & VFIO_DEVICE_FEATURE_MASK) != VFIO_DEVICE_FEATURE_LOW_POWER_EXIT;
  if (enters && function_.low_power) return -EINVAL;
  function_.low_power = enters;
  return 0;
}

}  // namespace postern::sim
