// SPDX-License-Identifier: Apache-2.0
// ChosenHost: a simulated host by its name.
#include "host/chosen_host.hpp"

#include <fmt/format.h>

namespace postern::tool {

std::string ChosenHost::choose(const std::string& name) {
  const auto host = sim::find_host(name);
  if (!host) {
    const Error& wrong = host.error();
    return fmt::format("{}: {}{}{}", wrong.object(), wrong.reason(), wrong.remedy().empty() ? "" : "; ",
                       wrong.remedy());
  }
  bindings_folder_.clear();
  simulated_.emplace(*host);
  return "";
}

}  // namespace postern::tool
