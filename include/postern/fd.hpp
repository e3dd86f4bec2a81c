// SPDX-License-Identifier: Apache-2.0
// Fd and Mmap: owners of file descriptors and memory mappings.
#pragma once

#include <cstddef>
#include <postern/export.hpp>
#include <postern/kernel.hpp>
#include <span>
#include <utility>

namespace postern {

/// Owns a file descriptor of a Kernel and closes it on destruction. Passing an Fd by value transfers ownership. There
/// is no implicit conversion to int. The Kernel must outlive it. In a child of fork(2), it closes the child's
/// descriptor. Thread safety: as int.
class POSTERN_API Fd {
 public:
  Fd() noexcept = default;
  /// Owns this descriptor; empty if it is negative.
  Fd(Kernel& kernel, int fd) noexcept : kernel_(&kernel), fd_(fd) {}
  ~Fd() { reset(); }
  /// Moves.
  Fd(Fd&& other) noexcept : kernel_(other.kernel_), fd_(std::exchange(other.fd_, -1)) {}
  /// Closes its descriptor, and moves.
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      reset();
      kernel_ = other.kernel_;
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }

  [[nodiscard]] int get() const noexcept { return fd_; }              ///< -1 if empty
  [[nodiscard]] Kernel& kernel() const noexcept { return *kernel_; }  ///< only if not empty
  explicit operator bool() const noexcept { return fd_ >= 0; }        ///< whether it owns a descriptor
  /// Closes the descriptor, if any.
  void reset() noexcept {
    if (fd_ >= 0) kernel_->close(std::exchange(fd_, -1));
  }

 private:
  Kernel* kernel_ = nullptr;
  int fd_ = -1;
};

/// Owns an mmap(2) mapping made by a Kernel and unmaps it on destruction. The Kernel must outlive it. The memory of a
/// BAR is device registers: registers_at() (registers.hpp) finds them. In a child of fork(2), it unmaps the child's
/// memory. Thread safety: the Mmap as a pointer; any thread may access the memory.
class POSTERN_API Mmap {
 public:
  Mmap() noexcept = default;
  /// Owns this mapping.
  Mmap(Kernel& kernel, void* address, std::size_t length) noexcept
      : kernel_(&kernel), address_(static_cast<std::byte*>(address)), length_(length) {}
  ~Mmap() { reset(); }
  /// Moves.
  Mmap(Mmap&& other) noexcept
      : kernel_(other.kernel_),
        address_(std::exchange(other.address_, nullptr)),
        length_(std::exchange(other.length_, 0)) {}
  /// Unmaps its memory, and moves.
  Mmap& operator=(Mmap&& other) noexcept {
    if (this != &other) {
      reset();
      kernel_ = other.kernel_;
      address_ = std::exchange(other.address_, nullptr);
      length_ = std::exchange(other.length_, 0);
    }
    return *this;
  }

  [[nodiscard]] std::byte* data() const& noexcept { return address_; }                        ///< null if empty
  [[nodiscard]] std::size_t size() const noexcept { return length_; }                         ///< bytes
  [[nodiscard]] std::span<std::byte> bytes() const& noexcept { return {address_, length_}; }  ///< data() and size()
  [[nodiscard]] std::byte* data() const&& = delete;                        ///< deleted for temporaries: keep the Mmap
  [[nodiscard]] std::span<std::byte> bytes() const&& = delete;             ///< deleted for temporaries: keep the Mmap
  explicit operator bool() const noexcept { return address_ != nullptr; }  ///< whether it owns a mapping
  /// Unmaps the memory, if any.
  void reset() noexcept {
    if (address_ != nullptr) kernel_->munmap(std::exchange(address_, nullptr), std::exchange(length_, 0));
  }

 private:
  Kernel* kernel_ = nullptr;
  std::byte* address_ = nullptr;
  std::size_t length_ = 0;
};

}  // namespace postern
