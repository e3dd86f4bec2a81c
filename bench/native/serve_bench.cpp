// SPDX-License-Identifier: Apache-2.0
// Measures what a vfio-user server adds to a message: a read of 4 bytes of config space, beside a bare socket that
// answers as many bytes with as many. Client and servers are processes on one CPU, asked in turns.
#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstring>
#include <postern-sim/kernel.hpp>
#include <postern-vfio-user/server.hpp>
#include <postern/attach.hpp>
#include <postern/pci_function.hpp>

#include "figure.hpp"
#include "vfio_user/wire/layout.hpp"

namespace postern::bench {
namespace {

using vfio_user::Command;
using vfio_user::Header;
using vfio_user::RegionAccessBody;

[[noreturn]] void give_up(const std::string& what) {
  (void)std::fprintf(stderr, "bench: %s\n", what.c_str());
  std::exit(2);
}

struct Request {
  Header header{.id = 1,
                .command = static_cast<std::uint16_t>(Command::region_read),
                .size = sizeof(Header) + sizeof(RegionAccessBody),
                .flags = 0,
                .error = 0};
  RegionAccessBody access{.offset = 0, .region = 7, .count = 4};
};
using Answer = std::array<std::byte, sizeof(Request) + 4>;

// Starts a process that serves one end of a socket; returns the other end.
template <typename Serve>
int start(Serve serve) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) give_up("socketpair");
  const pid_t child = ::fork();
  if (child < 0) give_up("fork");
  if (child == 0) {
    (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::close(ends[0]);
    serve(ends[1]);
    std::_Exit(0);
  }
  ::close(ends[1]);
  return ends[0];
}

// The calling thread only: that of the simulated machine, which polls, stays free.
void stay_on_one_cpu() {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(0, &one);
  (void)::sched_setaffinity(0, sizeof one, &one);
}

void echo(int socket) {
  stay_on_one_cpu();
  Request request;
  Answer answer{};
  while (::recv(socket, &request, sizeof request, MSG_WAITALL) == sizeof request)
    (void)::send(socket, answer.data(), answer.size(), MSG_NOSIGNAL);
}

void serve_disk(int socket) {
  sim::Kernel kernel;
  const auto function = find_pci_function(kernel, {.device = 1});
  if (!function) give_up(function.error().message());
  auto server = vfio_user::Server::open([&] { return attach(kernel, function->host); });
  if (!server) give_up(server.error().message());
  const auto stop = Event::create(kernel);
  stay_on_one_cpu();
  (void)server->serve(Fd(kernel, socket), *stop);
}

void negotiate(int socket) {
  const Header header{.id = 1, .command = 1, .size = sizeof(Header) + 4, .flags = 0, .error = 0};
  std::array<std::byte, sizeof header + 4> message{};
  std::memcpy(message.data(), &header, sizeof header);
  (void)::send(socket, message.data(), message.size(), 0);
  Header reply;
  if (::recv(socket, &reply, sizeof reply, MSG_WAITALL) != sizeof reply || reply.error != 0) give_up("VERSION failed");
  std::vector<std::byte> rest(reply.size - sizeof reply);
  (void)::recv(socket, rest.data(), rest.size(), MSG_WAITALL);
}

// Of one round trip, in microseconds.
double round_trip(int socket) {
  const Request request;
  Answer answer;
  const auto start = std::chrono::steady_clock::now();
  if (::send(socket, &request, sizeof request, MSG_NOSIGNAL) != sizeof request) give_up("send");
  if (::recv(socket, answer.data(), answer.size(), MSG_WAITALL) != static_cast<ssize_t>(answer.size())) give_up("recv");
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace
}  // namespace postern::bench

int main() {
  using namespace postern::bench;
  const int bare = start(echo);
  const int served = start(serve_disk);
  negotiate(served);
  stay_on_one_cpu();
  std::vector<double> bare_times;
  std::vector<double> served_times;
  for (int round = 0; round < 20000; ++round) {
    bare_times.push_back(round_trip(bare));
    served_times.push_back(round_trip(served));
  }
  print_figure("serve-echo", median(bare_times), "us");
  print_figure("serve-config-read", median(served_times), "us");
  print_figure("serve-config-read-ratio", median(served_times) / median(bare_times), "x of echo", 1.2);
  return all_ok ? 0 : 1;
}
