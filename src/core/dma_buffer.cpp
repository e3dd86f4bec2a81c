// SPDX-License-Identifier: Apache-2.0
// DmaBuffer: memory, iova and mapping as one.
#include <postern/dma_buffer.hpp>

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.hpp"
#include "base/on_throw.hpp"
#include "base/words.hpp"
#include "kernel/ioctl.hpp"

namespace postern {

Result<DmaBuffer> DmaBuffer::allocate(std::shared_ptr<Container> container, IovaAllocator& allocator,
                                      std::uint64_t length, Access access) {
  const std::uint64_t page = container->page_sizes() & -container->page_sizes();
  if (page > 0 && length > ~(page - 1)) {
    return refusal({.result = -EOVERFLOW,
                    .object = fmt::format("DMA buffer of {}", size_text(length)),
                    .reason = "rounded up to pages it runs past the last address, 2^64-1"});
  }
  if (page > 0) length = (length + page - 1) & ~(page - 1);
  Kernel& kernel = container->kernel();
  const std::intptr_t address =
      kernel.mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (is_errno(address)) {
    return call_failure(
        "mmap", {.result = static_cast<int>(address), .object = fmt::format("DMA buffer of {}", size_text(length))});
  }
  Mmap memory(kernel, reinterpret_cast<void*>(address), length);
  auto iova = allocator.allocate(length);
  if (!iova) return failure_of(iova);
  const auto give_back = [&] { log_failure_of([&] { return allocator.free(*iova, length); }); };
  const OnThrow undo(give_back);
  if (auto mapped = container->map(*iova, memory.bytes(), access); !mapped) {
    give_back();
    return failure_of(mapped);
  }
  return DmaBuffer(std::move(container), allocator, std::move(memory), *iova);
}

DmaBuffer& DmaBuffer::operator=(DmaBuffer&& other) noexcept {
  if (this != &other) {
    release();
    container_ = std::move(other.container_);
    allocator_ = other.allocator_;
    memory_ = std::move(other.memory_);
    iova_ = other.iova_;
  }
  return *this;
}

DmaBuffer::~DmaBuffer() { release(); }

void DmaBuffer::release() noexcept {
  if (!container_) return;
  if (container_->process_ != ::getpid()) {
    memory_.reset();  // the child's; the mapping and its iova are the parent's
    container_.reset();
    return;
  }
  const std::uint64_t length = memory_.size();
  log_failure_of([&] { return container_->unmap(iova_, length); });
  if (!container_->find(iova_)) {
    log_failure_of([&] { return allocator_->free(iova_, length); });
  } else {
    keep_memory();
  }
  container_.reset();
}

// What devices may still reach must not become somebody else's: iova and memory stay taken, until the container goes
// or, where there is no memory to write it down, for good.
void DmaBuffer::keep_memory() noexcept {
  try {
    container_->left_behind_.reserve(container_->left_behind_.size() + 1);
    container_->left_behind_.push_back(std::move(memory_));
  } catch (const std::bad_alloc&) {
    alignas(Mmap) std::byte never_destroyed[sizeof(Mmap)];
    ::new (static_cast<void*>(never_destroyed)) Mmap(std::move(memory_));
  }
}

}  // namespace postern
