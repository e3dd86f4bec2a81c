// SPDX-License-Identifier: Apache-2.0
// ChosenHost: finds a simulated host by its name.
#include "host/chosen_host.hpp"

#include <fmt/format.h>

#include "text/remedies.hpp"

namespace postern::tool {

std::string ChosenHost::choose(const std::string& name) {
  const auto host = sim::find_host(name);
  if (!host) {
    const Error& wrong = host.error();
    const std::string remedy = words_of(wrong.remedies());
    return fmt::format("{}: {}{}{}", wrong.object(), wrong.reason(), remedy.empty() ? "" : "; ", remedy);
  }
  bindings_folder_.clear();
  simulated_.emplace(*host);
  return "";
}

}  // namespace postern::tool
