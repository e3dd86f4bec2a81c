// SPDX-License-Identifier: Apache-2.0
// Reads sysfs and /proc. Only ENOENT means that something does not exist. Any other errno is an error, and whatever
// depends on it is unknown.
#pragma once

#include <optional>
#include <postern/host_device.hpp>
#include <postern/kernel.hpp>
#include <postern/result.hpp>
#include <string>
#include <utility>
#include <vector>

namespace postern::tool {

// Nothing if the path does not exist. Errors: those of the call, with the path as object.
[[nodiscard]] Result<std::optional<std::string>> read_text(Kernel& kernel, const std::string& path);
[[nodiscard]] Result<std::optional<std::string>> read_target(Kernel& kernel, const std::string& path);  // of a link
[[nodiscard]] Result<std::vector<std::string>> read_entries(Kernel& kernel, const std::string& path);   // of a folder
[[nodiscard]] Result<bool> is_there(Kernel& kernel, const std::string& path);

// Reads what one question needs. Whatever cannot be read is empty, and the first error is added to `unknown`: "its
// disks: /sys/class/block: Permission denied".
class Reading {
 public:
  Reading(Kernel& kernel, std::string what, std::vector<std::string>& unknown)
      : kernel_(kernel), what_(std::move(what)), unknown_(unknown) {}

  [[nodiscard]] std::string text(const std::string& path);
  [[nodiscard]] std::string line(const std::string& path);  // the first line of a file
  [[nodiscard]] std::string target(const std::string& path);
  [[nodiscard]] std::vector<std::string> entries(const std::string& path);
  // Whether a link of sysfs leads to the device, or to a descendant of it. False if it is not a link.
  [[nodiscard]] bool leads_to(const std::string& link, const HostDevice& device);

 private:
  template <typename T>
  T value_or_empty(Result<T> read);

  Kernel& kernel_;
  std::string what_;
  std::vector<std::string>& unknown_;
  bool failed_ = false;
};

}  // namespace postern::tool
