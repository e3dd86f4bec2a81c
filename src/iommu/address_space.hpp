// SPDX-License-Identifier: Apache-2.0
// AddressSpace: the implementation of a Container: checks, record of mappings, devices, and the backend that makes the
// system calls. May use all of src/iommu except the backends.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <postern/container.hpp>
#include <span>
#include <string>
#include <vector>

#include "base/maker.hpp"
#include "base/on_fork.hpp"
#include "base/one_thread.hpp"
#include "iommu/attached.hpp"
#include "iommu/backend_container.hpp"
#include "iommu/bounds.hpp"
#include "iommu/requirement.hpp"
#include "memory/shadow_map.hpp"

namespace postern {

class ExaminedFiles;

class AddressSpace {
 public:
  using Devices = std::vector<std::unique_ptr<Attached>>;

  // Opens a container, as Container::open(), on what look_up() has opened, if it has.
  [[nodiscard]] static Result<std::shared_ptr<Container>> open(Probed probed, Kernel& kernel, const Backend& backend,
                                                               const ContainerOptions& options);
  explicit AddressSpace(std::unique_ptr<BackendContainer> backend);
  ~AddressSpace();
  AddressSpace(const AddressSpace&) = delete;
  AddressSpace& operator=(const AddressSpace&) = delete;

  // Container's functions of the same names. map() and unmap() are inline, in address_space_inline.hpp: the fast path.
  [[nodiscard]] Result<void> map(Iova iova, std::span<std::byte> memory, Access access);
  [[nodiscard]] Result<void> map_file(Iova iova, const Memory& memory, Access access, ExaminedFiles& files);
  [[nodiscard]] tl::unexpected<Error> refuse_access(Iova iova, std::uint64_t length, Access access) const;
  [[nodiscard]] Result<Iova> map_anywhere(const Memory& memory, Access access, IovaRange within);
  [[nodiscard]] Result<void> unmap(Iova iova, std::uint64_t length);
  [[nodiscard]] Result<void> unmap_all();
  [[nodiscard]] Result<void> close();
  [[nodiscard]] std::optional<std::uint64_t> mappings_left() const noexcept;
  [[nodiscard]] void* find_capability(std::string_view name) noexcept;

  [[nodiscard]] Kernel& kernel() const noexcept { return backend_->kernel(); }
  [[nodiscard]] BackendContainer& backend() const noexcept { return *backend_; }
  [[nodiscard]] std::string_view name() const noexcept { return backend_->traits().name; }  // the backend's
  [[nodiscard]] const Devices& devices() const noexcept { return devices_; }
  [[nodiscard]] const ContainerLimits& limits() const noexcept { return limits_; }
  [[nodiscard]] std::uint64_t smallest_page() const noexcept { return misaligned_ + 1; }
  [[nodiscard]] const ShadowMap& mappings() const noexcept { return mappings_; }
  [[nodiscard]] Mapping mapping_of(const MappingRecord& record) const;  // as the caller made it
  // False: the kernel dropped the mappings with the last device; the next device gets them from the shadow map.
  [[nodiscard]] bool kernel_has_mappings() const noexcept { return kernel_has_mappings_; }
  [[nodiscard]] bool is_of_this_process() const noexcept { return maker_.is_this_process(); }
  // Checks that the container is open, and was opened by this process. `what` names the call in the error.
  [[nodiscard]] Result<void> require_open(std::string what) const;
  // For each public call: an error in debug builds if another thread is in a call.
  [[nodiscard]] OneThread& one_thread() noexcept { return one_thread_; }
  [[nodiscard]] tl::unexpected<Error> refuse_second_thread(std::string_view call) const;

  // Attaches devices, all or none; opens several at once. Each stays attached until detach(), which destroys it.
  // `kvm` is AttachOptions::kvm.
  [[nodiscard]] Result<std::vector<Attached*>> attach(std::span<const HostDevice> devices,
                                                      const std::shared_ptr<const KvmVfioDevice>& kvm);
  [[nodiscard]] Result<void> detach(Attached& device);
  // Takes over a device without closing it. After an error it is where it was, or moved for good; has() tells.
  [[nodiscard]] Result<void> take_over(AddressSpace& from, Attached& device);
  [[nodiscard]] bool has(const Attached& device) const noexcept { return find(device) != devices_.end(); }
  // Maps what `from` maps there, as a copy that counts no page again. False: the kernel cannot, and nothing was done.
  [[nodiscard]] Result<bool> copy(const AddressSpace& from, const Mapping& mapping);

  // For limits that change without an attach or detach: those of DMA windows.
  void set_limits(ContainerLimits limits);
  // Removes a mapping from the record, for a backend that unmaps all, one by one.
  void erase(IovaRange mapping) noexcept;
  // Whether unmap() of the range would unmap something, and splits no mapping.
  [[nodiscard]] Result<void> check_unmap(IovaRange range, std::uint64_t length) const;
  // Unmaps one mapping by `unmap`, which returns 0 or a negated errno, instead of BackendContainer::unmap().
  [[nodiscard]] Result<void> unmap_by(IovaRange mapping, const std::function<int()>& unmap);
  // Keeps memory that could not be unmapped until the address space is destroyed: devices may still reach it.
  void leave_behind(Mmap memory) noexcept;

 private:
  class Errors;  // builds error messages

  // A mapping of a file. Its record has the address of `pages`, or none if the kernel maps the file itself.
  struct MappedMemory {
    Memory memory;
    Mmap pages = {};
  };

  static void become_copy(void* space) noexcept;
  [[nodiscard]] bool may_map(IovaRange range, std::uint64_t address, std::uint64_t length);
  [[nodiscard]] Result<void> map_slowly(IovaRange range, std::span<std::byte> memory, Access access);
  [[nodiscard]] Result<void> map_inserted(Iova iova, std::uint64_t length, void* address, Access access);
  [[nodiscard]] Result<void> map_inserting(ShadowMap::Place place, MappingRecord* mapping);
  [[nodiscard]] Result<void> map_latest();
  [[nodiscard]] Result<void> undo_latest(CallResult failed);
  [[nodiscard]] Result<void> unmap_found(Iova iova, std::uint64_t length);
  [[nodiscard]] Result<void> unmap_seeking(IovaRange range, std::uint64_t length);
  [[nodiscard]] Result<void> unmap_several(IovaRange range, std::uint64_t length);
  [[nodiscard]] Result<void> map_file_at(IovaRange range, MappedMemory& file, Access access);
  void erase_files(IovaRange range) noexcept;
  void set_kernel_has_mappings(bool has_mappings) noexcept;
  void decide_on_quick_unmaps() noexcept { unmaps_quickly_ = kernel_has_mappings_ && files_.empty() && !is_copy_; }
  [[nodiscard]] Result<void> unmap_failed(int result) const;
  [[nodiscard]] bool is_usable(IovaRange range);
  [[nodiscard]] Result<void> admit(const ContainerLimits& limits, const std::string& object);
  [[nodiscard]] Result<void> check_new(std::span<const HostDevice> devices) const;
  [[nodiscard]] Result<void> open_all(std::span<const HostDevice> devices,
                                      const std::shared_ptr<const KvmVfioDevice>& kvm);
  [[nodiscard]] Devices::const_iterator find(const Attached& device) const noexcept;
  [[nodiscard]] Result<void> let_in(Attached& device);
  [[nodiscard]] Result<void> settle(Attached& device, const std::string& object, bool is_moved);
  [[nodiscard]] bool give_back(AddressSpace& to, Attached& device, std::ptrdiff_t place) noexcept;
  [[nodiscard]] Result<void> take_out(Attached& device);
  [[nodiscard]] Result<void> remove(Attached& device);
  void widen_limits() noexcept;

  // Destroyed in reverse order: the tracker and the devices before the backend, and the backend before memory that its
  // devices may still reach.
  std::vector<Mmap> left_behind_;
  std::unique_ptr<BackendContainer> backend_;
  Maker maker_;
  OneThread one_thread_;
  ContainerLimits limits_;
  IovaRange likely_range_;            // cache: the usable range of the last map(); an empty one if none
  std::uint64_t misaligned_ = 0xfff;  // bits that are clear in an aligned number
  std::uint64_t unusual_ = 0xfff;     // these, and the top bit: without it no sum of two numbers overflows
  ShadowMap mappings_;
  std::map<Iova, MappedMemory> files_;  // the mappings of files, by their first iova
  Iova free_hint_;                      // where the next map_anywhere() begins to search
  Devices devices_;
  std::unique_ptr<DirtyTracker> dirty_tracker_;  // null: the backend has no dirty log
  bool closed_ = false;
  bool is_copy_ = false;  // in a child of fork(2)
  bool kernel_has_mappings_ = true;
  bool unmaps_quickly_ = true;  // the kernel has the mappings, none is of a file, and this is no copy
  OnFork on_fork_;
};

}  // namespace postern
