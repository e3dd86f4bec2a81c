// SPDX-License-Identifier: Apache-2.0
// GuestConfig: what a guest reads and writes, and what of it reaches the device.
#include <postern/guest_config.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include <cstring>

#include "device/device_io.hpp"
#include "support/tree_kernel.hpp"

namespace postern {
namespace guest_config_test {

using testing::HasSubstr;

// A function whose config space is memory. BARs: 0 of 256 bytes, 2 of 64 bits and 16 KiB, 4 I/O of 32 bytes.
class ConfigDevice final : public DeviceIo {
 public:
  ConfigDevice(std::vector<std::uint8_t>& config, Kernel& kernel) : config_(config), kernel_(kernel) {}
  [[nodiscard]] const std::string& name() const override { return name_; }
  int get_info(vfio_device_info& info) override {
    info.flags = VFIO_DEVICE_FLAGS_PCI;
    info.num_regions = VFIO_PCI_NUM_REGIONS;
    return 0;
  }
  int get_region_info(vfio_region_info& info) override {
    info.offset = std::uint64_t{info.index} << 40;
    info.size = info.index == VFIO_PCI_CONFIG_REGION_INDEX ? config_.size() : sizes[info.index];
    info.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
    return 0;
  }
  int get_irq_info(vfio_irq_info& /*info*/) override { return -EINVAL; }
  int set_irqs(vfio_irq_set& /*irqs*/) override { return -ENOTTY; }
  int feature(vfio_device_feature& /*feature*/) override { return -ENOTTY; }
  int reset() override { return -ENOTTY; }
  int get_pci_hot_reset_info(vfio_pci_hot_reset_info& /*info*/) override { return -ENODEV; }
  int pci_hot_reset(vfio_pci_hot_reset& /*request*/) override { return -ENODEV; }
  [[nodiscard]] const Group* group() const override { return nullptr; }
  ssize_t read(void* buffer, std::size_t length, std::uint64_t offset) override {
    std::memcpy(buffer, config_.data() + (offset & 0xfff), length);
    return static_cast<ssize_t>(length);
  }
  ssize_t write(const void* buffer, std::size_t length, std::uint64_t offset) override {
    std::memcpy(config_.data() + (offset & 0xfff), buffer, length);
    return static_cast<ssize_t>(length);
  }
  std::intptr_t mmap(void*, std::size_t, int, int, std::uint64_t) override { return -ENODEV; }
  Kernel& kernel() override { return kernel_; }
  Result<void> close() override { return {}; }

  using Sizes = std::array<std::uint64_t, VFIO_PCI_NUM_REGIONS>;
  static constexpr Sizes usual = {256, 0, 0x4000, 0, 32, 0, 0x800};
  static inline Sizes sizes = usual;

 private:
  std::vector<std::uint8_t>& config_;
  Kernel& kernel_;
  std::string name_ = "0000:00:01.0";
};

// Capabilities: power management at 0x40, MSI-X at 0x50, PCI Express at 0x60, MSI at 0xa0; AER at 0x100, a serial
// number at 0x150.
class GuestConfigTest : public testing::Test {
 protected:
  static constexpr std::uint16_t pm = 0x40, msix = 0x50, express = 0x60, msi = 0xa0, aer = 0x100, serial = 0x150;

  explicit GuestConfigTest(std::size_t size = PCI_CFG_SPACE_EXP_SIZE) : raw_(config_space(size)) {}

  static std::vector<std::uint8_t> config_space(std::size_t size) {
    std::vector<std::uint8_t> bytes(size);
    const auto put = [&](std::size_t offset, std::uint32_t value) { std::memcpy(bytes.data() + offset, &value, 4); };
    put(PCI_VENDOR_ID, 0x56781234);
    put(PCI_COMMAND, PCI_STATUS_CAP_LIST << 16 | PCI_COMMAND_MEMORY);  // as VFIO opens devices
    put(PCI_BASE_ADDRESS_2, PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH);
    put(PCI_BASE_ADDRESS_4, PCI_BASE_ADDRESS_SPACE_IO);
    put(PCI_CAPABILITY_LIST, pm);
    put(pm, PCI_CAP_ID_PM | msix << 8);
    put(pm + 4, 0x11223344);
    put(msix, PCI_CAP_ID_MSIX | express << 8 | 3 << 16);
    put(express, PCI_CAP_ID_EXP | msi << 8 | 0x00020000);
    put(msi, PCI_CAP_ID_MSI | (PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT | 3 << 1) << 16);
    if (size < PCI_CFG_SPACE_EXP_SIZE) return bytes;
    put(aer, PCI_EXT_CAP_ID_ERR | 2 << 16 | static_cast<std::uint32_t>(serial) << 20);
    put(aer + 4, 0xaaaa5555);
    put(serial, PCI_EXT_CAP_ID_DSN | 1 << 16);
    put(serial + 4, 0xcafe);
    return bytes;
  }
  std::uint32_t raw(std::size_t offset) {
    std::uint32_t value = 0;
    std::memcpy(&value, raw_.data() + offset, 4);
    return value;
  }
  std::uint32_t get(std::uint16_t offset, unsigned width = 4) { return config_.read(device_, offset, width).value(); }
  void set(std::uint16_t offset, unsigned width, std::uint32_t value) {
    ASSERT_TRUE(config_.write(device_, offset, width, value));
  }
  // The offsets that a guest finds by the links of a list.
  std::vector<std::uint16_t> list(bool extended) {
    std::vector<std::uint16_t> found;
    auto at = static_cast<std::uint16_t>(extended ? PCI_CFG_SPACE_SIZE : get(PCI_CAPABILITY_LIST, 1));
    while (at != 0 && found.size() < 50) {
      const std::uint32_t header = get(at);
      if (!extended || PCI_EXT_CAP_ID(header) != 0) found.push_back(at);
      at = static_cast<std::uint16_t>(extended ? PCI_EXT_CAP_NEXT(header) : header >> 8 & 0xff);
    }
    return found;
  }

  std::vector<std::uint8_t> raw_;
  test::TreeKernel kernel_;
  PciDevice device_ =
      PciDevice::open(Device::open(std::make_unique<ConfigDevice>(raw_, kernel_), nullptr).value()).value();
  GuestConfig config_ = GuestConfig::of(device_).value();
};

using Offsets = std::vector<std::uint16_t>;

TEST_F(GuestConfigTest, ShowsTheDeviceAndWritesToIt) {
  EXPECT_EQ(get(PCI_VENDOR_ID), 0x56781234U);
  EXPECT_EQ(get(PCI_DEVICE_ID, 2), 0x5678U);
  EXPECT_EQ(get(PCI_DEVICE_ID + 1, 1), 0x56U);
  set(pm + 4, 4, 0xdeadbeef);
  EXPECT_EQ(raw(pm + 4), 0xdeadbeefU);
  set(pm + 6, 2, 0x1234);
  EXPECT_EQ(raw(pm + 4), 0x1234beefU);
  EXPECT_EQ(list(false), (Offsets{pm, msix, express, msi}));
  EXPECT_EQ(list(true), (Offsets{aer, serial}));
}

TEST_F(GuestConfigTest, KeepsTheGuestsAddressesOfBars) {
  const auto before = raw_;
  set(PCI_BASE_ADDRESS_0, 4, 0xffffffff);
  EXPECT_EQ(get(PCI_BASE_ADDRESS_0), 0xffffff00U);
  set(PCI_BASE_ADDRESS_0, 4, 0xfe001000);
  set(PCI_BASE_ADDRESS_1, 4, 0xffffffff);
  EXPECT_EQ(get(PCI_BASE_ADDRESS_1), 0U);
  set(PCI_BASE_ADDRESS_2, 4, 0xffffffff);
  set(PCI_BASE_ADDRESS_3, 4, 0xffffffff);
  EXPECT_EQ(get(PCI_BASE_ADDRESS_2), 0xffffc00cU);
  EXPECT_EQ(get(PCI_BASE_ADDRESS_3), 0xffffffffU);
  set(PCI_BASE_ADDRESS_2, 4, 0x8000);
  set(PCI_BASE_ADDRESS_3, 4, 0x12);
  set(PCI_BASE_ADDRESS_4, 4, 0xffffffff);
  EXPECT_EQ(get(PCI_BASE_ADDRESS_4), 0xffffffe1U);
  set(PCI_BASE_ADDRESS_4, 2, 0xc020);
  set(PCI_ROM_ADDRESS, 4, 0xffffffff);
  EXPECT_EQ(get(PCI_ROM_ADDRESS), 0xfffff801U);
  EXPECT_EQ(raw_, before) << "an address reached the device";

  EXPECT_FALSE(config_.bar(0).is_on);
  set(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
  EXPECT_EQ(raw(PCI_COMMAND) & 0xff, static_cast<std::uint32_t>(PCI_COMMAND_MEMORY));
  EXPECT_EQ(config_.bar(0).address, 0xfe001000U);
  EXPECT_EQ(config_.bar(0).size, 256U);
  EXPECT_TRUE(config_.bar(0).is_on && config_.bar(6).is_on);
  EXPECT_EQ(config_.bar(2).address, 0x1200008000U);
  EXPECT_TRUE(config_.bar(2).is_64_bit);
  EXPECT_EQ(config_.bar(4).address, 0xffffc020U);
  EXPECT_TRUE(config_.bar(4).is_io && !config_.bar(4).is_on);
  for (const std::uint32_t none : {1U, 3U, 5U, 7U, ~0U}) EXPECT_EQ(config_.bar(none).size, 0U) << none;
}

TEST_F(GuestConfigTest, KeepsTheEnableBitsOfMsix) {
  set(msix + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL | 0x7ff);
  EXPECT_EQ(get(msix + PCI_MSIX_FLAGS, 2),
            static_cast<std::uint32_t>(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL | 3));
  EXPECT_TRUE(config_.msix_is_on() && config_.msix_is_masked());
  EXPECT_EQ(raw(msix) >> 16, 3U) << "the guest's bits reached the device";
  set(msix + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
  EXPECT_TRUE(config_.msix_is_on() && !config_.msix_is_masked());
}

TEST_F(GuestConfigTest, KeepsMsiFromVfio) {
  const auto before = raw_;
  set(msi + PCI_MSI_ADDRESS_LO, 4, 0xfee00003);
  set(msi + PCI_MSI_ADDRESS_HI, 4, 0x12);
  set(msi + PCI_MSI_DATA_64, 2, 0x4041);
  EXPECT_FALSE(config_.msi().is_on);
  set(msi + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE | 2 << 4);
  const GuestMsi programmed = config_.msi();
  EXPECT_TRUE(programmed.is_on);
  EXPECT_EQ(programmed.count, 4U);
  EXPECT_EQ(programmed.address, 0x12fee00000U);
  EXPECT_EQ(programmed.data, 0x4041U);
  EXPECT_EQ(get(msi + PCI_MSI_FLAGS, 2), PCI_MSI_FLAGS_ENABLE | 2U << 4 | PCI_MSI_FLAGS_64BIT | 3U << 1);
  EXPECT_EQ(raw_, before) << "a write reached VFIO";
  ASSERT_TRUE(config_.move(msi, 0xc0, 14));
  EXPECT_EQ(config_.msi().data, 0x4041U);
  ASSERT_TRUE(config_.reset(device_));
  EXPECT_FALSE(config_.msi().is_on);
  EXPECT_EQ(config_.msi().address, 0U);
  ASSERT_TRUE(config_.hide(0xc0, 14));
  EXPECT_FALSE(config_.msi().is_on);
}

TEST_F(GuestConfigTest, IsAsAtPowerOnAfterAReset) {
  set(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
  set(PCI_BASE_ADDRESS_0, 4, 0xfe001000);
  set(PCI_BASE_ADDRESS_3, 4, 1);
  set(msix + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
  ASSERT_TRUE(config_.reset(device_));
  EXPECT_EQ(get(PCI_COMMAND, 2), 0U);
  EXPECT_EQ(raw(PCI_COMMAND) & 0xffff, 0U);
  EXPECT_EQ(config_.bar(0).address, 0U);
  EXPECT_EQ(config_.bar(2).address, 0U);
  EXPECT_FALSE(config_.bar(0).is_on);
  EXPECT_FALSE(config_.msix_is_on());
}

TEST_F(GuestConfigTest, HidesACapabilityWithItsBytes) {
  ASSERT_TRUE(config_.hide(msix, 12));
  EXPECT_EQ(list(false), (Offsets{pm, express, msi}));
  EXPECT_EQ(get(msix), 0U);
  EXPECT_FALSE(config_.msix_is_on());
  ASSERT_TRUE(config_.hide(pm, 8));
  EXPECT_EQ(list(false), (Offsets{express, msi}));
  EXPECT_EQ(get(pm + 4), 0U);
  set(pm + 4, 4, 1);
  EXPECT_EQ(raw(pm + 4), 0x11223344U) << "a write reached what is hidden";
  ASSERT_TRUE(config_.hide(express, 60));
  ASSERT_TRUE(config_.hide(msi, 14));
  EXPECT_EQ(list(false), Offsets{});
  EXPECT_EQ(config_.hide(express, 60).error().code(), ENOENT);
}

TEST_F(GuestConfigTest, HidesTheFirstExtendedCapability) {
  ASSERT_TRUE(config_.hide(aer, 0x48));
  EXPECT_EQ(list(true), Offsets{serial});
  EXPECT_EQ(get(aer), static_cast<std::uint32_t>(serial) << 20);
  EXPECT_EQ(get(aer + 4), 0U);
  EXPECT_EQ(get(serial + 4), 0xcafeU);
  ASSERT_TRUE(config_.hide(serial, 12));
  EXPECT_EQ(get(aer), 0U) << "an empty list";
}

TEST_F(GuestConfigTest, MovesACapability) {
  set(msix + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
  ASSERT_TRUE(config_.move(msix, 0xd0, 12));
  EXPECT_EQ(list(false), (Offsets{pm, 0xd0, express, msi}));
  EXPECT_EQ(get(msix), 0U);
  EXPECT_TRUE(config_.msix_is_on());
  set(0xd0 + PCI_MSIX_FLAGS, 2, 0);
  EXPECT_FALSE(config_.msix_is_on());
  ASSERT_TRUE(config_.move(pm, 0x80, 8));
  EXPECT_EQ(get(0x84), 0x11223344U);
  set(0x86, 2, 0x5678);
  EXPECT_EQ(raw(pm + 4), 0x56783344U) << "a write at the new place does not reach the device at the old one";
  ASSERT_TRUE(config_.move(aer, 0x400, 0x48));
  EXPECT_EQ(list(true), (Offsets{0x400, serial}));
  EXPECT_EQ(get(0x404), 0xaaaa5555U);
  ASSERT_TRUE(config_.hide(0xd0, 12));
  EXPECT_EQ(list(false), (Offsets{0x80, express, msi}));
}

// The list starts at 0x100, whichever capability is there.
TEST_F(GuestConfigTest, LinksACapabilityThatMovesToTheStartOfItsList) {
  ASSERT_TRUE(config_.move(aer, 0x400, 0x48));
  ASSERT_TRUE(config_.move(serial, 0x100, 12));
  EXPECT_EQ(list(true), (Offsets{0x100, 0x400}));
  EXPECT_EQ(get(0x104), 0xcafeU);
  EXPECT_EQ(get(0x404), 0xaaaa5555U);
}

TEST_F(GuestConfigTest, AResetKeepsTheMonitorsChanges) {
  ASSERT_TRUE(config_.make_read_only(PCI_BASE_ADDRESS_0, 4));
  ASSERT_TRUE(config_.replace(PCI_ROM_ADDRESS, std::array<std::uint8_t, 4>{}));
  ASSERT_TRUE(config_.replace(msix + PCI_MSIX_FLAGS, std::array<std::uint8_t, 2>{1, 3}));
  ASSERT_TRUE(config_.reset(device_));
  set(PCI_BASE_ADDRESS_0, 4, 0xffffffff);
  set(PCI_ROM_ADDRESS, 4, 0xffffffff);
  EXPECT_EQ(get(PCI_BASE_ADDRESS_0), 0U);
  EXPECT_EQ(get(PCI_ROM_ADDRESS), 0U);
  EXPECT_EQ(get(msix + PCI_MSIX_FLAGS, 2), 0x0301U);
}

TEST_F(GuestConfigTest, ABarIsOnAsTheGuestReadsIt) {
  ASSERT_TRUE(config_.make_read_only(PCI_COMMAND, 2));
  set(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
  EXPECT_EQ(get(PCI_COMMAND, 2), 0U);
  EXPECT_FALSE(config_.bar(0).is_on);
  ASSERT_TRUE(config_.replace(PCI_COMMAND, std::array<std::uint8_t, 1>{PCI_COMMAND_MEMORY}));
  EXPECT_TRUE(config_.bar(0).is_on);
}

TEST_F(GuestConfigTest, AMovedFromOneIsEmpty) {
  GuestConfig other = std::move(config_);
  EXPECT_FALSE(config_.msix_is_on() || config_.msi().is_on || config_.bar(0).is_on);  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(config_.read(device_, 0, 4).error().code(), ERANGE);
  EXPECT_EQ(other.read(device_, 0, 4).value(), 0x56781234U);
}

TEST_F(GuestConfigTest, DropsWritesToReadOnlyBytes) {
  ASSERT_TRUE(config_.make_read_only(pm + 4, 2));
  set(pm + 4, 4, 0xffffffff);
  EXPECT_EQ(raw(pm + 4), 0xffff3344U);
  ASSERT_TRUE(config_.make_read_only(PCI_BASE_ADDRESS_0, 4));
  set(PCI_BASE_ADDRESS_0, 4, 0xfe001000);
  EXPECT_EQ(config_.bar(0).address, 0U);
}

TEST_F(GuestConfigTest, ShowsOtherBytes) {
  ASSERT_TRUE(config_.replace(PCI_VENDOR_ID, std::array<std::uint8_t, 2>{0xf4, 0x1a}));
  EXPECT_EQ(get(PCI_VENDOR_ID), 0x56781af4U);
  set(PCI_VENDOR_ID, 4, 0);
  EXPECT_EQ(get(PCI_VENDOR_ID, 2), 0x1af4U);
  EXPECT_EQ(raw(PCI_VENDOR_ID), 0x00001234U) << "a write of both ids reaches only the one that is shown as it is";
}

TEST_F(GuestConfigTest, ShowsBarsOfOtherSizes) {
  ASSERT_TRUE(config_.set_bar_size(0, 4096));
  set(PCI_BASE_ADDRESS_0, 4, 0xffffffff);
  EXPECT_EQ(get(PCI_BASE_ADDRESS_0), 0xfffff000U);
  ASSERT_TRUE(config_.set_bar_size(2, std::uint64_t{1} << 33));
  set(PCI_BASE_ADDRESS_2, 4, 0xffffffff);
  set(PCI_BASE_ADDRESS_3, 4, 0xffffffff);
  EXPECT_EQ(get(PCI_BASE_ADDRESS_2), 0xcU);
  EXPECT_EQ(get(PCI_BASE_ADDRESS_3), 0xfffffffeU);
  ASSERT_TRUE(config_.set_bar_size(2, 0));
  set(PCI_BASE_ADDRESS_2, 4, 0xffffffff);
  set(PCI_BASE_ADDRESS_3, 4, 0xffffffff);
  EXPECT_EQ(get(PCI_BASE_ADDRESS_2), 0U);
  EXPECT_EQ(get(PCI_BASE_ADDRESS_3), 0U);
  EXPECT_EQ(config_.bar(2).size, 0U);
}

TEST_F(GuestConfigTest, RefusesWhatCannotBe) {
  EXPECT_EQ(config_.read(device_, 2, 4).error().code(), EINVAL);
  for (const unsigned width : {0U, 3U, 8U}) EXPECT_EQ(config_.read(device_, 0, width).error().code(), EINVAL) << width;
  EXPECT_EQ(config_.write(device_, 1, 2, 0).error().code(), EINVAL);
  EXPECT_EQ(config_.read(device_, 0x1000, 4).error().code(), ERANGE);
  EXPECT_EQ(config_.make_read_only(0xfff, 2).error().code(), ERANGE);
  EXPECT_EQ(config_.replace(0xffff, std::array<std::uint8_t, 1>{}).error().code(), ERANGE);
  EXPECT_EQ(config_.hide(0x44, 8).error().code(), ENOENT);
  EXPECT_EQ(config_.move(0x44, 0x80, 8).error().code(), ENOENT);
  for (const std::uint16_t to : {std::uint16_t{0x3c}, std::uint16_t{0x82}, std::uint16_t{0xfc}, std::uint16_t{0x200}}) {
    EXPECT_EQ(config_.move(pm, to, 8).error().code(), EINVAL) << to;
  }
  EXPECT_EQ(config_.move(pm, 0x80, 1).error().code(), EINVAL);
  EXPECT_EQ(config_.move(msi, 0x80, 12).error().code(), EINVAL) << "MSI has 14 bytes";
  EXPECT_EQ(config_.move(pm, 0xc0, 0x24).error().code(), EEXIST) << "MSI-X starts within it";
  EXPECT_EQ(config_.hide(pm, 0x24).error().code(), EEXIST);
  EXPECT_EQ(config_.hide(serial, 0xfff).error().code(), EINVAL);
  EXPECT_EQ(config_.move(pm, msi + 8, 8).error().code(), EEXIST) << "within MSI";
  EXPECT_EQ(config_.move(aer, 0x80, 8).error().code(), EINVAL);
  EXPECT_THAT(config_.move(pm, msix - 4, 8).error().message(), HasSubstr("it overlaps the capability at 0x50"));
  EXPECT_THAT(config_.move(pm, pm + 4, 8).error().message(), HasSubstr("overlaps the old one"));
  EXPECT_EQ(list(false), (Offsets{pm, msix, express, msi}));
  EXPECT_EQ(config_.set_bar_size(1, 4096).error().code(), ENODEV);
  EXPECT_EQ(config_.set_bar_size(3, 4096).error().code(), ENODEV);
  EXPECT_EQ(config_.set_bar_size(7, 4096).error().code(), ENODEV);
  for (const std::uint64_t size : {std::uint64_t{8}, std::uint64_t{48}, std::uint64_t{1} << 32}) {
    EXPECT_EQ(config_.set_bar_size(0, size).error().code(), EINVAL) << size;
  }
  EXPECT_EQ(config_.set_bar_size(6, 1024).error().code(), EINVAL);
  EXPECT_TRUE(config_.set_bar_size(4, 4));
}

// What such devices say cannot be.
class LyingConfig : public GuestConfigTest {
 protected:
  ~LyingConfig() override { ConfigDevice::sizes = ConfigDevice::usual; }
  static void put(std::vector<std::uint8_t>& bytes, std::size_t offset, std::uint32_t value) {
    std::memcpy(bytes.data() + offset, &value, 4);
  }
  GuestConfig config_of(std::vector<std::uint8_t> bytes) {
    raw_ = std::move(bytes);
    lying_.emplace(
        PciDevice::open(Device::open(std::make_unique<ConfigDevice>(raw_, kernel_), nullptr).value()).value());
    return GuestConfig::of(*lying_).value();
  }
  std::optional<PciDevice> lying_;
};

TEST_F(LyingConfig, ACapabilityThatRunsOutOfItsPartIsNotShown) {
  auto bytes = config_space(PCI_CFG_SPACE_EXP_SIZE);
  put(bytes, express, PCI_CAP_ID_EXP | 0xf4 << 8 | 0x00020000);
  put(bytes, 0xf4, PCI_CAP_ID_MSI | PCI_MSI_FLAGS_64BIT << 16);
  config_ = config_of(bytes);
  EXPECT_EQ(config_.read(*lying_, aer, 4).value() & 0xffff, static_cast<std::uint32_t>(PCI_EXT_CAP_ID_ERR));
  EXPECT_EQ(config_.read(*lying_, express + 1, 1).value(), 0U) << "it is linked";
  EXPECT_FALSE(config_.msi().is_on);
}

TEST_F(LyingConfig, BarsAreOfSizesThatTheirRegistersCanHave) {
  auto bytes = config_space(PCI_CFG_SPACE_SIZE);
  put(bytes, PCI_BASE_ADDRESS_5, PCI_BASE_ADDRESS_MEM_TYPE_64);
  ConfigDevice::sizes = {std::uint64_t{1} << 40, 0, ~std::uint64_t{0}, 0, 32, 0x1000, std::uint64_t{1} << 31};
  config_ = config_of(bytes);
  EXPECT_EQ(config_.bar(0).size, 0U) << "32 bits";
  EXPECT_EQ(config_.bar(2).size, 0U);
  EXPECT_EQ(config_.bar(5).size, 0x1000U);
  EXPECT_FALSE(config_.bar(5).is_64_bit) << "there is no upper half";
  EXPECT_EQ(config_.set_bar_size(5, std::uint64_t{1} << 33).error().code(), EINVAL);
  EXPECT_EQ(config_.bar(6).size, 0U);
}

class SmallConfig : public GuestConfigTest {
 protected:
  SmallConfig() : GuestConfigTest(PCI_CFG_SPACE_SIZE) {}
};

TEST_F(SmallConfig, Has256Bytes) {
  EXPECT_EQ(list(false), (Offsets{pm, msix, express, msi}));
  EXPECT_EQ(config_.read(device_, 0x100, 4).error().code(), ERANGE);
  EXPECT_TRUE(config_.hide(express, 60));
}

}  // namespace guest_config_test
}  // namespace postern
