// SPDX-License-Identifier: Apache-2.0
// A BAR as memory for other devices, for each backend: exporting it, mapping it, and what is left when its device stops
// to answer. edu reads the BAR of a disk.
#include <gmock/gmock.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <postern/dma_buf.hpp>
#include <postern/dma_buffer.hpp>
#include <postern/guest_memory.hpp>
#include <postern/low_power.hpp>

#include "support/edu_fixture.hpp"

namespace postern {
namespace dma_buf_test {

using test::Bound;
using test::EduRegisters;
using test::ResourceUse;
using ::testing::HasSubstr;

constexpr std::uint64_t page = 4096;
constexpr Iova base{0x4000000};  // within reach of edu
constexpr std::uint32_t config_region = 7;

// A disk of the host, attached by one interface.
class DmaBufExport : public ::testing::TestWithParam<test::Interface> {
 protected:
  void SetUp() override {
    disk_.emplace(
        PciDevice::open(attach(test::kernel(), bound_.host(), test::options_for(GetParam())).value()).value());
    ASSERT_TRUE(disk_->enable_memory());
  }
  [[nodiscard]] bool has_dma_bufs() const { return disk_->device().has_feature(VFIO_DEVICE_FEATURE_DMA_BUF); }
  Error refused(std::uint32_t region, std::uint64_t offset, std::uint64_t length) {
    auto exported = export_dma_buf(disk_->device(), region, offset, length);
    EXPECT_FALSE(exported);
    return exported ? Error({}) : exported.error();
  }

  Bound bound_{test::first_nvme()};
  std::optional<PciDevice> disk_;
};

TEST_P(DmaBufExport, IsADescriptorThatKnowsItsSizeAndIsNotMapped) {
  if (!has_dma_bufs()) GTEST_SKIP() << "this kernel exports no dma-bufs";
  const auto before = ResourceUse::now();
  {
    const Memory memory = export_dma_buf(disk_->device(), 0, page, 2 * page).value();
    EXPECT_EQ(memory.kind(), Memory::Kind::dma_buf);
    EXPECT_EQ(memory.offset(), 0U);
    EXPECT_EQ(memory.length(), 2 * page);
    Kernel& kernel = memory.file()->kernel();
    const int fd = memory.file()->get();
    EXPECT_EQ(kernel.lseek(fd, 0, SEEK_END), static_cast<std::int64_t>(2 * page));
    EXPECT_EQ(kernel.lseek(fd, 0, SEEK_SET), 0);
    EXPECT_EQ(kernel.lseek(fd, page, SEEK_SET), -EINVAL);
    EXPECT_EQ(kernel.lseek(fd, 0, SEEK_DATA), -EINVAL);
    FileStatus status;
    EXPECT_EQ(kernel.fstat(fd, status), 0);
    EXPECT_EQ(status.size, 2 * page);
    EXPECT_EQ(kernel.mmap(nullptr, page, PROT_READ, MAP_SHARED, fd, 0), -EINVAL);
  }
  EXPECT_TRUE(before == ResourceUse::now()) << "it is closed with its memory";
}

TEST_P(DmaBufExport, IsOfWholePagesOfABar) {
  if (!has_dma_bufs()) GTEST_SKIP() << "this kernel exports no dma-bufs";
  const std::uint64_t length = disk_->device().regions()[0].length;
  EXPECT_TRUE(export_dma_buf(disk_->device(), 0, 0, length));
  EXPECT_TRUE(refused(0, 0, 0).refused());
  EXPECT_EQ(refused(0, 0, 0).code(), EINVAL);
  EXPECT_THAT(refused(0, 0x200, page).message(), HasSubstr("multiples of"));
  EXPECT_EQ(refused(0, 0, page + 0x200).code(), EINVAL);
  EXPECT_EQ(refused(0, length, page).code(), ERANGE);
  EXPECT_EQ(refused(0, page, length).code(), ERANGE);
  EXPECT_EQ(refused(0, ~std::uint64_t{0} - page + 1, page).code(), EOVERFLOW);
  EXPECT_EQ(refused(2, 0, page).code(), ENODEV) << "no such BAR";
  EXPECT_EQ(refused(1000, 0, page).code(), ENODEV);
  if (disk_->device().regions()[config_region].length >= page) {
    const Error config = refused(config_region, 0, page);
    EXPECT_EQ(config.code(), ENODEV);
    EXPECT_FALSE(config.refused()) << "the kernel says so";
    EXPECT_THAT(config.message(), HasSubstr("only BARs"));
  }
  ASSERT_TRUE(disk_->detach());
  EXPECT_EQ(refused(0, 0, page).code(), EBADF);
}

TEST_P(DmaBufExport, IsRefusedByAKernelThatHasNone) {
  if (has_dma_bufs()) GTEST_SKIP() << "this kernel exports dma-bufs";
  const auto host_page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  if (disk_->device().regions()[0].length < host_page) GTEST_SKIP() << "the BAR is below a page";
  const Error error = refused(0, 0, host_page);
  EXPECT_EQ(error.code(), ENOTTY);
  EXPECT_TRUE(error.remedies().contains(RemedyCode::map_bar_by_address)) << error.message();
}

TEST_P(DmaBufExport, IsReadAsAFeature) {
  std::array<std::uint8_t, 0> nothing{};
  const Device& device = disk_->device();
  EXPECT_EQ(device.get_feature(VFIO_DEVICE_FEATURE_LOW_POWER_EXIT, nothing).error().code(),
            device.has_feature(VFIO_DEVICE_FEATURE_LOW_POWER_EXIT) ? EINVAL : ENOTTY)
      << "it can only be set";
  std::array<std::uint8_t, 64> bytes{};
  const auto unknown = device.get_feature(1000, bytes);
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code(), ENOTTY);
  EXPECT_THAT(unknown.error().message(), HasSubstr("does not have this feature"));
  if (has_dma_bufs()) {
    const std::array<std::uint32_t, 8> wanted{0, 0, 0, 1, 0, 0, page, 0};  // BAR 0, one range: its first page
    static_assert(sizeof wanted == sizeof(vfio_device_feature_dma_buf) + sizeof(vfio_region_dma_range));
    std::copy_n(reinterpret_cast<const std::uint8_t*>(wanted.data()), sizeof wanted, bytes.begin());
    const auto fd = device.get_feature(VFIO_DEVICE_FEATURE_DMA_BUF, bytes);
    ASSERT_TRUE(fd) << fd.error().message();
    const Fd owner(test::kernel(), *fd);
    EXPECT_EQ(test::kernel().lseek(owner.get(), 0, SEEK_END), static_cast<std::int64_t>(page));
  }
  ASSERT_TRUE(disk_->detach());
  EXPECT_EQ(device.get_feature(VFIO_DEVICE_FEATURE_MIGRATION, bytes).error().code(), EBADF);
}

// edu, and a disk whose BAR it reads.
class PeerToPeer : public test::EduFixture {
 protected:
  void SetUp() override {
    disk_bound_.emplace(test::first_nvme());
    if (!exports_dma_bufs()) GTEST_SKIP() << "this kernel exports no dma-bufs";
    EduFixture::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    open_disk();
    ASSERT_TRUE(pci_->enable_bus_master());
    allocate_buffer();
  }
  void TearDown() override {
    buffer_.reset();
    disk_.reset();
  }
  // Asked once, before edu is opened: opening edu takes ten seconds on a POWER guest.
  [[nodiscard]] bool exports_dma_bufs() const {
    static const bool exports =
        attach(test::kernel(), disk_bound_->host()).value().has_feature(VFIO_DEVICE_FEATURE_DMA_BUF);
    return exports;
  }
  void open_disk() {
    disk_.emplace(
        PciDevice::open(attach(test::kernel(), disk_bound_->host(), test::options_for(GetParam())).value()).value());
    ASSERT_TRUE(disk_->enable_memory());
  }
  void allocate_buffer() {
    buffer_.emplace(DmaBuffer::allocate(pci_->container(), page, {.within = {{page}, base - 1}}).value());
  }
  [[nodiscard]] bool takes_dma_bufs() const { return GetParam().backend == "iommufd"; }
  Container& container() { return *pci_->container(); }
  [[nodiscard]] Memory bar(std::uint64_t offset = 0) {
    return export_dma_buf(disk_->device(), 0, offset, page).value();
  }
  // Whether edu reads there what the disk's capabilities (CAP) are, which are not zero. Its own memory, and where that
  // goes, is filled with something else before.
  [[nodiscard]] bool reaches(Iova iova) {
    std::byte* const bytes = buffer_->data();
    const std::uint64_t memory = buffer_->iova().value;
    std::fill_n(bytes, 16, std::byte{0x5a});
    edu_->copy(memory, EduRegisters::buffer, 8, 0);
    edu_->copy(iova.value, EduRegisters::buffer, 8, 0);
    edu_->copy(EduRegisters::buffer, memory + 8, 8, EduRegisters::to_memory);
    std::array<std::byte, 8> capabilities{};
    EXPECT_TRUE(disk_->device().read(0, 0, capabilities));
    return std::equal(capabilities.begin(), capabilities.end(), bytes + 8);
  }
  void set_memory(bool on) {
    const auto command = disk_->read_config<std::uint16_t>(PCI_COMMAND).value();
    const auto changed = on ? command | PCI_COMMAND_MEMORY : command & ~PCI_COMMAND_MEMORY;
    ASSERT_TRUE(disk_->write_config<std::uint16_t>(PCI_COMMAND, static_cast<std::uint16_t>(changed)));
  }
  void set_power_state(std::uint16_t state) {
    const PciCapability* const power = disk_->find_capability(PCI_CAP_ID_PM);
    ASSERT_NE(power, nullptr);
    ASSERT_TRUE(disk_->write_config<std::uint16_t>(static_cast<std::uint16_t>(power->offset + PCI_PM_CTRL), state));
  }
  [[nodiscard]] std::string power_state() const {
    std::string text;
    EXPECT_EQ(test::kernel().read_file("/sys/bus/pci/devices/" + disk_->name() + "/power_state", text), 0);
    return text;
  }
  // It is revoked now: it cannot be mapped, nor mapped anew, and the error says why. The old mapping is on record.
  void expect_revoked(const Memory& memory) {
    const auto mapped = container().map(base + 16 * page, memory);
    ASSERT_FALSE(mapped);
    EXPECT_EQ(mapped.error().code(), ENODEV);
    EXPECT_EQ(mapped.error().operation(), "IOMMU_IOAS_MAP_FILE");
    EXPECT_TRUE(mapped.error().remedies().contains(RemedyCode::turn_bar_on)) << mapped.error().message();
    const auto remapped = remap_dma_bufs(container());
    ASSERT_FALSE(remapped);
    EXPECT_EQ(remapped.error().code(), ENODEV);
    EXPECT_EQ(container().mapping_count(), 2U);
    EXPECT_TRUE(container().find(base));
  }
  // Memory answers again, but the mapping is dead; mapping anew heals it.
  void expect_healed(const Memory& memory) {
    EXPECT_FALSE(reaches(base)) << "the old mapping stays revoked";
    EXPECT_EQ(container().map(base, memory).error().code(), EEXIST);
    const auto remapped = remap_dma_bufs(container());
    ASSERT_TRUE(remapped) << remapped.error().message();
    EXPECT_TRUE(reaches(base));
    EXPECT_EQ(container().mapping_count(), 2U);
  }

  std::optional<Bound> disk_bound_;
  std::optional<PciDevice> disk_;
  std::optional<DmaBuffer> buffer_;
};

TEST_P(PeerToPeer, ADmaBufIsMappedByIommufdAndCountsNothing) {
  if (!takes_dma_bufs()) GTEST_SKIP() << "this backend takes addresses only";
  const auto before = ResourceUse::now();
  ASSERT_TRUE(container().map(base, bar(), Access::read)) << "its descriptor may be closed at once";
  EXPECT_EQ(ResourceUse::now().pinned, before.pinned);
  EXPECT_EQ(ResourceUse::now().locked, before.locked);
  EXPECT_TRUE(reaches(base));
  EXPECT_EQ(container().find(base)->memory.kind(), Memory::Kind::dma_buf);
  ASSERT_TRUE(container().unmap(base, page));
  EXPECT_FALSE(reaches(base));
  EXPECT_TRUE(before == ResourceUse::now());
}

TEST_P(PeerToPeer, AnAddressIsMappedByType1WhichRefusesADmaBufAndSaysHow) {
  if (GetParam().backend != "type1") GTEST_SKIP() << "iommufd pins memory, and a BAR has no pages";
  const auto refused = container().map(base, bar());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EINVAL);
  EXPECT_EQ(refused.error().kind(), ErrorKind::unsupported);
  EXPECT_TRUE(refused.error().remedies().contains(RemedyCode::map_bar_by_address)) << refused.error().message();
  EXPECT_EQ(container().mapping_count(), 1U) << "the buffer";
  const Mmap mapped = disk_->device().map_region(0, 0, page).value();
  ASSERT_TRUE(container().map(base, mapped.bytes()));
  EXPECT_TRUE(reaches(base));
  set_memory(false);
  set_memory(true);
  EXPECT_TRUE(reaches(base)) << "type1 keeps it";
  EXPECT_TRUE(remap_dma_bufs(container())) << "there are none";
  ASSERT_TRUE(container().unmap(base, page));
}

TEST_P(PeerToPeer, AMappingIsDeadAfterMemoryDecodingWasOff) {
  if (!takes_dma_bufs()) GTEST_SKIP() << "this backend takes addresses only";
  const Memory memory = bar();
  ASSERT_TRUE(container().map(base, memory));
  set_memory(false);
  expect_revoked(memory);
  EXPECT_TRUE(export_dma_buf(disk_->device(), 0, 0, page)) << "but it cannot be mapped yet";
  set_memory(true);
  expect_healed(memory);
}

TEST_P(PeerToPeer, AMappingIsDeadAfterAReset) {
  if (!takes_dma_bufs()) GTEST_SKIP() << "this backend takes addresses only";
  const Memory memory = bar();
  ASSERT_TRUE(container().map(base, memory));
  ASSERT_TRUE(disk_->reset());
  ASSERT_TRUE(disk_->enable_memory());
  expect_healed(memory);
}

TEST_P(PeerToPeer, AMappingIsDeadAfterLowPower) {
  if (!takes_dma_bufs()) GTEST_SKIP() << "this backend takes addresses only";
  const Memory memory = bar();
  ASSERT_TRUE(container().map(base, memory));
  ASSERT_TRUE(enter_low_power(disk_->device()));
  expect_revoked(memory);
  ASSERT_TRUE(exit_low_power(disk_->device()));
  expect_healed(memory);
}

TEST_P(PeerToPeer, AMappingIsDeadAfterD3hot) {
  if (!takes_dma_bufs()) GTEST_SKIP() << "this backend takes addresses only";
  const Memory memory = bar();
  ASSERT_TRUE(container().map(base, memory));
  set_power_state(3);
  expect_revoked(memory);
  std::array<std::byte, 8> bytes{};
  EXPECT_EQ(disk_->device().read(0, 0, bytes).error().code(), EIO);
  EXPECT_EQ(power_state(), "D3hot\n");
  set_power_state(0);
  EXPECT_EQ(power_state(), "D0\n");
  EXPECT_TRUE(disk_->device().read(0, 0, bytes)) << "memory decoding is as it was";
  expect_healed(memory);
}

TEST_P(PeerToPeer, ADeviceThatWasClosedNeedsANewDmaBuf) {
  if (!takes_dma_bufs()) GTEST_SKIP() << "this backend takes addresses only";
  const Memory memory = bar();
  ASSERT_TRUE(container().map(base, memory));
  ASSERT_TRUE(disk_->detach());
  expect_revoked(memory);
  disk_.reset();
  open_disk();
  expect_revoked(memory);
  EXPECT_FALSE(reaches(base));
  ASSERT_TRUE(container().unmap(base, page));
  ASSERT_TRUE(container().map(base, bar()));
  EXPECT_TRUE(reaches(base));
}

TEST_P(PeerToPeer, OnlyTheRangeIsMappedAnew) {
  if (!takes_dma_bufs()) GTEST_SKIP() << "this backend takes addresses only";
  ASSERT_TRUE(container().map(base, bar()));
  ASSERT_TRUE(container().map(base + page, bar()));
  set_memory(false);
  set_memory(true);
  ASSERT_TRUE(remap_dma_bufs(container(), {base + page + 5, base + page + 5}));
  EXPECT_FALSE(reaches(base));
  EXPECT_TRUE(reaches(base + page));
}

// The layout has a BAR of the disk, and edu shows it.
class GuestWithBar : public PeerToPeer {
 protected:
  void SetUp() override {
    PeerToPeer::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    if (!takes_dma_bufs()) GTEST_SKIP() << "this backend takes addresses only";
    buffer_.reset();
    pci_.reset();
    auto attached = guest_.attach(bound_->host());
    ASSERT_TRUE(attached) << attached.error().message();
    pci_.emplace(PciDevice::open(std::move(attached->device)).value());
    edu_.emplace(pci_->device());
    ASSERT_TRUE(pci_->enable_bus_master());
    allocate_buffer();
    ASSERT_TRUE(guest_.add(base, bar()));
  }
  void TearDown() override {
    buffer_.reset();
    pci_.reset();
    PeerToPeer::TearDown();
  }

  GuestMemory guest_{test::kernel(), {.backend = "iommufd"}};
  static constexpr IovaRange whole{base, {base.value + page - 1}};
};

TEST_P(GuestWithBar, IsRevokedAndMappedAnew) {
  EXPECT_TRUE(reaches(base));
  set_memory(false);
  EXPECT_EQ(guest_.remap_dma_bufs().error().code(), ENODEV);
  set_memory(true);
  EXPECT_FALSE(reaches(base));
  ASSERT_TRUE(guest_.remap_dma_bufs({{0}, base - 1})) << "another range";
  EXPECT_FALSE(reaches(base));
  ASSERT_TRUE(guest_.remap_dma_bufs(whole));
  EXPECT_TRUE(reaches(base));
}

TEST_P(GuestWithBar, IsRemovedAndAddedAsAGuestTurnsItsMemoryOffAndOn) {
  set_memory(false);
  ASSERT_TRUE(guest_.remove(whole));
  const auto added = guest_.add(base, bar());
  ASSERT_FALSE(added);
  EXPECT_EQ(added.error().code(), ENODEV);
  set_memory(true);
  ASSERT_TRUE(guest_.add(base, bar()));
  EXPECT_TRUE(reaches(base));
}

// What was removed cannot come back while it is revoked. That must not keep others from being changed.
TEST_P(GuestWithBar, ARevokedPieceBlocksNoLaterChange) {
  set_memory(false);
  auto change = guest_.begin().value();
  ASSERT_TRUE(change.remove(whole));
  ASSERT_TRUE(change.add(base + page, std::span(reinterpret_cast<std::byte*>(page), page)));  // not there
  const auto committed = change.commit();
  ASSERT_FALSE(committed);
  EXPECT_EQ(committed.error().code(), EFAULT) << committed.error().message();
  { const auto dropped = std::move(change); }
  EXPECT_TRUE(guest_.find(base)) << "the layout is as it was";
  const Mmap memory(test::kernel(), ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                    page);
  const auto other = guest_.add(base + page, memory.bytes());
  ASSERT_TRUE(other) << other.error().message();
  ASSERT_TRUE(guest_.remove({base + page, base + (2 * page - 1)}));
  set_memory(true);
  ASSERT_TRUE(guest_.remap_dma_bufs());
  EXPECT_TRUE(reaches(base));
  ASSERT_TRUE(guest_.remove(whole));
  EXPECT_FALSE(container().find(base));
}

// The second disk is gone for good: its dma-buf must not keep the first one's dead.
TEST_P(GuestWithBar, OthersAreMappedAnewBesideOneThatStaysRevoked) {
  const Bound bound(test::last_nvme());
  auto second = PciDevice::open(attach(test::kernel(), bound.host(), {.backend = "iommufd"}).value()).value();
  ASSERT_TRUE(second.enable_memory());
  const IovaRange below{base - page, base - 1};
  ASSERT_TRUE(guest_.add(below.first, export_dma_buf(second.device(), 0, 0, page).value()));
  ASSERT_TRUE(second.detach());
  set_memory(false);
  set_memory(true);
  EXPECT_FALSE(reaches(base));
  const auto remapped = guest_.remap_dma_bufs();
  ASSERT_FALSE(remapped);
  EXPECT_EQ(remapped.error().code(), ENODEV);
  EXPECT_THAT(remapped.error().message(), HasSubstr(to_string(below)));
  EXPECT_TRUE(reaches(base));
  EXPECT_EQ(guest_.remap_dma_bufs({base, base - 1}).error().code(), EINVAL);
}

// Whatever is mapped is queried. What could not be mapped again has no pages that a device could write.
TEST_P(GuestWithBar, IsLeftOutOfQueriesWhileItCannotBeMapped) {
  if (!guest_.start_tracking()) GTEST_SKIP() << "this IOMMU has no dirty bits";
  set_memory(false);
  const auto changed = guest_.set_access(whole, Access::read);
  ASSERT_FALSE(changed);
  EXPECT_EQ(changed.error().code(), ENODEV);
  ASSERT_FALSE(container().find(base));
  std::array<std::uint64_t, 1> words{};
  const auto queried = guest_.query_dirty(whole, {.page_size = page, .words = words});
  EXPECT_TRUE(queried) << queried.error().message();
  set_memory(true);
  ASSERT_TRUE(guest_.remap_dma_bufs());
  EXPECT_TRUE(reaches(base));
  EXPECT_TRUE(guest_.query_dirty(whole, {.page_size = page, .words = words}));
  EXPECT_TRUE(guest_.stop_tracking());
}

INSTANTIATE_TEST_SUITE_P(Backends, DmaBufExport, ::testing::ValuesIn(test::newest_interfaces()), test::interface_name);
INSTANTIATE_TEST_SUITE_P(Backends, PeerToPeer, ::testing::ValuesIn(test::newest_interfaces()), test::interface_name);
INSTANTIATE_TEST_SUITE_P(Backends, GuestWithBar, ::testing::ValuesIn(test::newest_interfaces()), test::interface_name);

}  // namespace dma_buf_test
}  // namespace postern
