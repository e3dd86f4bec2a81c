// SPDX-License-Identifier: Apache-2.0
// The simulated edu device: its registers through the device's fd and through a mapping, its DMA engine and interrupts.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <postern/registers.hpp>
#include <vector>

#include "sim/devices/edu/edu.hpp"

namespace postern::sim {
namespace edu_test {

// A slot with 64 KiB of memory at iova 0.
class EduSlot final : public Slot {
 public:
  bool dma_read(Iova iova, std::span<std::byte> bytes) override {
    if (iova.value + bytes.size() > memory.size()) return false;
    std::memcpy(bytes.data(), memory.data() + iova.value, bytes.size());
    return true;
  }
  bool dma_write(Iova iova, std::span<const std::byte> bytes) override {
    if (iova.value + bytes.size() > memory.size()) return false;
    std::memcpy(memory.data() + iova.value, bytes.data(), bytes.size());
    return true;
  }
  void interrupt(std::uint32_t /*vector*/) override { ++messages; }
  [[nodiscard]] bool signals_messages() const override { return has_messages; }
  void set_line(bool up) override { line = up; }

  std::vector<std::byte> memory = std::vector<std::byte>(65536);
  bool has_messages = false;
  int messages = 0;
  bool line = false;
};

class EduHardware : public testing::Test {
 protected:
  EduHardware() : edu_(make_edu()), bar_((1 << 20) / sizeof(std::uint64_t)) { edu_->connect(slot_, {bytes()}); }
  // Access through the fd.
  template <typename T>
  void write(std::size_t offset, T value) {
    EXPECT_TRUE(edu_->write(0, offset, std::as_bytes(std::span(&value, 1))));
  }
  void write(std::size_t offset, int value) { write(offset, static_cast<std::uint32_t>(value)); }
  // Writes through a mapping; reads are the same both ways.
  void store(std::size_t offset, std::uint32_t value) { word(offset).write(value); }
  [[nodiscard]] std::uint32_t read(std::size_t offset) { return word(offset).read(); }
  void settle() {
    while (edu_->poll()) {
    }
  }
  void copy(std::uint64_t from, std::uint64_t to, std::uint64_t count, std::uint32_t command) {
    write(0x80, from);
    write(0x88, to);
    write(0x90, count);
    write(0x98, command);
  }

  EduSlot slot_;
  std::unique_ptr<Hardware> edu_;

 private:
  [[nodiscard]] std::span<std::byte> bytes() { return std::as_writable_bytes(std::span(bar_)); }
  Register<std::uint32_t>& word(std::size_t offset) {
    return *registers_at<Register<std::uint32_t>>(bytes(), offset).value();
  }
  std::vector<std::uint64_t> bar_;
};

TEST_F(EduHardware, SaysWhatItIs) {
  const HardwareInfo& info = edu_->info();
  EXPECT_EQ(info.vendor, 0x1234);
  EXPECT_EQ(info.device, 0x11e8);
  EXPECT_EQ(info.bars[0].size, 1U << 20);
  EXPECT_EQ(info.msi_vectors, 1U);
  EXPECT_EQ(read(0), 0x010000edU);
  EXPECT_EQ(read(0x60), ~0U) << "it can only be written";
  EXPECT_EQ(read(0x40000), ~0U) << "its memory is its DMA engine's alone";
}

TEST_F(EduHardware, InvertsWhatIsWrittenByTheFdAtOnce) {
  write(4, 0x12345678);
  EXPECT_EQ(read(4), ~0x12345678U);
  write(4, 0x12345678);
  EXPECT_EQ(read(4), ~0x12345678U) << "not twice";
}

TEST_F(EduHardware, InvertsWhatIsWrittenThroughAMappingWhenItLooks) {
  store(4, 0x12345678);
  EXPECT_EQ(read(4), 0x12345678U);
  settle();
  EXPECT_EQ(read(4), ~0x12345678U);
  EXPECT_FALSE(edu_->poll());
}

TEST_F(EduHardware, TakesFourBytesOrEightWhereItsRegistersHaveEight) {
  write(4, std::uint64_t{1});
  write(4, std::uint16_t{1});
  EXPECT_EQ(read(4), 0U);
  write(0x80, std::uint64_t{0x123456789a});
  EXPECT_EQ(read(0x80), 0x3456789aU);
  EXPECT_EQ(read(0x84), 0x12U);
  write(0x80, 1);
  EXPECT_EQ(read(0x84), 0U) << "the upper half goes";
}

TEST_F(EduHardware, ComputesAFactorialInTheBackground) {
  write(8, 5);
  EXPECT_EQ(read(0x20), 1U);
  EXPECT_EQ(read(8), 5U);
  write(8, 6);
  settle();
  EXPECT_EQ(read(0x20), 0U);
  EXPECT_EQ(read(8), 120U) << "what is written while it computes is not taken";
  EXPECT_FALSE(slot_.line) << "nobody wanted an interrupt";
  store(8, 0xffffffff);
  settle();
  EXPECT_EQ(read(8), 0U) << "of 32 bits";
  write(8, 0);
  settle();
  EXPECT_EQ(read(8), 1U);
}

TEST_F(EduHardware, InterruptsWhenAFactorialIsDoneWhereThatIsWanted) {
  write(0x20, 0xff);
  EXPECT_EQ(read(0x20), 0x80U);
  write(8, 3);
  settle();
  EXPECT_EQ(read(0x24), 1U);
  EXPECT_TRUE(slot_.line);
}

TEST_F(EduHardware, ItsLineIsUpUntilAllIsAcknowledged) {
  write(0x60, 0x11);
  EXPECT_TRUE(slot_.line);
  EXPECT_EQ(read(0x24), 0x11U);
  write(0x64, 0x10);
  EXPECT_TRUE(slot_.line);
  write(0x64, 0x01);
  EXPECT_FALSE(slot_.line);
  EXPECT_EQ(slot_.messages, 0);
}

TEST_F(EduHardware, SendsMessagesInsteadWhereTheyAreOn) {
  slot_.has_messages = true;
  write(0x60, 1);
  write(0x60, 1);
  EXPECT_EQ(slot_.messages, 2);
  EXPECT_FALSE(slot_.line);
}

TEST_F(EduHardware, RaisesAndAcknowledgesThroughAMappingToo) {
  store(0x60, 1);
  settle();
  EXPECT_TRUE(slot_.line);
  EXPECT_EQ(read(0x60), ~0U);
  store(0x64, 1);
  settle();
  EXPECT_FALSE(slot_.line);
}

TEST_F(EduHardware, CopiesFromMemoryAndBack) {
  for (std::size_t i = 0; i < 4096; ++i) slot_.memory[0x1000 + i] = static_cast<std::byte>(i * 7);
  copy(0x1000, 0x40000, 4096, 1);
  EXPECT_EQ(read(0x98), 1U) << "it runs";
  write(0x88, std::uint64_t{0x40800});
  settle();
  EXPECT_EQ(read(0x98), 0U);
  EXPECT_EQ(read(0x88), 0x40000U) << "what is written while it runs is not taken";
  copy(0x40100, 0x8000, 256, 3 | 4);
  settle();
  EXPECT_EQ(read(0x98), 6U);
  EXPECT_TRUE(std::equal(slot_.memory.begin() + 0x8000, slot_.memory.begin() + 0x8100, slot_.memory.begin() + 0x1100));
  EXPECT_EQ(slot_.memory[0x8100], std::byte{0});
  EXPECT_EQ(read(0x24), 0x100U);
  EXPECT_TRUE(slot_.line);
}

TEST_F(EduHardware, CopiesWhatAMappingAsksFor) {
  slot_.memory[0x2000] = std::byte{0x77};
  store(0x80, 0x2000);
  store(0x88, 0x40000);
  store(0x90, 1);
  store(0x98, 1);
  settle();
  EXPECT_EQ(read(0x98), 0U);
  copy(0x40000, 0x3000, 1, 3);
  settle();
  EXPECT_EQ(slot_.memory[0x3000], std::byte{0x77});
}

TEST_F(EduHardware, ReachesAddressesOf28BitsAlone) {
  slot_.memory[0x2000] = std::byte{0x55};
  copy(0xf0000000 | 0x2000, 0x40000, 1, 1);
  settle();
  copy(0x40000, 0x3000, 1, 3);
  settle();
  EXPECT_EQ(slot_.memory[0x3000], std::byte{0x55});
}

TEST_F(EduHardware, ACopyBeyondItsMemoryCopiesNothing) {
  slot_.memory[0x3000] = std::byte{0xee};
  for (const auto& [from, count] : {std::pair<std::uint64_t, std::uint64_t>{0x40ff0, 0x20},
                                    {0x3ffff, 2},
                                    {0x41001, 0},
                                    {0x40000, 4097},
                                    {0x40000, ~std::uint64_t{0}},
                                    {~std::uint64_t{0}, 2}}) {
    copy(from, 0x3000, count, 3);
    settle();
    EXPECT_EQ(read(0x98), 2U) << "it ends all the same";
    EXPECT_EQ(slot_.memory[0x3000], std::byte{0xee});
  }
}

TEST_F(EduHardware, AResetForgetsEverything) {
  write(4, 1);
  write(0x60, 1);
  copy(0x1000, 0x40000, 8, 1);
  edu_->reset();
  EXPECT_FALSE(slot_.line);
  for (const std::size_t offset : {0x04, 0x08, 0x20, 0x24, 0x80, 0x88, 0x90, 0x98}) EXPECT_EQ(read(offset), 0U);
  EXPECT_FALSE(edu_->poll());
}

}  // namespace edu_test
}  // namespace postern::sim
