// SPDX-License-Identifier: Apache-2.0
// RecordedBindings: the previous drivers of devices, in files.
#include "host/recorded_bindings.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "text/errors.hpp"

namespace postern::tool {
namespace {

tl::unexpected<Error> file_failure(const char* operation, const std::string& path, int code) {
  std::string remedy;
  if (code == EACCES || code == EPERM) remedy = "run as root: binding a device needs it";
  if (code == ENOSPC || code == EDQUOT)
    remedy = "free some space there: the previous driver of a device is recorded before it is bound";
  return failure(
      {.code = code, .operation = operation, .object = path, .reason = {}, .remedy = std::move(remedy), .causes = {}});
}

// Creates the folder and its parents. Only the last is closed to other users.
bool make_folders(const std::string& folder) {
  for (auto at = folder.find('/', 1); at != std::string::npos; at = folder.find('/', at + 1)) {
    if (::mkdir(folder.substr(0, at).c_str(), 0755) < 0 && errno != EEXIST) return false;
  }
  return ::mkdir(folder.c_str(), 0700) == 0 || errno == EEXIST;
}

bool write_all(int fd, const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t put = ::write(fd, text.data() + done, text.size() - done);
    if (put < 0 && errno != EINTR) return false;
    if (put > 0) done += static_cast<std::size_t>(put);
  }
  return ::fsync(fd) == 0;
}

// Reads the start of a file, which is longer than any record. Reads nothing if it is not a regular file: a FIFO would
// block. Returns 0 or an errno.
int read_regular(const std::string& path, std::string& text) {
  const Fd file(system_kernel(), ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW));
  if (!file) return errno;
  struct stat status {};
  if (::fstat(file.get(), &status) < 0) return errno;
  if (!S_ISREG(status.st_mode)) return 0;
  text.resize(65536);
  const ssize_t got = ::read(file.get(), text.data(), text.size());
  text.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
  return got < 0 ? errno : 0;
}

Json optional_json(const std::optional<std::string>& text) { return text ? Json(*text) : Json(nullptr); }

// Only root can write the file, but a person may have edited it: everything in it is checked.
std::optional<Binding> binding_of(const Json& json) {
  if (!json.is_object()) return std::nullopt;
  const auto text = [&](const char* key) -> std::optional<std::string> {
    const auto found = json.find(key);
    return found != json.end() && found->is_string() ? std::optional(found->get<std::string>()) : std::nullopt;
  };
  const auto text_or_null = [&](const char* key) { return text(key) || (json.contains(key) && json[key].is_null()); };
  const auto bus = text("bus");
  const auto device = text("device");
  if (!bus || !device || !text_or_null("driver") || !text_or_null("driver_override")) return std::nullopt;
  // Both become part of a path.
  for (const auto& name : {text("driver"), text("driver_override")}) {
    if (name && (name->empty() || *name == "." || *name == ".." || name->find('/') != std::string::npos))
      return std::nullopt;
  }
  return Binding{.bus = *bus,
                 .device = *device,
                 .driver = text("driver"),
                 .driver_override = text("driver_override"),
                 .ids = text("ids").value_or("")};
}

}  // namespace

RecordedBindings::RecordedBindings(std::string folder) : folder_(std::move(folder)) {}

std::string RecordedBindings::path_of(const std::string& device) const {
  return fmt::format("{}/{}.json", folder_, device);
}

Result<Fd> RecordedBindings::lock(const std::string& device) const {
  if (folder_.empty()) return Fd();  // a simulated host belongs to this process
  const std::string path = fmt::format("{}/{}.lock", folder_, device);
  if (!make_folders(folder_)) return file_failure("mkdir", path, errno);
  Fd file(system_kernel(), ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return file_failure("open", path, errno);
  if (::flock(file.get(), LOCK_EX | LOCK_NB) == 0) return file;
  if (errno != EWOULDBLOCK) return file_failure("flock", path, errno);
  return failure({.code = EBUSY,
                  .operation = "bind",
                  .object = device,
                  .reason = "another postern process is binding or unbinding it",
                  .remedy = fmt::format("find that process with \"fuser -v {}\" as root", path),
                  .causes = {}});
}

Result<std::optional<Binding>> RecordedBindings::find(const std::string& device) const {
  if (folder_.empty()) return std::optional<Binding>();
  const std::string path = path_of(device);
  std::string text;
  if (const int code = read_regular(path, text); code == ENOENT) {
    return std::optional<Binding>();
  } else if (code != 0) {
    return file_failure("read", path, code);
  }
  auto binding = binding_of(Json::parse(text, nullptr, false));
  if (binding && binding->device == device) return binding;
  return failure({.code = EINVAL,
                  .operation = "read",
                  .object = path,
                  .reason = fmt::format("is not a record of the driver of {}", device),
                  .remedy = "check its content, then remove it",
                  .causes = {}});
}

Result<void> RecordedBindings::record(const Binding& binding) const {
  if (folder_.empty()) return {};
  const std::string path = path_of(binding.device);
  if (!make_folders(folder_)) return file_failure("mkdir", path, errno);
  const Json json = {{"bus", binding.bus},
                     {"device", binding.device},
                     {"driver", optional_json(binding.driver)},
                     {"driver_override", optional_json(binding.driver_override)},
                     {"ids", binding.ids}};
  // The name contains the pid, so that two processes never write to the same file.
  const std::string unfinished = fmt::format("{}.{}", path, ::getpid());
  Kernel& kernel = system_kernel();
  Fd file(kernel, ::open(unfinished.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file) return file_failure("open", path, errno);
  const bool written = write_all(file.get(), json_text(json)) && ::rename(unfinished.c_str(), path.c_str()) == 0;
  if (written) return {};
  const int code = errno;
  ::unlink(unfinished.c_str());
  return file_failure("write", path, code);
}

Result<void> RecordedBindings::remove(const std::string& device) const {
  if (folder_.empty()) return {};
  const std::string path = path_of(device);
  if (::unlink(path.c_str()) == 0 || errno == ENOENT) return {};
  return file_failure("unlink", path, errno);
}

}  // namespace postern::tool
