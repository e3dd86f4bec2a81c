// SPDX-License-Identifier: Apache-2.0
// GuestMemory: the memory that a virtual machine's guest sees, mapped alike in the container of every device it has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <postern/attach.hpp>
#include <postern/dirty_tracker.hpp>
#include <postern/export.hpp>
#include <postern/mapping.hpp>
#include <postern/result.hpp>
#include <string_view>
#include <vector>

namespace postern {

/// How GuestMemory opens containers.
struct GuestMemoryOptions {
  std::string_view backend = "auto";              ///< of new containers, as AttachOptions::backend
  ContainerOptions container_options = {};        ///< of new containers
  std::shared_ptr<const KvmVfioDevice> kvm = {};  ///< of the guest's VM, as AttachOptions::kvm
};

/// A device attached to a GuestMemory.
struct GuestDevice {
  Device device;                     ///< the device; its container shows the guest's memory
  bool joined = false;               ///< it shares the container of devices attached before
  std::vector<Error> refusals = {};  ///< of each existing container that did not take it
};

/// A guest's memory: which Memory the guest sees at which address. Guest physical addresses are the iovas of its
/// devices. Needs no device: the layout can be made before the first is attached, and outlasts the last. Devices that
/// can share an IOMMU address space share one container, in which a page is pinned once. Each other device gets its
/// own. All containers show the same layout, and every change is made in all of them or in none. A second GuestMemory
/// serves as the address space behind a virtual IOMMU: add parts of the RAM (find(), Memory::part()) at the iovas that
/// the guest chooses. Kernel: as attach() and Container; IOMMU_IOAS_COPY in further containers of iommufd. Thread
/// safety: one thread at a time, also to attach and detach its devices. In a child of fork(2): as Container.
class POSTERN_API GuestMemory final {
 public:
  class POSTERN_LOCAL Impl;
  class Transaction;

  /// Makes an empty layout. The kernel must outlive it.
  explicit GuestMemory(Kernel& kernel, const GuestMemoryOptions& options = {});
  /// Keeps what is mapped: containers belong to their devices, and close with the last of them.
  ~GuestMemory();
  GuestMemory(GuestMemory&&) noexcept;             ///< moves; a moved-from one may only be destroyed or assigned to
  GuestMemory& operator=(GuestMemory&&) noexcept;  ///< moves

  /// Begins a change of the layout, of any number of steps. Errors: EBUSY (another one is open).
  [[nodiscard]] Result<Transaction> begin();
  /// Adds, removes, or changes one piece: a transaction of one step. Errors: those of Transaction.
  [[nodiscard]] Result<void> add(Iova first, const Memory& memory, Access access = Access::read_write);
  [[nodiscard]] Result<void> remove(IovaRange range);                     ///< as add()
  [[nodiscard]] Result<void> set_access(IovaRange range, Access access);  ///< as add()

  /// Attaches a device: to the first container that takes it, else to a new one, into which the whole layout is mapped.
  /// If dirty pages are tracked, its writes are, too. On an error it is not attached, and nothing else has changed.
  /// Errors: those of postern::attach(), Container::map() and commit(); causes() has that of each container tried.
  [[nodiscard]] Result<GuestDevice> attach(const HostDevice& device);
  /// Closes containers whose last device has been detached, which unpins their memory. commit() does so, too; until
  /// then the next device finds the layout mapped. Errors: those of Container::close().
  [[nodiscard]] Result<void> close_unused();
  /// Maps the dma-bufs in the range anew, in all containers; see remap_dma_bufs() in dma_buf.hpp. Goes on after a
  /// failure: the error is the first one's, with the others as causes.
  [[nodiscard]] Result<void> remap_dma_bufs(IovaRange range = {{0}, {~std::uint64_t{0}}});
  /// The containers, in the order in which they were opened. Do not map or unmap in them.
  [[nodiscard]] const std::vector<std::shared_ptr<Container>>& containers() const noexcept;

  /// Returns the piece of the committed layout that contains a guest address, if any. Adjacent pieces that were added
  /// in one transaction may have become one. O(log n).
  [[nodiscard]] std::optional<Mapping> find(Iova iova) const;
  /// Returns the lowest guest address at which the guest sees this byte, for memory given by address. O(log n) in
  /// pieces that do not overlap in this process.
  [[nodiscard]] std::optional<Iova> find(const std::byte* byte) const;
  /// Visits the pieces in the order of their addresses. The visitor must not change the layout.
  void for_each(const std::function<void(const Mapping&)>& visitor) const;
  [[nodiscard]] std::size_t mapping_count() const noexcept;   ///< pieces: mappings in each container
  [[nodiscard]] std::uint64_t total_length() const noexcept;  ///< bytes in all pieces

  /// Starts tracking dirty pages in all containers, with all pages clean; see DirtyTracker::start(). Either all track
  /// or none does. Without a device nothing is dirty. Errors: EBUSY (already started), EOPNOTSUPP (a container has no
  /// DirtyTracker), those of DirtyTracker::start().
  [[nodiscard]] Result<void> start_tracking();
  /// Stops tracking, even if it returns an error. Discards dirty state that was never queried. Errors: EINVAL (not
  /// started), those of DirtyTracker::stop().
  [[nodiscard]] Result<void> stop_tracking();
  /// Reports which pages of a range any device has written, as DirtyTracker::query(), merged over all containers. The
  /// range may have holes; pages of pieces that were removed since the last query are reported as they were. After an
  /// error the next query reports all pages of the range. Errors: EINVAL (not started, range or bitmap unaligned,
  /// bitmap too short), those of DirtyTracker::query().
  [[nodiscard]] Result<DirtyAnswer> query_dirty(IovaRange range, const DirtyBitmap& bitmap,
                                                AfterQuery after = AfterQuery::clear);

 private:
  std::unique_ptr<Impl> impl_;
};

/// A change of a GuestMemory: steps that take effect together with commit(). Destroying it without commit() changes
/// nothing. It must not outlive the GuestMemory. Thread safety: as the GuestMemory.
class POSTERN_API GuestMemory::Transaction final {
 public:
  ~Transaction();
  Transaction(Transaction&&) noexcept;  ///< moves
  Transaction& operator=(Transaction&&) = delete;

  /// Adds memory at a free place of the layout. The caller keeps bytes that are given by address until they are
  /// removed. Errors: EINVAL (empty, unaligned, an Access of another value, or committed already), EOVERFLOW (runs past
  /// 2^64), EEXIST (overlaps a piece, which is named).
  [[nodiscard]] Result<void> add(Iova first, const Memory& memory, Access access = Access::read_write);
  /// Removes all memory in the range, which must have no hole. A piece that reaches out of it is cut: commit() maps
  /// what remains anew, and devices cannot access it for a moment. Errors: EINVAL (as add(); its last address is below
  /// its first; or it cuts a sparse region), ENOENT (a hole, which is named).
  [[nodiscard]] Result<void> remove(IovaRange range);
  /// Lets devices read, write, or both, in the range, which must have no hole. Pieces are cut and mapped anew, as with
  /// remove(). Errors: as remove(); EINVAL (part of it is sparse).
  [[nodiscard]] Result<void> set_access(IovaRange range, Access access);

  /// Adds sparse memory (virtio-mem, balloons): only populated granules are mapped, each on its own. Returns the
  /// granule used, larger if the region would need over 16,384, or over a quarter of a container's mapping limit.
  /// Errors: those of add(); EINVAL (the granule is not a power of two of at least 4 KiB, or the length not a multiple
  /// of the one returned).
  [[nodiscard]] Result<std::uint64_t> add_sparse(Iova first, const Memory& memory, std::uint64_t granule,
                                                 Access access = Access::read_write);
  /// Maps granules of a sparse region. Errors: EINVAL (not whole granules), ENOENT (no sparse region), EEXIST (one of
  /// them is populated, which is named).
  [[nodiscard]] Result<void> populate(IovaRange range);
  /// Unmaps granules of a sparse region; the others stay mapped all the while. Discard pages (MADV_DONTNEED,
  /// FALLOC_FL_PUNCH_HOLE) only after commit(): a device goes on using those that it has mapped. remove() removes the
  /// whole region. Errors: EINVAL (not whole granules), ENOENT (no sparse region, or a hole, which is named).
  [[nodiscard]] Result<void> discard(IovaRange range);

  /// Makes the change in all containers: unmaps what is removed, then maps what is added, adjacent pieces of one memory
  /// as one. If anything fails, what was before is put back in all containers, and the transaction stays open: it may
  /// be changed, committed again, or dropped. If something cannot be put back, the error says so, and the next commit()
  /// brings that container into step. Pages that devices have written to memory that is unmapped stay dirty. Do not
  /// write to files that are added until it returns: if it fails, pages that it added to them go. Errors: ENOSPC (more
  /// mappings than a container may have), ERANGE (beyond a container's address bits), those of Container's functions.
  [[nodiscard]] Result<void> commit();

 private:
  friend class GuestMemory;
  explicit Transaction(Impl& memory) noexcept : memory_(&memory) {}
  Impl* memory_;  // null: moved from, or committed
};

}  // namespace postern
