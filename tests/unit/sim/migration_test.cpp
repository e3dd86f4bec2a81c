// SPDX-License-Identifier: Apache-2.0
// The simulated migratable device: which state its streams contain, and what it does during migration, according to
// linux/vfio.h (Linux 7.3). contract/migration_test.cpp has the behaviour common to all kernels.
#include <gtest/gtest.h>
#include <poll.h>

#include <array>
#include <cstring>
#include <memory>
#include <postern-sim/kernel.hpp>
#include <postern/deadline.hpp>
#include <postern/pci_function.hpp>

#include "support/raw_device.hpp"

namespace postern {
namespace migration_test {

using test::RawDevice;
using Bytes = std::vector<std::byte>;

constexpr std::uint32_t get = VFIO_DEVICE_FEATURE_GET;
constexpr std::uint32_t set = VFIO_DEVICE_FEATURE_SET;
constexpr std::uint32_t running = VFIO_DEVICE_STATE_RUNNING;
constexpr std::uint32_t stop = VFIO_DEVICE_STATE_STOP;
constexpr std::uint32_t stop_copy = VFIO_DEVICE_STATE_STOP_COPY;
constexpr std::uint32_t resuming = VFIO_DEVICE_STATE_RESUMING;
constexpr std::uint32_t running_p2p = VFIO_DEVICE_STATE_RUNNING_P2P;
constexpr std::uint32_t pre_copy = VFIO_DEVICE_STATE_PRE_COPY;

// Edu's registers.
constexpr std::uint64_t liveness = 0x04;
constexpr std::uint64_t interrupt_status = 0x24;
constexpr std::uint64_t raise_interrupt = 0x60;
constexpr std::uint64_t command = 0x98;
constexpr std::uint64_t buffer = 0x40000;

constexpr std::uint64_t page = 4096;

sim::HostFunction migratable(std::uint8_t device) {
  return {.address = {.device = device},
          .model = sim::HostFunction::Model::migratable_edu,
          .iommu_group = device,
          .driver = "edu-vfio-pci"};
}

class SimulatedMigration : public ::testing::Test {
 protected:
  static constexpr std::uint64_t length = 16 * page;
  static constexpr std::uint64_t iova = 0x100000;

  SimulatedMigration() : memory_(static_cast<std::byte*>(std::aligned_alloc(4096, length)), std::free) {
    std::memset(memory_.get(), 0, length);
    for (const RawDevice* device : {&source_, &target_}) {
      device->map(iova, memory_.get(), length);
      device->write(RawDevice::config + 4, std::uint16_t{6});  // enables memory and bus mastering
    }
  }
  [[nodiscard]] std::string cdev(std::uint8_t device) {
    return find_pci_function(kernel_, {.device = device}).value().host.cdev->path;
  }

  // Changes the state. Returns the fd of the new stream, or -1.
  static int move(const RawDevice& device, std::uint32_t to) {
    vfio_device_feature_mig_state state{.device_state = to, .data_fd = 77};
    EXPECT_EQ(device.feature(set | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, state), 0) << "to " << to;
    return state.data_fd;
  }
  Bytes read_all(int stream, ssize_t end = 0) {
    Bytes all;
    std::array<std::byte, 1000> piece{};
    ssize_t got = 0;
    while ((got = kernel_.read(stream, piece.data(), piece.size())) > 0) {
      all.insert(all.end(), piece.begin(), piece.begin() + got);
    }
    EXPECT_EQ(got, end);
    return all;
  }
  void write_all(int stream, const Bytes& bytes) {
    for (std::size_t at = 0; at < bytes.size(); at += 777) {
      const std::size_t part = std::min<std::size_t>(777, bytes.size() - at);
      ASSERT_EQ(kernel_.write(stream, bytes.data() + at, part), static_cast<ssize_t>(part));
    }
  }
  // Stops the device and returns its saved state.
  Bytes save(const RawDevice& device) {
    const int stream = move(device, stop_copy);
    Bytes state = read_all(stream);
    kernel_.close(stream);
    return state;
  }
  void load(const RawDevice& device, const Bytes& state) {
    const int stream = move(device, resuming);
    write_all(stream, state);
    kernel_.close(stream);
  }
  static void start_copy(const RawDevice& device, std::uint64_t from, std::uint64_t to, std::uint64_t count,
                         std::uint64_t flags) {
    device.write(0x80, from);
    device.write(0x88, to);
    device.write(0x90, count);
    device.write(command, flags | 1);
  }
  static bool waits_for_copy(const RawDevice& device, int milliseconds = 5000) {
    return poll_until(Deadline(std::chrono::milliseconds(milliseconds)), std::chrono::milliseconds(1),
                      [&] { return (device.read(command) & 1) == 0; });
  }
  vfio_precopy_info precopy_info(int stream, int expected = 0) {
    vfio_precopy_info info{.argsz = sizeof info, .flags = 99};
    EXPECT_EQ(kernel_.ioctl(stream, VFIO_MIG_GET_PRECOPY_INFO, &info), expected);
    return info;
  }

  sim::Kernel kernel_{{.functions = {migratable(1), migratable(2)}}};
  RawDevice source_{kernel_, cdev(1)};
  RawDevice target_{kernel_, cdev(2)};
  std::unique_ptr<std::byte, void (*)(void*)> memory_;
};

TEST_F(SimulatedMigration, RegistersBufferAndAPendingInterruptTravel) {
  for (std::size_t i = 0; i < 4096; ++i) memory_.get()[i] = static_cast<std::byte>(i * 3 + 1);
  start_copy(source_, iova, buffer, 4096, 0);
  ASSERT_TRUE(waits_for_copy(source_));
  source_.write(liveness, std::uint32_t{0x12345678});
  source_.write(raise_interrupt, std::uint32_t{0x40});
  const Bytes state = save(source_);
  vfio_device_feature_mig_data_size size{};
  EXPECT_EQ(source_.feature(get | VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, size), 0);
  EXPECT_EQ(size.stop_copy_length, state.size());

  const int event = kernel_.eventfd();
  std::array<std::uint32_t, 6> irqs{
      24, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, 0, 0, 1, static_cast<std::uint32_t>(event)};
  ASSERT_EQ(target_.ioctl(VFIO_DEVICE_SET_IRQS, irqs.data()), 0);
  load(target_, state);
  move(target_, stop);
  pollfd pending{.fd = event, .events = POLLIN};
  EXPECT_EQ(::poll(&pending, 1, 20), 0) << "not while it is stopped";
  move(target_, running);
  EXPECT_EQ(::poll(&pending, 1, 5000), 1);
  EXPECT_EQ(target_.read(liveness), ~0x12345678U);
  EXPECT_EQ(target_.read(interrupt_status), 0x40U);
  start_copy(target_, buffer, iova + 4096, 4096, 2);
  ASSERT_TRUE(waits_for_copy(target_));
  EXPECT_EQ(std::memcmp(memory_.get() + 4096, memory_.get(), 4096), 0);
  kernel_.close(event);
}

TEST_F(SimulatedMigration, BeforeItStopsItTellsWhatChanged) {
  const int stream = move(source_, pre_copy);
  const vfio_precopy_info first = precopy_info(stream);
  EXPECT_GT(first.initial_bytes, 4096U);
  EXPECT_EQ(first.dirty_bytes, 0U);
  EXPECT_EQ(first.flags, 99U) << "reserved, unless version 2 was asked for";
  Bytes state = read_all(stream, -ENOMSG);
  EXPECT_EQ(state.size(), first.initial_bytes);
  EXPECT_EQ(precopy_info(stream).initial_bytes, 0U);

  source_.write(liveness, std::uint32_t{1});
  EXPECT_GT(precopy_info(stream).dirty_bytes, 0U);
  const Bytes more = read_all(stream, -ENOMSG);
  EXPECT_FALSE(more.empty());
  state.insert(state.end(), more.begin(), more.end());
  EXPECT_EQ(precopy_info(stream).dirty_bytes, 0U);

  source_.write(liveness, std::uint32_t{2});
  EXPECT_EQ(move(source_, stop_copy), -1) << "it is the same stream";
  precopy_info(stream, -EINVAL);
  const Bytes last = read_all(stream);
  state.insert(state.end(), last.begin(), last.end());
  kernel_.close(stream);
  load(target_, state);
  move(target_, running);
  EXPECT_EQ(target_.read(liveness), ~2U);
}

TEST_F(SimulatedMigration, DoesNoDmaInP2pAndNothingWhenStopped) {
  move(source_, running_p2p);
  source_.write(liveness, std::uint32_t{5});
  EXPECT_EQ(source_.read(liveness), ~5U) << "its registers answer";
  start_copy(source_, buffer, iova, 8, 2 | 4);
  EXPECT_FALSE(waits_for_copy(source_, 20));
  move(source_, stop);
  source_.write(liveness, std::uint32_t{6});
  EXPECT_EQ(source_.read(liveness), ~5U);
  move(source_, running);
  EXPECT_TRUE(waits_for_copy(source_)) << "what was held back is done";
}

TEST_F(SimulatedMigration, VfioPciItselfCanDoNoneOfThat) {
  sim::HostFunction plain = migratable(1);
  plain.driver = "vfio-pci";
  sim::Kernel kernel({.functions = {plain}});
  const RawDevice device(kernel, find_pci_function(kernel, plain.address).value().host.cdev->path);
  for (const std::uint32_t feature : {VFIO_DEVICE_FEATURE_MIGRATION, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
                                      VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, VFIO_DEVICE_FEATURE_DMA_LOGGING_START}) {
    EXPECT_EQ(device.feature(VFIO_DEVICE_FEATURE_PROBE | feature), -ENOTTY);
  }
  EXPECT_EQ(device.feature(VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2), -EINVAL);
}

class SimulatedDmaLog : public SimulatedMigration {
 protected:
  using Range = vfio_device_feature_dma_logging_range;
  static int start(const RawDevice& device, const std::vector<Range>& ranges, std::uint64_t page_size = 4096) {
    vfio_device_feature_dma_logging_control control{.page_size = page_size,
                                                    .num_ranges = static_cast<std::uint32_t>(ranges.size()),
                                                    .ranges = reinterpret_cast<std::uintptr_t>(ranges.data())};
    const int result = device.feature(set | VFIO_DEVICE_FEATURE_DMA_LOGGING_START, control);
    EXPECT_EQ(control.page_size, result == 0 ? 4096U : page_size);
    return result;
  }
  std::uint64_t report(std::uint64_t at, std::uint64_t bytes, std::uint64_t page_size = 4096, int expected = 0) {
    std::uint64_t bits = 0;
    vfio_device_feature_dma_logging_report report{
        .iova = at, .length = bytes, .page_size = page_size, .bitmap = reinterpret_cast<std::uintptr_t>(&bits)};
    EXPECT_EQ(source_.feature(get | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, report), expected);
    return bits;
  }
  void write_to(std::uint64_t offset, std::uint64_t count) {
    start_copy(source_, buffer, iova + offset, count, 2);
    ASSERT_TRUE(waits_for_copy(source_));
  }
};

TEST_F(SimulatedDmaLog, MarksThePagesThatTheDeviceWroteAndForgetsWhatItTold) {
  ASSERT_EQ(start(source_, {{.iova = iova, .length = 8 * page}, {.iova = iova + 10 * page, .length = 4096}}), 0);
  EXPECT_EQ(report(iova, length), 0U);
  write_to(4096 + 100, 1);
  write_to(3 * page - 1, 2);
  write_to(9 * page, 16);
  write_to(10 * page, 4096);
  start_copy(source_, iova + 5 * page, buffer, 4096, 0);
  ASSERT_TRUE(waits_for_copy(source_));
  EXPECT_EQ(report(iova + 4096, 4096), 1U) << "a part of it";
  EXPECT_EQ(report(iova, length), 0b100'0000'1100U) << "neither what it read, nor what is outside of the ranges";
  EXPECT_EQ(report(iova, length), 0U);
  write_to(7 * page, 1);
  EXPECT_EQ(report(iova, length, 16384), 0b10U) << "in larger pages";
  EXPECT_EQ(source_.feature(set | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP), 0);
  report(iova, length, 4096, -EINVAL);
}

TEST_F(SimulatedDmaLog, WritesThatTheIommuBlocksCountToo) {
  ASSERT_EQ(start(source_, {{.iova = iova + length, .length = 4096}}), 0);
  write_to(length, 8);
  EXPECT_EQ(report(iova + length, 4096), 1U);
}

TEST_F(SimulatedDmaLog, IsStartedOnceAndReportedWhileItIsOn) {
  const Range good{.iova = iova, .length = 4096};
  report(iova, 4096, 4096, -EINVAL);
  EXPECT_EQ(start(source_, {good}), 0);
  EXPECT_EQ(start(source_, {good}), -EINVAL);
  report(iova, 4096);
}

}  // namespace migration_test
}  // namespace postern
