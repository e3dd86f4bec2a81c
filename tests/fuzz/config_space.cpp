// SPDX-License-Identifier: Apache-2.0
// Fuzzes the description of a device: its regions and interrupts with their capability chains, and its config space.
#include "device/device_io.hpp"

#include <cstring>
#include <postern/pci_device.hpp>
#include <string>

#include "fuzz/bytes.hpp"

namespace postern::fuzz {
namespace {

class AnyDevice : public DeviceIo {
 public:
  explicit AnyDevice(Bytes& bytes) : bytes_(bytes) {}

  const std::string& name() const override { return name_; }
  int get_info(vfio_device_info& info) override {
    info.flags = VFIO_DEVICE_FLAGS_PCI | bytes_.take<std::uint8_t>();
    info.num_regions = bytes_.take<std::uint8_t>();
    info.num_irqs = bytes_.take<std::uint8_t>();
    return 0;
  }
  int get_region_info(vfio_region_info& info) override {
    const std::uint32_t index = info.index;
    bytes_.fill(&info, info.argsz);
    info.index = index;
    if (index == VFIO_PCI_CONFIG_REGION_INDEX) {
      info.size = bytes_.take<std::uint8_t>() % 2 == 0 ? 4096 : 256;
      info.flags |= VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
    }
    return 0;
  }
  int get_irq_info(vfio_irq_info& info) override {
    info.flags = bytes_.take<std::uint32_t>();
    info.count = bytes_.take<std::uint32_t>();
    return 0;
  }
  int set_irqs(vfio_irq_set& /*irqs*/) override { return -ENOTTY; }
  int feature(vfio_device_feature& /*feature*/) override { return -ENOTTY; }
  int reset() override { return 0; }
  int get_pci_hot_reset_info(vfio_pci_hot_reset_info& /*info*/) override { return -ENODEV; }
  int pci_hot_reset(vfio_pci_hot_reset& /*request*/) override { return -ENODEV; }
  const Group* group() const override { return nullptr; }
  // Returns the same bytes for the same offset every time: config space does not change.
  ssize_t read(void* buffer, std::size_t length, std::uint64_t offset) override {
    if (!filled_) bytes_.fill(config_, sizeof config_);
    filled_ = true;
    for (std::size_t i = 0; i < length; ++i) static_cast<std::uint8_t*>(buffer)[i] = config_[(offset + i) % 4096];
    return static_cast<ssize_t>(length);
  }
  ssize_t write(const void* /*buffer*/, std::size_t length, std::uint64_t /*offset*/) override {
    return static_cast<ssize_t>(length);
  }
  std::intptr_t mmap(void*, std::size_t, int, int, std::uint64_t) override { return -ENODEV; }
  Kernel& kernel() override { return system_kernel(); }
  Result<void> close() override { return {}; }

 private:
  Bytes& bytes_;
  std::string name_ = "0000:00:01.0";
  std::uint8_t config_[4096] = {};
  bool filled_ = false;
};

}  // namespace
}  // namespace postern::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace postern;
  fuzz::Bytes bytes(data, size);
  auto device = Device::open(std::make_unique<fuzz::AnyDevice>(bytes), nullptr);
  if (!device) return 0;
  auto pci = PciDevice::open(std::move(*device));
  if (pci) (void)pci->map_bar(0);
  return 0;
}
