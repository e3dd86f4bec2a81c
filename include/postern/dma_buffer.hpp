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
#include <postern/memory.hpp>
#include <postern/result.hpp>

namespace postern {

/// Which memory a DmaBuffer allocates.
struct DmaBufferOptions {
  Access access = Access::read_write;  ///< allowed device accesses
  std::uint64_t huge_page = 0;         ///< bytes of the huge pages to allocate from, such as 2 MiB; 0: ordinary pages
  bool is_file = false;                ///< allocate a memfd, which can be handed to other processes: see memory()
  IovaAllocator* allocator = nullptr;  ///< where the iovas come from; null: the container chooses (map_anywhere())
  /// Where the container may choose, for devices that address fewer bits. Not used with an allocator.
  IovaRange within = {{0}, {~std::uint64_t{0}}};
};

/// Owns zeroed memory, its mapping in a container, and its iovas in an allocator, if one was given. Holds the
/// container; the allocator must outlive it. Destroying it unmaps the memory and frees memory and iovas; the device
/// must have stopped using them. If the kernel refuses to unmap the memory, it stays allocated until the container is
/// destroyed, and the iovas are not freed; release() reports it instead. Thread safety: allocating and destroying use
/// the container and the allocator, which are for one thread at a time. In a child of fork(2), destroying the copy only
/// unmaps the child's memory.
class POSTERN_API DmaBuffer {
 public:
  /// Allocates `length` bytes, rounded up to the container's smallest page or to the huge page, and maps them. Errors:
  /// ENOMEM (no memory, or too few free huge pages), EINVAL (the container is null; the length is zero; there are no
  /// huge pages of this size), EOVERFLOW (runs past 2^64), ENOSPC (no iova is free), those of mmap(2), memfd_create(2)
  /// and Container::map().
  [[nodiscard]] static Result<DmaBuffer> allocate(std::shared_ptr<Container> container, std::uint64_t length,
                                                  const DmaBufferOptions& options = {});
  /// As above, with this allocator.
  [[nodiscard]] static Result<DmaBuffer> allocate(std::shared_ptr<Container> container, IovaAllocator& allocator,
                                                  std::uint64_t length, DmaBufferOptions options = {}) {
    options.allocator = &allocator;
    return allocate(std::move(container), length, options);
  }
  DmaBuffer(DmaBuffer&&) noexcept = default;   ///< moves
  DmaBuffer& operator=(DmaBuffer&&) noexcept;  ///< releases its memory, and moves
  ~DmaBuffer();

  [[nodiscard]] Iova iova() const noexcept { return iova_; }                             ///< address for the device
  [[nodiscard]] std::byte* data() const noexcept { return memory_.data(); }              ///< address for this process
  [[nodiscard]] std::size_t size() const noexcept { return memory_.size(); }             ///< bytes
  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return memory_.bytes(); }  ///< data() and size()
  /// Unmaps the memory, frees it and its iovas, and reports errors, which the destructor only logs; does nothing the
  /// second time. After an error of unmapping, the buffer is as before and can be released again. Errors: those of
  /// Container::unmap() and IovaAllocator::free().
  [[nodiscard]] Result<void> release();
  /// Returns the memory as it is mapped: its file, from offset 0, if DmaBufferOptions::is_file was set; else its bytes.
  [[nodiscard]] Memory memory() const;

 private:
  DmaBuffer(std::shared_ptr<Container> container, IovaAllocator* allocator, Mmap memory, std::shared_ptr<const Fd> file,
            Iova iova) noexcept
      : container_(std::move(container)),
        allocator_(allocator),
        memory_(std::move(memory)),
        file_(std::move(file)),
        iova_(iova) {}
  void drop() noexcept;

  std::shared_ptr<Container> container_;  // null: released, or moved from
  IovaAllocator* allocator_;              // null: the container chose the iova
  Mmap memory_;
  std::shared_ptr<const Fd> file_;  // null: the memory is anonymous
  Iova iova_;
};

}  // namespace postern
