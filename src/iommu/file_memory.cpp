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

// What lseek(2) finds in part of a file, or its errno.
struct Scan {
  int result = 0;
  std::uint64_t data = 0;  // bytes outside holes
  std::vector<FileRange> holes = {};
  FileRange last_data = {};  // also behind the part
};

// SEEK_HOLE visits every page up to the next hole, also behind the range.
Scan scan(const Fd& file, FileRange range) {
  Scan found;
  for (std::uint64_t at = range.first; at < range.end;) {
    std::int64_t data = file.kernel().lseek(file.get(), at, SEEK_DATA);
    if (data == -ENXIO) data = static_cast<std::int64_t>(range.end);  // no data up to the end of the file
    if (data < 0) return {.result = static_cast<int>(data)};
    const std::uint64_t hole_end = std::min(static_cast<std::uint64_t>(data), range.end);
    if (at < hole_end) found.holes.push_back({at, hole_end});
    if (hole_end == range.end) break;
    const std::int64_t next = file.kernel().lseek(file.get(), hole_end, SEEK_HOLE);
    if (next < 0) return {.result = static_cast<int>(next)};
    found.last_data = {hole_end, static_cast<std::uint64_t>(next)};
    at = std::min(found.last_data.end, range.end);
    found.data += at - hole_end;
  }
  return found;
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

Result<void> check_is_in_file(const Memory& memory, const LazyText& object) {
  if (!memory.file() || !*memory.file()) {
    return refusal({.result = -EBADF,
                    .kind = ErrorKind::invalid_argument,
                    .object = object(),
                    .reason = "the memory has no file"});
  }
  if (memory.offset() + memory.length() < memory.offset()) {
    return refusal({.result = -EOVERFLOW,
                    .kind = ErrorKind::out_of_range,
                    .object = object(),
                    .reason = "the memory runs past the last offset of a file, 2^64-1"});
  }
  return {};
}

Result<ExaminedFiles::File*> ExaminedFiles::examine(const Memory& memory, const LazyText& object) {
  const Fd& fd = *memory.file();
  if (const auto known = files_.find(&fd); known != files_.end()) return &known->second;
  File file;
  if (const int result = fd.kernel().fstat(fd.get(), file.status); result < 0)
    return call_failure("fstat", {.result = result, .object = object()});
  return &files_.emplace(&fd, file).first->second;
}

Result<void> ExaminedFiles::check(const Memory& memory, Access access, const LazyText& object) {
  const auto refuse = [&](int code, std::string reason, Remedies remedy = {}, ErrorKind kind = ErrorKind::other) {
    return refusal(
        {.result = -code, .kind = kind, .object = object(), .reason = std::move(reason), .remedy = std::move(remedy)});
  };
  POSTERN_TRY(check_is_in_file(memory, object));
  File& file = *POSTERN_TRY(examine(memory, object));
  const std::uint64_t end = memory.offset() + memory.length();
  const bool is_dma_buf = memory.kind() == Memory::Kind::dma_buf;
  if (!is_dma_buf && !S_ISREG(file.status.mode))
    return refuse(EINVAL, "it is not a regular file of memory", RemedyCode::map_file_of_memory);
  if (file.status.size < end) {
    // A dma-buf keeps its size.
    return refuse(EINVAL,
                  fmt::format("the memory ends at offset {:#x}, but the {} has {}", end,
                              is_dma_buf ? "dma-buf" : "file", size_text(file.status.size)),
                  is_dma_buf ? Remedies{} : RemedyCode::extend_file, ErrorKind::out_of_range);
  }
  if (is_dma_buf) return {};

  const auto ask = [&](int command, std::optional<int>& answer) {
    if (!answer) answer = memory.file()->kernel().fcntl(memory.file()->get(), command);
    return *answer;
  };
  const auto fail = [&](int result) { return call_failure("fcntl", {.result = result, .object = object()}); };
  const int flags = ask(F_GETFL, file.flags);
  if (flags < 0) return fail(flags);
  const bool writes = access != Access::read;
  const int mode = flags & O_ACCMODE;
  if (mode == O_WRONLY || (writes && mode == O_RDONLY)) {
    return refuse(EACCES, fmt::format("the file is open for {} only", access_text(flags)),
                  writes ? RemedyCode::open_file_for_reading_and_writing : RemedyCode::open_file_for_reading);
  }
  if (!writes) return {};
  const int seals = ask(F_GET_SEALS, file.seals);
  if (seals < 0 && seals != -EINVAL) return fail(seals);  // EINVAL: a file that cannot be sealed
  if (seals > 0 && (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0)
    return refuse(EPERM, "the file is sealed against writing", RemedyCode::map_read_only);
  return {};
}

// Looks for holes in the range. If it has some, in the whole file, too: whether they have pages shows only there, and
// others of its parts will be mapped next.
Result<void> ExaminedFiles::scan_all(const Memory& memory, FileRange range, File& file, const LazyText& object) {
  const Fd& fd = *memory.file();
  FileStatus status;
  if (const int result = fd.kernel().fstat(fd.get(), status); result < 0)
    return call_failure("fstat", {.result = result, .object = object()});
  if (status.blocks == 0) {
    file.all = {.holes = {{0, status.size}}, .have_pages = false};
    return {};
  }
  const std::int64_t position = fd.kernel().lseek(fd.get(), 0, SEEK_CUR);  // the caller's
  Scan found = scan(fd, range);
  const FileRange data = found.last_data;
  const bool has_holes = !found.holes.empty();
  if (has_holes) found = scan(fd, {0, status.size});
  const std::int64_t restored =
      position < 0 ? position : fd.kernel().lseek(fd.get(), static_cast<std::uint64_t>(position), SEEK_SET);
  const int result = found.result < 0 ? found.result : static_cast<int>(std::min<std::int64_t>(restored, 0));
  if (result < 0) return call_failure("lseek", {.result = result, .object = object()});
  file.data = data;
  if (has_holes) file.all = {.holes = std::move(found.holes), .have_pages = status.blocks * 512 > found.data};
  return {};
}

// Finds the holes of the memory before this call mapped anything. `have_pages`: some of those of the file do, which
// were never written.
Result<std::vector<FileRange>> ExaminedFiles::find(const Memory& memory, bool& have_pages, const LazyText& object) {
  const FileRange range{memory.offset(), memory.offset() + memory.length()};
  File& file = *POSTERN_TRY(examine(memory, object));
  const auto is_known = [&] { return file.all || (file.data.first <= range.first && range.end <= file.data.end); };
  if (!is_known()) POSTERN_TRY(scan_all(memory, range, file, object));
  std::vector<FileRange> holes;
  if (!file.all) return holes;
  have_pages = file.all->have_pages;
  const auto& all = file.all->holes;  // in ascending order
  const auto ends_before = [](const FileRange& hole, std::uint64_t offset) { return hole.end <= offset; };
  for (auto hole = std::lower_bound(all.begin(), all.end(), range.first, ends_before);
       hole != all.end() && hole->first < range.end; ++hole) {
    holes.push_back({std::max(hole->first, range.first), std::min(hole->end, range.end)});
  }
  return holes;
}

void ExaminedFiles::remember(const Memory& memory, std::vector<FileRange> holes) {
  if (added_ == AddedPages::go && !holes.empty()) holes_.push_back({.memory = memory, .ranges = std::move(holes)});
}

Result<void> ExaminedFiles::find_holes(const Memory& memory, const LazyText& object) {
  bool have_pages = false;
  auto holes = POSTERN_TRY(find(memory, have_pages, object));
  if (!have_pages) remember(memory, std::move(holes));  // otherwise it is not known which of them have pages already
  return {};
}

Result<void> ExaminedFiles::clear_unwritten_pages(const Memory& memory, const LazyText& object) {
  bool have_pages = false;
  auto holes = POSTERN_TRY(find(memory, have_pages, object));
  if (!have_pages) {
    remember(memory, std::move(holes));
    return {};
  }
  for (const FileRange hole : holes) {
    const CallResult populated = populate(*memory.file(), hole);
    if (populated.result < 0) return call_failure(populated.call, {.result = populated.result, .object = object()});
  }
  return {};
}

// Removes the pages that holes have got since, with what was written to them. Logs a failure.
void ExaminedFiles::give_back() noexcept {
  for (const Holes& each : holes_) {
    log_failure_of([&]() -> Result<void> {
      const Fd& fd = *each.memory.file();
      for (const FileRange hole : each.ranges) {
        const int result = fd.kernel().fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, hole.first,
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
}

Result<MappedFile> map_into_process(const Memory& memory, Access access, const LazyText& object) {
  const Fd& file = *memory.file();
  Kernel& kernel = file.kernel();
  FileStatus status;
  if (const int result = kernel.fstat(file.get(), status); result < 0)
    return call_failure("fstat", {.result = result, .object = object()});
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
    CallFailed what{.result = static_cast<int>(address), .object = object()};
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
