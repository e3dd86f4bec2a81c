// SPDX-License-Identifier: Apache-2.0
// The NVMe driver with DMA through a real kernel's IOMMU driver. Runs as root in a guest (guests/README.md) on its
// first NVMe, and compares with the data that the kernel's driver reads before and after.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <postern-nvme/controller.hpp>
#include <postern-sim/faults.hpp>
#include <postern/deadline.hpp>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "guest/x86_64/devices.hpp"

namespace postern {
namespace nvme_test {

using Bytes = std::vector<std::byte>;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds timeout(5);  // longer than any wait, however slow the guest

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t block_bytes = 512;

constexpr std::uint16_t pci_command = 4;  // in config space
constexpr std::uint16_t bus_master = 4;   // its bit

template <typename T>
std::string why(const Result<T>& result) {
  return result ? std::string() : result.error().message();
}

// The block device of the kernel's driver for this function; empty if there is none.
std::filesystem::path kernel_disk() {
  const auto function = "/sys/bus/pci/devices/" + to_string(test::nvme_disk) + "/nvme";
  std::error_code none;
  for (const auto& controller : std::filesystem::directory_iterator(function, none)) {
    for (const auto& entry : std::filesystem::directory_iterator(controller.path(), none)) {
      const std::string name = entry.path().filename();
      std::filesystem::path node = "/dev/" + name;
      if (name.starts_with("nvme") && std::filesystem::is_block_file(node, none)) return node;
    }
  }
  return {};
}

Bytes read_kernel_disk() {
  // The nodes appear shortly after the driver is bound.
  const auto is_there = [] { return !kernel_disk().empty(); };
  if (!poll_until(Deadline(std::chrono::seconds(5)), std::chrono::milliseconds(50), is_there)) return {};
  std::ifstream disk(kernel_disk(), std::ios::binary);
  disk.seekg(0, std::ios::end);
  Bytes bytes(disk.good() ? static_cast<std::size_t>(disk.tellg()) : 0);
  disk.seekg(0);
  disk.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return disk.good() ? bytes : Bytes();
}

// A device in its own container, with memory for data. The destructor releases all of it.
struct Machine {
  static Result<std::unique_ptr<Machine>> make(Kernel& kernel, PciAddress address, const char* backend) {
    auto function = POSTERN_TRY(find_pci_function(kernel, address));
    auto device = POSTERN_TRY(attach(kernel, function.host, {.backend = backend}));
    auto pci = POSTERN_TRY(PciDevice::open(std::move(device)));
    return std::make_unique<Machine>(std::move(pci));
  }
  explicit Machine(PciDevice device)
      : pci(std::move(device)),
        allocator(pci.device().container()->usable_ranges(), pci.device().container()->page_sizes()) {}

  Result<DmaBuffer> allocate(std::uint64_t length) {
    return DmaBuffer::allocate(pci.device().container(), allocator, length);
  }

  PciDevice pci;
  IovaAllocator allocator;
};

class Nvme : public ::testing::TestWithParam<const char*> {
 protected:
  static void SetUpTestSuite() {
    disk = read_kernel_disk();
    ASSERT_FALSE(disk.empty()) << "the kernel's driver shows no disk at " << to_string(test::nvme_disk);
    bound.emplace(test::nvme_disk);
  }
  static void TearDownTestSuite() {
    bound.reset();
    // The kernel's driver reads what the tests have written.
    EXPECT_TRUE(read_kernel_disk() == disk) << "the kernel's driver reads something else than was written";
  }

  void SetUp() override {
    auto made = Machine::make(kernel, test::nvme_disk, GetParam());
    ASSERT_TRUE(made) << why(made);
    machine = std::move(*made);
  }

  Result<nvme::Controller> open(nvme::Options options = {}) {
    return nvme::Controller::open(machine->pci, machine->allocator, options);
  }

  // Reads the whole namespace into `bytes`, with `depth` commands of `length` bytes in flight.
  void read_all(nvme::Controller& controller, unsigned depth, std::uint32_t length, Bytes& bytes) {
    const nvme::Namespace ns = controller.namespaces().front();
    const std::uint32_t count = length / ns.block_size;
    auto buffer = machine->allocate(std::uint64_t{depth} * length);
    ASSERT_TRUE(buffer) << why(buffer);
    bytes.assign(ns.blocks * ns.block_size, std::byte{0});

    struct Place {
      unsigned slot;
      std::uint64_t block;
    };
    std::map<std::uint16_t, Place> under_way;
    std::vector<unsigned> free_slots;
    for (unsigned slot = 0; slot < depth; ++slot) free_slots.push_back(slot);
    std::uint64_t next = 0;
    while (next < ns.blocks || !under_way.empty()) {
      while (next < ns.blocks && !free_slots.empty()) {
        const unsigned slot = free_slots.back();
        auto id = controller.submit_read(ns, next, count, buffer->iova() + std::uint64_t{slot} * length);
        ASSERT_TRUE(id) << why(id);
        ASSERT_TRUE(under_way.emplace(*id, Place{slot, next}).second) << "id " << *id << " is under way already";
        free_slots.pop_back();
        next += count;
      }
      const auto begin = Clock::now();
      auto done = controller.wait();
      ASSERT_TRUE(done) << why(done);
      ASSERT_LT(Clock::now() - begin, timeout)
          << "found at the end of the time-out: what should have told of it did not";
      ASSERT_EQ(done->status, 0) << nvme::status_text(done->status);
      const auto found = under_way.find(done->command);
      ASSERT_NE(found, under_way.end());
      const auto [slot, block] = found->second;
      std::memcpy(bytes.data() + block * ns.block_size, buffer->data() + std::size_t{slot} * length, length);
      under_way.erase(found);
      free_slots.push_back(slot);
    }
  }

  static inline Bytes disk;  // the disk's contents: as read by the kernel, updated by the tests
  static inline std::optional<test::Bound> bound;
  sim::FailingKernel kernel{system_kernel()};  // fails no call unless a test asks for it
  std::unique_ptr<Machine> machine;
};

INSTANTIATE_TEST_SUITE_P(Backends, Nvme, ::testing::Values("type1", "iommufd"),
                         [](const auto& test) { return std::string(test.param); });

TEST_P(Nvme, IdentifyTellsWhatTheDeviceIs) {
  auto controller = open({.queue_depth = 16});
  ASSERT_TRUE(controller) << why(controller);
  EXPECT_EQ(controller->info().model, "QEMU NVMe Ctrl");
  EXPECT_EQ(controller->info().serial, "first");
  EXPECT_GE(controller->info().version, 0x00010400U);
  EXPECT_EQ(controller->info().queue_depth, 16);
  EXPECT_EQ(controller->info().max_transfer, 512U * 1024) << "QEMU's MDTS is 7";
  ASSERT_EQ(controller->namespaces().size(), 1U);
  EXPECT_EQ(controller->namespaces()[0].id, 1U);
  EXPECT_EQ(controller->namespaces()[0].block_size, block_bytes);
  EXPECT_EQ(controller->namespaces()[0].blocks * block_bytes, disk.size());
}

TEST_P(Nvme, AtDepths32And1TheWholeDiskIsWhatTheKernelReads) {
  auto controller = open();
  ASSERT_TRUE(controller) << why(controller);
  Bytes deep;
  Bytes shallow;
  ASSERT_NO_FATAL_FAILURE(read_all(*controller, 32, 16384, deep));
  EXPECT_TRUE(deep == disk);
  ASSERT_NO_FATAL_FAILURE(read_all(*controller, 1, 128 * 1024, shallow));
  EXPECT_TRUE(shallow == deep);
}

TEST_P(Nvme, ByInterruptsTooTheWholeDiskIsWhatTheKernelReads) {
  auto controller = open({.completion = nvme::Completion::msix, .timeout = timeout});
  ASSERT_TRUE(controller) << why(controller);
  Bytes bytes;
  ASSERT_NO_FATAL_FAILURE(read_all(*controller, 32, 65536, bytes));
  EXPECT_TRUE(bytes == disk);
  ASSERT_NO_FATAL_FAILURE(read_all(*controller, 1, 512 * 1024, bytes));
  EXPECT_TRUE(bytes == disk);
}

TEST_P(Nvme, DataMayBeginAtAnyMultipleOf4AndReachTheMostBytes) {
  auto controller = open();
  ASSERT_TRUE(controller) << why(controller);
  const nvme::Namespace ns = controller->namespaces().front();
  const std::uint64_t most = controller->info().max_transfer;
  auto buffer = machine->allocate(most + 2 * page);
  ASSERT_TRUE(buffer) << why(buffer);
  for (const std::uint64_t length : {block_bytes, page, 2 * page, most}) {
    for (const std::uint64_t offset : {0U, 4U, 0xe00U, 0xffcU, 0x1000U}) {
      std::memset(buffer->data(), 0x5a, buffer->size());
      auto done = controller->read(ns, 24, static_cast<std::uint32_t>(length / block_bytes), buffer->iova() + offset);
      ASSERT_TRUE(done) << why(done);
      EXPECT_EQ(std::memcmp(buffer->data() + offset, disk.data() + 24 * block_bytes, length), 0)
          << length << " at " << offset;
      const auto untouched = [](std::byte value) { return value == std::byte{0x5a}; };
      EXPECT_TRUE(std::all_of(buffer->data(), buffer->data() + offset, untouched));
      EXPECT_TRUE(std::all_of(buffer->data() + offset + length, buffer->data() + buffer->size(), untouched));
    }
  }
}

TEST_P(Nvme, WrittenBlocksAreReadBackAfterAFlush) {
  auto controller = open();
  ASSERT_TRUE(controller) << why(controller);
  const nvme::Namespace ns = controller->namespaces().front();
  constexpr std::uint32_t count = 300;  // more than two pages, not a whole number of pages
  constexpr std::uint64_t length = count * block_bytes;
  constexpr std::uint64_t block = 4001;
  Bytes pattern(length);
  for (std::size_t i = 0; i < length; ++i) {
    pattern[i] = static_cast<std::byte>(i * 31 + (i >> 8) + static_cast<unsigned char>(GetParam()[0]));
  }
  auto buffer = machine->allocate(2 * length);
  ASSERT_TRUE(buffer) << why(buffer);
  std::copy(pattern.begin(), pattern.end(), buffer->data());
  auto done = controller->write(ns, block, count, buffer->iova());
  ASSERT_TRUE(done) << why(done);
  std::copy(pattern.begin(), pattern.end(), disk.data() + block * block_bytes);
  done = controller->flush(ns);
  ASSERT_TRUE(done) << why(done);
  done = controller->read(ns, block, count, buffer->iova() + length);
  ASSERT_TRUE(done) << why(done);
  EXPECT_EQ(std::memcmp(pattern.data(), buffer->data() + length, length), 0);

  // The neighbouring blocks are unchanged.
  done = controller->read(ns, block - 1, count + 2, buffer->iova());
  ASSERT_TRUE(done) << why(done);
  EXPECT_EQ(std::memcmp(buffer->data(), disk.data() + (block - 1) * block_bytes, (count + 2) * block_bytes), 0);
}

TEST_P(Nvme, ReadingPastTheEndFailsWithTheControllersWords) {
  auto controller = open();
  ASSERT_TRUE(controller) << why(controller);
  const nvme::Namespace ns = controller->namespaces().front();
  auto buffer = machine->allocate(page);
  ASSERT_TRUE(buffer) << why(buffer);
  auto done = controller->read(ns, ns.blocks - 4, 8, buffer->iova());
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code(), EIO);
  EXPECT_EQ(done.error().message(),
            "0000:00:01.0 namespace 1 blocks 131068-131075: NVMe Read: EIO: LBA out of range (0x080); "
            "the namespace has 131072 blocks");
  done = controller->read(ns, ns.blocks - 8, 8, buffer->iova());
  EXPECT_TRUE(done) << why(done);
}

TEST_P(Nvme, WhatCannotBeACommandIsRefusedBeforeTheControllerSeesIt) {
  auto controller = open();
  ASSERT_TRUE(controller) << why(controller);
  const nvme::Namespace ns = controller->namespaces().front();
  const auto too_long = static_cast<std::uint32_t>(controller->info().max_transfer / ns.block_size) + 1;
  auto buffer = machine->allocate(controller->info().max_transfer + page);
  ASSERT_TRUE(buffer) << why(buffer);
  EXPECT_EQ(controller->read(ns, 0, 0, buffer->iova()).error().code(), EINVAL);
  EXPECT_EQ(controller->read(ns, 0, too_long, buffer->iova()).error().code(), EINVAL);
  EXPECT_EQ(controller->read(ns, 0, 8, buffer->iova() + 2).error().code(), EINVAL);
  EXPECT_EQ(controller->submit_read(ns, 0, 0, buffer->iova()).error().code(), EINVAL);
  EXPECT_EQ(controller->submit_read(ns, 0, 0, buffer->iova() + 0x200).error().code(), EINVAL);
  EXPECT_EQ(controller->submit_read(ns, 0, 8, buffer->iova() + 1).error().code(), EINVAL);
  EXPECT_EQ(controller->submit_read(ns, 0, 16, {~std::uint64_t{0} - 0xfff}).error().code(), EINVAL);
  EXPECT_FALSE(controller->poll());
  EXPECT_EQ(controller->wait().error().code(), EINVAL);
  EXPECT_TRUE(controller->read(ns, 0, too_long - 1, buffer->iova()));
}

TEST_P(Nvme, AFullQueueSaysEagainAndTakesMoreOnceReaped) {
  auto controller = open({.queue_depth = 8});
  ASSERT_TRUE(controller) << why(controller);
  const nvme::Namespace ns = controller->namespaces().front();
  auto buffer = machine->allocate(8 * page);
  ASSERT_TRUE(buffer) << why(buffer);
  std::set<std::uint16_t> ids;
  for (std::uint64_t i = 0; i < 7; ++i) {
    auto id = controller->submit_read(ns, i * 8, 8, buffer->iova() + i * page);
    ASSERT_TRUE(id) << why(id);
    EXPECT_LT(*id, 7);
    ids.insert(*id);
  }
  EXPECT_EQ(ids.size(), 7U);
  EXPECT_EQ(controller->submit_read(ns, 0, 8, buffer->iova() + 7 * page).error().code(), EAGAIN);
  EXPECT_EQ(controller->read(ns, 0, 8, buffer->iova() + 7 * page).error().code(), EBUSY);
  EXPECT_EQ(controller->flush(ns).error().code(), EBUSY);
  auto done = controller->wait();
  ASSERT_TRUE(done) << why(done);
  EXPECT_EQ(*controller->submit_read(ns, 0, 8, buffer->iova() + 7 * page), done->command);
  for (int i = 0; i < 7; ++i) {
    done = controller->wait();
    ASSERT_TRUE(done) << why(done);
    EXPECT_EQ(done->status, 0);
  }
  EXPECT_FALSE(controller->poll());
}

TEST_P(Nvme, TheSmallestQueueWorks) {
  auto controller = open({.queue_depth = 1});
  ASSERT_TRUE(controller) << why(controller);
  EXPECT_EQ(controller->info().queue_depth, 2);
  auto buffer = machine->allocate(page);
  ASSERT_TRUE(buffer) << why(buffer);
  for (std::uint64_t i = 0; i < 9; ++i) {
    auto done = controller->read(controller->namespaces().front(), 8 * i, 8, buffer->iova());
    ASSERT_TRUE(done) << why(done);
    EXPECT_EQ(std::memcmp(buffer->data(), disk.data() + page * i, page), 0);
  }
}

TEST_P(Nvme, NoAnswerInTimeStopsTheControllerAndLeavesNothingBehind) {
  const auto container = machine->pci.device().container();
  const std::size_t mappings = container->mapping_count();
  const std::uint64_t free_before = machine->allocator.bytes_free();
  {
    auto controller = open({.timeout = std::chrono::milliseconds(300)});
    ASSERT_TRUE(controller) << why(controller);
    const nvme::Namespace ns = controller->namespaces().front();
    auto buffer = machine->allocate(page);
    ASSERT_TRUE(buffer) << why(buffer);

    auto off = machine->pci.disable_bus_master();  // the controller cannot fetch the command any more
    ASSERT_TRUE(off) << why(off);
    const auto begin = Clock::now();
    auto done = controller->read(ns, 0, 8, buffer->iova());
    ASSERT_FALSE(done);
    // QEMU's controller reports a fatal error (CSTS.CFS) if it cannot fetch a command.
    EXPECT_TRUE(done.error().code() == EIO || done.error().code() == ETIMEDOUT) << why(done);
    EXPECT_EQ(done.error().object(), "0000:00:01.0 namespace 1 blocks 0-7");
    EXPECT_EQ(done.error().operation(), "NVMe Read");
    EXPECT_GE(Clock::now() - begin, std::chrono::milliseconds(300));

    EXPECT_EQ(controller->read(ns, 0, 8, buffer->iova()).error().code(), ESHUTDOWN);
    EXPECT_EQ(controller->submit_write(ns, 0, 8, buffer->iova()).error().code(), ESHUTDOWN);
    EXPECT_EQ(controller->flush(ns).error().code(), ESHUTDOWN);
    EXPECT_EQ(controller->wait().error().code(), ESHUTDOWN);
    EXPECT_FALSE(controller->poll());
  }
  EXPECT_EQ(container->mapping_count(), mappings);
  EXPECT_EQ(machine->allocator.bytes_free(), free_before);

  auto again = open();
  ASSERT_TRUE(again) << why(again);
  auto buffer = machine->allocate(page);
  ASSERT_TRUE(buffer) << why(buffer);
  auto done = again->read(again->namespaces().front(), 0, 8, buffer->iova());
  ASSERT_TRUE(done) << why(done);
  EXPECT_EQ(std::memcmp(buffer->data(), disk.data(), page), 0);
}

TEST_P(Nvme, LettingItGoMidwayStopsTheControllerBeforeItsMemoryGoes) {
  const auto container = machine->pci.device().container();
  const std::size_t mappings = container->mapping_count();
  for (int round = 0; round < 5; ++round) {
    auto controller = open();
    ASSERT_TRUE(controller) << why(controller);
    const nvme::Namespace ns = controller->namespaces().front();
    auto buffer = machine->allocate(63 * page);
    ASSERT_TRUE(buffer) << why(buffer);
    for (std::uint64_t i = 0; i < 63; ++i) {
      ASSERT_TRUE(controller->submit_read(ns, i * 8, 8, buffer->iova() + i * page));
    }
    nvme::Controller taken = std::move(*controller);
    { nvme::Controller gone = std::move(taken); }
    std::memset(buffer->data(), 0x77, buffer->size());
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_TRUE(std::all_of(buffer->data(), buffer->data() + buffer->size(), [](std::byte value) {
      return value == std::byte{0x77};
    })) << "the controller wrote after it was stopped";
  }
  EXPECT_EQ(container->mapping_count(), mappings);
}

TEST_P(Nvme, WhatIsNotMappedIsNotReached) {
  auto controller = open();
  ASSERT_TRUE(controller) << why(controller);
  const nvme::Namespace ns = controller->namespaces().front();
  // Memory that was mapped for the device and no longer is.
  Bytes memory(8 * page);
  std::byte* target = memory.data() + (page - reinterpret_cast<std::uintptr_t>(memory.data()) % page) % page;
  const auto container = machine->pci.device().container();
  auto iova = machine->allocator.allocate(page);
  ASSERT_TRUE(iova) << why(iova);
  auto mapped = container->map(*iova, {target, page});
  ASSERT_TRUE(mapped) << why(mapped);
  auto done = controller->read(ns, 0, 8, *iova);
  ASSERT_TRUE(done) << why(done);
  EXPECT_EQ(std::memcmp(target, disk.data(), page), 0);
  auto unmapped = container->unmap(*iova, page);
  ASSERT_TRUE(unmapped) << why(unmapped);
  std::memset(target, 0x33, page);

  // The controller may report success (QEMU's does), so check the memory.
  auto id = controller->submit_read(ns, 0, 8, *iova);
  ASSERT_TRUE(id) << why(id);
  auto completed = controller->wait();
  ASSERT_TRUE(completed) << why(completed);
  EXPECT_TRUE(std::all_of(target, target + page, [](std::byte value) { return value == std::byte{0x33}; }));

  // The blocking calls check the mapping first, so that such a read never looks like a success.
  done = controller->read(ns, 0, 8, *iova);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code(), EFAULT);
  done = controller->write(ns, 0, 8, *iova);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code(), EFAULT);

  // One mapped page is not enough for two, and a page mapped for reading does not receive data.
  mapped = container->map(*iova, {target, page}, Access::read);
  ASSERT_TRUE(mapped) << why(mapped);
  EXPECT_EQ(controller->read(ns, 0, 8, *iova).error().code(), EFAULT);
  EXPECT_EQ(controller->write(ns, 0, 16, *iova).error().code(), EFAULT);
  id = controller->submit_read(ns, 0, 8, *iova);
  ASSERT_TRUE(id) << why(id);
  completed = controller->wait();
  ASSERT_TRUE(completed) << why(completed);
  EXPECT_TRUE(std::all_of(target, target + page, [](std::byte value) { return value == std::byte{0x33}; }));
  ASSERT_TRUE(container->unmap(*iova, page));

  // The controller still works.
  auto buffer = machine->allocate(page);
  ASSERT_TRUE(buffer) << why(buffer);
  done = controller->read(ns, 0, 8, buffer->iova());
  ASSERT_TRUE(done) << why(done);
  EXPECT_EQ(std::memcmp(buffer->data(), disk.data(), page), 0);
}

TEST_P(Nvme, ADeviceThatIsNotAnNvmeIsRefusedAndLeftAlone) {
  const test::Bound edu(test::edu);
  auto other = Machine::make(system_kernel(), test::edu, GetParam());
  ASSERT_TRUE(other) << why(other);
  auto controller = nvme::Controller::open((*other)->pci, (*other)->allocator);
  ASSERT_FALSE(controller);
  EXPECT_EQ(controller.error().code(), ENODEV);
  EXPECT_EQ(*(*other)->pci.read_config<std::uint16_t>(pci_command) & bus_master, 0);
}

TEST_P(Nvme, AnOpenThatFailsAtAnyKernelCallLeavesNothingBehind) {
  const auto container = machine->pci.device().container();
  const std::size_t mappings = container->mapping_count();
  const std::uint64_t free_iovas = machine->allocator.bytes_free();
  const test::ResourceUse resources = test::ResourceUse::now();

  int calls = 0;
  for (bool failed = true; failed; ++calls) {
    kernel.fail_call(calls, EIO);
    {
      auto controller = open({.completion = nvme::Completion::msix});
      failed = kernel.failed();
      kernel.fail_call(-1, 0);
      EXPECT_EQ(controller.has_value(), !failed) << "call " << calls << ": " << why(controller);
    }
    EXPECT_EQ(container->mapping_count(), mappings) << "call " << calls;
    EXPECT_EQ(machine->allocator.bytes_free(), free_iovas) << "call " << calls;
    ASSERT_TRUE(test::ResourceUse::now() == resources) << "call " << calls;
    EXPECT_EQ(*machine->pci.read_config<std::uint16_t>(pci_command) & bus_master, 0) << "call " << calls;
  }
  EXPECT_GT(calls, 8);
  RecordProperty("calls", calls);
}

}  // namespace nvme_test
}  // namespace postern
