// SPDX-License-Identifier: Apache-2.0
// DmaBuffer: memory that a device can reach, allocated, mapped and given back together.
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

// Owns anonymous memory, the iova it is mapped at, and its place in the allocator. Holds the container; the allocator
// must outlive it. Letting it go unmaps it and frees both; make sure that the device has stopped using it. Zeroed when
// made. What the kernel refuses to unmap stays as it is until the container goes. Thread rules: making one and letting
// it go use the container and the allocator, which are for one thread at a time. In a child of fork(2) letting the copy
// go only unmaps the child's memory.
class POSTERN_API DmaBuffer {
 public:
  // `length` is rounded up to the container's smallest page. Errors: ENOMEM, ENOSPC (no iova is free), those of
  // Container::map().
  [[nodiscard]] static Result<DmaBuffer> allocate(std::shared_ptr<Container> container, IovaAllocator& allocator,
                                                  std::uint64_t length, Access access = Access::read_write);
  DmaBuffer(DmaBuffer&&) noexcept = default;
  DmaBuffer& operator=(DmaBuffer&&) noexcept;
  ~DmaBuffer();

  [[nodiscard]] Iova iova() const noexcept { return iova_; }
  [[nodiscard]] std::byte* data() const noexcept { return memory_.data(); }
  [[nodiscard]] std::size_t size() const noexcept { return memory_.size(); }
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
