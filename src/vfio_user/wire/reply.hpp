// SPDX-License-Identifier: Apache-2.0
// Replies of vfio-user: their bytes, from a result and the header of the request.
#pragma once

#include <cstddef>
#include <cstdint>
#include <postern/fd.hpp>
#include <span>
#include <utility>
#include <vector>

#include "vfio_user/wire/layout.hpp"

namespace postern::vfio_user {

// What a request is answered with: an errno; or a body, which may be empty, and a descriptor, if any.
class Reply {
 public:
  Reply() = default;
  [[nodiscard]] static Reply failed(int error) {
    Reply reply;
    reply.error_ = error;
    return reply;
  }
  // Adds to the body.
  template <typename Body>
  Reply& add(const Body& body) {
    return add(std::as_bytes(std::span(&body, 1)));
  }
  Reply& add(std::span<const std::byte> bytes) {
    body_.insert(body_.end(), bytes.begin(), bytes.end());
    return *this;
  }

  Reply& add(Fd fd) {
    fd_ = std::move(fd);
    return *this;
  }

  [[nodiscard]] int error() const noexcept { return error_; }  // 0: none
  [[nodiscard]] Fd& fd() noexcept { return fd_; }              // sent with the message; empty: none
  [[nodiscard]] std::span<const std::byte> body() const noexcept { return body_; }

  // The message. An error is a header alone.
  [[nodiscard]] std::vector<std::byte> message(const Header& request) const {
    const auto body = error_ == 0 ? std::span<const std::byte>(body_) : std::span<const std::byte>();
    const Header header{.id = request.id,
                        .command = request.command,
                        .size = static_cast<std::uint32_t>(sizeof(Header) + body.size()),
                        .flags = type_reply | (error_ == 0 ? 0 : flag_error),
                        .error = static_cast<std::uint32_t>(error_)};
    const auto head = std::as_bytes(std::span(&header, 1));
    std::vector<std::byte> bytes(head.begin(), head.end());
    bytes.insert(bytes.end(), body.begin(), body.end());
    return bytes;
  }

 private:
  int error_ = 0;
  std::vector<std::byte> body_;
  Fd fd_;
};

}  // namespace postern::vfio_user
