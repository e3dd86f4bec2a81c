// SPDX-License-Identifier: Apache-2.0
// Sysfs: the files, links and nodes that show the machine's state, and the effect of writes.
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <postern/kernel.hpp>
#include <string>
#include <vector>

#include "sim/machine/machine.hpp"

namespace postern::sim {

// Everything in /sys and /dev, and in /proc except the process's own folder. Rebuilt when the machine has changed.
class Sysfs {
 public:
  explicit Sysfs(Machine& machine) : machine_(machine) {}

  // Whether it shows this path.
  [[nodiscard]] static bool shows(const std::string& path);

  [[nodiscard]] int read_file(const std::string& path, std::string& contents);
  [[nodiscard]] int write_file(const std::string& path, const std::string& contents, Machine::Lock& lock);
  [[nodiscard]] int list_directory(const std::string& path, std::vector<std::string>& names);
  [[nodiscard]] int read_link(const std::string& path, std::string& target);
  [[nodiscard]] int status(const std::string& path, FileStatus& status);

 private:
  enum class Kind : std::uint8_t { file, link, node, directory };
  struct Entry {
    Kind kind = Kind::file;
    std::string text;  // a file's contents, a link's target
    dev_t device = 0;
  };

  void refresh();
  void show_function(const Function& function);
  void show_power_function(const Function& function);
  void show_device_tree();
  void show_platform();
  void show_groups();
  void show_drivers();
  void show_nodes();
  void file(const std::string& path, std::string text) { entries_[path] = {Kind::file, std::move(text), 0}; }
  void link(const std::string& path, std::string target) { entries_[path] = {Kind::link, std::move(target), 0}; }
  void node(const std::string& path, dev_t device) { entries_[path] = {Kind::node, "", device}; }
  void directory(const std::string& path) { entries_[path] = {Kind::directory, "", 0}; }
  // Resolves every link in the path except one at its end.
  [[nodiscard]] std::string resolve(const std::string& path) const;
  [[nodiscard]] bool is_directory(const std::string& path) const;

  Machine& machine_;
  std::map<std::string, Entry, std::less<>> entries_;
  std::uint64_t shown_ = ~std::uint64_t{0};  // the machine's generation
};

}  // namespace postern::sim
