// SPDX-License-Identifier: Apache-2.0
// DMA of one device into the memory of another, where the bytes can be seen: edu writes to BAR 2 of QEMU's ivshmem
// device, which is plain memory. In a guest that memory is also a file of the machine outside, and tests/guest/run
// looks for these bytes there.
#include <gtest/gtest.h>
#include <linux/vfio.h>

#include <cstring>
#include <postern/dma_buf.hpp>
#include <postern/dma_buffer.hpp>
#include <string_view>

#include "support/edu_fixture.hpp"

namespace postern {
namespace shared_memory_test {

using test::EduRegisters;

constexpr std::uint64_t page = 4096;
constexpr Iova base{0x4000000};  // within reach of edu
constexpr std::uint32_t memory_bar = 2;

// edu, and the device with the memory, attached by the same interface to containers of their own.
class SharedMemory : public test::EduFixture {
 protected:
  void SetUp() override {
    const auto address = test::find_function(0x1af4, 0x1110);
    if (!address) GTEST_SKIP() << "this host has no ivshmem device";
    EduFixture::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    shared_bound_.emplace(*address);
    auto attached = attach(test::kernel(), shared_bound_->host(), test::options_for(GetParam()));
    ASSERT_TRUE(attached) << attached.error().message();
    shared_.emplace(PciDevice::open(std::move(*attached)).value());
    if (by_dma_buf() && !shared_->device().has_feature(VFIO_DEVICE_FEATURE_DMA_BUF)) {
      GTEST_SKIP() << "this kernel exports no dma-bufs";
    }
    ASSERT_TRUE(shared_->enable_memory());
    ASSERT_TRUE(pci_->enable_bus_master());
    view_.emplace(shared_->device().map_region(memory_bar, at(), page).value());
    std::memset(view_->data(), 0, page);
    ram_.emplace(DmaBuffer::allocate(pci_->container(), page, {.within = {{page}, base - 1}}).value());
    ASSERT_LE(text().size(), ram_->size());
    std::memcpy(ram_->data(), text().data(), text().size());
  }
  void TearDown() override {
    ram_.reset();
    pci_.reset();  // with the mapping of the BAR
    view_.reset();
    shared_.reset();
  }
  [[nodiscard]] bool by_dma_buf() const { return GetParam().backend == "iommufd"; }
  // Each interface writes to a page of its own.
  [[nodiscard]] std::uint64_t at() const { return by_dma_buf() ? 2 * page : page; }
  [[nodiscard]] const std::string& text() const { return text_; }

  [[nodiscard]] Result<void> map(Access access) {
    Container& container = *pci_->container();
    if (!by_dma_buf()) return container.map(base, view_->bytes(), access);
    return container.map(base, POSTERN_TRY(export_dma_buf(shared_->device(), memory_bar, at(), page)), access);
  }
  // edu copies the text from RAM to the BAR.
  void write_text() const {
    const auto count = static_cast<std::uint32_t>(text().size());
    edu_->copy(ram_->iova().value, EduRegisters::buffer, count, 0);
    edu_->copy(EduRegisters::buffer, base.value, count, EduRegisters::to_memory);
  }
  // As the processor sees it, through the mapping of the BAR.
  [[nodiscard]] std::string_view seen(std::size_t from, std::size_t count) const {
    return {reinterpret_cast<const char*>(view_->data()) + from, count};
  }

  const std::string text_ = "edu wrote this by " + std::string(GetParam().backend) + "\n";
  std::optional<test::Bound> shared_bound_;
  std::optional<PciDevice> shared_;
  std::optional<Mmap> view_;
  std::optional<DmaBuffer> ram_;
};

TEST_P(SharedMemory, HasWhatAnotherDeviceWritesToIt) {
  const auto mapped = map(Access::read_write);
  ASSERT_TRUE(mapped) << mapped.error().message();
  write_text();
  EXPECT_EQ(seen(0, text().size()), text());
  EXPECT_EQ(seen(text().size(), 8), std::string(8, '\0')) << "and no more";
  std::string by_fd(text().size(), ' ');
  ASSERT_TRUE(shared_->device().read(memory_bar, at(), std::as_writable_bytes(std::span(by_fd))));
  EXPECT_EQ(by_fd, text());

  // And edu reads it from there.
  std::memset(ram_->data(), 0, page);
  const auto count = static_cast<std::uint32_t>(text().size());
  edu_->copy(base.value, EduRegisters::buffer, count, 0);
  edu_->copy(EduRegisters::buffer, ram_->iova().value, count, EduRegisters::to_memory);
  EXPECT_EQ(std::string_view(reinterpret_cast<const char*>(ram_->data()), text().size()), text());
}

TEST_P(SharedMemory, IsNotWrittenWithoutTheRightNorOnceItIsUnmapped) {
  const auto mapped = map(Access::read);
  ASSERT_TRUE(mapped) << mapped.error().message();
  write_text();
  EXPECT_EQ(seen(0, text().size()), std::string(text().size(), '\0')) << "it may only be read";
  ASSERT_TRUE(pci_->container()->unmap(base, page));
  ASSERT_TRUE(map(Access::read_write));
  ASSERT_TRUE(pci_->container()->unmap(base, page));
  write_text();
  EXPECT_EQ(seen(0, text().size()), std::string(text().size(), '\0'));
  ASSERT_TRUE(map(Access::read_write));
  write_text();
  EXPECT_EQ(seen(0, text().size()), text()) << "the last time, so that the memory keeps it";
}

INSTANTIATE_TEST_SUITE_P(Backends, SharedMemory, ::testing::ValuesIn(test::newest_interfaces()), test::interface_name);

}  // namespace shared_memory_test
}  // namespace postern
