// SPDX-License-Identifier: Apache-2.0
// A connection: whole messages from pieces, their descriptors, and what is over.
#include "vfio_user/server/connection.hpp"

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <algorithm>
#include <string>

#include "unit/vfio_user/peer.hpp"

namespace postern::vfio_user {
namespace connection_test {

using rig::Bytes;
using rig::bytes_of;
using rig::Call;
using ::testing::HasSubstr;

class AConnection : public ::testing::Test {
 protected:
  // The next message, which must be there.
  Message received() {
    auto message = connection_.receive();
    EXPECT_TRUE(message) << message.error();
    EXPECT_TRUE(message && *message) << "it is not complete";
    return message && *message ? std::move(**message) : Message();
  }
  // Whether what has arrived is no whole message.
  bool is_incomplete() {
    const auto message = connection_.receive();
    EXPECT_TRUE(message) << message.error();
    return message && !*message;
  }
  // Why it is over.
  std::string over() {
    const auto message = connection_.receive();
    EXPECT_FALSE(message);
    return message ? "" : message.error();
  }
  // As many descriptors of one file.
  [[nodiscard]] std::vector<int> fds(std::size_t count) const { return std::vector<int>(count, file_.get()); }

  Fd file_ = rig::make_memory(rig::page);
  rig::Connected ends_ = rig::connected();
  rig::Peer& peer_ = ends_.peer;
  Connection connection_{std::move(ends_.served)};
};

TEST_F(AConnection, CarriesMessages) {
  EXPECT_TRUE(is_incomplete()) << "nothing has arrived";
  EXPECT_TRUE(connection_.incomplete_since()) << "the first message is due";
  const Call call = rig::write_region(0, 0x24, std::uint32_t{7});
  ASSERT_TRUE(peer_.send(call));
  const Message message = received();
  EXPECT_FALSE(connection_.incomplete_since());
  EXPECT_EQ(message.header.id, peer_.last_id());
  EXPECT_EQ(message.header.command, 10);
  EXPECT_EQ(message.header.size, 36U);
  EXPECT_EQ(message.body, call.body);
  EXPECT_TRUE(message.fds.empty());
  EXPECT_TRUE(is_incomplete());
  EXPECT_FALSE(connection_.incomplete_since());
}

TEST_F(AConnection, CarriesMessagesByteByByte) {
  const Call call = rig::write_region(0, 0x24, std::uint32_t{7});
  for (int times = 0; times < 2; ++times) {
    const Bytes bytes = peer_.message(call);
    for (std::size_t i = 0; i + 1 < bytes.size(); ++i) {
      ASSERT_TRUE(peer_.send_bytes(std::span(bytes).subspan(i, 1)));
      EXPECT_TRUE(is_incomplete()) << i;
      EXPECT_TRUE(connection_.incomplete_since()) << i;
    }
    ASSERT_TRUE(peer_.send_bytes(std::span(bytes).last(1)));
    EXPECT_EQ(received().body, call.body);
    EXPECT_FALSE(connection_.incomplete_since());
  }
}

TEST_F(AConnection, CarriesSeveralMessagesInOnePiece) {
  Bytes bytes;
  for (int i = 0; i < 3; ++i) rig::append(bytes, peer_.message(rig::reset_device()));
  rig::append(bytes, peer_.message(rig::get_info()));
  rig::append(bytes, Bytes(5));
  ASSERT_TRUE(peer_.send_bytes(bytes));
  for (std::uint16_t id = 1; id <= 4; ++id) EXPECT_EQ(received().header.id, id);
  EXPECT_TRUE(is_incomplete());
  EXPECT_TRUE(connection_.incomplete_since()) << "5 bytes of a header";
}

TEST_F(AConnection, CarriesTheLongestMessage) {
  const Call call{.command = Command::region_write, .body = Bytes(longest_message - sizeof(Header), std::byte{5})};
  const Bytes bytes = peer_.message(call);
  Message message;
  bool is_whole = false;
  for (std::size_t sent = 0; sent < bytes.size(); sent += 50'000) {
    ASSERT_FALSE(is_whole);
    ASSERT_TRUE(peer_.send_bytes(std::span(bytes).subspan(sent, std::min<std::size_t>(50'000, bytes.size() - sent))));
    auto got = connection_.receive();
    ASSERT_TRUE(got);
    is_whole = got->has_value();
    if (is_whole) message = std::move(**got);
  }
  EXPECT_TRUE(is_whole);
  EXPECT_EQ(message.body, call.body);
}

TEST_F(AConnection, CarriesDescriptorsWithTheFirstByte) {
  ASSERT_TRUE(peer_.send({.command = Command::device_set_irqs, .body = Bytes(20), .fds = fds(3)}));
  ASSERT_TRUE(peer_.send(rig::get_info()));
  const Message message = received();
  ASSERT_EQ(message.fds.size(), 3U);
  for (const Fd& fd : message.fds) {
    EXPECT_GE(::fcntl(fd.get(), F_GET_SEALS), 0) << "it is the memory";
    EXPECT_EQ(::fcntl(fd.get(), F_GETFD), FD_CLOEXEC);
  }
  EXPECT_TRUE(received().fds.empty()) << "those of one message are not the next one's";
}

TEST_F(AConnection, CarriesDescriptorsWithAnyByte) {
  for (const std::size_t at : {std::size_t{1}, std::size_t{8}, sizeof(Header), sizeof(Header) + 31}) {
    const Bytes bytes = peer_.message(rig::map(0, rig::page));
    ASSERT_TRUE(peer_.send_bytes(std::span(bytes).first(at)));
    ASSERT_TRUE(peer_.send_bytes(std::span(bytes).subspan(at), fds(1)));
    EXPECT_EQ(received().fds.size(), 1U) << at;
  }
}

TEST_F(AConnection, CountsDescriptorsOfAllPieces) {
  const Bytes bytes = peer_.message(rig::map(0, rig::page));
  ASSERT_TRUE(peer_.send_bytes(std::span(bytes).first(4), fds(8)));
  EXPECT_TRUE(is_incomplete());
  ASSERT_TRUE(peer_.send_bytes(std::span(bytes).subspan(4, 20), fds(7)));
  ASSERT_TRUE(peer_.send_bytes(std::span(bytes).subspan(24), fds(1)));
  EXPECT_EQ(received().fds.size(), most_fds);
  const std::size_t before = rig::open_files();
  ASSERT_TRUE(peer_.send_bytes(std::span(bytes).first(4), fds(8)));
  ASSERT_TRUE(peer_.send_bytes(std::span(bytes).subspan(4), fds(9)));
  EXPECT_THAT(over(), HasSubstr("it sent 17 descriptors with a message; 16 is the most"));
  connection_ = Connection(Fd());
  EXPECT_EQ(rig::open_files(), before - 1) << "none is left, nor the socket";
}

TEST_F(AConnection, WithTooManyDescriptorsIsOver) {
  for (const std::size_t count : {most_fds + 1, std::size_t{100}, std::size_t{253}}) {
    auto ends = rig::connected();
    Connection connection(std::move(ends.served));
    const std::size_t before = rig::open_files();
    Call call = rig::get_info();
    call.fds = fds(count);
    ASSERT_TRUE(ends.peer.send(call));
    const auto message = connection.receive();
    ASSERT_FALSE(message);
    EXPECT_THAT(message.error(), HasSubstr("it sent " + std::to_string(count) + " descriptors with a message"));
    connection = Connection(Fd());
    EXPECT_EQ(rig::open_files(), before - 1);
  }
}

TEST_F(AConnection, IsOverIfThisProcessMayOpenNoMoreFiles) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const Fd next(system_kernel(), ::fcntl(file_.get(), F_DUPFD_CLOEXEC, 0));  // the lowest that is free
  ASSERT_TRUE(peer_.send(rig::map(0, rig::page, file_.get())));
  const rlimit none{.rlim_cur = static_cast<rlim_t>(next.get()) + 1, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  const auto message = connection_.receive();
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_FALSE(message);
  EXPECT_EQ(message.error(), "this process may not open more descriptors");
}

TEST_F(AConnection, IsOverWhenItIsClosed) {
  ASSERT_TRUE(peer_.send(rig::reset_device()));
  peer_.close();
  EXPECT_EQ(received().header.command, 13) << "what was sent before";
  EXPECT_EQ(over(), "it closed the connection");
}

TEST_F(AConnection, IsOverWhenItIsClosedWithinAMessage) {
  for (const std::size_t length : {std::size_t{1}, std::size_t{15}, sizeof(Header), sizeof(Header) + 15}) {
    auto ends = rig::connected();
    Connection connection(std::move(ends.served));
    const std::size_t before = rig::open_files();
    const Bytes bytes = ends.peer.message(rig::get_info());
    ASSERT_TRUE(ends.peer.send_bytes(std::span(bytes).first(length), fds(2)));
    ends.peer.close();
    const auto message = connection.receive();
    ASSERT_FALSE(message);
    EXPECT_EQ(message.error(), "it closed the connection within a message") << length;
    connection = Connection(Fd());
    EXPECT_EQ(rig::open_files(), before - 2) << length;
  }
}

TEST_F(AConnection, DoesNotWaitForABodyOfUnusableSize) {
  for (const std::uint32_t size : {0U, 15U, longest_message + 1, rig::most32}) {
    const Header header{.id = 7, .command = 9, .size = size, .flags = 0, .error = 0};
    ASSERT_TRUE(peer_.send_bytes(bytes_of(header)));
    const Message message = received();
    EXPECT_EQ(message.header.size, size);
    EXPECT_TRUE(message.body.empty()) << "nor makes room for it";
  }
}

TEST_F(AConnection, KeepsWhatThereIsNoRoomFor) {
  const Bytes piece(100'000, std::byte{6});
  std::size_t pieces = 0;
  while (!connection_.has_rest()) {
    ASSERT_LT(++pieces, 1000U) << "the socket takes everything";
    ASSERT_TRUE(connection_.send(piece));
  }
  ASSERT_TRUE(connection_.send_rest());
  EXPECT_TRUE(connection_.has_rest()) << "nobody has read";
  ASSERT_TRUE(connection_.send(Bytes(3, std::byte{7})));
  Bytes read;
  Bytes some(65536);
  while (read.size() < pieces * piece.size() + 3) {
    const ssize_t got = ::recv(peer_.fd(), some.data(), some.size(), 0);
    ASSERT_GT(got, 0);
    read.insert(read.end(), some.begin(), some.begin() + got);
    ASSERT_TRUE(connection_.send_rest());
  }
  EXPECT_FALSE(connection_.has_rest());
  EXPECT_EQ(std::count(read.begin(), read.end(), std::byte{6}), static_cast<std::ptrdiff_t>(pieces * piece.size()));
  EXPECT_EQ(read.back(), std::byte{7}) << "in the order in which it was sent";
}

TEST_F(AConnection, IsOverIfNobodyWillReadWhatIsSent) {
  peer_.close();
  const auto sent = connection_.send(Bytes(16));
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error(), "it closed the connection");
}

TEST_F(AConnection, OfSomethingElseIsOver) {
  Connection connection(rig::make_memory(rig::page));
  const auto message = connection.receive();
  ASSERT_FALSE(message);
  EXPECT_EQ(message.error(), "recvmsg: ENOTSOCK");
}

}  // namespace connection_test
}  // namespace postern::vfio_user
