// SPDX-License-Identifier: Apache-2.0
// ContainerCall: how a call on a capability of a container begins, as those on the container itself do.
#pragma once

#include <fmt/format.h>

#include <string_view>

#include "iommu/address_space.hpp"

namespace postern {

// Lives as long as the call.
class ContainerCall {
 public:
  explicit ContainerCall(AddressSpace& space) : space_(space), use_(space.one_thread()) {}

  // Checks that no other thread is in a call, and that the container is open, and was opened by this process. `call`
  // names it in errors. Not inlined, for its size.
  [[nodiscard, gnu::noinline]] Result<void> check(std::string_view call) const {
    if (!use_) return space_.refuse_second_thread(call);
    return space_.require_open(fmt::format("{} of container {}", call, space_.name()));
  }

 private:
  AddressSpace& space_;
  OneThread::Use use_;
};

}  // namespace postern
