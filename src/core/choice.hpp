// SPDX-License-Identifier: Apache-2.0
// The backend that was chosen for a device, and the node that was opened to find out that it can be used.
#pragma once

#include <postern/backend.hpp>

namespace postern {

struct Choice {
  const Backend* backend = nullptr;
  Fd node = {};  // for Backend::open_at(); none where nothing had to be opened
};

// choose_backend(), with the node.
[[nodiscard]] Result<Choice> choose(Kernel& kernel, std::string_view name, const HostDevice& device);

}  // namespace postern
