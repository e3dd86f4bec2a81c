// SPDX-License-Identifier: Apache-2.0
// A queue pair in plain memory, with the test as the controller.
#include "nvme/queue.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <deque>
#include <set>
#include <vector>

namespace postern::nvme {
namespace queue_test {

// Fetches commands from the submission queue and completes them in the order that the test chooses.
class FakeController {
 public:
  explicit FakeController(std::size_t entries)
      : submissions_(entries), completions_(entries), memory_{submissions_, completions_} {}

  QueuePair queue() { return QueuePair(memory_, {.submission = &doorbells_[0], .completion = &doorbells_[1]}); }

  [[nodiscard]] std::uint32_t submission_doorbell() const { return doorbells_[0].read(); }
  [[nodiscard]] std::uint32_t completion_doorbell() const { return doorbells_[1].read(); }
  // Whether there is room for another completion: one entry stays free.
  [[nodiscard]] bool has_room() const { return (posted_ + 1) % completions_.size() != completion_doorbell(); }

  // Fetches the submitted commands, and returns their ids in order.
  std::vector<std::uint16_t> fetch() {
    std::vector<std::uint16_t> ids;
    for (; fetched_ != submission_doorbell(); fetched_ = (fetched_ + 1) % submissions_.size()) {
      ids.push_back(static_cast<std::uint16_t>(submissions_[fetched_].dwords_0_1 >> 16));
    }
    return ids;
  }
  void answer(std::uint16_t id, std::uint16_t status = 0, std::uint32_t result = 0) {
    completions_[posted_].result = result;
    completions_[posted_].outcome = std::uint32_t{status} << 17 | phase_ << 16 | id;
    if (++posted_ == completions_.size()) {
      posted_ = 0;
      phase_ ^= 1;
    }
  }

 private:
  std::vector<SubmissionEntry> submissions_;
  std::vector<CompletionEntry> completions_;
  std::array<Doorbell, 2> doorbells_{};
  QueuePair::Memory memory_;
  std::size_t fetched_ = 0;
  std::size_t posted_ = 0;
  std::uint32_t phase_ = 1;
};

std::vector<std::uint16_t> submit(QueuePair& queue, std::size_t count) {
  std::vector<std::uint16_t> ids(count);
  queue.submit(std::span(ids), [](std::uint16_t& of, std::uint32_t id, SubmissionEntry& entry) {
    entry.dwords_0_1 = dwords_0_1(Opcode::read, id, 1);
    of = static_cast<std::uint16_t>(id);
  });
  return ids;
}
std::uint16_t submit(QueuePair& queue) { return submit(queue, 1).front(); }

std::vector<Completed> take(QueuePair& queue, std::size_t most) {
  std::vector<Completed> taken(most);
  taken.resize(queue.take(taken));
  return taken;
}
std::optional<Completed> poll(QueuePair& queue) {
  const auto taken = take(queue, 1);
  return taken.empty() ? std::nullopt : std::optional(taken.front());
}

TEST(QueuePair, AnEmptyQueueHasNothingToGive) {
  FakeController controller(4);
  QueuePair queue = controller.queue();
  EXPECT_TRUE(queue.idle());
  EXPECT_FALSE(poll(queue));
  EXPECT_FALSE(queue.stray());
}

TEST(QueuePair, ACompletionCarriesTheIdTheStatusAndTheResult) {
  FakeController controller(4);
  QueuePair queue = controller.queue();
  const std::uint16_t id = submit(queue);
  EXPECT_FALSE(queue.idle());
  EXPECT_EQ(controller.submission_doorbell(), 1U);
  EXPECT_FALSE(poll(queue));
  controller.answer(id, 0x4281, 0xcafe);

  const auto done = poll(queue);
  ASSERT_TRUE(done);
  EXPECT_EQ(done->command, id);
  EXPECT_EQ(done->status, 0x4281);
  EXPECT_EQ(queue.last_result(), 0xcafeU);
  EXPECT_TRUE(queue.idle());
  EXPECT_FALSE(poll(queue));
}

TEST(QueuePair, OneCommandFewerThanEntriesCanBeUnderWay) {
  for (const std::size_t entries : {2U, 3U, 64U, 0xffffU}) {
    FakeController controller(entries);
    QueuePair queue = controller.queue();
    std::set<std::uint16_t> ids;
    for (std::size_t room = entries - 1; room > 0; --room) {
      EXPECT_EQ(queue.room(), room);
      ids.insert(submit(queue));
    }
    EXPECT_EQ(queue.room(), 0U);
    EXPECT_EQ(ids.size(), entries - 1);
    EXPECT_EQ(*ids.rbegin(), entries - 2) << "ids index what the caller keeps for each command";
    EXPECT_NE(controller.submission_doorbell(), 0U) << "the tail must not catch up with the head: that says empty";
  }
}

TEST(QueuePair, AnIdIsUsedAgainOnlyOnceItHasBeenAnswered) {
  FakeController controller(4);
  QueuePair queue = controller.queue();
  submit(queue);
  const std::uint16_t second = submit(queue);
  submit(queue);
  ASSERT_EQ(queue.room(), 0U);
  controller.answer(second);
  ASSERT_TRUE(poll(queue));
  ASSERT_EQ(queue.room(), 1U);
  EXPECT_EQ(submit(queue), second);
}

TEST(QueuePair, RingsAndPhasesHoldOverManyRoundsWithAnswersOutOfOrder) {
  for (const std::size_t entries : {2U, 3U, 5U, 64U}) {
    FakeController controller(entries);
    QueuePair queue = controller.queue();
    std::deque<std::uint16_t> at_controller;
    std::size_t answered = 0;
    std::uint32_t random = 1;
    while (answered < entries * 20) {
      random = random * 1664525 + 1013904223;
      if ((random >> 16) % 3 != 0 && queue.room() > 0) {
        const std::uint16_t id = submit(queue);
        const auto fetched = controller.fetch();
        ASSERT_EQ(fetched, std::vector{id});
        at_controller.push_back(id);
      } else if (!at_controller.empty()) {
        const std::size_t index = (random >> 16) % at_controller.size();
        const std::uint16_t id = at_controller[index];
        at_controller.erase(at_controller.begin() + static_cast<std::ptrdiff_t>(index));
        const auto status = static_cast<std::uint16_t>(answered & 0x7fff);
        controller.answer(id, status);
        const auto done = poll(queue);
        ASSERT_TRUE(done) << "entry " << answered << " of " << entries;
        EXPECT_EQ(done->command, id);
        EXPECT_EQ(done->status, status);
        ++answered;
        ASSERT_FALSE(poll(queue)) << "an entry of the round before is not a new one";
        EXPECT_EQ(controller.completion_doorbell(), answered % entries);
      }
    }
  }
}

TEST(QueuePair, ABatchIsRungForOnce) {
  FakeController controller(8);
  QueuePair queue = controller.queue();
  std::vector<std::uint16_t> ids(5);
  queue.submit(std::span(ids), [&](std::uint16_t& of, std::uint32_t id, SubmissionEntry& entry) {
    EXPECT_EQ(controller.submission_doorbell(), 0U) << "the device looks at half a batch";
    entry.dwords_0_1 = dwords_0_1(Opcode::read, id, 1);
    of = static_cast<std::uint16_t>(id);
  });
  EXPECT_EQ(controller.submission_doorbell(), 5U);
  EXPECT_EQ(queue.room(), 2U);
  EXPECT_EQ(controller.fetch(), ids);
}

TEST(QueuePair, CompletionsAreTakenInOrderAndAsManyAsThereIsSpaceFor) {
  FakeController controller(8);
  QueuePair queue = controller.queue();
  const auto ids = submit(queue, 5);
  for (const std::size_t next : {3, 0, 4, 1}) controller.answer(ids[next], static_cast<std::uint16_t>(next));
  EXPECT_TRUE(take(queue, 0).empty());
  const auto first = take(queue, 3);
  ASSERT_EQ(first.size(), 3U);
  EXPECT_EQ(first[0].command, ids[3]);
  EXPECT_EQ(first[1].command, ids[0]);
  EXPECT_EQ(first[2].command, ids[4]);
  EXPECT_EQ(first[2].status, 4U);
  const auto rest = take(queue, 3);
  ASSERT_EQ(rest.size(), 1U);
  EXPECT_EQ(rest[0].command, ids[1]);
  EXPECT_FALSE(queue.idle());
  EXPECT_EQ(queue.room(), 6U);
}

// take() never finds the queue empty, which used to be the only time when the doorbell was rung.
TEST(QueuePair, TheDoorbellIsRungThoughTakeNeverFindsTheQueueEmpty) {
  for (const std::size_t entries : {2U, 3U, 8U, 64U}) {
    for (std::size_t batch = 1; batch < entries; ++batch) {
      FakeController controller(entries);
      QueuePair queue = controller.queue();
      for (std::size_t round = 0; round < 3 * entries; ++round) {
        submit(queue, batch);
        for (const std::uint16_t id : controller.fetch()) {
          ASSERT_TRUE(controller.has_room()) << "round " << round << ", " << batch << " of " << entries;
          controller.answer(id);
        }
        ASSERT_EQ(take(queue, batch).size(), batch);
      }
    }
  }
}

TEST(QueuePair, WhatComesBeforeAnAnswerToNoCommandIsTaken) {
  FakeController controller(8);
  QueuePair queue = controller.queue();
  const auto ids = submit(queue, 3);
  controller.answer(ids[2]);
  controller.answer(ids[2]);
  controller.answer(ids[0]);
  const auto taken = take(queue, 8);
  ASSERT_EQ(taken.size(), 1U);
  EXPECT_EQ(taken[0].command, ids[2]);
  EXPECT_EQ(queue.stray(), ids[2]);
  EXPECT_TRUE(take(queue, 8).empty()) << "what comes after it is not to be trusted";
  EXPECT_EQ(controller.completion_doorbell(), 0U);
}

TEST(QueuePair, TheDeviceIsToldOfWhatWasTakenOnceNothingIsLeft) {
  FakeController controller(4);
  QueuePair queue = controller.queue();
  const std::uint16_t first = submit(queue);
  const std::uint16_t second = submit(queue);
  controller.answer(first);
  controller.answer(second);
  EXPECT_TRUE(poll(queue));
  EXPECT_TRUE(poll(queue));
  EXPECT_EQ(controller.completion_doorbell(), 0U);
  EXPECT_FALSE(poll(queue));
  EXPECT_EQ(controller.completion_doorbell(), 2U);
}

TEST(QueuePair, AnAnswerToNoCommandStopsTheQueueAndIsNamed) {
  FakeController controller(4);
  QueuePair queue = controller.queue();
  const std::uint16_t id = submit(queue);
  controller.answer(static_cast<std::uint16_t>(id + 1));
  EXPECT_FALSE(poll(queue));
  EXPECT_EQ(queue.stray(), id + 1);
  controller.answer(id);
  EXPECT_FALSE(poll(queue)) << "what comes after it is not to be trusted";
  EXPECT_EQ(controller.completion_doorbell(), 0U);
}

TEST(QueuePair, AnIdBeyondTheQueueReachesNoMemory) {
  for (const int made_up : {3, 4, 0x7fff, 0xfffe, 0xffff}) {
    FakeController controller(4);
    QueuePair queue = controller.queue();
    submit(queue);
    controller.answer(static_cast<std::uint16_t>(made_up));
    EXPECT_FALSE(poll(queue));
    EXPECT_EQ(queue.stray(), made_up);
  }
}

TEST(QueuePair, ASecondAnswerToTheSameCommandIsAStrayOne) {
  FakeController controller(4);
  QueuePair queue = controller.queue();
  const std::uint16_t id = submit(queue);
  controller.answer(id);
  controller.answer(id);
  EXPECT_TRUE(poll(queue));
  EXPECT_FALSE(poll(queue));
  EXPECT_EQ(queue.stray(), id);
}

TEST(QueuePair, AClosedQueueTakesNoCommandAndRingsNoDoorbell) {
  FakeController controller(4);
  QueuePair queue = controller.queue();
  const std::uint16_t first = submit(queue);
  const std::uint16_t second = submit(queue);
  controller.answer(first);
  EXPECT_TRUE(poll(queue));
  controller.answer(second);
  queue.close();
  EXPECT_EQ(queue.room(), 0U);
  EXPECT_TRUE(queue.idle());
  EXPECT_FALSE(poll(queue));
  EXPECT_FALSE(poll(queue));
  EXPECT_EQ(controller.completion_doorbell(), 0U);
}

TEST(QueuePair, FewerThanTwoEntriesAreABrokenCaller) {
  FakeController controller(1);
  EXPECT_DEATH((void)controller.queue(), "");
}

}  // namespace queue_test
}  // namespace postern::nvme
