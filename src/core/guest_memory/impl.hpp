// SPDX-License-Identifier: Apache-2.0
// GuestMemory::Impl: a layout, the containers that show it, and the dirty pages that nobody has queried yet.
#pragma once

#include <functional>
#include <optional>
#include <postern/guest_memory.hpp>
#include <span>
#include <string>
#include <vector>

#include "core/guest_memory/layout.hpp"
#include "iommu/file_memory.hpp"
#include "memory/page_set.hpp"

namespace postern {

class GuestMemory::Impl {
 public:
  Impl(Kernel& kernel, const GuestMemoryOptions& options);

  // These are GuestMemory's functions of the same names.
  [[nodiscard]] Result<GuestDevice> attach(const HostDevice& device);
  [[nodiscard]] Result<void> close_unused();
  [[nodiscard]] Result<void> remap_dma_bufs(IovaRange range);
  [[nodiscard]] Result<void> start_tracking();
  [[nodiscard]] Result<void> stop_tracking();
  [[nodiscard]] Result<DirtyAnswer> query_dirty(IovaRange range, const DirtyBitmap& bitmap, AfterQuery after);
  [[nodiscard]] const guest_memory::GuestLayout& layout() const noexcept { return layout_; }
  [[nodiscard]] const std::vector<std::shared_ptr<Container>>& containers() const noexcept { return containers_; }

  // How many granules a sparse region may have: so many that four regions fit into each container.
  [[nodiscard]] std::uint64_t most_granules() const;
  // The open transaction's change; null: none is open.
  [[nodiscard]] guest_memory::LayoutChange* change() noexcept { return change_ ? &*change_ : nullptr; }
  void begin() { change_.emplace(layout_); }
  void drop_change() noexcept { change_.reset(); }
  [[nodiscard]] Result<void> commit();

 private:
  // One mapping to be made, or removed, in one container.
  struct Step {
    std::shared_ptr<Container> container;
    Mapping mapping;
    bool maps;
  };

  // attach.cpp
  [[nodiscard]] Result<Device> attach_to_new(const HostDevice& device);
  [[nodiscard]] Result<void> show_layout(Container& container);
  [[nodiscard]] Result<void> close_unused_if(const std::function<bool(const std::shared_ptr<Container>&)>& goes);

  // commit.cpp
  [[nodiscard]] static Result<void> check_ranges(const Container& container, const guest_memory::Pieces& pieces);
  [[nodiscard]] Result<void> check(const Container& container) const;
  [[nodiscard]] Result<void> make(const Step& step, ExaminedFiles& files);
  [[nodiscard]] Result<void> make_back(const Step& step);
  [[nodiscard]] Result<void> make_all(std::span<const Step> steps, ExaminedFiles& files);
  [[nodiscard]] Result<void> settle();
  [[nodiscard]] Result<void> remap(const std::shared_ptr<Container>& container, const Mapping& piece);
  void undo(std::span<const Step> steps, std::vector<Error>& failures) noexcept;

  // dirty.cpp
  [[nodiscard]] Result<void> start_tracking_in(Container& container);
  [[nodiscard]] Result<void> unmap_tracked(Container& container, IovaRange range);
  [[nodiscard]] Result<DirtyAnswer> query_all(IovaRange range, const DirtyBitmap& bitmap, AfterQuery after);
  [[nodiscard]] Result<DirtyAnswer> query_container(Container& container, IovaRange part, IovaRange range,
                                                    const DirtyBitmap& bitmap, AfterQuery after);
  void keep_dirty_pages(Container& container);
  [[nodiscard]] std::uint64_t* cleared_words(std::uint64_t count);

  Kernel* kernel_;
  std::string backend_;
  ContainerOptions container_options_;
  std::shared_ptr<const KvmVfioDevice> kvm_;
  guest_memory::GuestLayout layout_;
  std::optional<guest_memory::LayoutChange> change_;
  std::vector<std::shared_ptr<Container>> containers_;
  std::vector<Step> owed_;  // steps that failed when a commit was undone, in order: the next one begins with them

  std::optional<memory::PageSet> dirty_;  // pages that were unmapped or lost; null: tracking is off
  bool all_dirty_ = false;                // memory ran out for that: every page is dirty until tracking stops
  std::vector<std::uint64_t> scratch_;
};

}  // namespace postern
