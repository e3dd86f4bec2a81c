// SPDX-License-Identifier: Apache-2.0
// Reading sysfs: small files, links and numbers, each optional.
#include "host/sysfs.hpp"

#include <cerrno>
#include <cstdlib>

#include "base/words.hpp"

namespace postern::sysfs {

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

std::optional<std::string> link_name(Kernel& kernel, const std::string& path) {
  std::string target;
  if (kernel.read_link(path, target) < 0) return std::nullopt;
  return target.substr(target.rfind('/') + 1);
}

}  // namespace postern::sysfs
