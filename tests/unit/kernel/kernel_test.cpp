// SPDX-License-Identifier: Apache-2.0
// The kernel layer: owners of fds and mappings, events, and untrusted capability chains.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/vfio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <cstring>
#include <postern-sim/faults.hpp>
#include <postern/event.hpp>
#include <postern/fd.hpp>
#include <thread>

#include "kernel/info_buffer.hpp"

namespace postern {
namespace kernel_test {

template <typename Of>
concept GivesItsBytes = requires(Of of) {
  static_cast<Of>(of).bytes();
  static_cast<Of>(of).data();
};
static_assert(GivesItsBytes<Mmap&> && GivesItsBytes<const Mmap&>);
static_assert(!GivesItsBytes<Mmap&&> && !GivesItsBytes<const Mmap&&>, "they are gone with it");

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

TEST(Fd, ClosesWhatItOwnsAndOnlyOnce) {
  const int raw = system_kernel().open("/dev/null", O_RDWR);
  ASSERT_GE(raw, 0);
  {
    Fd first(system_kernel(), raw);
    const Fd second(std::move(first));
    EXPECT_FALSE(first);  // NOLINT(bugprone-use-after-move): the point of the test
    EXPECT_EQ(second.get(), raw);
    EXPECT_TRUE(is_open(raw));
  }
  EXPECT_FALSE(is_open(raw));
}

TEST(Fd, IsNotHandedDownToAProgramThatIsRun) {
  const Fd fd(system_kernel(), system_kernel().open("/dev/null", O_RDWR));
  EXPECT_NE(::fcntl(fd.get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST(SystemKernel, GivesErrnosNegated) {
  EXPECT_EQ(system_kernel().open("/no/such/node", O_RDWR), -ENOENT);
  std::string text;
  EXPECT_EQ(system_kernel().read_file("/no/such/file", text), -ENOENT);
  EXPECT_EQ(system_kernel().read_link("/", text), -EINVAL);
  std::vector<std::string> names;
  EXPECT_EQ(system_kernel().list_directory("/dev/null", names), -ENOTDIR);
  EXPECT_EQ(system_kernel().ioctl(-1, 0, nullptr), -EBADF);
  EXPECT_EQ(system_kernel().mmap(nullptr, 4096, PROT_READ, MAP_SHARED, -1, 0), -EBADF);
}

TEST(Event, CountsSignalsAndForgetsThemWhenTaken) {
  auto event = Event::create(system_kernel());
  ASSERT_TRUE(event);
  ASSERT_TRUE(event->signal());
  ASSERT_TRUE(event->signal());
  EXPECT_EQ(event->take().value(), 2U);
  EXPECT_EQ(event->take().value(), 0U);
}

TEST(Event, WaitsForASignalFromAnotherThread) {
  auto event = Event::create(system_kernel());
  ASSERT_TRUE(event);
  std::thread other([&] { (void)event->signal(); });
  EXPECT_EQ(event->wait(std::chrono::seconds(30)).value(), 1U);
  other.join();
}

TEST(Event, IsWaitedForForEver) {
  using std::chrono::milliseconds;
  auto event = Event::create(system_kernel());
  ASSERT_TRUE(event.has_value());
  for (const milliseconds for_ever :
       {milliseconds::max(), milliseconds::max() - milliseconds(1), milliseconds::max() / 2}) {
    std::thread signaller([&event] {
      std::this_thread::sleep_for(milliseconds(20));
      EXPECT_TRUE(event->signal());
    });
    EXPECT_EQ(*event->wait(for_ever), 1U);
    signaller.join();
  }
  EXPECT_EQ(*event->wait(milliseconds::min()), 0U);
}

TEST(Event, ThatCannotBeMadeSaysWhatRunsOut) {
  sim::FailingKernel kernel(system_kernel());
  kernel.fail_call(0, EMFILE);
  auto event = Event::create(kernel);
  ASSERT_FALSE(event);
  EXPECT_EQ(event.error().code(), EMFILE);
  EXPECT_NE(event.error().message().find("ulimit -n"), std::string::npos);
}

TEST(Event, IsMadeOfAnEventfdFromElsewhere) {
  const int raw = ::eventfd(3, EFD_NONBLOCK | EFD_CLOEXEC);
  ASSERT_GE(raw, 0);
  {
    auto event = Event::adopt(Fd(system_kernel(), raw));
    ASSERT_TRUE(event) << event.error().message();
    EXPECT_EQ(event->fd(), raw);
    EXPECT_EQ(event->take().value(), 3U) << "what was signalled before counts";
    ASSERT_TRUE(event->signal());
    EXPECT_EQ(event->wait(std::chrono::seconds(30)).value(), 1U);
  }
  EXPECT_FALSE(is_open(raw)) << "it owns the descriptor";
}

TEST(Event, IsNotMadeOfAnythingElse) {
  const auto refusal_of = [](int raw) {
    auto event = Event::adopt(Fd(system_kernel(), raw));
    EXPECT_FALSE(event);
    EXPECT_FALSE(is_open(raw)) << "it is closed all the same";
    return event ? std::string() : event.error().message();
  };
  const auto has = [](const std::string& message, std::string_view words) {
    return message.find(words) != std::string::npos;
  };
  EXPECT_TRUE(has(refusal_of(::open("/dev/null", O_RDWR | O_NONBLOCK | O_CLOEXEC)),
                  "refused: EINVAL: it is not an eventfd, but /dev/null"));
  EXPECT_TRUE(has(refusal_of(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)), "anon_inode:[timerfd]"));
  EXPECT_TRUE(has(refusal_of(::eventfd(0, EFD_CLOEXEC)), "EINVAL: it blocks, so a wait would not end in time"));
  EXPECT_TRUE(has(refusal_of(-1), "EBADF"));
  EXPECT_EQ(Event::adopt(Fd()).error().code(), EBADF);
}

// A region info with a capability chain, built by hand.
struct Answer {
  vfio_region_info info;
  vfio_info_cap_header first, second;
};

int visits(std::uint32_t start, std::uint32_t first_next, std::uint32_t second_next) {
  InfoBuffer<vfio_region_info> buffer;
  const int result = buffer.fetch([&](vfio_region_info& info) {
    if (info.argsz >= sizeof(Answer)) {
      auto& answer = reinterpret_cast<Answer&>(info);
      answer.first = {.id = 1, .version = 1, .next = first_next};
      answer.second = {.id = 2, .version = 1, .next = second_next};
    }
    info.argsz = sizeof(Answer);
    return 0;
  });
  EXPECT_EQ(result, 0);
  int count = 0;
  buffer.for_each_capability(start, [&](const vfio_info_cap_header& header, std::size_t available) {
    EXPECT_GE(available, sizeof header);
    ++count;
  });
  return count;
}

constexpr std::uint32_t first_offset = offsetof(Answer, first);
constexpr std::uint32_t second_offset = offsetof(Answer, second);

TEST(InfoBuffer, WalksAWholeChain) { EXPECT_EQ(visits(first_offset, second_offset, 0), 2); }
TEST(InfoBuffer, AnOffsetOfZeroIsNoChain) { EXPECT_EQ(visits(0, second_offset, 0), 0); }
TEST(InfoBuffer, AChainThatLoopsEnds) {
  EXPECT_EQ(visits(first_offset, first_offset, 0), 1);
  EXPECT_EQ(visits(first_offset, second_offset, first_offset), 2);
}
TEST(InfoBuffer, AnOffsetPastTheEndEndsTheWalk) {
  EXPECT_EQ(visits(first_offset, 4096, 0), 1);
  EXPECT_EQ(visits(first_offset, sizeof(Answer) - 4, 0), 1);
  EXPECT_EQ(visits(0xfffffffc, 0, 0), 0);
}
TEST(InfoBuffer, AnOffsetIntoTheStructItselfOrUnalignedIsNotFollowed) {
  EXPECT_EQ(visits(8, 0, 0), 0);
  EXPECT_EQ(visits(first_offset + 1, 0, 0), 0);
}

// Kernels before Linux 6.6 align capabilities only to 4 bytes.
TEST(InfoBuffer, ACapabilityIsAlignedForItsFieldsWhereverItStands) {
  constexpr std::uint32_t offset = sizeof(vfio_region_info) + 4;
  constexpr vfio_info_cap_header odd{.id = 7, .version = 1, .next = 0};
  InfoBuffer<vfio_region_info> buffer;
  const int result = buffer.fetch([&](vfio_region_info& info) {
    if (info.argsz >= offset + sizeof odd) std::memcpy(reinterpret_cast<std::byte*>(&info) + offset, &odd, sizeof odd);
    info.argsz = offset + sizeof odd;
    return 0;
  });
  ASSERT_EQ(result, 0);
  int ids = 0;
  buffer.for_each_capability(offset, [&](const vfio_info_cap_header& header, std::size_t available) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(&header) % 8, 0U);
    EXPECT_GE(available, sizeof odd);
    ids += header.id;
  });
  EXPECT_EQ(ids, 7);
}
TEST(InfoBuffer, AnAnswerThatGrowsMeanwhileIsAskedForAgainButNotForEver) {
  InfoBuffer<vfio_region_info> buffer;
  int asked = 0;
  const auto grow_to = [&](int times) {
    return buffer.fetch([&asked, times](vfio_region_info& info) {
      if (++asked <= times) info.argsz += 8;
      return 0;
    });
  };
  EXPECT_EQ(grow_to(3), 0);
  EXPECT_EQ(asked, 4);
  EXPECT_GE(buffer.info().argsz, sizeof(vfio_region_info) + 24);
  EXPECT_EQ(grow_to(1 << 30), -E2BIG);
}
TEST(InfoBuffer, ACapabilityInEveryPlaceEndsTheWalk) {
  InfoBuffer<vfio_region_info> buffer;
  constexpr std::uint32_t size = 1 << 20;
  const int result = buffer.fetch([](vfio_region_info& info) {
    auto* const bytes = reinterpret_cast<std::byte*>(&info);
    for (std::uint32_t at = sizeof info; info.argsz == size && at + 8 <= size; at += 8) {
      const vfio_info_cap_header header{.id = 1, .version = 1, .next = at + 8};
      std::memcpy(bytes + at, &header, sizeof header);
    }
    info.argsz = size;
    return 0;
  });
  ASSERT_EQ(result, 0);
  int visited = 0;
  buffer.for_each_capability(sizeof(vfio_region_info), [&](const vfio_info_cap_header&, std::size_t) { ++visited; });
  EXPECT_LT(visited, 100);
}
TEST(InfoBuffer, AnAbsurdSizeIsRefused) {
  InfoBuffer<vfio_region_info> buffer;
  EXPECT_EQ(buffer.fetch([](vfio_region_info& info) {
    info.argsz = 1U << 31;
    return 0;
  }),
            -E2BIG);
}

}  // namespace kernel_test
}  // namespace postern
