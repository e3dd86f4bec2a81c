// SPDX-License-Identifier: Apache-2.0
// RememberedBindings: what devices were bound to before postern bound them, kept between one run of the tool and the
// next.
#pragma once

#include <optional>
#include <postern/binding.hpp>
#include <postern/fd.hpp>
#include <postern/result.hpp>
#include <string>

namespace postern::tool {

// One small JSON file a device, in a folder that is emptied at boot, as the bindings themselves are. Each function is
// one step of the file system, so that a crash at any time leaves a whole file or none.
class RememberedBindings {
 public:
  // The folder is made, open to its owner alone, when something is first remembered. An empty name: nothing is kept, as
  // on a simulated host, which is another one in the next run.
  explicit RememberedBindings(std::string folder);

  // Held from before a binding is recalled until what has become of it is written down, so that two that bind and
  // unbind one device do not take each other's file. Errors: EBUSY (another process has it), those of making the file.
  [[nodiscard]] Result<Fd> lock(const std::string& device) const;

  // Errors: EINVAL (the file is there, but is no binding of this device), those of reading it.
  [[nodiscard]] Result<std::optional<Binding>> recall(const std::string& device) const;

  // Takes the place of what was remembered of this device before. On disk when it returns. Errors: those of writing.
  [[nodiscard]] Result<void> remember(const Binding& binding) const;

  // It is no error if nothing was remembered.
  [[nodiscard]] Result<void> forget(const std::string& device) const;

  [[nodiscard]] std::string path_of(const std::string& device) const;

 private:
  std::string folder_;
};

}  // namespace postern::tool
