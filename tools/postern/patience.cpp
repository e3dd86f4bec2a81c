// SPDX-License-Identifier: Apache-2.0
// Says what is being waited for.
#include "patience.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <postern/host_device.hpp>
#include <utility>
#include <vector>

#include "holders.hpp"

namespace postern::tool {

Patience::Patience(const Session& session, std::string device)
    : thread_([this, &session, name = std::move(device)] { watch(session, name); }) {}

Patience::~Patience() {
  {
    const std::lock_guard lock(mutex_);
    is_over_ = true;
  }
  over_.notify_one();
  thread_.join();
}

void Patience::watch(const Session& session, const std::string& device) {
  {
    std::unique_lock lock(mutex_);
    if (over_.wait_for(lock, std::chrono::seconds(1), [this] { return is_over_; })) return;
  }
  std::vector<std::string> paths;
  if (auto host = find_host_device(session.kernel, "pci", device)) {
    if (host->iommu_group) paths.push_back("/dev/vfio/" + to_string(*host->iommu_group));
    if (host->cdev) paths.push_back(host->cdev->path);
  }
  const Holders holders = find_holders(session.kernel, paths);
  const std::string who = holders.processes.empty() ? "the driver" : list_of(holders.processes);
  fmt::print(stderr, "postern: waiting until {} lets go of {} ...\n", who, device);
}

}  // namespace postern::tool
