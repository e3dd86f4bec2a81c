// SPDX-License-Identifier: Apache-2.0
// Batches of commands on a simulated controller: a batch is submitted as a whole or not at all.
#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>
#include <postern/deadline.hpp>
#include <set>
#include <span>
#include <thread>
#include <vector>

#include "support/lying_disk.hpp"

namespace postern::nvme {
namespace controller_test {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

constexpr std::uint64_t page = 4096;
constexpr std::uint16_t untouched = 0xffff;

template <typename T>
std::string why(const Result<T>& result) {
  return result ? std::string() : result.error().message();
}

class Batch : public testing::Test {
 protected:
  Batch() {
    disk.lies.fate = [this](const test::NvmeCommand& command) {
      ++fetched;
      return command.block == bad_block ? test::NvmeFate{.status = 0x281} : test::NvmeFate{};
    };
    disk.lies.after = [this](const test::NvmeCommand& /*command*/, const test::NvmeFate& /*fate*/) { ++answered; };
  }
  void open(Options options = {}) {
    disk.attach();
    controller.emplace(test::LyingDisk::must(disk.open(options)));
    ns = controller->namespaces().at(0);
    fetched = 0;
    answered = 0;
  }
  // Reads of one block into each page of a buffer.
  static std::vector<Command> reads(const DmaBuffer& buffer, std::size_t count) {
    std::vector<Command> commands;
    for (std::uint64_t i = 0; i < count; ++i) {
      commands.push_back(
          {.opcode = Opcode::read, .count = 1, .block = i, .data = buffer.iova() + i * page, .id = untouched});
    }
    return commands;
  }
  [[nodiscard]] bool has_answered(int commands) {
    return poll_until(Deadline(10s), 1ms, [&] { return answered >= commands; });
  }
  // Waits for this many commands, which must succeed.
  void finish(std::size_t commands) {
    for (std::size_t i = 0; i < commands; ++i) {
      const auto done = controller->wait();
      ASSERT_TRUE(done) << why(done);
      EXPECT_EQ(done->status, 0) << status_text(done->status);
    }
  }
  // Checks that no command is in flight, and that the queue still accepts `most` commands.
  void expect_whole(std::size_t most) {
    EXPECT_EQ(controller->wait().error().code(), EINVAL) << "something was submitted";
    const DmaBuffer buffer = disk.buffer(most * page);
    auto commands = reads(buffer, most);
    const auto submitted = controller->submit(ns, commands);
    ASSERT_TRUE(submitted) << why(submitted);
    std::set<std::uint16_t> ids;
    for (const Command& command : commands) ids.insert(command.id);
    EXPECT_EQ(ids.size(), most);
    EXPECT_LT(*ids.rbegin(), most);
    finish(most);
  }

  test::LyingDisk disk;
  std::optional<Controller> controller;
  Namespace ns;
  std::atomic<int> fetched = 0;   // commands of the I/O queue
  std::atomic<int> answered = 0;  // completions of them
  std::atomic<std::uint64_t> bad_block = ~std::uint64_t{0};
};

TEST_F(Batch, ReadsWhatSingleCommandsRead) {
  open();
  const DmaBuffer singly = disk.buffer(16 * page);
  const DmaBuffer together = disk.buffer(16 * page);
  // Data within a page, from its middle, across two pages, and across three, which needs a list.
  struct Piece {
    std::uint64_t offset;
    std::uint32_t count;
  };
  const std::vector<Piece> pieces{{0, 8}, {page + 512, 1}, {2 * page, 16}, {4 * page, 24}, {8 * page + 1024, 40}};
  std::vector<Command> commands;
  std::uint64_t block = 3;
  for (const Piece& piece : pieces) {
    ASSERT_TRUE(controller->read(ns, block, piece.count, singly.iova() + piece.offset));
    commands.push_back({.count = piece.count, .block = block, .data = together.iova() + piece.offset});
    block += 100;
  }
  const auto submitted = controller->submit(ns, commands);
  ASSERT_TRUE(submitted) << why(submitted);
  finish(commands.size());
  EXPECT_EQ(std::memcmp(singly.data(), together.data(), singly.size()), 0);
  EXPECT_NE(std::count(together.data(), together.data() + page, std::byte{0}), static_cast<std::ptrdiff_t>(page));
}

TEST_F(Batch, IsReapedWithTheStatusOfEach) {
  bad_block = 3;
  open();
  const DmaBuffer buffer = disk.buffer(8 * page);
  auto commands = reads(buffer, 8);
  ASSERT_TRUE(controller->submit(ns, commands));
  ASSERT_TRUE(has_answered(8));
  std::array<Completed, 16> space;
  std::size_t reaped = 0;
  // The last completion is written shortly after it is counted.
  EXPECT_TRUE(poll_until(Deadline(10s), 1ms, [&] {
    for (const Completed& done : controller->reap(space)) {
      ++reaped;
      const auto of = std::find_if(commands.begin(), commands.end(),
                                   [&](const Command& command) { return command.id == done.command; });
      if (of == commands.end()) {
        ADD_FAILURE() << "nobody submitted command " << done.command;
      } else {
        EXPECT_EQ(done.status, of->block == 3 ? 0x281 : 0) << "block " << of->block;
      }
    }
    return reaped == commands.size();
  }));
  EXPECT_TRUE(controller->reap(space).empty());
}

// The controller's doorbell is rung although reap() never finds the queue empty.
TEST_F(Batch, ThatIsReapedToTheLastOneDoesNotStallTheNext) {
  open({.queue_depth = 64});
  const DmaBuffer buffer = disk.buffer(32 * page);
  std::array<Completed, 32> space;
  for (int round = 1; round <= 20; ++round) {
    auto commands = reads(buffer, space.size());
    ASSERT_TRUE(controller->submit(ns, commands));
    ASSERT_TRUE(has_answered(32 * round)) << "round " << round << ": " << answered << " answers";
    std::this_thread::sleep_for(5ms);
    ASSERT_EQ(controller->reap(space).size(), space.size()) << "round " << round;
  }
}

TEST_F(Batch, LargerThanTheQueueIsRefusedWhole) {
  open({.queue_depth = 8});
  const DmaBuffer buffer = disk.buffer(8 * page);
  auto commands = reads(buffer, 8);
  const auto refused = controller->submit(ns, commands);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EINVAL);
  EXPECT_THAT(refused.error().message(), HasSubstr("the queue holds 7 commands at most"));
  for (const Command& command : commands) EXPECT_EQ(command.id, untouched);
  expect_whole(7);
  EXPECT_EQ(fetched, 7);
}

TEST_F(Batch, LargerThanTheRoomLeftIsRefusedWholeUntilSomeAreReaped) {
  open({.queue_depth = 8});
  const DmaBuffer buffer = disk.buffer(8 * page);
  auto first = reads(buffer, 3);
  auto second = reads(buffer, 5);
  ASSERT_TRUE(controller->submit(ns, first));
  const auto refused = controller->submit(ns, second);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EAGAIN);
  EXPECT_THAT(refused.error().message(), HasSubstr("3 commands are in flight, and the queue holds 7 at most"));
  finish(1);
  EXPECT_TRUE(controller->submit(ns, second));
  finish(7);
  expect_whole(7);
  EXPECT_EQ(fetched, 3 + 5 + 7);
}

TEST_F(Batch, WithOneWrongCommandIsRefusedWhole) {
  open({.queue_depth = 8});
  const DmaBuffer buffer = disk.buffer(8 * page);
  const auto too_long = static_cast<std::uint32_t>(controller->info().max_transfer / ns.block_size) + 1;
  const std::vector<Command> wrong{
      {.count = 0, .data = buffer.iova()},
      {.count = too_long, .data = buffer.iova()},
      {.count = 1, .data = buffer.iova() + 2},
      {.count = 16, .data = {~std::uint64_t{0} - 0xfff}},
      {.opcode = static_cast<Opcode>(0x08), .count = 1, .data = buffer.iova()},  // Write Zeroes
  };
  for (const Command& each : wrong) {
    for (const std::size_t at : {0, 3, 6}) {
      auto commands = reads(buffer, 7);
      commands[at] = each;
      const auto refused = controller->submit(ns, commands);
      ASSERT_FALSE(refused);
      EXPECT_EQ(refused.error().code(), EINVAL) << why(refused);
    }
  }
  EXPECT_EQ(controller->submit_read(ns, 0, 1, buffer.iova() + 2).error().code(), EINVAL);
  expect_whole(7);
  EXPECT_EQ(fetched, 7);
}

TEST_F(Batch, MayWriteAndFlush) {
  open();
  const DmaBuffer buffer = disk.buffer(4 * page);
  std::fill_n(buffer.data(), 2 * page, std::byte{0x5a});
  std::vector<Command> commands{
      {.opcode = Opcode::write, .count = 8, .block = 40, .data = buffer.iova()},
      {.opcode = Opcode::flush},
      {.opcode = Opcode::write, .count = 8, .block = 48, .data = buffer.iova() + page},
  };
  ASSERT_TRUE(controller->submit(ns, commands));
  finish(3);
  ASSERT_TRUE(controller->read(ns, 40, 16, buffer.iova() + 2 * page));
  EXPECT_EQ(std::memcmp(buffer.data(), buffer.data() + 2 * page, 2 * page), 0);
}

TEST_F(Batch, OfNothingIsNoCommand) {
  open();
  EXPECT_TRUE(controller->submit(ns, {}));
  EXPECT_TRUE(controller->reap({}).empty());
  expect_whole(63);
}

TEST_F(Batch, CompletesByInterruptsToo) {
  open({.completion = Completion::msix});
  const DmaBuffer buffer = disk.buffer(32 * page);
  auto commands = reads(buffer, 32);
  for (int round = 0; round < 5; ++round) {
    ASSERT_TRUE(controller->submit(ns, commands));
    finish(32);
  }
  EXPECT_GE(controller->interrupts(), 1U);
}

TEST_F(Batch, IsRefusedByAControllerThatWasStopped) {
  open({.timeout = 200ms});
  const DmaBuffer buffer = disk.buffer(8 * page);
  auto commands = reads(buffer, 8);
  disk.lies.holds_io = true;
  ASSERT_TRUE(controller->submit(ns, commands));
  EXPECT_EQ(controller->wait().error().code(), ETIMEDOUT);
  EXPECT_EQ(controller->submit(ns, commands).error().code(), ESHUTDOWN);
  EXPECT_EQ(controller->submit(ns, std::span(commands).first(1)).error().code(), ESHUTDOWN);
  EXPECT_EQ(controller->submit(ns, {}).error().code(), ESHUTDOWN);
  std::array<Completed, 8> space;
  EXPECT_TRUE(controller->reap(space).empty());
}

}  // namespace controller_test
}  // namespace postern::nvme
