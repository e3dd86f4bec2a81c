// SPDX-License-Identifier: Apache-2.0
// A server and clients that behave: whole sessions, one client after the other, who may connect, and what is told.
#include <gmock/gmock.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <postern-vfio-user/server.hpp>
#include <postern/deadline.hpp>
#include <string>

#include "unit/vfio_user/folder.hpp"
#include "unit/vfio_user/served.hpp"

namespace postern::vfio_user {
namespace server_test {

using rig::Answer;
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
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Kind = ServerEvent::Kind;

class AServer : public rig::OnEachBackend {
 protected:
  const Fd memory_ = make_memory(rig::Guest::memory_length);
  const Event event_ = make_event();
  rig::Folder folder_;
  const std::string path_ = folder_ / "socket";
};

TEST_P(AServer, ServesGuestsOneAfterTheOther) {
  for (const std::uint8_t slot : {nvme_slot, edu_slot}) {
    Served served(kernel_, GetParam(), slot);
    const std::size_t before = rig::open_files();
    for (int guests = 0; guests < 3; ++guests) {
      auto ends = connected(kernel_);
      Serving serving(served.server(), std::move(ends.served));
      for (const Call& call : rig::life_with(slot, memory_.get(), event_.fd()))
        EXPECT_EQ(ends.peer.error_of(call), 0) << "command " << static_cast<unsigned>(call.command);
      ends.peer.close();
      const auto& done = serving.wait();
      EXPECT_TRUE(done) << done.error().message();
    }
    served.expect_as_before(before);
    EXPECT_EQ(served.times_opened(), slot == nvme_slot ? 1 : 4) << "a device without a reset is opened anew";
  }
}

TEST_P(AServer, AnswersInOrder) {
  Served served(kernel_, GetParam(), nvme_slot);
  const std::vector<Call> calls = rig::life_with(nvme_slot, memory_.get(), event_.fd());
  const std::vector<Answer> answers = served.serve(calls);
  ASSERT_EQ(answers.size(), rig::answered(calls));
  std::size_t at = 0;
  for (std::size_t i = 0; i < calls.size(); ++i) {
    if ((calls[i].flags & flag_no_reply) != 0) continue;
    EXPECT_EQ(answers[at].header.id, i + 1);
    EXPECT_EQ(answers[at].header.command, static_cast<std::uint16_t>(calls[i].command));
    EXPECT_EQ(answers[at].error(), 0);
    ++at;
  }
}

TEST_P(AServer, DoesWhatNeedsNoAnswerBeforeItAnswersTheNext) {
  Served served(kernel_, GetParam(), nvme_slot);
  const std::vector<Answer> answers = served.serve(
      {rig::posted(rig::version()), rig::posted(rig::write_region(0, 0x24, std::uint32_t{0x001f001f})),
       rig::posted(rig::read_region(0, 0x4000, 4)), rig::posted(rig::unmap(0, page)), rig::read_region(0, 0x24, 4)});
  ASSERT_EQ(answers.size(), 1U) << "errors are not answered either";
  EXPECT_EQ(answers[0].header.id, 5);
  EXPECT_EQ(rig::at<std::uint32_t>(answers[0].body, sizeof(RegionAccessBody)), 0x001f001fU);
}

TEST_P(AServer, LetsTheDeviceAtTheClientsMemory) {
  Served served(kernel_, GetParam(), edu_slot);
  auto ends = connected(kernel_);
  Serving serving(served.server(), std::move(ends.served));
  Peer& peer = ends.peer;
  ASSERT_EQ(::pwrite(memory_.get(), "over the socket", 15, 0), 15);
  EXPECT_EQ(peer.error_of(rig::version()), 0);
  EXPECT_EQ(peer.error_of(map(0x100000, 2 * page, memory_.get())), 0);
  EXPECT_EQ(peer.error_of(rig::set_command(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER)), 0);
  const auto copy = [&](std::uint32_t from, std::uint32_t to, std::uint32_t command) {
    EXPECT_EQ(peer.error_of(rig::write_region(0, 0x80, from)), 0);
    EXPECT_EQ(peer.error_of(rig::write_region(0, 0x88, to)), 0);
    EXPECT_EQ(peer.error_of(rig::write_region(0, 0x90, std::uint32_t{15})), 0);
    EXPECT_EQ(peer.error_of(rig::write_region(0, 0x98, command)), 0);
    EXPECT_TRUE(poll_until(Deadline(std::chrono::minutes(1)), std::chrono::milliseconds(1), [&] {
      const Answer answer = peer.call(rig::read_region(0, 0x98, 4));
      return answer.error() != 0 || (rig::at<std::uint32_t>(answer.body, sizeof(RegionAccessBody)) & 1) == 0;
    }));
  };
  copy(0x100000, 0x40000, 1);
  copy(0x40000, 0x101000, 3);
  std::string text(15, '\0');
  EXPECT_EQ(::pread(memory_.get(), text.data(), text.size(), page), 15);
  EXPECT_EQ(text, "over the socket");
}

TEST_P(AServer, SignalsTheClientsEvents) {
  Served served(kernel_, GetParam(), nvme_slot);
  const std::size_t before = rig::open_files();
  const std::vector<Answer> answers =
      served.serve({rig::version(), rig::set_irqs(2, rig::signal_eventfds, 0, 16, std::vector<int>(16, event_.fd())),
                    rig::set_irqs(2, rig::trigger, 3, 5)});
  ASSERT_EQ(answers.size(), 3U);
  for (const Answer& answer : answers) EXPECT_EQ(answer.error(), 0);
  EXPECT_EQ(event_.take().value(), 5U);
  served.expect_as_before(before);
}

TEST_P(AServer, TellsWhatHappens) {
  Served served(kernel_, GetParam(), nvme_slot);
  (void)served.serve({rig::version(), map(0, 4 * page, memory_.get()), map(0x10000, page)});
  EXPECT_THAT(served.told().kinds(), ElementsAre(Kind::connected, Kind::gone));
  for (const ServerEvent& event : served.told().events()) {
    EXPECT_EQ(event.client.pid, ::getpid());
    EXPECT_EQ(event.client.user, ::geteuid());
    EXPECT_EQ(event.client.group, ::getegid());
  }
  EXPECT_EQ(served.told().events().back().mapped, 4 * page);
  EXPECT_EQ(served.told().reason(Kind::gone), "it closed the connection");
  served.told().clear();
  (void)served.serve({rig::version(), rig::set_command(PCI_COMMAND_MASTER), map(0x123, page), map(0x456, page)});
  EXPECT_THAT(served.told().kinds(),
              ElementsAre(Kind::connected, Kind::memory_is_absent, Kind::memory_refused, Kind::gone));
  EXPECT_EQ(served.told().events().back().mapped, 0U);
  EXPECT_EQ(served.told().events()[1].client.pid, ::getpid());
}

TEST_P(AServer, NeedsNobodyToTell) {
  auto server = Server::open([&] { return rig::attach_to(kernel_, GetParam(), nvme_slot); });
  ASSERT_TRUE(server) << server.error().message();
  auto ends = connected(kernel_);
  const Event stop = make_event();
  ASSERT_TRUE(ends.peer.send(rig::version()));
  ASSERT_TRUE(ends.peer.send(rig::set_command(PCI_COMMAND_MASTER)));
  ASSERT_TRUE(ends.peer.send(map(0x123, page)));
  ends.peer.end_sending();
  EXPECT_TRUE(server->serve(std::move(ends.served), stop));
  Server moved(std::move(*server));
  EXPECT_EQ(moved.device().name(), "0000:00:01.0");
}

TEST_P(AServer, ListensForOneClientAfterTheOther) {
  Served served(kernel_, GetParam(), nvme_slot);
  const std::size_t before = rig::open_files();
  {
    Listening listening(served.server(), path_);
    for (int clients = 1; clients <= 3; ++clients) {
      Peer peer(path_);
      EXPECT_EQ(peer.error_of(rig::version()), 0);
      EXPECT_EQ(peer.error_of(map(0, page, memory_.get())), 0);
      EXPECT_EQ(peer.error_of(rig::get_info()), 0);
      peer.close();
      served.told().wait_for(Kind::gone, clients);
    }
    EXPECT_TRUE(listening.stop());
  }
  served.expect_as_before(before);
  EXPECT_THAT(served.told().kinds(),
              ElementsAre(Kind::connected, Kind::gone, Kind::connected, Kind::gone, Kind::connected, Kind::gone));
}

TEST_P(AServer, TurnsAwayASecondClient) {
  Served served(kernel_, GetParam(), nvme_slot);
  Listening listening(served.server(), path_);
  Peer first(path_);
  EXPECT_EQ(first.error_of(rig::version()), 0);
  for (int others = 0; others < 50; ++others) {
    Peer second(path_);
    EXPECT_TRUE(second.is_closed());
  }
  EXPECT_EQ(first.error_of(rig::get_info()), 0);
  served.told().wait_for(Kind::refused, 50);
  EXPECT_EQ(served.told().reason(Kind::refused), "another client is served");
  first.close();
  served.told().wait_for(Kind::gone);
  Peer third(path_);
  EXPECT_EQ(third.error_of(rig::version()), 0);
}

// As when a VMM is restarted while the server was busy.
TEST_P(AServer, ServesTheNextClientIfTheFirstHasLeftAlready) {
  Served served(kernel_, GetParam(), nvme_slot);
  Fd listener = listen_at(system_kernel(), path_).value();
  Peer first(path_);
  for (const Call& call : {rig::version(), map(0, page, memory_.get()), rig::get_info()})
    ASSERT_TRUE(first.send(rig::posted(call)));
  first.close();
  Peer second(path_);
  ASSERT_TRUE(second.send(rig::version()));
  Listening listening(served.server(), std::move(listener));
  const auto answer = second.receive();
  ASSERT_TRUE(answer) << "it was turned away for one that is no more";
  EXPECT_EQ(answer->error(), 0);
  EXPECT_THAT(served.told().kinds(), ElementsAre(Kind::connected, Kind::gone, Kind::connected));
}

TEST_P(AServer, MayServeOneClientOnly) {
  Served served(kernel_, GetParam(), nvme_slot);
  const std::size_t before = rig::open_files();
  {
    Listening listening(served.server(), path_, /*once=*/true);
    Peer peer(path_);
    EXPECT_EQ(peer.error_of(rig::version()), 0);
    peer.close();
    EXPECT_TRUE(listening.wait());
  }
  served.expect_as_before(before);
}

TEST_P(AServer, StopsBeforeAClientComes) {
  Served served(kernel_, GetParam(), nvme_slot);
  for (const bool once : {false, true}) {
    Listening listening(served.server(), folder_ / (once ? "once" : "always"), once);
    const auto& done = listening.stop();
    EXPECT_TRUE(done) << done.error().message();
  }
  EXPECT_TRUE(served.told().events().empty());
}

TEST_P(AServer, StopsWhileAClientIsServed) {
  for (const std::uint8_t slot : {nvme_slot, edu_slot}) {
    Served served(kernel_, GetParam(), slot);
    const std::size_t before = rig::open_files();
    {
      Listening listening(served.server(), folder_ / std::to_string(slot));
      Peer peer(folder_ / std::to_string(slot));
      EXPECT_EQ(peer.error_of(rig::version()), 0);
      EXPECT_EQ(peer.error_of(map(0, page, memory_.get())), 0);
      const auto& done = listening.stop();
      EXPECT_TRUE(done) << done.error().message();
      EXPECT_TRUE(peer.is_closed());
    }
    served.expect_as_before(before);
    EXPECT_THAT(served.told().kinds(), ElementsAre(Kind::connected, Kind::gone));
    EXPECT_THAT(served.told().reason(Kind::gone), HasSubstr("the server stops"));
  }
}

TEST_P(AServer, SaysThatItWasStopped) {
  Served served(kernel_, GetParam(), nvme_slot);
  auto ends = connected(kernel_);
  Serving serving(served.server(), std::move(ends.served));
  EXPECT_EQ(ends.peer.error_of(rig::version()), 0);
  const auto& stopped = serving.stop();
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code(), ECANCELED);
  EXPECT_TRUE(ends.peer.is_closed());
}

TEST_P(AServer, LetsOnlyTheseUsersAndGroupsConnect) {
  const uid_t user = ::geteuid();
  const gid_t group = ::getegid();
  struct Case {
    Policy policy;
    bool may_connect;
  };
  for (const Case& each :
       {Case{{}, true}, Case{{.users = {user}}, true}, Case{{.users = {user + 1, user}}, true},
        Case{{.users = {user + 1}}, false}, Case{{.groups = {group}}, true}, Case{{.groups = {group + 1}}, false},
        Case{{.users = {user + 1}, .groups = {group}}, true}, Case{{.users = {user}, .groups = {group + 1}}, true},
        Case{{.users = {user + 1}, .groups = {group + 1}}, false}}) {
    Served served(kernel_, GetParam(), nvme_slot, {.policy = each.policy});
    auto ends = connected(kernel_);
    ASSERT_TRUE(ends.peer.send(rig::version()));
    ends.peer.end_sending();
    const Event stop = make_event();
    const auto done = served.server().serve(std::move(ends.served), stop);
    EXPECT_EQ(done.has_value(), each.may_connect);
    EXPECT_EQ(done ? EPERM : done.error().code(), EPERM);
    EXPECT_EQ(ends.peer.receive_all().size(), each.may_connect ? 1U : 0U);
    if (each.may_connect) continue;
    EXPECT_THAT(served.told().kinds(), ElementsAre(Kind::refused));
    EXPECT_EQ(served.told().events().front().client.user, user);
  }
}

TEST_P(AServer, ListensOnAfterAClientThatMayNotConnect) {
  Served served(kernel_, GetParam(), nvme_slot, {.policy = {.users = {::geteuid() + 1}}});
  const std::size_t before = rig::open_files();
  {
    Listening listening(served.server(), path_, /*once=*/true);
    for (int clients = 0; clients < 3; ++clients) {
      Peer peer(path_);
      EXPECT_TRUE(peer.is_closed());
    }
    served.told().wait_for(Kind::refused, 3);
    EXPECT_TRUE(listening.stop());
  }
  served.expect_as_before(before);
}

TEST_P(AServer, NeedsADevice) {
  const auto failed = Server::open(
      []() -> Result<Device> { return failure({.code = ENXIO, .object = "test", .reason = "there is none"}); });
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code(), ENXIO);
}

TEST_P(AServer, NeedsAContainerOfItsOwn) {
  const auto with_mapping = Server::open([&]() -> Result<Device> {
    auto device = POSTERN_TRY(rig::attach_to(kernel_, GetParam(), nvme_slot));
    const auto file = std::make_shared<const Fd>(make_memory(page));
    POSTERN_TRY(device.container()->map(Iova{0}, Memory::of_file(file, 0, page)));
    return device;
  });
  ASSERT_FALSE(with_mapping);
  EXPECT_EQ(with_mapping.error().code(), EBUSY);
  const Device other = rig::attach_to(kernel_, GetParam(), edu_slot).value();
  const auto with_device = Server::open([&] {
    const HostDevice host = find_pci_function(kernel_, {.device = nvme_slot}).value().host;
    return attach(kernel_, host, {.backend = GetParam(), .container = other.container()});
  });
  ASSERT_FALSE(with_device);
  EXPECT_EQ(with_device.error().code(), EBUSY);
  EXPECT_EQ(other.container()->devices().size(), 1U) << "it is detached again";
}

TEST_P(AServer, EndsIfTheDeviceCannotBeOpenedAnew) {
  const std::size_t before = rig::open_files();
  {
    rig::Told told;
    bool is_gone = false;
    auto server = Server::open(
        [&]() -> Result<Device> {
          if (is_gone) return failure({.code = ENODEV, .object = "test", .reason = "it was unplugged"});
          return rig::attach_to(kernel_, GetParam(), edu_slot);
        },
        {.on_event = [&](const ServerEvent& event) { told.add(event); }});
    ASSERT_TRUE(server);
    is_gone = true;
    const Event stop = make_event();
    auto ends = connected(kernel_);
    ASSERT_TRUE(ends.peer.send(rig::version()));
    ASSERT_TRUE(ends.peer.send(map(0, page, memory_.get())));
    ends.peer.end_sending();
    const auto failed = server->serve(std::move(ends.served), stop);
    ASSERT_FALSE(failed);
    EXPECT_THAT(failed.error().message(), HasSubstr("it was unplugged"));
    EXPECT_THAT(told.kinds(), ElementsAre(Kind::connected, Kind::gone));
    auto next = connected(kernel_);
    const auto refused = server->serve(std::move(next.served), stop);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ENODEV);
    EXPECT_TRUE(next.peer.is_closed());
  }
  EXPECT_EQ(rig::open_files(), before);
}

TEST_P(AServer, OpensADeviceAnewIfItsResetFails) {
  Served served(kernel_, GetParam(), nvme_slot);
  const std::size_t before = rig::open_files();
  kernel_.fail_ioctl(VFIO_DEVICE_RESET, EAGAIN);
  (void)served.serve({rig::version(), map(0, page, memory_.get()),
                      rig::set_command(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER),
                      rig::set_irqs(2, rig::signal_eventfds, 0, 1, {event_.fd()})});
  kernel_.fail_ioctl(0, 0);
  EXPECT_EQ(served.times_opened(), 2);
  served.expect_as_before(before);
}

INSTANTIATE_TEST_SUITE_P(Backends, AServer, rig::each_backend, rig::backend_name);

}  // namespace server_test
}  // namespace postern::vfio_user
