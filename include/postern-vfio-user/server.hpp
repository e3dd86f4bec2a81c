// SPDX-License-Identifier: Apache-2.0
// vfio_user::Server: lends an attached device to another process, such as a VMM, over a vfio-user socket.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <postern/device.hpp>
#include <postern/event.hpp>
#include <postern/export.hpp>
#include <postern/fd.hpp>
#include <postern/result.hpp>
#include <string>
#include <vector>

/// vfio-user, the protocol by which a process offers a device to another (QEMU: docs/interop/vfio-user.rst).
namespace postern::vfio_user {

/// Part of config space. Plain data.
struct ConfigRange {
  std::uint16_t offset = 0;  ///< bytes
  std::uint16_t length = 0;  ///< bytes
};

/// What a client may do. The kernel checks none of it.
struct Policy {
  std::uint64_t memory_limit = ~std::uint64_t{0};  ///< bytes that it may map at a time, and that the host then pins
  std::size_t mapping_limit = 65535;               ///< mappings at a time, those without a file included
  bool may_reset = true;                           ///< by DEVICE_RESET; config space has resets of its own (FLR)
  std::vector<ConfigRange> read_only_config = {};  ///< its writes to these bytes are dropped
  /// Users and groups whose processes may connect (SO_PEERCRED); both empty: whoever may open the socket.
  std::vector<uid_t> users = {};
  std::vector<gid_t> groups = {};  ///< the process's effective group
};

/// The process at the other end of a socket, when it connected. Plain data.
struct Client {
  pid_t pid = 0;    ///< 0: in a PID namespace that this process does not see
  uid_t user = 0;   ///< effective
  gid_t group = 0;  ///< effective
};

/// What happens to a server, for its operator. Plain data.
struct ServerEvent {
  /// What it is.
  enum class Kind : std::uint8_t {
    connected,         ///< a client has the device
    refused,           ///< a client may not connect, or another one is served
    memory_is_absent,  ///< the client has turned bus mastering on, but no memory that a device can access is mapped
    memory_refused,    ///< memory of the client could not be mapped; told of the first only
    region_refused,    ///< ServerOptions::region_file failed, so accesses are messages; told of the first only
    gone,              ///< the client has left, and the device is as before
  };
  Kind kind = Kind::connected;  ///< what happened
  Client client = {};           ///< to whom
  std::uint64_t mapped = 0;     ///< gone: bytes that were mapped last
  std::uint64_t accesses = 0;   ///< gone: reads and writes of regions that were messages, but for config space
  std::string reason = {};      ///< refused, memory_refused, region_refused, gone: why, as text
};

/// The file by which a client maps a region. Moves only.
struct RegionFile {
  Fd fd;                     ///< sent to the client; empty: none, accesses are messages
  std::uint64_t offset = 0;  ///< where the region begins in it, bytes
};

/// A copy of the device fd, for ServerOptions::region_file. Whoever has it can do everything with the device that VFIO
/// allows: reset it, read and write all of config space, map it, set its interrupts, and keep it open. Kernel: mmap(2)
/// on a device fd. Errors: EBADF (the device has no fd), those of fcntl(2).
[[nodiscard]] POSTERN_API Result<RegionFile> device_fd_of(const Device& device, const Region& region);

/// Options of a server.
struct ServerOptions {
  Policy policy = {};  ///< what clients may do
  /// Told what happens, on the thread that serves.
  std::function<void(const ServerEvent&)> on_event = {};
  /// How long a client may take to send the rest of a message, or the first one; then it is disconnected.
  std::chrono::milliseconds message_timeout{5000};
  /// Called when a client asks for a region that can be mapped: its file. Null: all accesses are messages, so that the
  /// policy holds. After a client that got one, the device is closed and opened anew, which fails for as long as the
  /// client keeps a device fd, or a mapping of it.
  std::function<Result<RegionFile>(const Device&, const Region&)> region_file = {};
};

/// Lends one device to one client at a time. The client's accesses to regions go through the server, but for those that
/// it maps (ServerOptions::region_file); its memory is mapped by the files that it sends, which the server itself never
/// reads; interrupts signal its eventfds directly. When a client leaves, in whatever way, bus mastering and interrupts
/// are turned off, the device is reset (or, if it has no reset, closed and opened anew), and everything is unmapped, in
/// this order. Thread safety: one thread at a
/// time.
class POSTERN_API Server final {
 public:
  /// Opens the device by calling `open`, which is called again for each client of a device that has no reset:
  ///
  ///     auto server = POSTERN_TRY(vfio_user::Server::open([&] { return attach(kernel, function.host); }));
  ///
  /// The device must be in a container of its own. Errors: those of `open`; EBUSY (the container has other devices or
  /// mappings).
  [[nodiscard]] static Result<Server> open(std::function<Result<Device>()> open, ServerOptions options = {});
  Server(Server&&) noexcept;             ///< moves
  Server& operator=(Server&&) noexcept;  ///< moves
  ~Server();

  /// Serves the client at the other end of a connected AF_UNIX stream socket, until it leaves or `stop` is signalled.
  /// The errors of a client are its own: they are not returned. Errors: EPERM (the policy does not let it connect),
  /// ECANCELED (stopped), EBADF (an empty Fd), those of poll(2); those of resetting and opening the device, after which
  /// the server can only be destroyed.
  [[nodiscard]] Result<void> serve(Fd connection, const Event& stop);
  /// Serves one client after the other of a listening AF_UNIX stream socket, until `stop` is signalled. A client that
  /// connects while another is served is disconnected at once. With `once`, returns after the first that was served.
  /// Errors: those of poll(2) and accept(2), those of resetting and opening the device.
  [[nodiscard]] Result<void> serve_all(const Fd& listener, const Event& stop, bool once = false);

  [[nodiscard]] const Device& device() const noexcept;  ///< not while a client is served

 private:
  class POSTERN_LOCAL Impl;
  explicit Server(std::unique_ptr<Impl> impl) noexcept;
  std::unique_ptr<Impl> impl_;
};

/// Makes a listening AF_UNIX stream socket at `path`, with this mode. Replaces a socket on which nobody listens.
/// Errors: EADDRINUSE (a server listens there), EEXIST (something else is there), ENAMETOOLONG (more than 107 bytes),
/// those of bind(2).
[[nodiscard]] POSTERN_API Result<Fd> listen_at(Kernel& kernel, const std::string& path, mode_t mode = 0600);

}  // namespace postern::vfio_user
