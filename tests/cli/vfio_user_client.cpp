// SPDX-License-Identifier: Apache-2.0
// A client of vfio-user for the tests of postern serve. Usage: postern-vfio-user-client SOCKET [WORD].
// Negotiates, asks for the device, maps 1 MiB of a memfd, turns bus mastering on, and prints the ids in config space.
// With "leave" it ends at once then, with "no-memory" it maps nothing, with "hold" it waits until its standard input
// ends. With "map-bar" it maps BAR 0 and prints the first register, or says that it may not.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "vfio_user/wire/layout.hpp"

namespace {

using namespace postern::vfio_user;

[[noreturn]] void give_up(const char* what) {
  (void)std::fprintf(stderr, "%s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

int received_fd = -1;  // the last one that came with a reply

void read_all(int socket, void* bytes, std::size_t length) {
  for (std::size_t at = 0; at < length;) {
    iovec part{static_cast<char*>(bytes) + at, length - at};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof received_fd)] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t got = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    if (got == 0) errno = ECONNRESET;
    if (got <= 0) give_up("read");
    if (const cmsghdr* const rights = CMSG_FIRSTHDR(&message); rights != nullptr)
      std::memcpy(&received_fd, CMSG_DATA(rights), sizeof received_fd);
    at += static_cast<std::size_t>(got);
  }
}

// Sends a request, and returns the body of its reply.
std::vector<std::byte> ask(int socket, Command command, const std::vector<std::byte>& body, int fd = -1) {
  Header header{.id = 1,
                .command = static_cast<std::uint16_t>(command),
                .size = static_cast<std::uint32_t>(sizeof(Header) + body.size()),
                .flags = type_command,
                .error = 0};
  iovec parts[2] = {{&header, sizeof header}, {const_cast<std::byte*>(body.data()), body.size()}};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* const rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(rights), &fd, sizeof fd);
  }
  if (::sendmsg(socket, &message, MSG_NOSIGNAL) < 0) give_up("sendmsg");
  read_all(socket, &header, sizeof header);
  if ((header.flags & flag_error) != 0) {
    errno = static_cast<int>(header.error);
    give_up("the server");
  }
  std::vector<std::byte> reply(header.size - sizeof header);
  read_all(socket, reply.data(), reply.size());
  return reply;
}

template <typename Body>
std::vector<std::byte> bytes_of(const Body& body, std::string_view more = {}) {
  std::vector<std::byte> bytes(sizeof body + more.size());
  std::memcpy(bytes.data(), &body, sizeof body);
  std::memcpy(bytes.data() + sizeof body, more.data(), more.size());
  return bytes;
}

void map_bar(int socket) {
  const auto reply =
      ask(socket, Command::device_get_region_info,
          bytes_of(RegionInfoBody{.argsz = 32, .flags = 0, .index = 0, .cap_offset = 0, .size = 0, .offset = 0}));
  RegionInfoBody info;
  std::memcpy(&info, reply.data(), sizeof info);
  if (received_fd < 0) {
    (void)std::puts("BAR 0 cannot be mapped");
    return;
  }
  void* const bar =
      ::mmap(nullptr, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, received_fd, static_cast<off_t>(info.offset));
  if (bar == MAP_FAILED) give_up("mmap");
  (void)std::printf("BAR 0 begins with %08x\n", *static_cast<volatile std::uint32_t*>(bar));
  (void)std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  const std::string_view word = argc > 2 ? argv[2] : "";
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
  const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0) give_up("connect");

  const std::uint16_t version[2] = {0, 0};
  ask(socket, Command::version, bytes_of(version, std::string_view("{}\0", 3)));
  ask(socket, Command::device_get_info,
      bytes_of(DeviceInfoBody{.argsz = 16, .flags = 0, .num_regions = 0, .num_irqs = 0}));
  if (word != "no-memory") {
    const int memory = ::memfd_create("client", MFD_CLOEXEC);
    if (memory < 0 || ::ftruncate(memory, 1 << 20) != 0) give_up("memfd");
    ask(socket, Command::dma_map,
        bytes_of(DmaMapBody{.argsz = 32, .flags = 3, .offset = 0, .iova = 0, .size = 1 << 20}), memory);
  }
  constexpr std::uint32_t config = 7;
  ask(socket, Command::region_write,
      bytes_of(RegionAccessBody{.offset = 4, .region = config, .count = 2}, std::string_view("\6\0", 2)));
  const auto ids =
      ask(socket, Command::region_read, bytes_of(RegionAccessBody{.offset = 0, .region = config, .count = 4}));
  std::uint16_t values[2];
  std::memcpy(values, ids.data() + sizeof(RegionAccessBody), sizeof values);
  (void)std::printf("%04x:%04x\n", values[0], values[1]);
  (void)std::fflush(stdout);
  if (word == "map-bar") map_bar(socket);
  char byte = 0;
  while (word == "hold" && ::read(STDIN_FILENO, &byte, 1) > 0) {
  }
  return 0;
}
