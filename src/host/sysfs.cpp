// SPDX-License-Identifier: Apache-2.0
// Reading sysfs: small files, links and numbers, each optional.
#include "host/sysfs.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "base/words.hpp"

namespace postern::sysfs {

bool tells_nothing(int result) { return result == -EMFILE || result == -ENFILE || result == -ENOMEM; }

std::string shortage_remedy(int result) {
  return result == -EMFILE ? "let this process open more files (\"ulimit -n\")" : "";
}

std::optional<std::string> text(Kernel& kernel, const std::string& path) {
  std::string contents;
  if (kernel.read_file(path, contents) < 0) return std::nullopt;
  return trimmed(std::move(contents));
}

std::optional<std::int64_t> number(Kernel& kernel, const std::string& path) {
  const auto digits = text(kernel, path);
  if (!digits || digits->empty()) return std::nullopt;
  char* end = nullptr;
  errno = 0;
  const long long value = std::strtoll(digits->c_str(), &end, 0);
  if (errno != 0 || *end != '\0') return std::nullopt;
  return value;
}

bool is_entry(std::string_view name) {
  const auto is_bad = [](char byte) { return byte == '/' || static_cast<unsigned char>(byte) < 0x20 || byte == 0x7f; };
  return !name.empty() && name != "." && name != ".." && std::none_of(name.begin(), name.end(), is_bad);
}

std::optional<std::string> link_name(Kernel& kernel, const std::string& path) {
  std::string name;
  if (link_name(kernel, path, name) < 0) return std::nullopt;
  return name;
}

int link_name(Kernel& kernel, const std::string& path, std::string& name) {
  std::string target;
  const int result = kernel.read_link(path, target);
  if (result < 0) return result;
  name = target.substr(target.rfind('/') + 1);
  return 0;
}

}  // namespace postern::sysfs
