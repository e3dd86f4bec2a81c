// SPDX-License-Identifier: Apache-2.0
// DmaBuffer: memory, iova and mapping as one.
#include <postern/dma_buffer.hpp>

#include <fmt/format.h>
#include <sys/mman.h>

#include "base/log.hpp"
#include "base/words.hpp"
#include "kernel/ioctl.hpp"

namespace postern {

Result<DmaBuffer> DmaBuffer::allocate(std::shared_ptr<Container> container, IovaAllocator& allocator,
                                      std::uint64_t length, Access access) {
  const std::uint64_t page = container->page_sizes() & -container->page_sizes();
  // What cannot be rounded up is more than there is, which mmap(2) says.
  if (const std::uint64_t rounded = (length + page - 1) & ~(page - 1); page > 0 && rounded >= length) length = rounded;
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
  if (auto mapped = container->map(*iova, memory.bytes(), access); !mapped) {
    log_failure(allocator.free(*iova, length));
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
  const std::uint64_t length = memory_.size();
  log_failure(container_->unmap(iova_, length));
  if (!container_->find(iova_)) {
    log_failure(allocator_->free(iova_, length));
  } else {
    // What devices may still reach must not become somebody else's: then iova and memory stay taken.
    container_->left_behind_.push_back(std::move(memory_));
  }
  container_.reset();
}

}  // namespace postern
