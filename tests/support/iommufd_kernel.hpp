// SPDX-License-Identifier: Apache-2.0
// IommufdKernel: a fake Kernel that has only an iommufd, and devices with the properties that a test chooses.
#pragma once

#include <linux/iommufd.h>
#include <linux/vfio.h>
#include <sys/sysmacros.h>

#include <cstring>
#include <map>
#include <set>
#include <vector>

#include "support/tree_kernel.hpp"

namespace postern::test {

// A query sets bits and clears none, as the kernel's.
struct DirtyBits {
  std::vector<std::uint64_t> words;  // from iova 0, for pages of 4 KiB

  void write(std::uint64_t iova) {
    const std::uint64_t page = iova / 4096;
    if (words.size() <= page / 64) words.resize(page / 64 + 1);
    words[page / 64] |= std::uint64_t{1} << page % 64;
  }
  void tell(std::uint64_t iova, std::uint64_t length, std::uint64_t page_size, std::uint64_t* bits, bool clear) {
    if (page_size == 4096 && iova / 4096 % 64 == 0 && length / 4096 % 64 == 0) {
      const std::uint64_t first = iova / 4096 / 64;
      for (std::uint64_t i = 0; i < length / 4096 / 64 && first + i < words.size(); ++i) bits[i] |= words[first + i];
      if (clear && first < words.size()) {
        std::memset(&words[first], 0, std::min<std::uint64_t>(length / 4096 / 64, words.size() - first) * 8);
      }
      return;
    }
    for (std::uint64_t at = iova; at != iova + length; at += 4096) {
      const std::uint64_t page = at / 4096;
      if (page / 64 >= words.size() || (words[page / 64] >> page % 64 & 1) == 0) continue;
      const std::uint64_t bit = (at - iova) / page_size;
      bits[bit / 64] |= std::uint64_t{1} << bit % 64;
      if (clear) words[page / 64] &= ~(std::uint64_t{1} << page % 64);
    }
  }
};

class IommufdKernel : public TreeKernel {
 public:
  struct Model {
    int iommu = 0;                                   // devices behind different IOMMUs share no page table
    bool iommu_tracks = true;                        // IOMMU_HW_CAP_DIRTY_TRACKING
    bool logs_itself = false;                        // VFIO_DEVICE_FEATURE_DMA_LOGGING_*
    std::uint64_t page = 4096;                       // the IOMMU's smallest page
    IovaRange reserved{{0xfee00000}, {0xfeefffff}};  // reserved by its IOMMU
  };

  IommufdKernel() {
    file("/dev/iommu", "");
    file("/sys/kernel/iommu_groups/0/type", "");
  }

  HostDevice add(const std::string& name, Model model) {
    const auto minor = static_cast<unsigned>(devices_.size());
    const VfioCdev cdev{.name = "vfio" + std::to_string(minor),
                        .path = "/dev/vfio/devices/vfio" + std::to_string(minor),
                        .number = ::makedev(511, minor)};
    node(cdev.path, {.device = *cdev.number});
    devices_.push_back({.model = model, .path = cdev.path});
    return {
        .name = name, .bus = "pci", .driver = "vfio-pci", .iommu_group = GroupId{minor}, .cdev = cdev, .is_vfio = true};
  }

  // Makes the device write to memory: marks the page in its log and its page table if they track.
  void dma_write(std::size_t device, std::uint64_t iova) {
    Fake& writer = devices_[device];
    if (writer.hwpt != 0 && hwpts_[writer.hwpt].tracked) hwpts_[writer.hwpt].bits.write(iova);
    if (writer.logging) writer.bits.write(iova);
  }
  // The log of the device's writes: its own, or its page table's.
  DirtyBits& bits_of(std::size_t device) {
    Fake& fake = devices_[device];
    return fake.logging ? fake.bits : hwpts_[fake.hwpt].bits;
  }
  [[nodiscard]] bool logging(std::size_t device) const { return devices_[device].logging; }
  [[nodiscard]] bool tracked(std::size_t device) { return hwpts_[devices_[device].hwpt].tracked; }
  [[nodiscard]] std::size_t hwpts() const { return hwpts_.size(); }
  [[nodiscard]] const std::vector<vfio_device_feature_dma_logging_range>& logged_ranges() const { return ranges_; }

  int open(const char* path, int /*flags*/) override {
    if (path == std::string("/dev/iommu")) return iommufd;
    for (std::size_t i = 0; i < devices_.size(); ++i) {
      if (devices_[i].path == path) return first_device + static_cast<int>(i);
    }
    return -ENOENT;
  }
  int close(int fd) override {
    if (fd >= first_device) device(fd).hwpt = 0;
    return 0;
  }
  int ioctl(int fd, unsigned long request, void* argument) override {
    return fd == iommufd ? on_iommufd(request, argument) : on_device(device(fd), fd, request, argument);
  }

 private:
  static constexpr int iommufd = 100;
  static constexpr int first_device = 200;
  static constexpr std::uint32_t first_device_id = 1000;

  struct Fake {
    Model model;
    std::string path;
    std::uint32_t hwpt = 0;
    bool logging = false;
    DirtyBits bits;
  };
  struct FakeHwpt {
    std::uint32_t ioas = 0;
    int iommu = 0;
    bool can_track = false;
    bool tracked = false;
    DirtyBits bits;
  };

  Fake& device(int fd) { return devices_[static_cast<std::size_t>(fd - first_device)]; }

  template <typename Argument>
  static Argument& as(void* argument) {
    return *static_cast<Argument*>(argument);
  }

  int on_iommufd(unsigned long request, void* argument) {
    switch (request) {
      case IOMMU_IOAS_ALLOC:
        as<iommu_ioas_alloc>(argument).out_ioas_id = next_id_++;
        return 0;
      case IOMMU_DESTROY:
        hwpts_.erase(as<iommu_destroy>(argument).id);
        return 0;
      case IOMMU_IOAS_IOVA_RANGES:
        return tell_ranges(as<iommu_ioas_iova_ranges>(argument));
      case IOMMU_IOAS_MAP:
      case IOMMU_IOAS_UNMAP:
        return 0;
      case IOMMU_GET_HW_INFO: {
        auto& info = as<iommu_hw_info>(argument);
        info.out_capabilities =
            devices_[info.dev_id - first_device_id].model.iommu_tracks ? IOMMU_HW_CAP_DIRTY_TRACKING : 0;
        return 0;
      }
      case IOMMU_HWPT_ALLOC: {
        auto& alloc = as<iommu_hwpt_alloc>(argument);
        alloc.out_hwpt_id = next_id_++;
        hwpts_[alloc.out_hwpt_id] = {.ioas = alloc.pt_id,
                                     .iommu = devices_[alloc.dev_id - first_device_id].model.iommu,
                                     .can_track = (alloc.flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING) != 0};
        return 0;
      }
      case IOMMU_HWPT_SET_DIRTY_TRACKING: {
        const auto& set = as<iommu_hwpt_set_dirty_tracking>(argument);
        FakeHwpt& hwpt = hwpts_.at(set.hwpt_id);
        if (!hwpt.can_track) return -EOPNOTSUPP;
        hwpt.tracked = (set.flags & IOMMU_HWPT_DIRTY_TRACKING_ENABLE) != 0;
        hwpt.bits = {};
        return 0;
      }
      case IOMMU_HWPT_GET_DIRTY_BITMAP: {
        const auto& get = as<iommu_hwpt_get_dirty_bitmap>(argument);
        hwpts_.at(get.hwpt_id)
            .bits.tell(get.iova, get.length, get.page_size, reinterpret_cast<std::uint64_t*>(get.data),
                       (get.flags & IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR) == 0);
        return 0;
      }
      default:
        return -ENOTTY;
    }
  }

  // Reports the ranges that no device attached to the IOAS reserves.
  int tell_ranges(iommu_ioas_iova_ranges& query) {
    std::map<std::uint64_t, std::uint64_t> reserved;  // first to last
    query.out_iova_alignment = 1;
    for (const Fake& fake : devices_) {
      if (fake.hwpt == 0 || hwpts_.at(fake.hwpt).ioas != query.ioas_id) continue;
      reserved[fake.model.reserved.first.value] = fake.model.reserved.last.value;
      query.out_iova_alignment = std::max<std::uint64_t>(query.out_iova_alignment, fake.model.page);
    }
    auto* range = reinterpret_cast<iommu_iova_range*>(query.allowed_iovas);
    std::uint64_t next = 0;
    query.num_iovas = 0;
    const auto allow = [&](std::uint64_t end) {
      if (next >= end) return;
      range[query.num_iovas++] = {.start = next, .last = end - 1};
    };
    for (const auto& [first, last] : reserved) {
      allow(first);
      next = last + 1;
    }
    allow(std::uint64_t{1} << 48);
    return 0;
  }

  int on_device(Fake& fake, int fd, unsigned long request, void* argument) {
    switch (request) {
      case VFIO_DEVICE_BIND_IOMMUFD:
        as<vfio_device_bind_iommufd>(argument).out_devid = first_device_id + static_cast<unsigned>(fd - first_device);
        return 0;
      case VFIO_DEVICE_ATTACH_IOMMUFD_PT: {
        const std::uint32_t id = as<vfio_device_attach_iommufd_pt>(argument).pt_id;
        if (hwpts_.at(id).iommu != fake.model.iommu) return -EINVAL;
        fake.hwpt = id;
        return 0;
      }
      case VFIO_DEVICE_DETACH_IOMMUFD_PT:
        fake.hwpt = 0;
        return 0;
      case VFIO_DEVICE_GET_INFO:
        return 0;
      case VFIO_DEVICE_FEATURE:
        return on_feature(fake, as<vfio_device_feature>(argument));
      default:
        return -ENOTTY;
    }
  }

  int on_feature(Fake& fake, vfio_device_feature& feature) {
    if (!fake.model.logs_itself) return -ENOTTY;
    const std::uint32_t number = feature.flags & VFIO_DEVICE_FEATURE_MASK;
    if ((feature.flags & VFIO_DEVICE_FEATURE_PROBE) != 0) return 0;
    if (number == VFIO_DEVICE_FEATURE_DMA_LOGGING_START) {
      const auto& control = *reinterpret_cast<vfio_device_feature_dma_logging_control*>(feature.data);
      const auto* first = reinterpret_cast<const vfio_device_feature_dma_logging_range*>(control.ranges);
      ranges_.assign(first, first + control.num_ranges);
      fake.logging = true;
      fake.bits = {};
      return 0;
    }
    if (number == VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP) {
      fake.logging = false;
      return 0;
    }
    const auto& report = *reinterpret_cast<vfio_device_feature_dma_logging_report*>(feature.data);
    if (!fake.logging) return -EINVAL;
    fake.bits.tell(report.iova, report.length, report.page_size, reinterpret_cast<std::uint64_t*>(report.bitmap), true);
    return 0;
  }

  std::vector<Fake> devices_;
  std::map<std::uint32_t, FakeHwpt> hwpts_;
  std::vector<vfio_device_feature_dma_logging_range> ranges_;
  std::uint32_t next_id_ = 1;
};

}  // namespace postern::test
