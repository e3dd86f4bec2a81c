// SPDX-License-Identifier: Apache-2.0
// Server: one client after the other, and the device between two of them.
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <postern-vfio-user/server.hpp>
#include <postern/format.hpp>
#include <utility>

#include "vfio_user/server/connection.hpp"
#include "vfio_user/server/session.hpp"

namespace postern::vfio_user {
namespace {

using Clock = std::chrono::steady_clock;

tl::unexpected<Error> refuse(int code, std::string object, std::string reason) {
  return failure({.code = code, .object = std::move(object), .reason = std::move(reason)});
}

// Who connected. Without credentials (a socket of another family) nobody is known.
Client peer_of(const Fd& connection) {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (::getsockopt(connection.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0)
    return {.pid = 0, .user = static_cast<uid_t>(-1), .group = static_cast<gid_t>(-1)};
  return {.pid = credentials.pid, .user = credentials.uid, .group = credentials.gid};
}

// Whether accept(2) failed because the client did not wait.
bool has_left(const Error& error) { return error.code() == EAGAIN || error.code() == ECONNABORTED; }

bool may_connect(const Policy& policy, const Client& client) {
  if (policy.users.empty() && policy.groups.empty()) return true;
  return std::find(policy.users.begin(), policy.users.end(), client.user) != policy.users.end() ||
         std::find(policy.groups.begin(), policy.groups.end(), client.group) != policy.groups.end();
}

}  // namespace

class Server::Impl {
 public:
  Impl(std::function<Result<Device>()> open, ServerOptions options)
      : open_(std::move(open)), options_(std::move(options)) {}

  [[nodiscard]] Result<void> open_device();
  [[nodiscard]] Result<void> serve(Fd connection, const Event& stop, const Fd* listener);
  [[nodiscard]] Result<void> serve_all(const Fd& listener, const Event& stop, bool once);
  [[nodiscard]] const Device& device() const noexcept { return *device_; }

 private:
  // What poll(2) found.
  struct Ready {
    bool stop = false;
    bool listener = false;
    short connection = 0;
  };
  [[nodiscard]] Result<Ready> wait(const Connection* connection, const Event& stop, const Fd* listener) const;
  [[nodiscard]] Result<std::string> converse(Session& session, Connection& connection, const Event& stop,
                                             const Fd* listener);
  [[nodiscard]] tl::expected<void, std::string> answer(Session& session, Connection& connection) const;
  [[nodiscard]] Result<Fd> accept(const Fd& listener) const;
  [[nodiscard]] bool turn_away(const Fd& listener) const;
  [[nodiscard]] Result<void> take_back(Session& session);
  void tell(const ServerEvent& event) const {
    if (options_.on_event) options_.on_event(event);
  }

  std::function<Result<Device>()> open_;
  ServerOptions options_;
  std::optional<Device> device_;  // none: it could not be opened anew
};

Result<void> Server::Impl::open_device() {
  device_.reset();
  Device device = POSTERN_TRY(open_());
  const Container& container = *device.container();
  if (container.devices().size() != 1 || container.mapping_count() != 0) {
    return refuse(EBUSY, fmt::format("serve {}", device.name()),
                  "its container has other devices, or mappings, which a client would share");
  }
  device_.emplace(std::move(device));
  return {};
}

// Waits until a message may go on, one way or the other, but no longer than a message may take.
Result<Server::Impl::Ready> Server::Impl::wait(const Connection* connection, const Event& stop,
                                               const Fd* listener) const {
  std::array<pollfd, 3> files{{{.fd = stop.fd(), .events = POLLIN, .revents = 0},
                               {.fd = listener != nullptr ? listener->get() : -1, .events = POLLIN, .revents = 0},
                               {.fd = -1, .events = 0, .revents = 0}}};
  int timeout = -1;
  if (connection != nullptr) {
    files[2].fd = connection->socket().get();
    files[2].events = connection->has_rest() ? POLLOUT : POLLIN;
    if (const auto since = connection->incomplete_since(); since && !connection->has_rest()) {
      const auto left = *since + options_.message_timeout - Clock::now();
      timeout = static_cast<int>(
          std::clamp<std::int64_t>(std::chrono::ceil<std::chrono::milliseconds>(left).count(), 0, 3'600'000));
    }
  }
  if (::poll(files.data(), files.size(), timeout) < 0 && errno != EINTR) return failure_from(-errno, "poll");
  return Ready{.stop = files[0].revents != 0, .listener = files[1].revents != 0, .connection = files[2].revents};
}

// Answers the next message, if all of it has arrived; the error tells why the connection is over.
tl::expected<void, std::string> Server::Impl::answer(Session& session, Connection& connection) const {
  auto received = connection.receive();
  if (!received) return tl::unexpected(std::move(received).error());
  if (!*received) return {};
  Message& message = **received;
  const Header header = message.header;
  if (!has_usable_size(header)) {
    (void)connection.send(Reply::failed(EINVAL).message(header));
    return tl::unexpected(fmt::format("it sent a message of {} bytes", header.size));
  }
  Reply reply = session.handle(header, message.body, std::move(message.fds));
  if ((header.flags & flag_no_reply) == 0) {
    if (auto sent = connection.send(reply.message(header), std::move(reply.fd())); !sent) return sent;
  }
  if (session.is_over()) return tl::unexpected<std::string>("it did not begin with a VERSION that both understand");
  return {};
}

// Serves until the connection is over, and returns why.
Result<std::string> Server::Impl::converse(Session& session, Connection& connection, const Event& stop,
                                           const Fd* listener) {
  for (;;) {
    const Ready ready = POSTERN_TRY(wait(&connection, stop, listener));
    if (ready.stop) return refuse(ECANCELED, fmt::format("serve {}", device_->name()), "the server stops");
    // If the client has hung up, the one that waits is the next.
    if (ready.listener && (ready.connection & (POLLHUP | POLLERR)) == 0 && !turn_away(*listener)) listener = nullptr;
    if (connection.has_rest()) {
      if (auto sent = connection.send_rest(); !sent) return sent.error();
    } else if (ready.connection != 0) {
      if (auto answered = answer(session, connection); !answered) return answered.error();
    }
    const auto since = connection.incomplete_since();
    if (since && Clock::now() - *since >= options_.message_timeout && !connection.has_rest())
      return fmt::format("it sent no whole message within {} ms", options_.message_timeout.count());
  }
}

Result<void> Server::Impl::serve(Fd socket, const Event& stop, const Fd* listener) {
  if (!socket) return refuse(EBADF, "serve", "no socket is given");
  if (!device_) return refuse(ENODEV, "serve", "the device could not be opened anew after the last client");
  const Client client = peer_of(socket);
  if (!may_connect(options_.policy, client)) {
    tell({.kind = ServerEvent::Kind::refused, .client = client, .reason = "the policy does not let it connect"});
    return refuse(EPERM, fmt::format("serve {}", device_->name()),
                  fmt::format("process {} of user {} may not connect", client.pid, client.user));
  }
  tell({.kind = ServerEvent::Kind::connected, .client = client});
  Connection connection(std::move(socket));
  const auto tell_of_client = [&](ServerEvent::Kind kind, const std::string& reason) {
    tell({.kind = kind, .client = client, .reason = reason});
  };
  Session session(*device_, options_.policy, tell_of_client, options_.region_file);
  Result<std::string> over;
  try {
    over = converse(session, connection, stop, listener);
  } catch (const std::bad_alloc&) {
    over = "memory ran out";
  }
  ServerEvent gone{
      .kind = ServerEvent::Kind::gone, .client = client, .mapped = session.mapped(), .accesses = session.accesses()};
  auto taken_back = take_back(session);
  gone.reason = over ? *over : over.error().refused() ? over.error().reason() : over.error().message();
  tell(gone);
  if (!taken_back) return taken_back;
  if (!over) return failure_of(over);
  return {};
}

// Makes the device what it was before the client. Where a step fails, and where the device has no reset, it is closed
// and opened anew: the kernel then turns off and unmaps what is left. So it is after a client that got a file: opening
// fails if the client still has the device.
Result<void> Server::Impl::take_back(Session& session) {
  bool is_clean = false;
  try {
    is_clean = session.quiesce() && device_->can_reset() && device_->reset() && session.restore_header() &&
               session.unmap_all();
  } catch (const std::bad_alloc&) {
  }
  return is_clean && !session.gave_file() ? Result<void>() : Result<void>(open_device());
}

Result<Fd> Server::Impl::accept(const Fd& listener) const {
  const int accepted = ::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (accepted < 0) return failure_from(-errno, "accept4");
  return Fd(listener.kernel(), accepted);
}

// Disconnects a client that came while another is served. False: this process cannot take it, so it has to wait.
bool Server::Impl::turn_away(const Fd& listener) const {
  const auto connection = accept(listener);
  if (!connection) return has_left(connection.error());
  tell({.kind = ServerEvent::Kind::refused, .client = peer_of(*connection), .reason = "another client is served"});
  return true;
}

Result<void> Server::Impl::serve_all(const Fd& listener, const Event& stop, bool once) {
  for (;;) {
    const Ready ready = POSTERN_TRY(wait(nullptr, stop, &listener));
    if (ready.stop) return {};
    if (!ready.listener) continue;
    auto connection = accept(listener);
    if (!connection) {
      if (has_left(connection.error())) continue;
      return failure_of(connection);
    }
    auto served = serve(std::move(*connection), stop, &listener);
    if (!served && served.error().code() == EPERM && device_) continue;       // of the policy
    if (!served && served.error().code() == ECANCELED && device_) return {};  // stopped
    if (!served) return served;
    if (once) return {};
  }
}

Server::Server(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
Server::Server(Server&&) noexcept = default;
Server& Server::operator=(Server&&) noexcept = default;
Server::~Server() = default;

Result<Server> Server::open(std::function<Result<Device>()> open, ServerOptions options) {
  auto impl = std::make_unique<Impl>(std::move(open), std::move(options));
  POSTERN_TRY(impl->open_device());
  return Server(std::move(impl));
}

Result<void> Server::serve(Fd connection, const Event& stop) {
  return impl_->serve(std::move(connection), stop, nullptr);
}
Result<void> Server::serve_all(const Fd& listener, const Event& stop, bool once) {
  return impl_->serve_all(listener, stop, once);
}
const Device& Server::device() const noexcept { return impl_->device(); }

}  // namespace postern::vfio_user
