// SPDX-License-Identifier: Apache-2.0
// RegisteredMemory: what of this process's memory is registered with an sPAPR v2 container, and who needs it.
#pragma once

#include <cstdint>
#include <map>
#include <postern/fd.hpp>

namespace postern::spapr {

// A piece is kept because somebody asked for it, or is there for the mappings that use it alone. So no memory can be
// unregistered while it is mapped: the kernel would let it happen, and then keep the memory pinned and counted until
// the process ends (tce_iommu_unregister_pages drops the result of the second mm_iommu_put; Linux 6.12, 7.3). Every
// number is in bytes; every function that gives an int gives 0 or a negated errno.
class RegisteredMemory {
 public:
  explicit RegisteredMemory(const Fd& container) : container_(container) {}

  // Whether all of this is in the kept piece that was asked for last: the question before every map.
  [[nodiscard]] bool is_kept(std::uint64_t address, std::uint64_t length) const noexcept {
    return length <= recent_.length && address - recent_.address <= recent_.length - length;
  }
  // Before a mapping: registers what is not, and counts a user of what is not kept. On an error nothing is registered.
  [[nodiscard]] int acquire(std::uint64_t address, std::uint64_t length);
  // EFAULT is this class's own word for an answer that is no errno: whether it was one, and what it said.
  [[nodiscard]] bool pages_found() const noexcept { return pages_found_ > 0; }
  [[nodiscard]] std::string pages_found_text() const;
  // After its unmap: whatever has no user left is unregistered.
  void release(std::uint64_t address, std::uint64_t length);
  // Whether anything is registered that release() would look at.
  [[nodiscard]] bool has_temporary() const noexcept { return temporary_ > 0; }

  struct Range {
    std::uint64_t address = 0;
    std::uint64_t length = 0;
  };
  [[nodiscard]] bool overlaps(Range range);
  // On request: this must overlap nothing that is registered.
  [[nodiscard]] int keep(Range range);
  // Whether exactly this was kept. Nothing of it may be mapped when it is dropped.
  [[nodiscard]] bool is_kept_as(Range range) const {
    return kept_.count(range.address) != 0 && kept_.at(range.address) == range.length;
  }
  // On an error it is still kept.
  [[nodiscard]] int drop(Range range);

  // When the IOMMU goes, and when it comes back: what is kept is unregistered, and registered again.
  void suspend();
  void abandon();  // the same where the kernel unregisters all of it by itself
  [[nodiscard]] int resume();

  [[nodiscard]] std::uint64_t size() const;  // registered now

 private:
  struct Piece {
    std::uint64_t length;
    std::uint64_t users;  // counts where it is not kept
    bool kept;
  };
  using Pieces = std::map<std::uint64_t, Piece>;

  [[nodiscard]] Pieces::iterator first_overlapping(std::uint64_t address);
  [[nodiscard]] int add_pieces(Range range, bool kept);
  int remove_pieces(Range range);
  [[nodiscard]] int call_register(Range range);
  [[nodiscard]] int call_unregister(Range range) const;

  const Fd& container_;
  Pieces pieces_;                                // by address, apart from each other
  std::map<std::uint64_t, std::uint64_t> kept_;  // address and length, as they were asked for
  Range recent_;
  std::uint64_t temporary_ = 0;  // pieces that are not kept
  int pages_found_ = 0;          // by the last call that registered; 0 where it gave 0 or an errno
};

}  // namespace postern::spapr
