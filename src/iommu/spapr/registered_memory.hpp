// SPDX-License-Identifier: Apache-2.0
// RegisteredMemory: the memory that is registered with a container of sPAPR version 2, and its users.
#pragma once

#include <cstdint>
#include <map>
#include <postern/fd.hpp>

namespace postern::spapr {

// A piece is kept on request, or exists only for the mappings that use it. So no memory is unregistered while it is
// mapped: the kernel would allow that, and then keep the memory pinned and counted until the process ends
// (tce_iommu_unregister_pages drops the result of the second mm_iommu_put; Linux 6.12, 7.3). All numbers are in bytes.
// Functions that return an int return 0 or a negated errno.
class RegisteredMemory {
 public:
  explicit RegisteredMemory(const Fd& container) : container_(container) {}

  // Whether all of this is in the kept piece of the last query. Called before every map.
  [[nodiscard]] bool is_kept(std::uint64_t address, std::uint64_t length) const noexcept {
    return length <= recent_.length && address - recent_.address <= recent_.length - length;
  }
  // Before a mapping: registers what is not yet registered, and counts a user of what is not kept. After an error
  // nothing is registered.
  [[nodiscard]] int acquire(std::uint64_t address, std::uint64_t length);
  // This class returns EFAULT if the kernel returns a number of pages instead of an errno. Whether that happened, and
  // its text.
  [[nodiscard]] bool pages_found() const noexcept { return pages_found_ > 0; }
  [[nodiscard]] std::string pages_found_text() const;
  // After its unmap: unregisters everything without users.
  void release(std::uint64_t address, std::uint64_t length);
  // Whether anything is registered that release() would check.
  [[nodiscard]] bool has_temporary() const noexcept { return temporary_ > 0; }

  struct Range {
    std::uint64_t address = 0;
    std::uint64_t length = 0;
  };
  [[nodiscard]] bool overlaps(Range range);
  // On request. Must not overlap registered memory.
  [[nodiscard]] int keep(Range range);
  // Whether exactly this was kept. It must not be mapped when it is dropped.
  [[nodiscard]] bool is_kept_as(Range range) const {
    return kept_.count(range.address) != 0 && kept_.at(range.address) == range.length;
  }
  // On an error it is still kept.
  [[nodiscard]] int drop(Range range);

  // For the release and the return of the IOMMU: unregisters everything, and registers again what is kept.
  void suspend();
  void abandon();  // the same if the kernel itself unregisters everything
  [[nodiscard]] int resume();

  [[nodiscard]] std::uint64_t size() const;  // registered now

 private:
  struct Piece {
    std::uint64_t length;
    std::uint64_t users;  // valid if it is not kept
    bool kept;
  };
  using Pieces = std::map<std::uint64_t, Piece>;

  [[nodiscard]] Pieces::iterator first_overlapping(std::uint64_t address);
  [[nodiscard]] int add_pieces(Range range, bool kept);
  int remove_pieces(Range range);
  [[nodiscard]] int call_register(Range range);
  [[nodiscard]] int call_unregister(Range range) const;

  const Fd& container_;
  Pieces pieces_;                                // by address, disjoint
  std::map<std::uint64_t, std::uint64_t> kept_;  // address and length, as requested
  Range recent_;
  std::uint64_t temporary_ = 0;  // pieces that are not kept
  int pages_found_ = 0;          // by the last registration; 0 if it returned 0 or an errno
};

}  // namespace postern::spapr
