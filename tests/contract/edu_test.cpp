// SPDX-License-Identifier: Apache-2.0
// QEMU's edu device on the kernel under test, for each backend: registers, DMA, MSI and INTx.
#include <gmock/gmock.h>

#include <postern/deadline.hpp>
#include <postern/dma_buffer.hpp>
#include <postern/iova_allocator.hpp>

#include "support/edu_fixture.hpp"

namespace postern {
namespace edu_test {

using namespace std::chrono_literals;
using test::EduRegisters;

class EduOnKernel : public test::EduFixture {
 protected:
  static Event event() { return Event::create(test::kernel()).value(); }
};

TEST_P(EduOnKernel, HasOneBarOfOneMibAndBothKindsOfInterrupts) {
  const auto regions = pci_->device().regions();
  EXPECT_EQ(regions[0].length, 1U << 20);
  EXPECT_TRUE(regions[0].mappable);
  EXPECT_FALSE(regions[0].msix_mappable);
  EXPECT_EQ(regions[1].length, 0U);
  EXPECT_EQ(regions[7].length, 256U) << "it is no PCI Express device";
  EXPECT_EQ(pci_->interrupt(PciInterrupt::intx).count, 1U);
  EXPECT_TRUE(pci_->interrupt(PciInterrupt::intx).automasked);
  EXPECT_EQ(pci_->interrupt(PciInterrupt::msi).count, 1U);
  EXPECT_FALSE(pci_->interrupt(PciInterrupt::msi).resizable);
  EXPECT_EQ(pci_->interrupt(PciInterrupt::msix).count, 0U);
  constexpr std::uint16_t msi = 0x05;
  EXPECT_NE(pci_->find_capability(msi), nullptr);
}

TEST_P(EduOnKernel, ItsRegistersAnswer) {
  EXPECT_EQ(edu_->read(0), 0x010000edU);
  edu_->write(4, 0x12345678);
  EXPECT_EQ(edu_->read(4), ~0x12345678U);
  edu_->write(8, 5);
  EXPECT_TRUE(poll_until(Deadline(10s), 1ms, [this] { return (edu_->read(0x20) & 1) == 0; }));
  EXPECT_EQ(edu_->read(8), 120U);
}

TEST_P(EduOnKernel, CopiesMemoryThroughItsOwn) {
  ASSERT_TRUE(pci_->enable_bus_master());
  const auto container = pci_->device().container();
  constexpr std::uint64_t page = 4096;
  IovaAllocator iovas(clip_to_address_bits(container->usable_ranges(), EduRegisters::address_bits),
                      container->page_sizes());
  auto from = DmaBuffer::allocate(container, iovas, page, {.access = Access::read}).value();
  auto to = DmaBuffer::allocate(container, iovas, page).value();
  constexpr std::uint32_t count = 2048;
  for (std::size_t i = 0; i < page; ++i) from.data()[i] = static_cast<std::byte>(i * 5 + 1);
  edu_->copy(from.iova().value, EduRegisters::buffer, count, 0);
  edu_->copy(EduRegisters::buffer + 16, to.iova().value, count - 16, EduRegisters::to_memory);
  EXPECT_TRUE(std::equal(to.data(), to.data() + count - 16, from.data() + 16));
  EXPECT_EQ(to.data()[count - 16], std::byte{0});
  edu_->copy(EduRegisters::buffer, from.iova().value, 8, EduRegisters::to_memory);
  EXPECT_EQ(from.data()[0], std::byte{1}) << "the IOMMU lets it read that, not write it";
}

TEST_P(EduOnKernel, MsiArrives) {
  ASSERT_TRUE(pci_->enable_bus_master());
  const Event arrived = event();
  ASSERT_TRUE(pci_->enable(PciInterrupt::msi, std::span(&arrived, 1)));
  EXPECT_EQ(arrived.take().value(), 0U);
  edu_->raise(1);
  EXPECT_EQ(arrived.wait(10s).value(), 1U);
  EXPECT_EQ(edu_->read(0x24), 1U);
  edu_->acknowledge(1);
  ASSERT_TRUE(pci_->disable(PciInterrupt::msi));
  edu_->raise(1);
  EXPECT_EQ(arrived.wait(100ms).value(), 0U) << "it is off";
  edu_->acknowledge(1);
}

TEST_P(EduOnKernel, IntxArrivesOnceUntilItIsUnmasked) {
  const Event arrived = event();
  ASSERT_TRUE(pci_->enable(PciInterrupt::intx, std::span(&arrived, 1)));
  edu_->raise(1);
  EXPECT_EQ(arrived.wait(10s).value(), 1U);
  EXPECT_EQ(arrived.wait(100ms).value(), 0U) << "it masked itself, though the line is still up";
  ASSERT_TRUE(pci_->device().unmask_interrupt(0, 0));
  EXPECT_EQ(arrived.wait(10s).value(), 1U) << "the line is still up";
  edu_->raise(4);
  EXPECT_EQ(arrived.wait(100ms).value(), 0U) << "and it masked itself again";
  edu_->acknowledge(5);
  ASSERT_TRUE(pci_->device().unmask_interrupt(0, 0));
  edu_->raise(2);
  EXPECT_EQ(arrived.wait(10s).value(), 1U) << "it was unmasked";
  edu_->acknowledge(2);
  ASSERT_TRUE(pci_->disable(PciInterrupt::intx));
}

TEST_P(EduOnKernel, MaskedIntxArrivesWhenItIsUnmasked) {
  const Event arrived = event();
  ASSERT_TRUE(pci_->enable(PciInterrupt::intx, std::span(&arrived, 1)));
  ASSERT_TRUE(pci_->device().mask_interrupt(0, 0));
  edu_->raise(1);
  EXPECT_EQ(arrived.wait(100ms).value(), 0U);
  ASSERT_TRUE(pci_->device().unmask_interrupt(0, 0));
  EXPECT_EQ(arrived.wait(10s).value(), 1U);
  edu_->acknowledge(1);
  ASSERT_TRUE(pci_->disable(PciInterrupt::intx));
}

TEST_P(EduOnKernel, IntxDisableOfTheCommandRegisterHoldsItBack) {
  constexpr std::uint16_t command = 0x04;
  constexpr std::uint16_t intx_disable = 0x400;
  const Event arrived = event();
  ASSERT_TRUE(pci_->enable(PciInterrupt::intx, std::span(&arrived, 1)));
  const auto before = pci_->read_config<std::uint16_t>(command).value();
  ASSERT_TRUE(pci_->write_config<std::uint16_t>(command, before | intx_disable));
  edu_->raise(1);
  EXPECT_EQ(arrived.wait(100ms).value(), 0U);
  constexpr std::uint16_t status = 0x06;
  EXPECT_NE(pci_->read_config<std::uint16_t>(status).value() & 0x8, 0) << "it is pending";
  ASSERT_TRUE(pci_->write_config<std::uint16_t>(command, before));
  EXPECT_EQ(arrived.wait(10s).value(), 1U);
  edu_->acknowledge(1);
  EXPECT_EQ(pci_->read_config<std::uint16_t>(status).value() & 0x8, 0);
  ASSERT_TRUE(pci_->disable(PciInterrupt::intx));
}

TEST_P(EduOnKernel, TwoKindsOfInterruptExcludeEachOther) {
  const std::array<Event, 2> events{event(), event()};
  ASSERT_TRUE(pci_->enable(PciInterrupt::msi, std::span(events).first(1)));
  EXPECT_EQ(pci_->enable(PciInterrupt::intx, std::span(events).last(1)).error().code(), EINVAL);
}

INSTANTIATE_TEST_SUITE_P(Backends, EduOnKernel, ::testing::ValuesIn(test::newest_interfaces()), test::interface_name);

}  // namespace edu_test
}  // namespace postern
