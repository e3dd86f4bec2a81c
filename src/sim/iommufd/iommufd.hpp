// SPDX-License-Identifier: Apache-2.0
// Iommufd: an open /dev/iommu of the simulated kernel, its objects by id, and the devices bound to it.
#pragma once

#include <linux/iommufd.h>

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <variant>
#include <vector>

#include "sim/driver/device.hpp"
#include "sim/iommu/iommu_model.hpp"
#include "sim/iommufd/io_pagetable.hpp"
#include "sim/process/file.hpp"
#include "sim/process/process.hpp"

struct vfio_iommu_type1_dma_map;
struct vfio_iommu_type1_dma_unmap;
struct vfio_iommu_type1_info;

namespace postern::sim {

class Iommufd final : public File {
 public:
  static constexpr Kind own_kind = Kind::iommufd;

  Iommufd(const IommuModel& iommu, Process& process) : File(own_kind), iommu_(iommu), process_(process) {}
  ~Iommufd() override;

  [[nodiscard]] int ioctl(unsigned long request, void* argument) override;

  // For the ioctls of a cdev, and of a group that has this as its container. `id` gets the object's id.
  [[nodiscard]] int bind(Device& device, std::uint32_t& id);
  void unbind(Device& device);
  // `page_table` is a HWPT, or an IOAS, for which a HWPT is created or found; it is set to the HWPT's id.
  [[nodiscard]] int attach(Device& device, std::uint32_t& page_table);
  void detach(Device& device);
  [[nodiscard]] int attach_pasid(std::uint32_t pasid, std::uint32_t page_table) const;
  // The id of a bound device; 0 if it is not bound here.
  [[nodiscard]] std::uint32_t id_of(const Device& device) const;
  [[nodiscard]] bool has_group(int group) const;

  // Makes this the container of a group: VFIO's ioctls have an IOAS afterwards. A group without an IOMMU requires that
  // they have none.
  [[nodiscard]] int vfio_compat_ioas_create();
  [[nodiscard]] int vfio_compat_set_no_iommu();
  [[nodiscard]] bool has_vfio_compat_ioas() const noexcept { return vfio_ioas_ != 0; }
  // Attaches a bound device to that IOAS.
  [[nodiscard]] int vfio_compat_attach(Device& device);

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
    bool is_noiommu = false;    // for a device without an IOMMU: returns physical addresses (iommufd_noiommu_ops)
    bool is_automatic = false;  // destroyed with its last device
    std::size_t devices = 0;
  };
  // A group, which is attached to one HWPT as a whole.
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
  void add_ioas(Id id) { objects_.emplace(id, Ioas{.table = {iommu_, process_}, .hwpts = {}}); }
  template <typename Command>
  [[nodiscard]] int run(std::size_t least = sizeof(Command));
  // The commands of /dev/iommu, in the files of their objects.
  [[nodiscard]] int execute(iommu_destroy& command);
  [[nodiscard]] int execute(iommu_option& command);
  [[nodiscard]] int execute(iommu_vfio_ioas& command);
  [[nodiscard]] int execute(iommu_hw_info& command);
  [[nodiscard]] int execute(iommu_hwpt_alloc& command);
  [[nodiscard]] int execute(iommu_hwpt_get_dirty_bitmap& command);
  [[nodiscard]] int execute(iommu_hwpt_set_dirty_tracking& command);
  [[nodiscard]] int execute(iommu_ioas_alloc& command);
  [[nodiscard]] int execute(iommu_ioas_allow_iovas& command);
  [[nodiscard]] int execute(iommu_ioas_copy& command);
  [[nodiscard]] int execute(iommu_ioas_iova_ranges& command);
  [[nodiscard]] int execute(iommu_ioas_map& command);
  [[nodiscard]] int execute(iommu_ioas_map_file& command);
  [[nodiscard]] int execute(iommu_ioas_noiommu_get_pa& command);
  [[nodiscard]] int execute(iommu_ioas_unmap& command);
  [[nodiscard]] int respond(const void* command, std::size_t size);
  [[nodiscard]] int map_memory(Ioas& ioas, std::uint64_t address, std::uint64_t length, std::uint32_t flags,
                               std::uint64_t& iova);
  // VFIO's ioctls; the IOAS is the one they operate on, or null.
  [[nodiscard]] int vfio_ioctl(unsigned long request, void* argument);
  [[nodiscard]] int vfio_check_extension(const Ioas* ioas, unsigned long extension) const;
  [[nodiscard]] int vfio_set_iommu(Ioas* ioas, unsigned long type) const;
  [[nodiscard]] int vfio_get_info(const Ioas* ioas, vfio_iommu_type1_info& info);
  [[nodiscard]] int vfio_map(Ioas* ioas, const vfio_iommu_type1_dma_map& request);
  [[nodiscard]] static int vfio_unmap(Ioas* ioas, vfio_iommu_type1_dma_unmap& request);
  [[nodiscard]] Id make_hwpt(Id ioas, const Device& device);
  [[nodiscard]] int show(Id hwpt);
  [[nodiscard]] bool is_compatible(Id hwpt, Id device);
  void drop_hwpt(Id id);
  [[nodiscard]] Device& device_of(Id device) { return **find<Device*>(device); }
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
  std::byte* user_ = nullptr;  // the argument of the current ioctl
  std::uint32_t user_size_ = 0;
  bool user_is_writable_ = false;
  Id vfio_ioas_ = 0;                // IOMMU_VFIO_IOAS; 0: none
  bool no_iommu_mode_ = false;      // it is the container of groups without an IOMMU
  bool counts_by_process_ = false;  // IOMMU_OPTION_RLIMIT_MODE
  std::map<Id, std::variant<Ioas, Hwpt, Device*>> objects_;
  std::map<int, Attached> groups_;
};

}  // namespace postern::sim
