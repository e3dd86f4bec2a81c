// SPDX-License-Identifier: Apache-2.0
// Reads small files, links and numbers from sysfs and /proc.
#include "host/sysfs.hpp"

#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>

#include "base/words.hpp"
#include "kernel/ioctl.hpp"

namespace postern::sysfs {

Remedies shortage_remedy(int result) {
  return result == -EMFILE ? Remedies(RemedyCode::raise_open_files_limit) : Remedies();
}

tl::unexpected<Error> unread(const char* call, int result, const std::string& path) {
  return call_failure(call, {.result = result, .object = path, .remedy = shortage_remedy(result)});
}

Result<std::optional<std::string>> text(Kernel& kernel, const std::string& path) {
  std::string contents;
  const int result = kernel.read_file(path, contents);
  if (result == -ENOENT) return std::nullopt;
  if (result < 0) return unread("read", result, path);
  return trimmed(std::move(contents));
}

std::string text_if_readable(Kernel& kernel, const std::string& path) {
  return text(kernel, path).value_or(std::nullopt).value_or("");
}

Result<std::optional<std::int64_t>> number(Kernel& kernel, const std::string& path) {
  const auto digits = POSTERN_TRY(text(kernel, path));
  if (!digits) return std::nullopt;
  char* end = nullptr;
  errno = 0;
  const long long value = std::strtoll(digits->c_str(), &end, 0);
  if (errno != 0 || digits->empty() || *end != '\0') return std::nullopt;
  return value;
}

Result<std::optional<dev_t>> device_number(Kernel& kernel, const std::string& path) {
  const auto numbers = POSTERN_TRY(text(kernel, path));
  if (!numbers) return std::nullopt;
  unsigned major = 0;
  unsigned minor = 0;
  const char* const end = numbers->data() + numbers->size();
  const auto first = std::from_chars(numbers->data(), end, major);
  if (first.ec != std::errc() || first.ptr == end || *first.ptr != ':') return std::nullopt;
  const auto second = std::from_chars(first.ptr + 1, end, minor);
  if (second.ec != std::errc() || second.ptr != end) return std::nullopt;
  return makedev(major, minor);
}

Result<std::optional<std::string>> link_name(Kernel& kernel, const std::string& path) {
  std::string target;
  const int result = kernel.read_link(path, target);
  if (result == -ENOENT) return std::nullopt;
  if (result < 0) return unread("readlink", result, path);
  return target.substr(target.rfind('/') + 1);
}

Result<bool> is_there(Kernel& kernel, const std::string& path) {
  FileStatus status;
  const int result = kernel.status(path, status);
  if (result < 0 && result != -ENOENT) return unread("stat", result, path);
  return result >= 0;
}

Result<std::vector<std::string>> entries(Kernel& kernel, const std::string& path) {
  std::vector<std::string> names;
  const int result = kernel.list_directory(path, names);
  if (result == -ENOENT) return std::vector<std::string>();
  if (result < 0) return unread("opendir", result, path);
  return names;
}

bool is_entry(std::string_view name) {
  const auto is_bad = [](char byte) { return byte == '/' || static_cast<unsigned char>(byte) < 0x20 || byte == 0x7f; };
  return !name.empty() && name != "." && name != ".." && std::none_of(name.begin(), name.end(), is_bad);
}

}  // namespace postern::sysfs
