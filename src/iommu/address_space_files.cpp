// SPDX-License-Identifier: Apache-2.0
// AddressSpace: mappings of files and dma-bufs.
#include "base/on_throw.hpp"
#include "iommu/address_space.hpp"
#include "iommu/address_space_errors.hpp"
#include "iommu/file_memory.hpp"

namespace postern {

Result<void> AddressSpace::map_file(Iova iova, const Memory& memory, Access access, ExaminedFiles& files) {
  const IovaRange range{iova, iova + (memory.length() - 1)};
  if (!may_map(range, memory.offset(), memory.length())) return Errors(*this).refuse_map(range, memory);
  const LazyText object = [&] { return Errors(*this).map_text(range); };
  POSTERN_TRY(files.check(memory, access, object));
  if (const auto taken = mappings_.first_overlapping(range)) return Errors(*this).refuse_overlap(range, *taken);
  const auto file = files_.emplace(iova, MappedMemory{.memory = memory}).first;
  decide_on_quick_unmaps();
  const auto undo = [&] {
    files_.erase(file);
    decide_on_quick_unmaps();
  };
  const OnThrow on_throw(undo);
  if (memory.kind() == Memory::Kind::file) {
    auto found =
        backend_->maps_files() ? files.clear_unwritten_pages(memory, object) : files.find_holes(memory, object);
    if (!found) {
      undo();
      return found;
    }
  }
  auto mapped = map_file_at(range, file->second, access);
  if (!mapped) undo();
  return mapped;
}

Result<void> AddressSpace::map_file_at(IovaRange range, MappedMemory& file, Access access) {
  if (backend_->maps_files()) {
    (void)mappings_.insert(range, nullptr, access);  // before the system call, since memory may run out here
    const OnThrow undo([&] { mappings_.erase(range); });
    const CallResult mapped = backend_->map_file(range.first, file.memory, access);
    if (mapped.result >= 0) return {};
    mappings_.erase(range);
    if (mapped.result != -ENOTTY) return Errors(*this).map_failure(mapped, range, nullptr);
  }
  auto pages = POSTERN_TRY(map_into_process(file.memory, access, [&] { return Errors(*this).map_text(range); }));
  file.pages = std::move(pages.pages);
  return map_slowly(range, {pages.address, range.length()}, access);
}

Mapping AddressSpace::mapping_of(const MappingRecord& record) const {
  const auto file = files_.find(record.range.first);
  return {.range = record.range,
          .memory = file != files_.end()
                        ? file->second.memory
                        : Memory(std::span(static_cast<std::byte*>(record.address), record.range.length())),
          .access = record.access};
}

void AddressSpace::erase_files(IovaRange range) noexcept {
  files_.erase(files_.lower_bound(range.first), files_.upper_bound(range.last));
  decide_on_quick_unmaps();
}

}  // namespace postern
