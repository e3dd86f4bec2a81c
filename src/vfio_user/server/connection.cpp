// SPDX-License-Identifier: Apache-2.0
// Connection: recvmsg(2) and send(2). Sockets are real under every Kernel, so the system calls are made directly.
#include "vfio_user/server/connection.hpp"

#include <fmt/format.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <postern/error.hpp>
#include <utility>

namespace postern::vfio_user {
namespace {

constexpr std::size_t most_received = 253;  // SCM_MAX_FD: those that do not fit the kernel would drop

// Owns the descriptors of a message.
std::size_t take_fds(Kernel& kernel, msghdr& received, std::vector<Fd>& fds) {
  std::size_t count = 0;
  for (cmsghdr* part = CMSG_FIRSTHDR(&received); part != nullptr; part = CMSG_NXTHDR(&received, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    for (std::size_t at = 0; CMSG_LEN(at + sizeof(int)) <= part->cmsg_len; at += sizeof(int), ++count) {
      int number = -1;
      std::memcpy(&number, CMSG_DATA(part) + at, sizeof number);
      Fd fd(kernel, number);
      if (fds.size() < most_fds) fds.push_back(std::move(fd));  // there is room: it is reserved
    }
  }
  return count;
}

tl::unexpected<Connection::Over> over(std::string why) { return tl::unexpected<Connection::Over>(std::move(why)); }

bool would_block() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

}  // namespace

// Receives up to `length` bytes; true: now they are all there.
tl::expected<bool, Connection::Over> Connection::fill(std::byte* bytes, std::size_t length, std::size_t& have) {
  message_.fds.reserve(most_fds);
  while (have < length) {
    iovec data{.iov_base = bytes + have, .iov_len = length - have};
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(most_received * sizeof(int))> control;
    msghdr header{};
    header.msg_iov = &data;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    const ssize_t got = ::recvmsg(socket_.get(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0) {
      if (would_block()) return false;
      return over(fmt::format("recvmsg: {}", errno_name(errno)));
    }
    const std::size_t had = message_.fds.size();
    const std::size_t fds = take_fds(socket_.kernel(), header, message_.fds);
    if ((header.msg_flags & MSG_CTRUNC) != 0) return over("this process may not open more descriptors");
    if (had + fds > most_fds) {
      return over(fmt::format("it sent {} descriptors with a message; {} is the most", had + fds, most_fds));
    }
    if (got == 0)
      return over(header_length_ == 0 ? "it closed the connection" : "it closed the connection within a message");
    if (header_length_ == 0 && has_received_) began_ = std::chrono::steady_clock::now();
    have += static_cast<std::size_t>(got);
  }
  return true;
}

tl::expected<std::optional<Message>, Connection::Over> Connection::receive() {
  const auto header = fill(reinterpret_cast<std::byte*>(&message_.header), sizeof(Header), header_length_);
  if (!header) return tl::unexpected(header.error());
  if (!*header) return std::nullopt;
  if (has_usable_size(message_.header)) {
    message_.body.resize(message_.header.size - sizeof(Header));
    const auto body = fill(message_.body.data(), message_.body.size(), body_length_);
    if (!body) return tl::unexpected(body.error());
    if (!*body) return std::nullopt;
  }
  header_length_ = 0;
  body_length_ = 0;
  has_received_ = true;
  return std::exchange(message_, {});
}

std::optional<std::chrono::steady_clock::time_point> Connection::incomplete_since() const noexcept {
  if (header_length_ == 0 && has_received_) return std::nullopt;
  return began_;
}

tl::expected<void, Connection::Over> Connection::send(std::vector<std::byte> bytes, Fd fd) {
  fd_to_send_ = std::move(fd);  // there is no other: nothing is received while there is a rest
  if (has_rest()) {
    to_send_.insert(to_send_.end(), bytes.begin(), bytes.end());
  } else {
    to_send_ = std::move(bytes);
    sent_ = 0;
  }
  return send_rest();
}

ssize_t Connection::send_some() {
  constexpr int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
  if (!fd_to_send_) return ::send(socket_.get(), to_send_.data() + sent_, to_send_.size() - sent_, flags);
  iovec data{.iov_base = to_send_.data() + sent_, .iov_len = to_send_.size() - sent_};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> control{};
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  cmsghdr* const part = CMSG_FIRSTHDR(&header);
  part->cmsg_level = SOL_SOCKET;
  part->cmsg_type = SCM_RIGHTS;
  part->cmsg_len = CMSG_LEN(sizeof(int));
  const int number = fd_to_send_.get();
  std::memcpy(CMSG_DATA(part), &number, sizeof number);
  const ssize_t sent = ::sendmsg(socket_.get(), &header, flags);
  if (sent > 0) fd_to_send_ = {};
  return sent;
}

tl::expected<void, Connection::Over> Connection::send_rest() {
  while (has_rest()) {
    const ssize_t sent = send_some();
    if (sent < 0) {
      if (would_block()) return {};
      return over(errno == EPIPE ? "it closed the connection" : fmt::format("send: {}", errno_name(errno)));
    }
    sent_ += static_cast<std::size_t>(sent);
  }
  return {};
}

}  // namespace postern::vfio_user
