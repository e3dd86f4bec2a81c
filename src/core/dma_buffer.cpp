// SPDX-License-Identifier: Apache-2.0
// DmaBuffer: memory with its iova and its mapping.
#include <postern/dma_buffer.hpp>

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <string_view>

#include "base/log.hpp"
#include "base/on_throw.hpp"
#include "base/words.hpp"
#include "iommu/address_space.hpp"
#include "kernel/ioctl.hpp"

namespace postern {
namespace {

// The flags of mmap(2) and memfd_create(2) for huge pages of this size: MAP_HUGE_SHIFT and MFD_HUGE_SHIFT are the same.
unsigned huge_flag(unsigned flag, std::uint64_t huge_page) {
  return huge_page == 0 ? 0 : flag | static_cast<unsigned>(std::countr_zero(huge_page)) << MAP_HUGE_SHIFT;
}

tl::unexpected<Error> no_memory(std::string_view call, int result, const std::string& object, std::uint64_t huge_page) {
  CallFailed what{.result = result, .object = object};
  if (huge_page != 0 && result == -ENOMEM) {
    what.reason = fmt::format("there are too few free huge pages of {}", size_text(huge_page));
    what.remedy = RemedyCode::reserve_huge_pages;
  } else if (huge_page != 0 && (result == -EINVAL || result == -ENODEV || result == -ENOENT)) {
    what.kind = ErrorKind::unsupported;
    what.reason = fmt::format("the kernel has no huge pages of {}", size_text(huge_page));
    what.remedy = RemedyCode::use_existing_huge_page_size;
  }
  return call_failure(call, std::move(what));
}

Result<std::shared_ptr<const Fd>> make_file(Kernel& kernel, std::uint64_t length, std::uint64_t huge_page,
                                            const std::string& object) {
  Fd file(kernel, kernel.memfd_create("postern-dma", huge_flag(MFD_HUGETLB, huge_page)));
  if (!file) return no_memory("memfd_create", file.get(), object, huge_page);
  if (const int result = kernel.ftruncate(file.get(), length); result < 0) {
    return no_memory("ftruncate", result, object, huge_page);
  }
  return std::make_shared<const Fd>(std::move(file));
}

}  // namespace

Result<DmaBuffer> DmaBuffer::allocate(std::shared_ptr<Container> container, std::uint64_t length,
                                      const DmaBufferOptions& options) {
  IovaAllocator* const allocator = options.allocator;
  const std::string object = fmt::format("DMA buffer of {}", size_text(length));
  if (!container) return refusal({.result = -EINVAL, .object = object, .reason = "the container is null"});
  if (length == 0) return refusal({.result = -EINVAL, .object = object, .reason = "the length is zero"});
  const std::uint64_t smallest = container->page_sizes() & -container->page_sizes();
  if (options.huge_page != 0 && !std::has_single_bit(options.huge_page)) {
    return refusal({.result = -EINVAL,
                    .object = object,
                    .reason = fmt::format("the huge page, {}, is not a power of two", size_text(options.huge_page))});
  }
  const std::uint64_t page = std::max(smallest, options.huge_page);
  if (page > 0 && length > ~(page - 1)) {
    return refusal({.result = -EOVERFLOW,
                    .object = object,
                    .reason = "rounded up to pages it runs past the last address, 2^64-1"});
  }
  if (page > 0) length = (length + page - 1) & ~(page - 1);
  Kernel& kernel = container->kernel();
  std::shared_ptr<const Fd> file;
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | static_cast<int>(huge_flag(MAP_HUGETLB, options.huge_page));
  if (options.is_file) {
    file = POSTERN_TRY(make_file(kernel, length, options.huge_page, object));
    flags = MAP_SHARED;
  }
  const std::intptr_t address = kernel.mmap(nullptr, length, PROT_READ | PROT_WRITE, flags, file ? file->get() : -1, 0);
  if (is_errno(address)) return no_memory("mmap", static_cast<int>(address), object, options.huge_page);
  Mmap memory(kernel, reinterpret_cast<void*>(address), length);
  const Memory mapped_memory = file ? Memory::of_file(file, 0, length) : Memory(memory.bytes());
  if (allocator == nullptr) {
    const Iova anywhere = POSTERN_TRY(container->map_anywhere(mapped_memory, options.access, options.within));
    return DmaBuffer(std::move(container), nullptr, std::move(memory), std::move(file), anywhere);
  }
  const Iova iova = POSTERN_TRY(allocator->allocate(length));
  const auto give_back = [&] { log_failure_of([&] { return allocator->free(iova, length); }); };
  const OnThrow undo(give_back);
  if (auto mapped = container->map(iova, mapped_memory, options.access); !mapped) {
    give_back();
    return failure_of(mapped);
  }
  return DmaBuffer(std::move(container), allocator, std::move(memory), std::move(file), iova);
}

Memory DmaBuffer::memory() const { return file_ ? Memory::of_file(file_, 0, memory_.size()) : Memory(memory_.bytes()); }

DmaBuffer& DmaBuffer::operator=(DmaBuffer&& other) noexcept {
  if (this != &other) {
    drop();
    container_ = std::move(other.container_);
    allocator_ = other.allocator_;
    memory_ = std::move(other.memory_);
    file_ = std::move(other.file_);
    iova_ = other.iova_;
  }
  return *this;
}

DmaBuffer::~DmaBuffer() { drop(); }

Result<void> DmaBuffer::release() {
  if (!container_) return {};
  const std::uint64_t length = memory_.size();
  POSTERN_TRY(container_->unmap(iova_, length));
  container_.reset();
  memory_.reset();
  file_.reset();
  return allocator_ != nullptr ? allocator_->free(iova_, length) : Result<void>();
}

void DmaBuffer::drop() noexcept {
  if (!container_) return;
  if (!container_->space().is_of_this_process()) {
    memory_.reset();  // the child's memory; the mapping and its iova are the parent's
    container_.reset();
    return;
  }
  const std::uint64_t length = memory_.size();
  log_failure_of([&] { return container_->unmap(iova_, length); });
  if (!container_->find(iova_)) {
    if (allocator_ != nullptr) log_failure_of([&] { return allocator_->free(iova_, length); });
  } else {
    // Devices may still reach it, so neither the memory nor the iova may be reused.
    container_->space().leave_behind(std::move(memory_));
  }
  container_.reset();
}

}  // namespace postern
