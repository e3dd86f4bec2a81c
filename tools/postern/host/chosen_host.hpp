// SPDX-License-Identifier: Apache-2.0
// ChosenHost: the host that a verb works on: this one, or a simulated one (--host sim).
#pragma once

#include <optional>
#include <postern-sim/kernel.hpp>
#include <string>

namespace postern::tool {

// A simulated host begins anew in each run of the tool: nothing of it is in a file, so that nothing stays, whatever
// ends the run.
class ChosenHost {
 public:
  // "sim", "sim:NAME" or "sim:FILE". What is wrong with it, empty where nothing is.
  [[nodiscard]] std::string choose(const std::string& name);

  [[nodiscard]] Kernel& kernel() { return simulated_ ? *simulated_ : system_kernel(); }
  // Where bind remembers what was there before; empty on a simulated host, where nobody could ask for it.
  [[nodiscard]] const std::string& bindings_folder() const noexcept { return bindings_folder_; }

 private:
  std::optional<sim::Kernel> simulated_;
  std::string bindings_folder_ = "/run/postern/bind";
};

}  // namespace postern::tool
