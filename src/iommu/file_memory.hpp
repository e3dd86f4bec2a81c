// SPDX-License-Identifier: Apache-2.0
// Memory in a file or a dma-buf: checks whether it can be mapped, and maps it into this process.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
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

// Offsets in a file, bytes.
struct FileRange {
  std::uint64_t first = 0;
  std::uint64_t end = 0;
};

// The files of the mappings that one call makes. Each is examined once, not once for each mapping.
class ExaminedFiles {
 public:
  // What becomes of pages that the mappings add to files: they stay, or the destructor removes them, with what others
  // have written to them meanwhile, unless keep() was called. Nothing may be mapped then.
  enum class AddedPages : std::uint8_t { go, stay };

  explicit ExaminedFiles(AddedPages added = AddedPages::go) noexcept : added_(added) {}
  ~ExaminedFiles() { give_back(); }
  ExaminedFiles(const ExaminedFiles&) = delete;
  ExaminedFiles& operator=(const ExaminedFiles&) = delete;

  // Checks what the kernel does not: that the memory is in a file that is long enough, its descriptor is open for this
  // access, and no seal forbids writing (memfd_pin_folios looks at none of that; Linux 7.3).
  [[nodiscard]] Result<void> check(const Memory& memory, Access access, const LazyText& object);
  // Finds the parts of a file's memory without pages, which have pages once they are mapped, also if that fails.
  [[nodiscard]] Result<void> find_holes(const Memory& memory, const LazyText& object);
  // The same, and writes zeros to pages that fallocate(2) allocated but that were never written. memfd_pin_folios pins
  // such pages uncleared, so devices would read data of their last owner, and the file would lose what devices write
  // (Linux 7.3).
  [[nodiscard]] Result<void> clear_unwritten_pages(const Memory& memory, const LazyText& object);
  // The mappings stay, and with them the pages.
  void keep() noexcept { holes_.clear(); }

 private:
  // All holes of a file, before anything is mapped.
  struct AllHoles {
    std::vector<FileRange> holes;
    bool have_pages;  // allocated, but never written
  };
  struct File {
    FileStatus status;
    std::optional<int> flags;  // F_GETFL, or its negated errno; null: not asked
    std::optional<int> seals;  // F_GET_SEALS, in the same way
    FileRange data;            // is known to have no holes
    std::optional<AllHoles> all;
  };
  struct Holes {
    Memory memory;
    std::vector<FileRange> ranges;
  };

  [[nodiscard]] Result<File*> examine(const Memory& memory, const LazyText& object);
  [[nodiscard]] static Result<void> scan_all(const Memory& memory, FileRange range, File& file, const LazyText& object);
  [[nodiscard]] Result<std::vector<FileRange>> find(const Memory& memory, bool& have_pages, const LazyText& object);
  void remember(const Memory& memory, std::vector<FileRange> holes);
  void give_back() noexcept;

  AddedPages added_;
  std::map<const Fd*, File> files_;  // their descriptors, which the mappings own
  std::vector<Holes> holes_;
};

// A file mapped into this process, for backends that take addresses only.
struct MappedFile {
  Mmap pages;                    // the whole pages of the file, of its own page size
  std::byte* address = nullptr;  // where the memory starts in them
};
[[nodiscard]] Result<MappedFile> map_into_process(const Memory& memory, Access access, const LazyText& object);

}  // namespace postern
