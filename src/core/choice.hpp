// SPDX-License-Identifier: Apache-2.0
// The backend that was chosen for a device, and the node that was opened to find out that it can be used.
#pragma once

#include <postern/backend.hpp>

namespace postern {

struct Choice {
  const Backend* backend = nullptr;
  Fd node = {};                      // for Backend::open_at(); none where nothing had to be opened
  std::vector<Error> refusals = {};  // for "auto": of each backend before it
};

// choose_backend(), with the node. For "auto" `refusals` are those of the first backends, which are not asked again.
[[nodiscard]] Result<Choice> choose(Kernel& kernel, std::string_view name, const HostDevice& device,
                                    std::vector<Error> refusals = {});

}  // namespace postern
