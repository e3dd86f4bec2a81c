// SPDX-License-Identifier: Apache-2.0
// Reads sysfs and /proc.
#include "host/reading.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>

namespace postern::tool {
namespace {

tl::unexpected<Error> unread(const char* call, int result, const std::string& path) {
  return failure({.code = -result,
                  .operation = call,
                  .object = path,
                  .remedy = result == -EMFILE ? Remedies(RemedyCode::raise_open_files_limit) : Remedies()});
}

}  // namespace

Result<std::optional<std::string>> read_text(Kernel& kernel, const std::string& path) {
  std::string text;
  const int result = kernel.read_file(path, text);
  if (result == -ENOENT) return std::nullopt;
  if (result < 0) return unread("read", result, path);
  return text;
}

Result<std::optional<std::string>> read_target(Kernel& kernel, const std::string& path) {
  std::string target;
  const int result = kernel.read_link(path, target);
  if (result == -ENOENT) return std::nullopt;
  if (result < 0) return unread("readlink", result, path);
  return target;
}

Result<std::vector<std::string>> read_entries(Kernel& kernel, const std::string& path) {
  std::vector<std::string> names;
  const int result = kernel.list_directory(path, names);
  if (result == -ENOENT) return std::vector<std::string>();
  if (result < 0) return unread("opendir", result, path);
  return names;
}

Result<bool> is_there(Kernel& kernel, const std::string& path) {
  FileStatus status;
  const int result = kernel.status(path, status);
  if (result < 0 && result != -ENOENT) return unread("stat", result, path);
  return result >= 0;
}

template <typename T>
T Reading::value_or_empty(Result<T> read) {
  if (read) return *std::move(read);
  const Error& error = read.error();
  if (!failed_) unknown_.push_back(fmt::format("{}: {}: {}", what_, error.object(), std::strerror(error.code())));
  failed_ = true;
  return T();
}

std::string Reading::text(const std::string& path) { return value_or_empty(read_text(kernel_, path)).value_or(""); }

std::string Reading::line(const std::string& path) {
  const std::string all = text(path);
  return all.substr(0, all.find('\n'));
}

std::string Reading::target(const std::string& path) { return value_or_empty(read_target(kernel_, path)).value_or(""); }

std::vector<std::string> Reading::entries(const std::string& path) {
  return value_or_empty(read_entries(kernel_, path));
}

bool Reading::leads_to(const std::string& link, const HostDevice& device) {
  auto read = read_target(kernel_, link);
  if (!read && read.error().code() == EINVAL) return false;  // it is not a link
  const std::string target = value_or_empty(std::move(read)).value_or("");
  return (target + "/").find("/" + device.name + "/") != std::string::npos;
}

}  // namespace postern::tool
