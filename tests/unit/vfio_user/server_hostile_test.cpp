// SPDX-License-Identifier: Apache-2.0
// A server and clients that do not behave: pieces of messages, too much of everything, and leaving at any time.
#include <gmock/gmock.h>
#include <poll.h>

#include <cerrno>
#include <chrono>
#include <optional>
#include <postern/deadline.hpp>
#include <random>
#include <string>
#include <thread>
#include <tuple>

#include "unit/vfio_user/folder.hpp"
#include "unit/vfio_user/served.hpp"

namespace postern::vfio_user {
namespace server_hostile_test {

using rig::Answer;
using rig::Bytes;
using rig::bytes_of;
using rig::Call;
using rig::connected;
using rig::edu_slot;
using rig::Listening;
using rig::make_event;
using rig::make_memory;
using rig::map;
using rig::nvme_slot;
using rig::page;
using rig::Peer;
using rig::Served;
using rig::Serving;
using ::testing::HasSubstr;
using Kind = ServerEvent::Kind;

class AServerAndAClientThat : public rig::OnEachBackend {
 protected:
  // That a client which behaves is served.
  void expect_service(const std::string& path) {
    Peer peer(path);
    EXPECT_EQ(peer.error_of(rig::version()), 0);
    EXPECT_EQ(peer.error_of(map(0, page, memory_.get())), 0);
    EXPECT_EQ(peer.error_of(rig::get_info()), 0);
  }
  void expect_service(Served& served) {
    const std::vector<Call> calls = rig::life_with(nvme_slot, memory_.get(), event_.fd());
    const std::vector<Answer> answers = served.serve(calls);
    EXPECT_EQ(answers.size(), rig::answered(calls));
    for (const Answer& answer : answers) EXPECT_EQ(answer.error(), 0);
  }

  const Fd memory_ = make_memory(rig::Guest::memory_length);
  const Event event_ = make_event();
  rig::Folder folder_;
  const std::string path_ = folder_ / "socket";
};

TEST_P(AServerAndAClientThat, SendsByteByByte) {
  Served served(kernel_, GetParam(), nvme_slot);
  auto ends = connected(kernel_);
  Serving serving(served.server(), std::move(ends.served));
  for (const Call& call : {rig::version(), map(0, page, memory_.get()), rig::get_info(), rig::unmap(0, page)}) {
    const Bytes bytes = ends.peer.message(call);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      const bool is_last = i + 1 == bytes.size();
      ASSERT_TRUE(ends.peer.send_bytes(std::span(bytes).subspan(i, 1), is_last ? call.fds : std::vector<int>()));
    }
    const auto answer = ends.peer.receive();
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->error(), 0) << "command " << static_cast<unsigned>(call.command);
  }
}

TEST_P(AServerAndAClientThat, SendsSeveralMessagesAtOnce) {
  Served served(kernel_, GetParam(), nvme_slot);
  auto ends = connected(kernel_);
  Bytes bytes;
  for (const Call& call : {rig::version(), rig::get_info(), rig::region_info(0)})
    rig::append(bytes, ends.peer.message(call));
  ASSERT_TRUE(ends.peer.send_bytes(bytes));
  ends.peer.end_sending();
  const Event stop = make_event();
  EXPECT_TRUE(served.server().serve(std::move(ends.served), stop));
  const auto answers = ends.peer.receive_all();
  ASSERT_EQ(answers.size(), 3U);
  for (const Answer& answer : answers) EXPECT_EQ(answer.error(), 0);
}

TEST_P(AServerAndAClientThat, SendsHalfAMessageIsDisconnected) {
  Served served(kernel_, GetParam(), nvme_slot, {.message_timeout = std::chrono::milliseconds(20)});
  const std::size_t before = rig::open_files();
  {
    Listening listening(served.server(), path_);
    for (const std::size_t length : {std::size_t{1}, std::size_t{8}, sizeof(Header), sizeof(Header) + 8}) {
      served.told().clear();
      Peer peer(path_);
      EXPECT_EQ(peer.error_of(rig::version()), 0);
      EXPECT_EQ(peer.error_of(map(0, page, memory_.get())), 0);
      const Bytes bytes = peer.message(map(0x10000, page));
      ASSERT_TRUE(peer.send_bytes(std::span(bytes).first(length), {memory_.get()}));
      EXPECT_TRUE(peer.is_closed());
      served.told().wait_for(Kind::gone);
      EXPECT_EQ(served.told().reason(Kind::gone), "it sent no whole message within 20 ms") << length;
      expect_service(path_);
      served.told().wait_for(Kind::gone, 2);
    }
  }
  served.expect_as_before(before);
}

TEST_P(AServerAndAClientThat, SendsAMessageTooSlowlyIsDisconnected) {
  Served served(kernel_, GetParam(), nvme_slot, {.message_timeout = std::chrono::milliseconds(50)});
  auto ends = connected(kernel_);
  Serving serving(served.server(), std::move(ends.served));
  EXPECT_EQ(ends.peer.error_of(rig::version()), 0);
  const Bytes bytes = ends.peer.message(rig::write_region(0, 0, Bytes(1 << 20)));
  // Ten seconds of bytes, each of which comes soon after the last.
  std::size_t sent = 0;
  while (sent < 5000 && ends.peer.send_bytes(std::span(bytes).subspan(sent, 1))) {
    ++sent;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  EXPECT_LT(sent, 5000U);
  const auto& done = serving.wait();
  EXPECT_TRUE(done) << done.error().message();
}

TEST_P(AServerAndAClientThat, SaysNothingMoreStaysConnected) {
  Served served(kernel_, GetParam(), nvme_slot, {.message_timeout = std::chrono::milliseconds(500)});
  auto ends = connected(kernel_);
  Serving serving(served.server(), std::move(ends.served));
  EXPECT_EQ(ends.peer.error_of(rig::version()), 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(600));
  EXPECT_EQ(ends.peer.error_of(rig::get_info()), 0);
}

TEST_P(AServerAndAClientThat, SaysNothingAtAllIsDisconnected) {
  Served served(kernel_, GetParam(), nvme_slot, {.message_timeout = std::chrono::milliseconds(1)});
  auto ends = connected(kernel_);
  Serving serving(served.server(), std::move(ends.served));
  EXPECT_TRUE(serving.wait());
  EXPECT_TRUE(ends.peer.is_closed());
}

TEST_P(AServerAndAClientThat, SendsTenThousandRequestsBeforeItReads) {
  constexpr std::uint16_t requests = 10'000;
  Served served(kernel_, GetParam(), nvme_slot);
  auto ends = connected(kernel_);
  Serving serving(served.server(), std::move(ends.served));
  Peer& peer = ends.peer;
  EXPECT_EQ(peer.error_of(rig::version()), 0);
  const std::uint16_t first = peer.last_id();
  Bytes bytes;
  for (std::uint16_t i = 0; i < requests; ++i) rig::append(bytes, peer.message(rig::read_region(pci_config, 0, 64)));
  std::uint16_t read = 0;
  const auto read_one = [&] {
    const auto answer = peer.receive();
    ASSERT_TRUE(answer);
    ++read;
    EXPECT_EQ(answer->error(), 0);
    ASSERT_EQ(answer->header.id, first + read);
  };
  for (std::size_t sent = 0; sent < bytes.size() && !HasFatalFailure();) {
    const ssize_t some = ::send(peer.fd(), bytes.data() + sent, bytes.size() - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (some > 0) {
      sent += static_cast<std::size_t>(some);
    } else {
      ASSERT_EQ(errno, EAGAIN);
      read_one();  // there is no more room: the server waits until somebody reads
    }
  }
  while (read < requests && !HasFatalFailure()) read_one();
  peer.close();
  EXPECT_TRUE(serving.wait());
}

TEST_P(AServerAndAClientThat, NeverReadsCanLeave) {
  Served served(kernel_, GetParam(), nvme_slot);
  const std::size_t before = rig::open_files();
  {
    auto ends = connected(kernel_);
    Serving serving(served.server(), std::move(ends.served));
    EXPECT_EQ(ends.peer.error_of(rig::version()), 0);
    EXPECT_EQ(ends.peer.error_of(map(0, page, memory_.get())), 0);
    const Bytes bytes = ends.peer.message(rig::read_region(pci_config, 0, 4096));
    // Until nothing goes for a while.
    pollfd file{.fd = ends.peer.fd(), .events = POLLOUT, .revents = 0};
    while (::poll(&file, 1, 100) == 1)
      (void)::send(ends.peer.fd(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    ends.peer.close();
    const auto& done = serving.wait();
    EXPECT_TRUE(done) << done.error().message();
  }
  served.expect_as_before(before);
}

TEST_P(AServerAndAClientThat, NeverReadsDoesNotKeepTheServerFromStopping) {
  Served served(kernel_, GetParam(), nvme_slot);
  Listening listening(served.server(), path_);
  Peer peer(path_);
  EXPECT_EQ(peer.error_of(rig::version()), 0);
  const Bytes bytes = peer.message(rig::read_region(pci_config, 0, 4096));
  pollfd file{.fd = peer.fd(), .events = POLLOUT, .revents = 0};
  while (::poll(&file, 1, 100) == 1) (void)::send(peer.fd(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  Peer second(path_);
  EXPECT_TRUE(second.is_closed()) << "it is turned away meanwhile";
  EXPECT_TRUE(listening.stop());
}

TEST_P(AServerAndAClientThat, SendsAMessageOfUnusableSizeIsDisconnected) {
  Served served(kernel_, GetParam(), nvme_slot);
  const std::size_t before = rig::open_files();
  for (const std::uint32_t size : {0U, 15U, longest_message + 1, 1U << 31, rig::most32}) {
    auto ends = connected(kernel_);
    ASSERT_TRUE(ends.peer.send(rig::version()));
    const Header header{.id = 77, .command = 9, .size = size, .flags = 0, .error = 0};
    ASSERT_TRUE(ends.peer.send_bytes(bytes_of(header), {memory_.get()}));
    ASSERT_TRUE(ends.peer.send(rig::get_info()));
    const Event stop = make_event();
    EXPECT_TRUE(served.server().serve(std::move(ends.served), stop));
    const auto answers = ends.peer.receive_all();
    ASSERT_EQ(answers.size(), 2U) << size;
    EXPECT_EQ(answers[1].header.id, 77);
    EXPECT_EQ(answers[1].error(), EINVAL);
    EXPECT_EQ(served.told().reason(Kind::gone), "it sent a message of " + std::to_string(size) + " bytes");
  }
  served.expect_as_before(before);
  expect_service(served);
}

TEST_P(AServerAndAClientThat, SendsTheLongestMessageIsAnswered) {
  Served served(kernel_, GetParam(), nvme_slot);
  auto ends = connected(kernel_);
  Serving serving(served.server(), std::move(ends.served));
  EXPECT_EQ(ends.peer.error_of(rig::version()), 0);
  EXPECT_EQ(ends.peer.error_of(rig::write_region(0, 0, Bytes(longest_transfer))), EINVAL) << "the BAR is shorter";
  EXPECT_EQ(ends.peer.error_of({.command = Command::device_set_irqs, .body = Bytes(1 << 20)}), EINVAL);
  EXPECT_EQ(ends.peer.error_of(rig::get_info()), 0);
}

TEST_P(AServerAndAClientThat, SendsDescriptorsThatNobodyWantsIsAnswered) {
  Served served(kernel_, GetParam(), nvme_slot);
  const std::size_t before = rig::open_files();
  std::vector<Call> calls = {rig::version()};
  for (const std::size_t count : {1U, 2U, 16U}) {
    for (Call call : {rig::get_info(), rig::region_info(0), rig::irq_info(0), rig::unmap(0, page), rig::reset_device(),
                      rig::read_region(7, 0, 4), rig::set_command(0), rig::set_irqs(0, rig::off, 0, 0)}) {
      call.fds = std::vector<int>(count, memory_.get());
      calls.push_back(std::move(call));
    }
  }
  const auto answers = served.serve(calls);
  ASSERT_EQ(answers.size(), calls.size());
  for (std::size_t i = 1; i < answers.size(); ++i) EXPECT_EQ(answers[i].error(), EINVAL) << i;
  served.expect_as_before(before);
}

TEST_P(AServerAndAClientThat, SendsTooManyDescriptorsIsDisconnected) {
  Served served(kernel_, GetParam(), nvme_slot);
  const std::size_t before = rig::open_files();
  for (const std::size_t count : {std::size_t{17}, std::size_t{253}}) {
    auto ends = connected(kernel_);
    ASSERT_TRUE(ends.peer.send(rig::version()));
    ASSERT_TRUE(ends.peer.send({.command = Command::device_set_irqs,
                                .body = rig::set_irqs(2, rig::signal_eventfds, 0, 17).body,
                                .fds = std::vector<int>(count, event_.fd())}));
    ASSERT_TRUE(ends.peer.send(rig::get_info()));
    const Event stop = make_event();
    EXPECT_TRUE(served.server().serve(std::move(ends.served), stop));
    EXPECT_EQ(ends.peer.receive_all().size(), 1U) << "of VERSION";
    EXPECT_THAT(served.told().reason(Kind::gone), HasSubstr("it sent " + std::to_string(count) + " descriptors"));
  }
  served.expect_as_before(before);
  expect_service(served);
}

TEST_P(AServerAndAClientThat, DoesNotBeginWithItsVersionIsDisconnected) {
  Served served(kernel_, GetParam(), nvme_slot);
  const std::size_t before = rig::open_files();
  for (const Call& call : {rig::get_info(), map(0, page, memory_.get()), rig::reset_device(), rig::version("nonsense"),
                           rig::version(rig::qemu_capabilities, 0, 1)}) {
    auto ends = connected(kernel_);
    ASSERT_TRUE(ends.peer.send(call));
    ASSERT_TRUE(ends.peer.send(rig::version()));
    const Event stop = make_event();
    EXPECT_TRUE(served.server().serve(std::move(ends.served), stop));
    const auto answers = ends.peer.receive_all();
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_EQ(answers[0].error(), EINVAL);
    EXPECT_THAT(served.told().reason(Kind::gone), HasSubstr("VERSION"));
  }
  served.expect_as_before(before);
}

TEST_P(AServerAndAClientThat, SendsRepliesIsToldOff) {
  Served served(kernel_, GetParam(), nvme_slot);
  std::vector<Call> calls = {rig::version()};
  for (const std::uint32_t flags : {type_reply, type_reply | flag_error, flag_error, 2U, 0xfU, 0x40U, 0xffffffc0U}) {
    Call call = rig::get_info();
    call.flags = flags;
    calls.push_back(std::move(call));
  }
  calls.push_back({.command = static_cast<Command>(0)});
  calls.push_back({.command = static_cast<Command>(14), .body = Bytes(8)});
  calls.push_back({.command = static_cast<Command>(0xffff), .body = Bytes(64)});
  calls.push_back(rig::get_info());
  const auto answers = served.serve(calls);
  ASSERT_EQ(answers.size(), calls.size());
  for (std::size_t i = 1; i + 1 < answers.size(); ++i) EXPECT_EQ(answers[i].error(), EINVAL) << i;
  EXPECT_EQ(answers.back().error(), 0);
}

TEST_P(AServerAndAClientThat, LeavesAfterAnyMessageLeavesNothing) {
  for (const std::uint8_t slot : {nvme_slot, edu_slot}) {
    Served served(kernel_, GetParam(), slot);
    const std::size_t before = rig::open_files();
    const std::vector<Call> life = rig::life_with(slot, memory_.get(), event_.fd());
    for (std::size_t count = 0; count <= life.size() && !HasFailure(); ++count) {
      SCOPED_TRACE("after " + std::to_string(count) + " messages, device " + std::to_string(slot));
      const std::vector<Call> calls(life.begin(), life.begin() + static_cast<std::ptrdiff_t>(count));
      const auto answers = served.serve(calls);
      EXPECT_EQ(answers.size(), rig::answered(calls));
      for (const Answer& answer : answers) EXPECT_EQ(answer.error(), 0);
      served.expect_as_before(before);
    }
  }
}

// As by kill -9: nobody is there to be answered.
TEST_P(AServerAndAClientThat, IsKilledAfterAnyMessageLeavesNothing) {
  for (const std::uint8_t slot : {nvme_slot, edu_slot}) {
    Served served(kernel_, GetParam(), slot);
    const std::size_t before = rig::open_files();
    const std::vector<Call> life = rig::life_with(slot, memory_.get(), event_.fd());
    for (std::size_t count = 0; count <= life.size() && !HasFailure(); ++count) {
      SCOPED_TRACE("after " + std::to_string(count) + " messages, device " + std::to_string(slot));
      for (const bool wants_answers : {true, false}) {
        auto ends = connected(kernel_);
        for (std::size_t i = 0; i < count; ++i)
          ASSERT_TRUE(ends.peer.send(wants_answers ? life[i] : rig::posted(life[i])));
        ends.peer.close();
        const Event stop = make_event();
        const auto done = served.server().serve(std::move(ends.served), stop);
        EXPECT_TRUE(done) << done.error().message();
      }
      served.expect_as_before(before);
    }
  }
}

TEST_P(AServerAndAClientThat, LeavesWithinAnyMessageLeavesNothing) {
  Served served(kernel_, GetParam(), nvme_slot);
  const std::size_t before = rig::open_files();
  const std::vector<Call> life = rig::life_with(nvme_slot, memory_.get(), event_.fd());
  for (std::size_t count = 0; count < life.size() && !HasFailure(); ++count) {
    SCOPED_TRACE("within message " + std::to_string(count));
    for (const std::size_t missing : {std::size_t{1}, std::size_t{5}, sizeof(Header) - 1}) {
      auto ends = connected(kernel_);
      for (std::size_t i = 0; i < count; ++i) ASSERT_TRUE(ends.peer.send(rig::posted(life[i])));
      const Bytes bytes = ends.peer.message(life[count]);
      ASSERT_TRUE(ends.peer.send_bytes(std::span(bytes).first(bytes.size() - missing), life[count].fds));
      ends.peer.close();
      const Event stop = make_event();
      EXPECT_TRUE(served.server().serve(std::move(ends.served), stop));
      EXPECT_EQ(served.told().reason(Kind::gone), "it closed the connection within a message");
    }
    served.expect_as_before(before);
  }
}

TEST_P(AServerAndAClientThat, SendsNoiseIsSurvived) {
  Served served(kernel_, GetParam(), nvme_slot);
  const std::size_t before = rig::open_files();
  std::mt19937 random(1);  // NOLINT(cert-msc51-cpp): the same noise each time
  for (int clients = 0; clients < 200; ++clients) {
    auto ends = connected(kernel_);
    if (clients % 2 == 0) {
      ASSERT_TRUE(ends.peer.send(rig::version()));
    }
    for (int messages = 0; messages < 20; ++messages) {
      // A header that is sound, so that not all is lost with the first.
      Call call{.command = static_cast<Command>(random() % 20), .body = Bytes(random() % 64)};
      for (std::byte& byte : call.body) byte = static_cast<std::byte>(random() % 4 == 0 ? random() : random() % 40);
      call.fds = std::vector<int>(random() % 3, random() % 2 == 0 ? memory_.get() : event_.fd());
      if (random() % 8 == 0) call.flags = flag_no_reply;
      ASSERT_TRUE(ends.peer.send(call));
    }
    Bytes noise(random() % 200);
    for (std::byte& byte : noise) byte = static_cast<std::byte>(random());
    ASSERT_TRUE(ends.peer.send_bytes(noise));
    ends.peer.end_sending();
    const Event stop = make_event();
    const auto done = served.server().serve(std::move(ends.served), stop);
    ASSERT_TRUE(done) << done.error().message();
    (void)ends.peer.receive_all();
  }
  served.expect_as_before(before);
  expect_service(served);
}

TEST_P(AServerAndAClientThat, ConnectsAndLeavesAgainAndAgainIsSurvived) {
  Served served(kernel_, GetParam(), nvme_slot);
  const std::size_t before = rig::open_files();
  {
    Listening listening(served.server(), path_);
    for (int i = 0; i < 200; ++i) Peer(path_).close();
    for (int i = 0; i < 50; ++i) {
      Peer peer(path_);
      (void)peer.send(rig::version());
      (void)peer.send(map(0, page, memory_.get()));
    }
    // One that waits long enough is served.
    const bool is_served = poll_until(Deadline(std::chrono::minutes(1)), std::chrono::milliseconds(1), [&] {
      Peer peer(path_);
      return peer.error_of(rig::version()) == 0;
    });
    EXPECT_TRUE(is_served);
  }
  served.expect_as_before(before);
}

INSTANTIATE_TEST_SUITE_P(Backends, AServerAndAClientThat, rig::each_backend, rig::backend_name);

// Each call of the kernel fails in turn, from the client's first message to the next client's.
class FaultsOfAServer : public ::testing::TestWithParam<std::tuple<const char*, std::uint8_t>> {};

TEST_P(FaultsOfAServer, LeaveNothing) {
  const auto [backend, slot] = GetParam();
  const Fd memory = make_memory(rig::Guest::memory_length);
  const Event event = make_event();
  const std::vector<Call> calls = rig::life_with(slot, memory.get(), event.fd());
  sim::Kernel simulated;
  sim::FailingKernel kernel(simulated);
  const std::size_t before = rig::open_files();
  std::optional<Served> served;
  bool has_failed = true;
  for (int number = 0; has_failed && !HasFailure(); ++number) {
    SCOPED_TRACE("call " + std::to_string(number) + " fails");
    if (!served) served.emplace(kernel, backend, slot);
    const std::size_t with_device = rig::open_files();
    kernel.fail_call(number, EIO);
    bool is_over = false;
    {
      auto ends = connected(kernel);
      for (const Call& call : calls) ASSERT_TRUE(ends.peer.send(call));
      ends.peer.end_sending();
      const Event stop = make_event();
      is_over = !served->server().serve(std::move(ends.served), stop);
      EXPECT_EQ(ends.peer.receive_all().size(), rig::answered(calls)) << "each message is answered";
    }
    has_failed = kernel.failed();
    kernel.fail_call(-1, 0);
    if (is_over) {
      EXPECT_TRUE(has_failed);
      served.reset();  // nothing else can be done with it
      EXPECT_EQ(rig::open_files(), before);
      continue;
    }
    served->expect_as_before(with_device);
    const auto answers = served->serve(calls);
    EXPECT_EQ(answers.size(), rig::answered(calls));
    for (const Answer& answer : answers) EXPECT_EQ(answer.error(), 0);
    served->expect_as_before(with_device);
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, FaultsOfAServer,
                         ::testing::Combine(rig::each_backend, ::testing::Values(nvme_slot, edu_slot)),
                         [](const auto& test) {
                           return std::string(std::get<0>(test.param)) +
                                  (std::get<1>(test.param) == nvme_slot ? "_nvme" : "_edu");
                         });

}  // namespace server_hostile_test
}  // namespace postern::vfio_user
