// SPDX-License-Identifier: Apache-2.0
// send_fds() and receive_fds(): SCM_RIGHTS. Sockets are real under every Kernel, so the system calls are made directly.
#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <postern/descriptors.hpp>

#include "kernel/ioctl.hpp"

namespace postern {
namespace {

constexpr std::size_t most_fds = 253;  // SCM_MAX_FD

// A message of one byte, with room for as many descriptors as can be sent at once: the kernel drops what does not fit.
struct Message {
  char byte = 0;
  iovec data{.iov_base = &byte, .iov_len = 1};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(most_fds * sizeof(int))> control{};
  msghdr header{};

  explicit Message(std::size_t control_length) {
    header.msg_iov = &data;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control_length;
  }
  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;
};

Result<void> check_count(std::size_t count, const std::string& object) {
  if (count >= 1 && count <= most_fds) return {};
  return refusal({.result = -EINVAL, .object = object, .reason = fmt::format("it takes 1 to {} at once", most_fds)});
}

// All descriptors of a message.
std::vector<Fd> fds_of(Kernel& kernel, Message& message) {
  std::vector<Fd> fds;
  fds.reserve(most_fds);  // before anything is owned: memory may run out
  for (cmsghdr* part = CMSG_FIRSTHDR(&message.header); part != nullptr; part = CMSG_NXTHDR(&message.header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    for (std::size_t at = 0; CMSG_LEN(at + sizeof(int)) <= part->cmsg_len; at += sizeof(int)) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + at, sizeof fd);
      fds.emplace_back(kernel, fd);
    }
  }
  return fds;
}

}  // namespace

Result<void> send_fds(int socket, std::span<const int> fds) {
  const std::string object = fmt::format("{} descriptors over socket {}", fds.size(), socket);
  POSTERN_TRY(check_count(fds.size(), object));
  Message message(CMSG_SPACE(fds.size_bytes()));
  cmsghdr& rights = *CMSG_FIRSTHDR(&message.header);
  rights.cmsg_level = SOL_SOCKET;
  rights.cmsg_type = SCM_RIGHTS;
  rights.cmsg_len = CMSG_LEN(fds.size_bytes());
  std::memcpy(CMSG_DATA(&rights), fds.data(), fds.size_bytes());
  ssize_t sent = -1;
  do {
    sent = ::sendmsg(socket, &message.header, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent >= 0) return {};
  CallFailed what{.result = -errno, .object = object};
  if (what.result == -EBADF) {
    what.kind = ErrorKind::invalid_argument;
    what.reason = "the socket or one of the descriptors is not open";
  }
  return call_failure("sendmsg", std::move(what));
}

Result<std::vector<Fd>> receive_fds(Kernel& kernel, int socket, std::size_t count) {
  const std::string object = fmt::format("{} descriptors from socket {}", count, socket);
  POSTERN_TRY(check_count(count, object));
  Message message(sizeof message.control);
  message.data.iov_len = 1;
  ssize_t got = -1;
  do {
    got = ::recvmsg(socket, &message.header, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return call_failure("recvmsg", {.result = -errno, .object = object});
  auto fds = fds_of(kernel, message);
  if (got == 0 && fds.empty()) {
    return refusal(
        {.result = -ECONNRESET, .object = object, .reason = "the other end was closed, or sent an empty message"});
  }
  // There is room for all, so it is the limit of open files that has cut them short (receive_fd_user).
  if ((message.header.msg_flags & MSG_CTRUNC) != 0) {
    return refusal({.result = -EMFILE,
                    .object = object,
                    .reason = fmt::format("this process could open {} of them only", fds.size()),
                    .remedy = RemedyCode::raise_open_files_limit});
  }
  const bool has_one_byte = got == 1 && (message.header.msg_flags & MSG_TRUNC) == 0;
  if (!has_one_byte || fds.size() != count) {
    return refusal({.result = -EPROTO,
                    .kind = ErrorKind::invalid_argument,
                    .object = object,
                    .reason = fmt::format("send_fds() did not send this message: it has {} descriptors{}", fds.size(),
                                          has_one_byte ? "" : ", and not one byte of data")});
  }
  return fds;
}

}  // namespace postern
