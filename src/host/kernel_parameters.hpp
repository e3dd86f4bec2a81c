// SPDX-License-Identifier: Apache-2.0
// KernelParameters: the parameters in /proc/cmdline, parsed as the kernel does.
#pragma once

#include <optional>
#include <postern/kernel.hpp>
#include <postern/remedy.hpp>
#include <postern/result.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace postern {

class KernelParameters {
 public:
  // Empty if there is no /proc/cmdline. Errors: those of reading it.
  [[nodiscard]] static Result<KernelParameters> read(Kernel& kernel);

  // One word of a parameter's list, and the parameter to change to remove it.
  struct Word {
    std::string text;       // "off"
    std::string parameter;  // the whole parameter: "intel_iommu=off,strict"

    [[nodiscard]] Remedy removal() const;
  };

  // The words of a parameter's comma-separated lists, of all its occurrences, in order.
  [[nodiscard]] std::vector<Word> words(std::string_view name) const;
  // The last word that is one of `choices`; nothing if there is none. The kernel obeys each word, so the last one wins.
  [[nodiscard]] std::optional<Word> last_of(std::string_view name, std::span<const std::string_view> choices) const;

 private:
  struct Parameter {
    std::string name;  // with '_' for '-', which are the same for the kernel
    std::string value;
    std::string written;
  };
  std::vector<Parameter> parameters_;
};

}  // namespace postern
