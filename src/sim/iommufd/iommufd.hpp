// SPDX-License-Identifier: Apache-2.0
// Iommufd: an open /dev/iommu of the simulated kernel, its objects by id, and the devices bound to it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <variant>
#include <vector>

#include "sim/address_space.hpp"
#include "sim/file.hpp"
#include "sim/function.hpp"
#include "sim/iommu_model.hpp"
#include "sim/process.hpp"

namespace postern::sim {

class SharedPages;

// The mappings of an IOAS, and the page tables that show them (struct io_pagetable). Memory is pinned while there is a
// page table.
class IoPagetable {
 public:
  struct Piece {
    std::uintptr_t address = 0;
    std::uint64_t length = 0;
    std::shared_ptr<SharedPages> pages;  // null: it is mapped nowhere else
  };
  static constexpr std::uint64_t page_size = 4096;

  IoPagetable(const IommuModel& iommu, Process& process) : iommu_(iommu), process_(process) {}
  // Flags are those of IOMMU_IOAS_MAP; the pieces lie one behind the other, from `iova` or from where there is room.
  [[nodiscard]] int map(std::span<const Piece> pieces, std::uint64_t length, std::uint32_t flags, std::uint64_t& iova);
  [[nodiscard]] int unmap(IovaRange range, std::uint64_t& unmapped);
  // What is mapped in this range, to map it once more.
  [[nodiscard]] int get_pages(IovaRange range, std::vector<Piece>& pieces);

  [[nodiscard]] int reserve(IovaRange range, const void* owner);
  void remove_reserved(const void* owner);
  [[nodiscard]] std::vector<IovaRange> free_ranges() const;  // within the apertures, and not reserved
  [[nodiscard]] int allow(std::vector<IovaRange> ranges);

  [[nodiscard]] int add_domain(const std::shared_ptr<Domain>& domain);
  void remove_domain(const std::shared_ptr<Domain>& domain);

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
  std::map<std::uint64_t, std::shared_ptr<SharedPages>> shared_;  // of copies and of what was copied, by the last iova
  std::vector<std::pair<IovaRange, const void*>> reserved_;       // and for whom
  std::vector<IovaRange> allowed_;                                // in order, not overlapping
  std::vector<std::shared_ptr<Domain>> domains_;
  std::uint64_t alignment_ = 1;
  bool has_large_pages_ = true;
};

class Iommufd final : public File {
 public:
  Iommufd(const IommuModel& iommu, Process& process) : iommu_(iommu), process_(process) {}
  ~Iommufd() override;

  [[nodiscard]] int ioctl(unsigned long request, void* argument) override;

  // What the ioctls of a cdev ask for. `id` gets the object's id.
  [[nodiscard]] int bind(Function& function, std::uint32_t& id);
  void unbind(Function& function);
  // `page_table` is a HWPT, or an IOAS, for which a HWPT is made or found; it becomes the HWPT's id.
  [[nodiscard]] int attach(Function& function, std::uint32_t& page_table);
  void detach(Function& function);
  // The id of a bound function; 0 where it is not bound here.
  [[nodiscard]] std::uint32_t id_of(const Function& function) const;
  [[nodiscard]] bool has_group(int group) const;

 private:
  using Id = std::uint32_t;
  struct Ioas {
    IoPagetable table;
    std::vector<Id> hwpts;  // the oldest first
  };
  struct Hwpt {
    Id ioas = 0;
    std::shared_ptr<Domain> domain;
    bool has_dirty_ops = false;
    bool is_automatic = false;  // it goes with its last device
    std::size_t devices = 0;
  };
  // A group, all of which is attached to one HWPT.
  struct Attached {
    Id hwpt = 0;
    std::set<Id> devices;
  };

  template <typename Type>
  [[nodiscard]] Type* find(Id id) {
    const auto found = objects_.find(id);
    return found != objects_.end() ? std::get_if<Type>(&found->second) : nullptr;
  }
  [[nodiscard]] Ioas& ioas_of(Id hwpt) { return *find<Ioas>(find<Hwpt>(hwpt)->ioas); }
  [[nodiscard]] Id free_id() const;
  template <typename Command>
  [[nodiscard]] int run(std::size_t least = sizeof(Command));
  template <typename Command>
  [[nodiscard]] int execute(Command& command);
  [[nodiscard]] int copy_command(void* command, std::size_t size);
  [[nodiscard]] int respond(const void* command, std::size_t size);
  [[nodiscard]] Id make_hwpt(Id ioas);
  void drop_hwpt(Id id);
  [[nodiscard]] Function& function(Id device) { return **find<Function*>(device); }
  [[nodiscard]] Attached* attached(Id device);
  [[nodiscard]] bool is_attached(Id device);
  [[nodiscard]] int attach_automatically(Id device, Id ioas, Id& page_table);
  [[nodiscard]] int attach_hwpt(Id device, Id hwpt);
  [[nodiscard]] int enter(Id device, Id hwpt);
  [[nodiscard]] int move(Id device, Id hwpt);
  Id leave(Id device);
  void put_hwpt(Id id);
  [[nodiscard]] int reserve(Ioas& ioas, Id device);
  void set_domain(int group, const std::shared_ptr<Domain>& domain);

  const IommuModel& iommu_;
  Process& process_;
  std::byte* user_ = nullptr;  // what the ioctl that runs was called with
  std::uint32_t user_size_ = 0;
  bool user_is_writable_ = false;
  bool counts_by_process_ = false;  // IOMMU_OPTION_RLIMIT_MODE
  std::map<Id, std::variant<Ioas, Hwpt, Function*>> objects_;
  std::map<int, Attached> groups_;
};

}  // namespace postern::sim
