// SPDX-License-Identifier: Apache-2.0
// ChosenHost: a simulated host, and a folder for what would be remembered of this one.
#include "host/chosen_host.hpp"

#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <filesystem>

namespace postern::tool {

std::string ChosenHost::choose(const std::string& name) {
  const auto host = simulated_host(name);
  if (!host) {
    const Error& wrong = host.error();
    return fmt::format("{}: {}{}{}", wrong.object(), wrong.reason(), wrong.remedy().empty() ? "" : "; ",
                       wrong.remedy());
  }
  std::array<char, 32> folder{"/tmp/postern-sim-XXXXXX"};
  if (::mkdtemp(folder.data()) == nullptr) return "no folder can be made in /tmp";
  bindings_folder_ = folder.data();
  simulated_.emplace(*host);
  return "";
}

ChosenHost::~ChosenHost() {
  if (!simulated_) return;
  std::error_code nobody_to_tell;
  std::filesystem::remove_all(bindings_folder_, nobody_to_tell);
}

}  // namespace postern::tool
