// SPDX-License-Identifier: Apache-2.0
// Memory in a file or a dma-buf: checks whether it can be mapped, and maps it.
#include "iommu/file_memory.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/log.hpp"
#include "base/words.hpp"
#include "iommu/backend_container.hpp"
#include "kernel/ioctl.hpp"

namespace postern {
namespace {

// The errno of lseek(2) if it failed.
struct Holes {
  int result = 0;
  std::uint64_t data = 0;  // bytes of the whole file outside its holes
  FileHoles in_memory;     // the holes within the memory
};

Holes seek_holes(const Memory& memory, std::uint64_t size) {
  const Fd& file = *memory.file();
  const std::uint64_t end_of_memory = memory.offset() + memory.length();
  Holes holes;
  for (std::uint64_t at = 0; at < size;) {
    std::int64_t data = file.kernel().lseek(file.get(), at, SEEK_DATA);
    if (data == -ENXIO) data = static_cast<std::int64_t>(size);  // no data up to the end
    if (data < 0) return {.result = static_cast<int>(data), .in_memory = {}};
    const std::uint64_t hole_end = std::min(static_cast<std::uint64_t>(data), size);
    const FileRange hole{std::max(at, memory.offset()), std::min(hole_end, end_of_memory)};
    if (hole.first < hole.end) holes.in_memory.push_back(hole);
    if (hole_end == size) break;
    const std::int64_t next = file.kernel().lseek(file.get(), hole_end, SEEK_HOLE);
    if (next < 0) return {.result = static_cast<int>(next), .in_memory = {}};
    at = static_cast<std::uint64_t>(next);
    holes.data += at - hole_end;
  }
  return holes;
}

// A page fault clears a page that is allocated but was never written.
CallResult populate(const Fd& file, FileRange hole) {
  const std::size_t length = hole.end - hole.first;
  const std::intptr_t address = file.kernel().mmap(nullptr, length, PROT_READ, MAP_SHARED, file.get(), hole.first);
  if (is_errno(address)) return {.result = static_cast<int>(address), .call = "mmap"};
  const Mmap mapped(file.kernel(), reinterpret_cast<void*>(address), length);
  return {.result = file.kernel().madvise(mapped.data(), length, MADV_POPULATE_READ), .call = "madvise"};
}

std::string access_text(int flags) {
  const int mode = flags & O_ACCMODE;
  return mode == O_RDONLY ? "reading" : mode == O_WRONLY ? "writing" : "reading and writing";
}

}  // namespace

Result<void> check_file(const Memory& memory, Access access, const std::string& object) {
  CallFailed what{.object = object};
  const std::uint64_t end = memory.offset() + memory.length();
  if (!memory.file() || !*memory.file()) {
    what.result = -EBADF;
    what.kind = ErrorKind::invalid_argument;
    what.reason = "the memory has no file";
    return refusal(std::move(what));
  }
  if (end < memory.offset()) {
    what.result = -EOVERFLOW;
    what.reason = "the memory runs past the last offset of a file, 2^64-1";
    return refusal(std::move(what));
  }
  const Fd& file = *memory.file();
  Kernel& kernel = file.kernel();
  FileStatus status;
  what.result = kernel.fstat(file.get(), status);
  if (what.result < 0) return call_failure("fstat", std::move(what));
  if (memory.kind() == Memory::Kind::file && !S_ISREG(status.mode)) {
    what.result = -EINVAL;
    what.reason = "it is not a regular file of memory";
    what.remedy = RemedyCode::map_file_of_memory;
    return refusal(std::move(what));
  }
  if (status.size < end) {
    what.result = -EINVAL;
    what.kind = ErrorKind::out_of_range;
    const bool is_dma_buf = memory.kind() == Memory::Kind::dma_buf;
    what.reason = fmt::format("the memory ends at offset {:#x}, but the {} has {}", end,
                              is_dma_buf ? "dma-buf" : "file", size_text(status.size));
    if (!is_dma_buf) what.remedy = RemedyCode::extend_file;  // a dma-buf keeps its size
    return refusal(std::move(what));
  }
  if (memory.kind() == Memory::Kind::dma_buf) return {};

  const int flags = kernel.fcntl(file.get(), F_GETFL);
  if (flags < 0) {
    what.result = flags;
    return call_failure("fcntl", std::move(what));
  }
  const bool writes = access != Access::read;
  const int mode = flags & O_ACCMODE;
  if (mode == O_WRONLY || (writes && mode == O_RDONLY)) {
    what.result = -EACCES;
    what.reason = fmt::format("the file is open for {} only", access_text(flags));
    what.remedy = writes ? RemedyCode::open_file_for_reading_and_writing : RemedyCode::open_file_for_reading;
    return refusal(std::move(what));
  }
  const int seals = kernel.fcntl(file.get(), F_GET_SEALS);
  if (seals < 0 && seals != -EINVAL) {  // EINVAL: a file that cannot be sealed
    what.result = seals;
    return call_failure("fcntl", std::move(what));
  }
  if (writes && seals > 0 && (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0) {
    what.result = -EPERM;
    what.reason = "the file is sealed against writing";
    what.remedy = RemedyCode::map_read_only;
    return refusal(std::move(what));
  }
  return {};
}

namespace {

// The holes, and whether the kernel counts pages in what lseek(2) takes for holes: those that were never written.
struct FoundHoles {
  FileHoles holes;
  bool have_pages = false;
};

Result<FoundHoles> find_holes(const Memory& memory, const std::string& object) {
  const Fd& file = *memory.file();
  CallFailed what{.object = object};
  FileStatus status;
  what.result = file.kernel().fstat(file.get(), status);
  if (what.result < 0) return call_failure("fstat", std::move(what));
  if (status.blocks == 0) return FoundHoles{{{memory.offset(), memory.offset() + memory.length()}}};
  const std::int64_t position = file.kernel().lseek(file.get(), 0, SEEK_CUR);  // the caller's
  Holes holes = seek_holes(memory, status.size);
  const std::int64_t restored =
      position < 0 ? position : file.kernel().lseek(file.get(), static_cast<std::uint64_t>(position), SEEK_SET);
  what.result = holes.result < 0 ? holes.result : static_cast<int>(std::min<std::int64_t>(restored, 0));
  if (what.result < 0) return call_failure("lseek", std::move(what));
  // hugetlbfs has no holes.
  return FoundHoles{.holes = std::move(holes.in_memory), .have_pages = status.blocks * 512 > holes.data};
}

}  // namespace

Result<FileHoles> find_file_holes(const Memory& memory, const std::string& object) {
  auto found = POSTERN_TRY(find_holes(memory, object));
  return found.have_pages ? FileHoles() : std::move(found.holes);
}

Result<FileHoles> clear_unwritten_pages(const Memory& memory, const std::string& object) {
  auto found = POSTERN_TRY(find_holes(memory, object));
  if (!found.have_pages) return std::move(found.holes);
  for (const FileRange hole : found.holes) {
    const CallResult populated = populate(*memory.file(), hole);
    if (populated.result < 0) return call_failure(populated.call, {.result = populated.result, .object = object});
  }
  return FileHoles();
}

void punch_file_holes(const Memory& memory, const FileHoles& holes) noexcept {
  const Fd& file = *memory.file();
  log_failure_of([&]() -> Result<void> {
    for (const FileRange hole : holes) {
      const int result = file.kernel().fallocate(file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, hole.first,
                                                 hole.end - hole.first);
      if (result < 0) {
        return call_failure("fallocate", {.result = result,
                                          .object = fmt::format("offset {:#x} of a file", hole.first),
                                          .reason = "pages that a failed mapping added to the file stay in it"});
      }
    }
    return {};
  });
}

Result<MappedFile> map_into_process(const Memory& memory, Access access, const std::string& object) {
  const Fd& file = *memory.file();
  Kernel& kernel = file.kernel();
  CallFailed what{.object = object};
  FileStatus status;
  what.result = kernel.fstat(file.get(), status);
  if (what.result < 0) return call_failure("fstat", std::move(what));
  // A file of huge pages is mapped by whole huge pages only.
  const std::uint64_t page = std::max<std::uint64_t>(status.block_size, 4096);
  const std::uint64_t before = memory.offset() % page;
  const std::uint64_t length = (before + memory.length() + page - 1) / page * page;
  // For writing where the descriptor allows it, whatever devices may do: sPAPR pins all memory for writing
  // (mm_iommu_do_alloc, Linux 6.12).
  const auto map = [&](int protection) {
    return kernel.mmap(nullptr, length, protection, MAP_SHARED, file.get(), memory.offset() - before);
  };
  std::intptr_t address = map(PROT_READ | PROT_WRITE);
  if (is_errno(address) && access == Access::read) address = map(PROT_READ);
  if (is_errno(address)) {
    what.result = static_cast<int>(address);
    if (memory.kind() == Memory::Kind::dma_buf) {
      what.kind = ErrorKind::unsupported;
      what.reason = "this dma-buf cannot be mapped into a process, and this backend takes addresses only";
      what.remedy = RemedyCode::map_bar_by_address;
    } else if (what.result == -ENOMEM && status.block_size > 4096) {
      what.reason = "there are too few free huge pages";
      what.remedy = RemedyCode::reserve_huge_pages;
    }
    return call_failure("mmap", std::move(what));
  }
  return MappedFile{.pages = Mmap(kernel, reinterpret_cast<void*>(address), length),
                    .address = reinterpret_cast<std::byte*>(address) + before};
}

}  // namespace postern
