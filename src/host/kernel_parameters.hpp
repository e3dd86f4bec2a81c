// SPDX-License-Identifier: Apache-2.0
// KernelParameters: /proc/cmdline, as the kernel itself reads it.
#pragma once

#include <optional>
#include <postern/kernel.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace postern {

class KernelParameters {
 public:
  // None where /proc/cmdline cannot be read.
  [[nodiscard]] static KernelParameters read(Kernel& kernel);

  // One word of a parameter's list, and how to take it away.
  struct Word {
    std::string text;       // "off"
    std::string parameter;  // that it stands in: "intel_iommu=off,strict"

    [[nodiscard]] std::string removal() const;  // "take ... off the kernel's command line, and boot again"
  };

  // The words of a parameter's comma-separated lists, of each time that it is given, in order.
  [[nodiscard]] std::vector<Word> words(std::string_view name) const;
  // The last word that is one of `choices`; nothing where none is. What comes later wins, as the kernel obeys each.
  [[nodiscard]] std::optional<Word> last_of(std::string_view name, std::span<const std::string_view> choices) const;

 private:
  struct Parameter {
    std::string name;  // with '_' for '-', which the kernel takes for the same
    std::string value;
    std::string written;
  };
  std::vector<Parameter> parameters_;
};

}  // namespace postern
