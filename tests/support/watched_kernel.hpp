// SPDX-License-Identifier: Apache-2.0
// WatchedKernel: a FailingKernel that knows the kind of each fd, lists the calls made, and counts kernel objects and
// mmap(2)s that were not released.
#pragma once

#include <linux/vfio.h>
#include <sys/mman.h>

#include <map>
#include <mutex>
#include <postern-sim/faults.hpp>

#include "support/kernel_errnos.hpp"

namespace postern::test {

class WatchedKernel : public sim::FailingKernel {
 public:
  using FailingKernel::FailingKernel;

  // Clears the list of calls, and lets call number `failing` fail with `code`; see fail_call().
  void begin(int failing, int code) {
    const std::lock_guard lock(mutex_);
    calls_.clear();
    by_path_.clear();
    fail_call(failing, code);
  }
  [[nodiscard]] std::vector<NamedCall> calls_made() const {
    const std::lock_guard lock(mutex_);
    return calls_;
  }

  [[nodiscard]] std::string_view last_call() const {
    const std::lock_guard lock(mutex_);
    return calls_.empty() ? std::string_view() : calls_.back().name;
  }

  // The number of calls of this function with this path.
  [[nodiscard]] int calls_of(std::string_view function, std::string_view path) const {
    const std::lock_guard lock(mutex_);
    const auto found = by_path_.find({std::string(function), std::string(path)});
    return found != by_path_.end() ? found->second : 0;
  }

  // HWPTs and IOASes in the open iommufd, and bytes mapped by mmap().
  [[nodiscard]] int objects() const { return objects_; }
  [[nodiscard]] std::int64_t mapped() const { return mapped_; }

  int close(int fd) override {
    {
      const std::lock_guard lock(mutex_);
      if (nodes_[fd] == Node::iommufd) objects_ = 0;
      nodes_.erase(fd);
    }
    return FailingKernel::close(fd);
  }
  std::intptr_t mmap(void* address, std::size_t length, int protection, int flags, int fd,
                     std::uint64_t offset) override {
    const std::intptr_t result = FailingKernel::mmap(address, length, protection, flags, fd, offset);
    // MAP_FIXED replaces a mapping that is counted already.
    if (!is_errno(result) && (flags & MAP_FIXED) == 0) mapped_ += static_cast<std::int64_t>(length);
    return result;
  }
  int munmap(void* address, std::size_t length) override {
    mapped_ -= static_cast<std::int64_t>(length);
    return FailingKernel::munmap(address, length);
  }

 protected:
  void begun(const sim::KernelCall& call) override {
    const std::lock_guard lock(mutex_);
    if (!call.path.empty()) ++by_path_[{std::string(call.function), std::string(call.path)}];
    const auto node = nodes_.find(call.fd);
    calls_.push_back(named_call(call.function, node != nodes_.end() ? node->second : Node::none, call.request));
  }
  void succeeded(const sim::KernelCall& call, int result) override {
    const std::lock_guard lock(mutex_);
    if (call.function == "open") {
      if (result >= 0) nodes_[result] = node_of(call.path);
      return;
    }
    switch (call.request) {
      case VFIO_GROUP_GET_DEVICE_FD:
        nodes_[result] = Node::device;
        break;
      case VFIO_SET_IOMMU: {
        const auto extension = reinterpret_cast<std::uintptr_t>(call.argument);
        const bool type1 = extension == VFIO_TYPE1_IOMMU || extension == VFIO_TYPE1v2_IOMMU;
        nodes_[call.fd] = type1 ? Node::type1 : Node::spapr;
        break;
      }
      case IOMMU_IOAS_ALLOC:
      case IOMMU_HWPT_ALLOC:
        ++objects_;
        break;
      case IOMMU_DESTROY:
        --objects_;
        break;
      default:
        break;
    }
  }

 private:
  static Node node_of(std::string_view path) {
    if (path == "/dev/vfio/vfio") return Node::container;
    if (path == "/dev/iommu") return Node::iommufd;
    if (path.substr(0, 18) == "/dev/vfio/devices/") return Node::device;
    return path.substr(0, 10) == "/dev/vfio/" ? Node::group : Node::none;
  }

  mutable std::mutex mutex_;
  std::map<int, Node> nodes_;
  std::vector<NamedCall> calls_;
  std::map<std::pair<std::string, std::string>, int> by_path_;
  std::atomic<int> objects_ = 0;
  std::atomic<std::int64_t> mapped_ = 0;
};

}  // namespace postern::test
