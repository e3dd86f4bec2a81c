// SPDX-License-Identifier: Apache-2.0
// RecordedBindings: the drivers that devices had before postern bound them, kept between runs of the tool.
#pragma once

#include <optional>
#include <postern/binding.hpp>
#include <postern/fd.hpp>
#include <postern/result.hpp>
#include <string>

namespace postern::tool {

// One small JSON file per device, in a folder that is emptied at boot, when the bindings end, too. Each function is one
// step in the file system, so that a crash leaves a complete file or none.
class RecordedBindings {
 public:
  // Creates the folder, accessible to its owner only, when something is first recorded. An empty name: records nothing,
  // as for a simulated host, which ends with the run.
  explicit RecordedBindings(std::string folder);

  // Locks the record of a device: hold it from find() until the change is recorded, so that two processes do not change
  // the same device. Errors: EBUSY (another process holds it), those of creating the file.
  [[nodiscard]] Result<Fd> lock(const std::string& device) const;

  // Returns the record of a device, if there is one. Errors: EINVAL (the file is not a record of this device), those of
  // reading it.
  [[nodiscard]] Result<std::optional<Binding>> find(const std::string& device) const;

  // Replaces the record of this device. It is on disk when this returns. Errors: those of writing.
  [[nodiscard]] Result<void> record(const Binding& binding) const;

  // Removes the record of a device, if there is one.
  [[nodiscard]] Result<void> remove(const std::string& device) const;

  [[nodiscard]] std::string path_of(const std::string& device) const;

 private:
  std::string folder_;
};

}  // namespace postern::tool
