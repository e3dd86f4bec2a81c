// SPDX-License-Identifier: Apache-2.0
// Fd and Mmap: what the kernel handed out, and who must give it back.
#pragma once

#include <cstddef>
#include <postern/export.hpp>
#include <postern/kernel.hpp>
#include <span>
#include <utility>

namespace postern {

// Owns a file descriptor of a Kernel; closes it when it goes. Passing one by value passes it on. Never turns into an
// int by itself. The Kernel must outlive it. In a child of fork(2) closing it closes the child's. Thread rules: as int.
class POSTERN_API Fd {
 public:
  Fd() noexcept = default;
  Fd(Kernel& kernel, int fd) noexcept : kernel_(&kernel), fd_(fd) {}
  ~Fd() { reset(); }
  Fd(Fd&& other) noexcept : kernel_(other.kernel_), fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      reset();
      kernel_ = other.kernel_;
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }

  [[nodiscard]] int get() const noexcept { return fd_; }
  [[nodiscard]] Kernel& kernel() const noexcept { return *kernel_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }
  void reset() noexcept {
    if (fd_ >= 0) kernel_->close(std::exchange(fd_, -1));
  }

 private:
  Kernel* kernel_ = nullptr;
  int fd_ = -1;
};

// Owns a mapping of memory (mmap(2)) made through a Kernel; unmaps it when it goes. For a BAR the memory is a device's
// registers: access it through volatile pointers of the register's own width. In a child of fork(2) it unmaps the
// child's memory. Thread rules: of the owner as of a pointer; the memory is any thread's.
class POSTERN_API Mmap {
 public:
  Mmap() noexcept = default;
  Mmap(Kernel& kernel, void* address, std::size_t length) noexcept
      : kernel_(&kernel), address_(static_cast<std::byte*>(address)), length_(length) {}
  ~Mmap() { reset(); }
  Mmap(Mmap&& other) noexcept
      : kernel_(other.kernel_),
        address_(std::exchange(other.address_, nullptr)),
        length_(std::exchange(other.length_, 0)) {}
  Mmap& operator=(Mmap&& other) noexcept {
    if (this != &other) {
      reset();
      kernel_ = other.kernel_;
      address_ = std::exchange(other.address_, nullptr);
      length_ = std::exchange(other.length_, 0);
    }
    return *this;
  }

  [[nodiscard]] std::byte* data() const noexcept { return address_; }
  [[nodiscard]] std::size_t size() const noexcept { return length_; }
  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return {address_, length_}; }
  explicit operator bool() const noexcept { return address_ != nullptr; }
  void reset() noexcept {
    if (address_ != nullptr) kernel_->munmap(std::exchange(address_, nullptr), std::exchange(length_, 0));
  }

 private:
  Kernel* kernel_ = nullptr;
  std::byte* address_ = nullptr;
  std::size_t length_ = 0;
};

}  // namespace postern
