// SPDX-License-Identifier: Apache-2.0
// listen_at(): a listening socket at a path.
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <postern-vfio-user/server.hpp>
#include <utility>

namespace postern::vfio_user {
namespace {

Result<Fd> make_socket(Kernel& kernel) {
  const int made = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (made < 0) return failure_from(-errno, "socket");
  return Fd(kernel, made);
}

Result<void> call(int result, const char* name, const std::string& path) {
  if (result == 0) return {};
  return failure_from(-errno, name, path);
}

// Removes what stands at the path, if it is a socket on which nobody listens.
Result<void> remove_dead_socket(Kernel& kernel, const std::string& path, const sockaddr_un& address) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) < 0) {
    if (errno == ENOENT) return {};
    return failure_from(-errno, "lstat", path);
  }
  if (!S_ISSOCK(status.st_mode)) {
    return failure({.code = EEXIST, .object = path, .reason = "something that is no socket has this name"});
  }
  const Fd probe = POSTERN_TRY(make_socket(kernel));
  const int connected = ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  if (connected == 0 || errno == EAGAIN) {
    return failure({.code = EADDRINUSE, .object = path, .reason = "a server listens there"});
  }
  if (errno != ECONNREFUSED) return failure_from(-errno, "connect", path);
  return call(::unlink(path.c_str()), "unlink", path);
}

}  // namespace

// Nobody can connect before listen(2), so the mode is set in time.
Result<Fd> listen_at(Kernel& kernel, const std::string& path, mode_t mode) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path || path.find('\0') != std::string::npos) {
    return failure({.code = path.empty() ? EINVAL : ENAMETOOLONG,
                    .object = fmt::format("socket '{}'", path),
                    .reason = fmt::format("its path must have 1 to {} bytes", sizeof address.sun_path - 1)});
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  POSTERN_TRY(remove_dead_socket(kernel, path, address));
  Fd listener = POSTERN_TRY(make_socket(kernel));
  POSTERN_TRY(call(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), "bind", path));
  auto done = call(::chmod(path.c_str(), mode), "chmod", path);
  if (done) done = call(::listen(listener.get(), 16), "listen", path);
  if (!done) {
    (void)::unlink(path.c_str());
    return failure_of(done);
  }
  return listener;
}

}  // namespace postern::vfio_user
