// SPDX-License-Identifier: Apache-2.0
// ChosenHost: the host that a command works on: this machine, or a simulated host (--host sim).
#pragma once

#include <optional>
#include <postern-sim/kernel.hpp>
#include <string>

namespace postern::tool {

// A simulated host exists in memory only: it starts fresh in each run of the tool, and leaves nothing behind.
class ChosenHost {
 public:
  // Takes "sim", "sim:NAME" or "sim:FILE". Returns an error message; empty on success.
  [[nodiscard]] std::string choose(const std::string& name);

  [[nodiscard]] Kernel& kernel() { return simulated_ ? *simulated_ : system_kernel(); }
  // Where bind records previous drivers; empty on a simulated host, whose bindings end with the run.
  [[nodiscard]] const std::string& bindings_folder() const noexcept { return bindings_folder_; }

 private:
  std::optional<sim::Kernel> simulated_;
  std::string bindings_folder_ = "/run/postern/bind";
};

}  // namespace postern::tool
