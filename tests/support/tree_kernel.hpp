// SPDX-License-Identifier: Apache-2.0
// TreeKernel: a fake Kernel with a tree of files in memory. Nodes can be opened; every other call returns ENOSYS.
#pragma once

#include <sys/stat.h>

#include <cerrno>
#include <map>
#include <postern/kernel.hpp>
#include <set>

namespace postern::test {

// A directory exists if it has an entry. Links are not followed: files below one are added by their full path.
class TreeKernel : public Kernel {
 public:
  void file(const std::string& path, const std::string& contents) { files_[path] = contents; }
  void link(const std::string& path, const std::string& target) { links_[path] = target; }
  void directory(const std::string& path) { directories_.insert(path); }
  void node(const std::string& path, const FileStatus& status) { nodes_[path] = status; }
  void remove(const std::string& path) {
    files_.erase(path);
    links_.erase(path);
    directories_.erase(path);
    nodes_.erase(path);
  }
  // Sets the result of access(2) for this path.
  void access_gives(const std::string& path, int result) { access_[path] = result; }

  // Makes each call that reads this path fail with a negated errno; 0: succeed again.
  void reading_gives(const std::string& path, int result) { reading_[path] = result; }

  // Sets the result of open(2) for this path, if it differs from that of access(2).
  void open_gives(const std::string& path, int result) { open_[path] = result; }

  static constexpr int node_fd = 1000;  // the fd of every open node

  int open(const char* path, int /*flags*/) override {
    const auto refused = open_.find(path);
    if (refused != open_.end()) return refused->second;
    const auto found = access_.find(path);
    if (found != access_.end() && found->second < 0) return found->second;
    if (nodes_.count(path) != 0) return node_fd;
    return exists(path) ? -ENOSYS : -ENOENT;
  }
  int close(int fd) override { return fd == node_fd ? 0 : -EBADF; }
  int ioctl(int /*fd*/, unsigned long /*request*/, void* /*argument*/) override { return -ENOSYS; }
  ssize_t pread(int, void*, std::size_t, std::uint64_t) override { return -ENOSYS; }
  ssize_t pwrite(int, const void*, std::size_t, std::uint64_t) override { return -ENOSYS; }
  ssize_t read(int, void*, std::size_t) override { return -ENOSYS; }
  ssize_t write(int, const void*, std::size_t) override { return -ENOSYS; }
  std::intptr_t mmap(void*, std::size_t, int, int, int, std::uint64_t) override { return -ENOSYS; }
  int munmap(void*, std::size_t) override { return -ENOSYS; }
  int eventfd() override { return -ENOSYS; }

  int read_file(const std::string& path, std::string& contents) override {
    if (const int failed = failure_of_reading(path); failed < 0) return failed;
    const auto found = files_.find(path);
    if (found == files_.end()) return is_below_file(path) ? -ENOTDIR : -ENOENT;
    contents = found->second;
    return 0;
  }
  int write_file(const std::string& path, const std::string& contents) override {
    const auto found = files_.find(path);
    if (found == files_.end()) return -ENOENT;
    found->second = contents;
    return 0;
  }
  int list_directory(const std::string& path, std::vector<std::string>& names) override {
    if (const int failed = failure_of_reading(path); failed < 0) return failed;
    std::set<std::string> found;
    const std::string prefix = path + "/";
    const auto look = [&](const std::string& other) {
      if (other.compare(0, prefix.size(), prefix) != 0) return;
      found.insert(other.substr(prefix.size(), other.find('/', prefix.size()) - prefix.size()));
    };
    for (const auto& [name, contents] : files_) look(name);
    for (const auto& [name, target] : links_) look(name);
    for (const auto& [name, status] : nodes_) look(name);
    for (const auto& name : directories_) look(name);
    names.assign(found.begin(), found.end());
    return found.empty() && directories_.count(path) == 0 ? -ENOENT : 0;
  }
  int read_link(const std::string& path, std::string& target) override {
    if (const int failed = failure_of_reading(path); failed < 0) return failed;
    const auto found = links_.find(path);
    if (found == links_.end()) return exists(path) ? -EINVAL : -ENOENT;
    target = found->second;
    return 0;
  }
  int status(const std::string& path, FileStatus& status) override {
    if (const int failed = failure_of_reading(path); failed < 0) return failed;
    if (!exists(path)) return -ENOENT;
    const auto found = nodes_.find(path);
    status = found != nodes_.end() ? found->second
                                   : FileStatus{.mode = files_.count(path) != 0 ? S_IFREG | 0644U : S_IFDIR | 0755U};
    return 0;
  }
  int access(const std::string& path, int /*mode*/) override {
    const auto found = access_.find(path);
    if (found != access_.end()) return found->second;
    return exists(path) ? 0 : -ENOENT;
  }

 private:
  [[nodiscard]] bool is_below_file(const std::string& path) const {
    for (std::size_t end = path.rfind('/'); end != 0 && end != std::string::npos; end = path.rfind('/', end - 1)) {
      if (files_.count(path.substr(0, end)) != 0) return true;
    }
    return false;
  }
  [[nodiscard]] int failure_of_reading(const std::string& path) const {
    const auto found = reading_.find(path);
    return found != reading_.end() ? found->second : 0;
  }
  bool exists(const std::string& path) {
    std::vector<std::string> names;
    return files_.count(path) != 0 || links_.count(path) != 0 || nodes_.count(path) != 0 ||
           list_directory(path, names) == 0;
  }

  std::map<std::string, std::string> files_;
  std::map<std::string, std::string> links_;
  std::map<std::string, FileStatus> nodes_;
  std::set<std::string> directories_;
  std::map<std::string, int> access_;
  std::map<std::string, int> open_;
  std::map<std::string, int> reading_;
};

}  // namespace postern::test
