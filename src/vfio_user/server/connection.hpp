// SPDX-License-Identifier: Apache-2.0
// Connection: a stream socket that carries messages of vfio-user. Never blocks.
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <postern/fd.hpp>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "vfio_user/wire/request.hpp"

namespace postern::vfio_user {

// A whole message, and the descriptors that came with any part of it.
struct Message {
  Header header{};
  std::vector<std::byte> body;
  std::vector<Fd> fds;
};

class Connection {
 public:
  // Why a connection is over, as text.
  using Over = std::string;

  explicit Connection(Fd socket) noexcept : socket_(std::move(socket)) {}

  // Receives what has arrived of a message. Returns it once it is complete, and nothing as long as it is not.
  [[nodiscard]] tl::expected<std::optional<Message>, Over> receive();
  // When the first byte of a message arrived that is not complete; of the first message, when the connection was made.
  [[nodiscard]] std::optional<std::chrono::steady_clock::time_point> incomplete_since() const noexcept;

  // Sends bytes, or keeps those that the socket has no room for. The descriptor, if any, goes with the first of them.
  [[nodiscard]] tl::expected<void, Over> send(std::vector<std::byte> bytes, Fd fd = {});
  // Sends what was kept. Until nothing is left, no request should be received: that bounds what is kept.
  [[nodiscard]] tl::expected<void, Over> send_rest();
  [[nodiscard]] bool has_rest() const noexcept { return sent_ < to_send_.size(); }

  [[nodiscard]] const Fd& socket() const noexcept { return socket_; }

 private:
  [[nodiscard]] tl::expected<bool, Over> fill(std::byte* bytes, std::size_t length, std::size_t& have);
  [[nodiscard]] ssize_t send_some();

  Fd socket_;
  Message message_;
  std::size_t header_length_ = 0;  // bytes of the message that have arrived
  std::size_t body_length_ = 0;
  std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
  bool has_received_ = false;  // a whole message
  std::vector<std::byte> to_send_;
  std::size_t sent_ = 0;  // bytes of it
  Fd fd_to_send_;         // with the next byte
};

}  // namespace postern::vfio_user
