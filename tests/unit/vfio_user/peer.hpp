// SPDX-License-Identifier: Apache-2.0
// Peer: a client at the other end of a socket, which can also send what no client should.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <postern/fd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "unit/vfio_user/messages.hpp"

namespace postern::vfio_user::rig {

struct Answer {
  Header header{};
  Bytes body;

  // 0 for a success.
  [[nodiscard]] int error() const {
    EXPECT_EQ(header.flags & type_mask, type_reply);
    return (header.flags & flag_error) != 0 ? static_cast<int>(header.error) : 0;
  }
};

class Peer {
 public:
  // What would wait for longer than this is a failure: the server hangs.
  static constexpr timeval timeout{.tv_sec = 60, .tv_usec = 0};

  explicit Peer(Fd socket) : socket_(std::move(socket)) {
    for (const int which : {SO_RCVTIMEO, SO_SNDTIMEO})
      EXPECT_EQ(::setsockopt(socket_.get(), SOL_SOCKET, which, &timeout, sizeof timeout), 0);
  }
  // Connects to a listening socket.
  explicit Peer(const std::string& path) : Peer(Fd(system_kernel(), ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0))) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), std::min(path.size(), sizeof address.sun_path - 1));
    EXPECT_EQ(::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }

  // Sends bytes, with descriptors on the first of them. False: the other end is closed.
  bool send_bytes(std::span<const std::byte> bytes, const std::vector<int>& fds = {}) {
    iovec data{.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    std::vector<std::byte> control(CMSG_SPACE(fds.size() * sizeof(int)));
    if (!fds.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      cmsghdr* const part = CMSG_FIRSTHDR(&message);
      part->cmsg_level = SOL_SOCKET;
      part->cmsg_type = SCM_RIGHTS;
      part->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
      std::memcpy(CMSG_DATA(part), fds.data(), fds.size() * sizeof(int));
    }
    while (data.iov_len != 0) {
      const ssize_t sent = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0) {
        EXPECT_TRUE(errno == EPIPE || errno == ECONNRESET) << errno;
        return false;
      }
      message.msg_control = nullptr;
      message.msg_controllen = 0;
      data.iov_base = static_cast<std::byte*>(data.iov_base) + sent;
      data.iov_len -= static_cast<std::size_t>(sent);
    }
    return true;
  }
  // The bytes of a message. Ids are counted.
  Bytes message(const Call& call) { return bytes_of(header_of(call, ++id_), call.body); }
  bool send(const Call& call) { return send_bytes(message(call), call.fds); }

  // The next answer; nothing once the other end is closed.
  std::optional<Answer> receive() {
    Answer answer;
    if (!fill(std::as_writable_bytes(std::span(&answer.header, 1)))) return std::nullopt;
    EXPECT_GE(answer.header.size, sizeof(Header));
    if (answer.header.size < sizeof(Header)) return std::nullopt;
    answer.body.resize(answer.header.size - sizeof(Header));
    if (!fill(answer.body)) return std::nullopt;
    return answer;
  }
  // Sends a message and receives its answer, if it has one; ECONNRESET, as an error, if the other end is closed.
  Answer call(const Call& message) {
    const Header none{.id = 0, .command = 0, .size = sizeof(Header), .flags = type_reply, .error = 0};
    Answer closed{.header = none, .body = {}};
    closed.header.flags |= flag_error;
    closed.header.error = ECONNRESET;
    if (!send(message)) return closed;
    if ((message.flags & flag_no_reply) != 0) return {.header = none, .body = {}};
    auto answer = receive();
    if (!answer) return closed;
    EXPECT_EQ(answer->header.id, id_);
    EXPECT_EQ(answer->header.command, static_cast<std::uint16_t>(message.command));
    return std::move(*answer);
  }
  int error_of(const Call& message) { return call(message).error(); }

  // All answers until the other end is closed.
  std::vector<Answer> receive_all() {
    std::vector<Answer> answers;
    while (auto answer = receive()) answers.push_back(std::move(*answer));
    return answers;
  }
  // Whether the other end is closed, after whatever answers are left; waits for it.
  bool is_closed() {
    (void)receive_all();
    return !has_waited_;
  }

  void end_sending() { EXPECT_EQ(::shutdown(socket_.get(), SHUT_WR), 0); }
  void close() { socket_.reset(); }
  [[nodiscard]] int fd() const { return socket_.get(); }
  [[nodiscard]] std::uint16_t last_id() const { return id_; }

 private:
  bool fill(std::span<std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t got = ::recv(socket_.get(), bytes.data(), bytes.size(), 0);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        has_waited_ = true;
        ADD_FAILURE() << "the server does not answer";
      }
      if (got <= 0) return false;
      bytes = bytes.subspan(static_cast<std::size_t>(got));
    }
    return true;
  }

  Fd socket_;
  std::uint16_t id_ = 0;
  bool has_waited_ = false;  // in vain
};

// A client, and the server's end of its connection. Both have room for a whole session.
struct Connected {
  Peer peer;
  Fd served;
};
inline Connected connected(Kernel& kernel = system_kernel()) {
  std::array<int, 2> ends{};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  for (const int end : ends) {
    const int room = 1 << 20;
    EXPECT_EQ(::setsockopt(end, SOL_SOCKET, SO_SNDBUF, &room, sizeof room), 0);
  }
  return {.peer = Peer(Fd(system_kernel(), ends[0])), .served = Fd(kernel, ends[1])};
}

}  // namespace postern::vfio_user::rig
