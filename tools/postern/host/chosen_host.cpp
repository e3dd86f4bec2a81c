// SPDX-License-Identifier: Apache-2.0
// ChosenHost: names of simulated hosts.
#include "host/chosen_host.hpp"

#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <filesystem>

namespace postern::tool {

std::string ChosenHost::choose(const std::string& name) {
  constexpr std::string_view prefix = "sim:";
  const auto host = name == "sim"                                 ? simulated_pc()
                    : name.compare(0, prefix.size(), prefix) == 0 ? simulated_host(name.substr(prefix.size()))
                                                                  : std::nullopt;
  if (!host) {
    return fmt::format(
        "there is no host \"{}\": use sim:pc (or just sim), sim:pseries or sim:powernv, or leave it out for this one",
        name);
  }
  std::array<char, 32> folder{"/tmp/postern-sim-XXXXXX"};
  if (::mkdtemp(folder.data()) == nullptr) return "no folder can be made in /tmp";
  bindings_folder_ = folder.data();
  host->dirty_bits = true;  // as new machines have them, and the guest's emulated IOMMU has not
  simulated_.emplace(*host);
  return "";
}

ChosenHost::~ChosenHost() {
  if (!simulated_) return;
  std::error_code nobody_to_tell;
  std::filesystem::remove_all(bindings_folder_, nobody_to_tell);
}

}  // namespace postern::tool
