// SPDX-License-Identifier: Apache-2.0
// IoPagetable: the mappings of a simulated IOAS, and the page tables that contain them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "sim/iommu/address_space.hpp"
#include "sim/iommu/iommu_model.hpp"
#include "sim/iommufd/shared_pages.hpp"
#include "sim/process/process.hpp"

namespace postern::sim {

// The mappings of an IOAS, and the page tables that contain them (struct io_pagetable). Memory is pinned while there is
// a page table.
class IoPagetable {
 public:
  struct Piece {
    std::uintptr_t address = 0;
    std::uint64_t length = 0;
    std::shared_ptr<SharedPages> pages;  // null: memory of no other mapping
  };
  static constexpr std::uint64_t page_size = 4096;

  IoPagetable(const IommuModel& iommu, Process& process) : iommu_(iommu), process_(process) {}
  // Flags are those of IOMMU_IOAS_MAP; the pieces are contiguous, from `iova` or from a free range.
  [[nodiscard]] int map(std::span<const Piece> pieces, std::uint64_t length, std::uint32_t flags, std::uint64_t& iova);
  [[nodiscard]] int unmap(IovaRange range, std::uint64_t& unmapped);
  // Splits a mapping after this iova.
  [[nodiscard]] int cut(Iova last);
  // Returns the mappings in this range, to map them again.
  [[nodiscard]] int get_pages(IovaRange range, std::vector<Piece>& pieces);

  [[nodiscard]] int reserve(IovaRange range, const void* owner);
  void remove_reserved(const void* owner);
  [[nodiscard]] std::vector<IovaRange> free_ranges() const;  // within the apertures, without the reserved ranges
  [[nodiscard]] int allow(std::vector<IovaRange> ranges);

  [[nodiscard]] int add_domain(const std::shared_ptr<Domain>& domain, IovaRange aperture);
  void remove_domain(const std::shared_ptr<Domain>& domain);

  [[nodiscard]] bool has_domain() const noexcept { return !domains_.empty(); }
  [[nodiscard]] bool has_large_pages() const noexcept { return has_large_pages_; }
  [[nodiscard]] int set_large_pages(bool on);
  [[nodiscard]] std::uint64_t alignment() const noexcept { return alignment_; }
  [[nodiscard]] const std::shared_ptr<AddressSpace>& space() const noexcept { return space_; }

 private:
  [[nodiscard]] int check_iova(std::uint64_t iova, std::uint64_t length) const;
  [[nodiscard]] int find_iova(std::uint64_t address, std::uint64_t length, std::uint64_t& iova) const;
  [[nodiscard]] std::optional<IovaRange> first_used(IovaRange range) const;
  [[nodiscard]] Piece piece_of(const Area& area) const;
  [[nodiscard]] int pin(const Piece& piece, bool writable);
  void unpin(const Piece& piece);
  [[nodiscard]] int pin_all();
  void unpin_until(const Area* end);
  [[nodiscard]] int align(std::uint64_t alignment);

  const IommuModel& iommu_;
  Process& process_;
  std::shared_ptr<AddressSpace> space_ = std::make_shared<AddressSpace>();
  std::map<std::uint64_t, std::shared_ptr<SharedPages>> shared_;  // of copies and their originals, by last iova
  std::vector<std::pair<IovaRange, const void*>> reserved_;       // and their owners
  std::vector<IovaRange> allowed_;                                // sorted, disjoint
  std::vector<std::shared_ptr<Domain>> domains_;
  std::uint64_t alignment_ = 1;
  bool has_large_pages_ = true;
};

}  // namespace postern::sim
