// SPDX-License-Identifier: Apache-2.0
// Ioeventfds: added, removed, and looked at.
#include "sim/pci/ioeventfds.hpp"

#include <algorithm>
#include <cerrno>
#include <iterator>

#include "sim/pci/eventfds.hpp"

namespace postern::sim {

// vfio_pci_ioeventfd
int Ioeventfds::set(const IoeventfdWrite& write, int fd) {
  constexpr std::size_t most = 1000;  // VFIO_PCI_IOEVENTFD_MAX
  const auto found =
      std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) { return entry.write == write; });
  if (found != entries_.end()) {
    if (fd >= 0) return -EEXIST;
    drop(found->eventfd);
    entries_.erase(found);
    return 0;
  }
  if (fd < 0) return -ENODEV;
  if (entries_.size() >= most) return -ENOSPC;
  const int eventfd = take_eventfd(fd);
  if (eventfd < 0) return eventfd;
  entries_.push_back({write, eventfd});
  return 0;
}

void Ioeventfds::disable() {
  for (Entry& entry : entries_) drop(entry.eventfd);
  entries_.clear();
}

// Several may have the same eventfd, and each of them writes, since the kernel wakes all who wait for it: so none is
// read before all are looked at, after the first that was seen.
std::vector<IoeventfdWrite> Ioeventfds::take() {
  if (std::none_of(entries_.begin(), entries_.end(), [](const Entry& entry) { return is_signalled(entry.eventfd); })) {
    return {};
  }
  std::vector<Entry> signalled;
  std::copy_if(entries_.begin(), entries_.end(), std::back_inserter(signalled),
               [](const Entry& entry) { return is_signalled(entry.eventfd); });
  std::vector<IoeventfdWrite> writes;
  for (const Entry& entry : signalled) {
    (void)take_signals(entry.eventfd);
    writes.push_back(entry.write);
  }
  return writes;
}

}  // namespace postern::sim
