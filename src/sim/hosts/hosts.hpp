// SPDX-License-Identifier: Apache-2.0
// What the descriptions of simulated hosts have in common: the models of functions by name, and which hosts can be.
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
  std::string_view native_driver;        // the one that takes it where nobody says otherwise; empty: Linux has none
  bool has_disk;                         // a serial number, and bytes
  std::string_view variant_driver = {};  // a VFIO driver of its own, beside vfio-pci
};
// Every model has its line here.
[[nodiscard]] std::span<const ModelName> models() noexcept;
[[nodiscard]] const ModelName& name_of(HostFunction::Model model);

// Why no host can be like this one, and where: "functions[1].address"; both empty where nothing is wrong.
struct Impossible {
  std::string place;
  std::string reason;
  std::string remedy;
  [[nodiscard]] bool empty() const noexcept { return reason.empty(); }
};
[[nodiscard]] Impossible find_impossible(const Host& host);

}  // namespace postern::sim
