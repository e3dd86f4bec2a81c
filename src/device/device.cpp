// SPDX-License-Identifier: Apache-2.0
// Device: regions, interrupts, features and reset, which all kinds of devices have.
#include <postern/device.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/log.hpp"
#include "device/device_io.hpp"
#include "device/region_info.hpp"
#include "kernel/flex_array.hpp"
#include "kernel/vfio.hpp"

namespace postern {
namespace {

struct FeatureName {
  std::uint32_t number;
  std::string_view name;
};
constexpr std::array feature_names = {
    FeatureName{VFIO_DEVICE_FEATURE_PCI_VF_TOKEN, "PCI_VF_TOKEN"},
    FeatureName{VFIO_DEVICE_FEATURE_MIGRATION, "MIGRATION"},
    FeatureName{VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, "MIG_DEVICE_STATE"},
    FeatureName{VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY, "LOW_POWER_ENTRY"},
    FeatureName{VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP, "LOW_POWER_ENTRY_WITH_WAKEUP"},
    FeatureName{VFIO_DEVICE_FEATURE_LOW_POWER_EXIT, "LOW_POWER_EXIT"},
    FeatureName{VFIO_DEVICE_FEATURE_DMA_LOGGING_START, "DMA_LOGGING_START"},
    FeatureName{VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, "DMA_LOGGING_STOP"},
    FeatureName{VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, "DMA_LOGGING_REPORT"},
    FeatureName{VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, "MIG_DATA_SIZE"},
    FeatureName{VFIO_DEVICE_FEATURE_BUS_MASTER, "BUS_MASTER"},
    FeatureName{VFIO_DEVICE_FEATURE_DMA_BUF, "DMA_BUF"},
    FeatureName{VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2, "MIG_PRECOPY_INFOv2"},
    FeatureName{VFIO_DEVICE_FEATURE_ZPCI_ERROR, "ZPCI_ERROR"},
};

// A device has a handful of each. One that reports more is broken, and must not cause an endless loop.
constexpr std::uint32_t most_regions = 1024;
constexpr std::uint32_t most_interrupts = 1024;

tl::unexpected<Error> feature_failure(int result, const std::string& device, std::uint32_t number) {
  return call_failure(vfio::device_feature.symbol,
                      {.result = result,
                       .object = fmt::format("{} feature {}", device, number),
                       .reason = result == -ENOTTY ? "the device does not have this feature" : ""});
}

}  // namespace

Device::Device(Device&&) noexcept = default;
Device::~Device() {
  if (io_) log_failure(detach());
}
Device& Device::operator=(Device&& other) noexcept {
  if (this != &other) {
    Device old(std::move(*this));
    container_ = std::move(other.container_);
    io_ = std::move(other.io_);
    name_ = std::move(other.name_);
    flags_ = other.flags_;
    regions_ = std::move(other.regions_);
    interrupts_ = std::move(other.interrupts_);
  }
  return *this;
}

Result<Device> Device::open(std::unique_ptr<DeviceIo> io, std::shared_ptr<Container> container) {
  vfio_device_info info{};
  info.argsz = sizeof info;
  if (const int result = io->get_info(info); result < 0) {
    return call_failure(vfio::device_get_info.symbol, {.result = result, .object = io->name()});
  }
  Device device;
  device.name_ = io->name();
  device.flags_ = info.flags;
  for (std::uint32_t index = 0; index < std::min(info.num_regions, most_regions); ++index) {
    device.regions_.push_back(POSTERN_TRY(read_region(*io, index)));
  }
  for (std::uint32_t index = 0; index < std::min(info.num_irqs, most_interrupts); ++index) {
    device.interrupts_.push_back(POSTERN_TRY(read_interrupt(*io, index)));
  }
  device.container_ = std::move(container);
  device.io_ = std::move(io);
  return device;
}

int Device::fd() const noexcept { return io_ ? io_->fd() : -1; }
bool Device::can_reset() const noexcept { return (flags_ & VFIO_DEVICE_FLAGS_RESET) != 0; }
bool Device::is_pci() const noexcept { return (flags_ & VFIO_DEVICE_FLAGS_PCI) != 0; }

Result<void> Device::reset() const {
  if (!io_) return closed();
  if (!can_reset()) {
    return refusal({.result = -EOPNOTSUPP, .object = name_, .reason = "the kernel cannot reset this function"});
  }
  const int result = io_->reset();
  if (result >= 0) return {};
  CallFailed what{.result = result, .object = name_};
  if (result == -EAGAIN) {
    // pci_try_reset_function
    what.reason = "the kernel has locked it: it is being unbound, removed or reset";
    what.remedy = RemedyCode::detach_if_requested;
  }
  return call_failure(vfio::device_reset.symbol, std::move(what));
}

bool Device::has_feature(std::uint32_t number) const {
  if (!io_) return false;
  vfio_device_feature probe{};
  probe.argsz = sizeof probe;
  probe.flags = VFIO_DEVICE_FEATURE_PROBE | (number & VFIO_DEVICE_FEATURE_MASK);
  return io_->feature(probe) >= 0;
}

Result<void> Device::set_feature(std::uint32_t number, std::span<const std::uint8_t> bytes) const {
  if (!io_) return closed();
  FlexArray<vfio_device_feature, std::uint8_t> feature(bytes.size());
  feature.head().flags = VFIO_DEVICE_FEATURE_SET | (number & VFIO_DEVICE_FEATURE_MASK);
  std::copy(bytes.begin(), bytes.end(), feature.tail());
  const int result = io_->feature(feature.head());
  return result >= 0 ? Result<void>() : feature_failure(result, name_, number);
}

Result<int> Device::get_feature(std::uint32_t number, std::span<std::uint8_t> bytes) const {
  if (!io_) return closed();
  FlexArray<vfio_device_feature, std::uint8_t> feature(bytes.size());
  feature.head().flags = VFIO_DEVICE_FEATURE_GET | (number & VFIO_DEVICE_FEATURE_MASK);
  std::copy(bytes.begin(), bytes.end(), feature.tail());
  const int result = io_->feature(feature.head());
  if (result < 0) return feature_failure(result, name_, number);
  std::copy_n(feature.tail(), bytes.size(), bytes.begin());
  return result;
}

std::vector<std::string_view> Device::features() const {
  std::vector<std::string_view> names;
  for (const FeatureName& feature : feature_names) {
    if (has_feature(feature.number)) names.push_back(feature.name);
  }
  return names;
}

Result<void> Device::detach() {
  if (!io_) return closed();
  // Closing the device disables its interrupts (vfio_pci_core_close_device).
  auto done = io_->close();
  io_.reset();
  container_.reset();
  return done;
}

tl::unexpected<Error> Device::closed() const {
  return refusal(
      {.result = -EBADF, .object = name_, .reason = "the device was detached", .remedy = RemedyCode::attach_again});
}

}  // namespace postern
