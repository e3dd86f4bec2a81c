// SPDX-License-Identifier: Apache-2.0
// open_node(): opens a device node of VFIO, or takes the descriptor of it that was given, with errors that name the
// node, its mode and the remedy.
#include "host/node.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>

#include "base/remedy.hpp"
#include "base/words.hpp"
#include "host/sysfs.hpp"
#include "kernel/ioctl.hpp"

namespace postern {
namespace {

// By name, or by number if the name is unknown.
std::string this_user() {
  std::array<char, 1024> buffer{};
  passwd entry{};
  passwd* found = nullptr;
  const uid_t user = ::geteuid();
  const bool known = ::getpwuid_r(user, &entry, buffer.data(), buffer.size(), &found) == 0 && found != nullptr;
  return known ? entry.pw_name : std::to_string(user);
}

Remedies missing_node(Kernel& kernel, const Node& node) {
  const std::string& path = node.path;
  FileStatus status;
  const int result = kernel.status(node.sysfs, status);
  if (result == -ENOENT) return node.remedy;
  if (result < 0) return sysfs::shortage_remedy(result);  // whether the kernel has the node is unknown
  Remedies remedies = remedy<RemedyCode::add_node>(node.sysfs, path);
  const std::string number = sysfs::text_if_readable(kernel, node.sysfs + "/dev");
  const std::size_t colon = number.find(':');
  if (colon == std::string::npos) return remedies;
  const std::string major = number.substr(0, colon);
  const std::string minor = number.substr(colon + 1);
  const std::string folder = path.substr(0, path.rfind('/'));
  return remedies.add(kernel.status(folder, status) == -ENOENT
                          ? remedy<RemedyCode::make_node_and_folder>(folder, path, major, minor)
                          : remedy<RemedyCode::make_node>(path, major, minor));
}

tl::unexpected<Error> node_failure(Kernel& kernel, const char* call, int result, const Node& node,
                                   const std::string& object) {
  const std::string& path = node.path;
  CallFailed what{.result = result, .object = object};
  switch (-result) {
    case ENOENT:
      what.kind = ErrorKind::unavailable;
      what.reason = fmt::format("{} does not exist", path);
      what.remedy = missing_node(kernel, node);
      break;
    case ENXIO:
    case ENODEV:
      what.kind = ErrorKind::unavailable;
      what.reason = fmt::format("the kernel has no device for {}", path);
      what.remedy = node.remedy;
      break;
    case EACCES: {
      FileStatus status;
      what.reason = fmt::format("{} cannot be opened for reading and writing", path);
      if (kernel.status(path, status) >= 0) {
        what.reason += fmt::format(": its mode is {} {}:{}", mode_text(status.mode), status.owner, status.group);
      }
      what.remedy = remedy<RemedyCode::give_node_to_user>(this_user(), path);
      break;
    }
    case EBUSY:
      what.reason =
          fmt::format("{} is already open, or a BAR of a device that was opened through it is still mapped", path);
      what.remedy = remedy<RemedyCode::find_holder>(path);
      break;
    case EPERM:
      if (path.find("/noiommu-") != std::string::npos) {
        what.reason = fmt::format("{} is the node of a device in no-IOMMU mode, which needs CAP_SYS_RAWIO", path);
        break;
      }
      // devcgroup_check_permission; for the node's mode it would be EACCES.
      what.reason = fmt::format("the device cgroup of this process does not allow {}, regardless of its mode", path);
      what.remedy = remedy<RemedyCode::allow_in_device_cgroup>(path);
      break;
    default:
      what.reason = fmt::format("{} cannot be opened", path);
      what.remedy = sysfs::shortage_remedy(result);
      break;
  }
  return call_failure(call, std::move(what));
}

// The file of a descriptor, in words.
std::string file_text(Kernel& kernel, int fd, const FileStatus& status) {
  std::string path;
  if (kernel.read_link(fmt::format("/proc/self/fd/{}", fd), path) >= 0) return path;
  if (!S_ISCHR(status.mode)) return "no device node";
  return fmt::format("the device node {}:{}", major(status.device), minor(status.device));
}

}  // namespace

Result<NodeFd> open_node(Kernel& kernel, const Node& node, const std::string& object,
                         const std::shared_ptr<const Fd>& given) {
  if (given) {
    POSTERN_TRY(require_node(kernel, node, *given, object));
    return NodeFd{.given = given};
  }
  const int fd = kernel.open(node.path.c_str(), O_RDWR);
  if (fd < 0) return node_failure(kernel, "open", fd, node, object);
  return NodeFd{.own = Fd(kernel, fd)};
}

Result<void> require_node(Kernel& kernel, const Node& node, const Fd& given, const std::string& object) {
  CallFailed what{.result = -EINVAL, .kind = ErrorKind::invalid_argument, .object = object};
  if (!given) {
    what.result = -EBADF;
    what.reason = fmt::format("the Fd given for {} is empty", node.path);
    return refusal(std::move(what));
  }
  if (&given.kernel() != &kernel) {
    what.reason = fmt::format("fd {} was given for {}, and is of another Kernel", given.get(), node.path);
    return refusal(std::move(what));
  }
  FileStatus status;
  if (const int result = kernel.fstat(given.get(), status); result < 0) {
    what.result = result;
    what.reason = fmt::format("fd {} was given for {}, and is not open in this process", given.get(), node.path);
    return call_failure("fstat", std::move(what));
  }
  const auto number = node.number ? node.number : POSTERN_TRY(sysfs::device_number(kernel, node.sysfs + "/dev"));
  if (S_ISCHR(status.mode) && (!number || status.device == *number)) return {};
  what.reason = fmt::format("fd {} is {}, not {}", given.get(), file_text(kernel, given.get(), status), node.path);
  what.remedy = remedy<RemedyCode::give_fd_of_node>(node.path);
  return refusal(std::move(what));
}

Result<void> probe_node(Kernel& kernel, const Node& node, const std::string& object) {
  const int result = kernel.access(node.path, R_OK | W_OK);
  return result < 0 ? node_failure(kernel, "access", result, node, object) : Result<void>();
}

}  // namespace postern
