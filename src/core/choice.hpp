// SPDX-License-Identifier: Apache-2.0
// Choice: the backend chosen for a device, and what was opened to check that it is usable.
#pragma once

#include <postern/backend.hpp>
#include <vector>

#include "iommu/requirement.hpp"

namespace postern {

struct Choice {
  const Backend* backend = nullptr;
  Probed probed = {};                // for AddressSpace::open()
  std::vector<Error> refusals = {};  // for "auto": the errors of the backends before it
};

// As choose_backend(), but returns what was opened, too. `fd` is ContainerOptions::fd. For "auto", `refusals` are the
// errors of the first backends, which are not tried again.
[[nodiscard]] Result<Choice> choose(Kernel& kernel, std::string_view name, const HostDevice& device,
                                    const std::shared_ptr<const Fd>& fd = {}, std::vector<Error> refusals = {});

}  // namespace postern
