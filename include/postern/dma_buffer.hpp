// SPDX-License-Identifier: Apache-2.0
// DmaBuffer: memory allocated, mapped for DMA and released as one object.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <postern/container.hpp>
#include <postern/export.hpp>
#include <postern/fd.hpp>
#include <postern/iova_allocator.hpp>
#include <postern/result.hpp>

namespace postern {

/// Owns zeroed anonymous memory, its mapping in a container, and its iovas in an allocator. Holds the container; the
/// allocator must outlive it. Destroying it unmaps the memory and frees memory and iovas; the device must have stopped
/// using them. If the kernel refuses to unmap the memory, it stays allocated until the container is destroyed, and the
/// iovas are not freed. Thread safety: allocating and destroying use the container and the allocator, which are for one
/// thread at a time. In a child of fork(2), destroying the copy only unmaps the child's memory.
class POSTERN_API DmaBuffer {
 public:
  /// Allocates `length` bytes, rounded up to the container's smallest page, and maps them. Errors: ENOMEM (no memory),
  /// EINVAL (the length is zero), EOVERFLOW (runs past 2^64), ENOSPC (no iova is free), those of Container::map().
  [[nodiscard]] static Result<DmaBuffer> allocate(std::shared_ptr<Container> container, IovaAllocator& allocator,
                                                  std::uint64_t length, Access access = Access::read_write);
  DmaBuffer(DmaBuffer&&) noexcept = default;
  DmaBuffer& operator=(DmaBuffer&&) noexcept;
  ~DmaBuffer();

  [[nodiscard]] Iova iova() const noexcept { return iova_; }                  ///< address for the device
  [[nodiscard]] std::byte* data() const noexcept { return memory_.data(); }   ///< address for this process
  [[nodiscard]] std::size_t size() const noexcept { return memory_.size(); }  ///< bytes
  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return memory_.bytes(); }

 private:
  DmaBuffer(std::shared_ptr<Container> container, IovaAllocator& allocator, Mmap memory, Iova iova) noexcept
      : container_(std::move(container)), allocator_(&allocator), memory_(std::move(memory)), iova_(iova) {}
  void release() noexcept;
  void keep_memory() noexcept;

  std::shared_ptr<Container> container_;
  IovaAllocator* allocator_;
  Mmap memory_;
  Iova iova_;
};

}  // namespace postern
