// SPDX-License-Identifier: Apache-2.0
// Memory: what a container maps: bytes of this process, part of a file, or part of a dma-buf.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <postern/export.hpp>
#include <postern/fd.hpp>
#include <span>
#include <utility>

namespace postern {

/// Names memory to be mapped; it does not own the bytes. A file or dma-buf is shared: a container keeps it open while
/// it is mapped, so the caller may drop it at once. Thread safety: as std::shared_ptr.
class Memory {
 public:
  /// What it is.
  enum class Kind : std::uint8_t {
    address,  ///< bytes of this process, of whatever kind
    file,     ///< a file of memory: memfd_create(2), shm_open(3), or on tmpfs or hugetlbfs
    dma_buf,  ///< a dma-buf, such as VFIO makes of a BAR (VFIO_DEVICE_FEATURE_DMA_BUF)
  };

  /// Bytes of this process.
  Memory(std::span<std::byte> bytes) noexcept  // NOLINT(google-explicit-constructor): every span is memory
      : address_(bytes.data()), length_(bytes.size()) {}
  /// `length` bytes of a file, from `offset`.
  [[nodiscard]] static Memory of_file(std::shared_ptr<const Fd> file, std::uint64_t offset, std::uint64_t length) {
    return {Kind::file, std::move(file), offset, length};
  }
  /// `length` bytes of a dma-buf, from `offset`.
  [[nodiscard]] static Memory of_dma_buf(std::shared_ptr<const Fd> dma_buf, std::uint64_t offset,
                                         std::uint64_t length) {
    return {Kind::dma_buf, std::move(dma_buf), offset, length};
  }

  /// Returns part of this memory: `length` bytes from `offset`, which must lie within it.
  [[nodiscard]] Memory part(std::uint64_t offset, std::uint64_t length) const noexcept {
    if (kind_ == Kind::address) return std::span(address_ + offset, length);
    return {kind_, file_, offset_ + offset, length};
  }

  [[nodiscard]] Kind kind() const noexcept { return kind_; }               ///< what it is
  [[nodiscard]] std::uint64_t length() const noexcept { return length_; }  ///< bytes
  [[nodiscard]] std::byte* address() const noexcept { return address_; }   ///< null for a file or dma-buf
  [[nodiscard]] const std::shared_ptr<const Fd>& file() const noexcept { return file_; }  ///< null for an address
  [[nodiscard]] std::uint64_t offset() const noexcept { return offset_; }  ///< in the file or dma-buf, bytes

 private:
  Memory(Kind kind, std::shared_ptr<const Fd> file, std::uint64_t offset, std::uint64_t length) noexcept
      : kind_(kind), length_(length), offset_(offset), file_(std::move(file)) {}

  Kind kind_ = Kind::address;
  std::byte* address_ = nullptr;
  std::uint64_t length_;
  std::uint64_t offset_ = 0;
  std::shared_ptr<const Fd> file_;
};

}  // namespace postern
