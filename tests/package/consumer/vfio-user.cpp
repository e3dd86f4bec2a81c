// SPDX-License-Identifier: Apache-2.0
// Uses an installed libpostern-vfio-user.
#include <cstdio>
#include <postern-vfio-user/server.hpp>

int main() {
  const auto server = postern::vfio_user::Server::open([]() -> postern::Result<postern::Device> {
    return postern::failure({.code = 19, .object = "the consumer's device"});
  });
  return std::puts(server ? "served" : server.error().message().c_str()) < 0 || server;
}
