// SPDX-License-Identifier: Apache-2.0
// Memory in a file or a dma-buf: checks whether it can be mapped, and maps it into this process.
#pragma once

#include <cstddef>
#include <postern/fd.hpp>
#include <postern/iova.hpp>
#include <postern/memory.hpp>
#include <postern/result.hpp>
#include <vector>

#include "base/words.hpp"

namespace postern {

// Checks that memory of a file or dma-buf has one, and ends at an offset that files can have. Asks the kernel nothing.
// `object` names the mapping in errors, here and below.
[[nodiscard]] Result<void> check_is_in_file(const Memory& memory, const LazyText& object);
// Checks, too, what the kernel does not: that the file is long enough, its descriptor is open for this access, and no
// seal forbids writing (memfd_pin_folios looks at none of that; Linux 7.3).
[[nodiscard]] Result<void> check_file(const Memory& memory, Access access, const LazyText& object);

// Offsets in a file, bytes.
struct FileRange {
  std::uint64_t first;
  std::uint64_t end;
};

// Parts of a file's memory without pages. They have pages once they are mapped, also if that fails half way.
using FileHoles = std::vector<FileRange>;
[[nodiscard]] Result<FileHoles> find_file_holes(const Memory& memory, const LazyText& object);
// The same, and writes zeros to pages that fallocate(2) allocated but that were never written. memfd_pin_folios pins
// such pages uncleared, so devices would read data of their last owner, and the file would lose what devices write
// (Linux 7.3).
[[nodiscard]] Result<FileHoles> clear_unwritten_pages(const Memory& memory, const LazyText& object);
// Removes the pages that holes have got since, with what was written to them. Logs a failure.
void punch_file_holes(const Memory& memory, const FileHoles& holes) noexcept;

// A file mapped into this process, for backends that take addresses only.
struct MappedFile {
  Mmap pages;                    // the whole pages of the file, of its own page size
  std::byte* address = nullptr;  // where the memory starts in them
};
[[nodiscard]] Result<MappedFile> map_into_process(const Memory& memory, Access access, const LazyText& object);

}  // namespace postern
