// SPDX-License-Identifier: Apache-2.0
// WaitNotice: prints what the tool is waiting for.
#include "commands/wait_notice.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <new>
#include <utility>

#include "host/holders.hpp"

namespace postern::tool {

WaitNotice::WaitNotice(const Session& session, HostDevice device)
    : thread_([this, &session, device = std::move(device)] { watch(session, device); }) {}

WaitNotice::~WaitNotice() {
  {
    const std::lock_guard lock(mutex_);
    is_over_ = true;
  }
  over_.notify_one();
  thread_.join();
}

void WaitNotice::watch(const Session& session, const HostDevice& device) {
  {
    std::unique_lock lock(mutex_);
    if (over_.wait_for(lock, std::chrono::seconds(1), [this] { return is_over_; })) return;
  }
  try {
    const Holders holders = find_holders(session.kernel, device);
    const std::string who = !holders.processes.empty() ? printable(list_of(holders.processes))
                            : holders.hidden.empty()
                                ? "the driver"
                                : fmt::format("a process that is not visible ({})", holders.hidden);
    put(stderr, session.err, fmt::format("postern: waiting for {} to release {} ...\n", who, device.name));
  } catch (const std::bad_alloc&) {
    // The change goes on without the notice.
  }
}

}  // namespace postern::tool
