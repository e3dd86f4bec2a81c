// SPDX-License-Identifier: Apache-2.0
// Models of functions by name, and checks of described hosts.
#pragma once

#include <postern-sim/host.hpp>
#include <span>
#include <string>
#include <string_view>

namespace postern::sim {

inline constexpr const char* choose_host = "choose simulated host";  // the operation of errors

struct ModelName {
  HostFunction::Model model;
  std::string_view name;                 // in JSON
  std::string_view native_driver;        // its default driver; empty: Linux has none
  bool has_disk;                         // a serial number, and bytes
  std::string_view variant_driver = {};  // its own VFIO driver, besides vfio-pci
};
// Contains every model.
[[nodiscard]] std::span<const ModelName> models() noexcept;
[[nodiscard]] const ModelName& name_of(HostFunction::Model model);

// Why this host is impossible, and where: "functions[1].address"; both empty if it is possible. check_host() and
// parse_host() turn it into an error.
struct Impossible {
  std::string place;
  std::string reason;
  std::string remedy;
  [[nodiscard]] bool empty() const noexcept { return reason.empty(); }
};
[[nodiscard]] Impossible find_impossible(const Host& host);

}  // namespace postern::sim
