// SPDX-License-Identifier: Apache-2.0
// How to lend a device to a virtual machine monitor, within a policy. Lends the disk of a simulated host to one client;
// for a device of this machine, use system_kernel(). Usage: lend_disk SOCKET
#include <cstdio>
#include <postern-sim/kernel.hpp>
#include <postern-vfio-user/server.hpp>
#include <postern/attach.hpp>

using namespace postern;

static Result<void> lend(Kernel& kernel, PciAddress where, const std::string& path) {
  auto function = POSTERN_TRY(find_pci_function(kernel, where));
  auto stop = POSTERN_TRY(Event::create(kernel));  // signal it to stop, from a handler or another thread
  vfio_user::Policy policy{.memory_limit = std::uint64_t{1} << 30};
  policy.read_only_config = {{.offset = 0x3c, .length = 1}};  // the interrupt line
  auto server =
      POSTERN_TRY(vfio_user::Server::open([&] { return attach(kernel, function.host); },
                                          {.policy = policy, .on_event = [](const vfio_user::ServerEvent& event) {
                                             if (event.kind == vfio_user::ServerEvent::Kind::gone)
                                               (void)std::puts(("gone: " + event.reason).c_str());
                                           }}));
  auto listener = POSTERN_TRY(vfio_user::listen_at(kernel, path));
  return server.serve_all(listener, stop, /*once=*/true);
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  sim::Kernel kernel;
  const auto lent = lend(kernel, {.device = 1}, argv[1]);
  if (!lent) (void)std::fprintf(stderr, "%s\n", lent.error().message().c_str());
  return lent ? 0 : 1;
}
