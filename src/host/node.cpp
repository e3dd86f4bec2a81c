// SPDX-License-Identifier: Apache-2.0
// Opening VFIO's device nodes, with errors that name the node, its mode and what to do.
#include "host/node.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <pwd.h>
#include <unistd.h>

#include <array>

#include <postern/host_device.hpp>

#include "base/words.hpp"
#include "host/sysfs.hpp"
#include "kernel/ioctl.hpp"

namespace postern {
namespace {

// By name, or by number where that is not known.
std::string this_user() {
  std::array<char, 1024> buffer{};
  passwd entry{};
  passwd* found = nullptr;
  const uid_t user = ::geteuid();
  const bool known = ::getpwuid_r(user, &entry, buffer.data(), buffer.size(), &found) == 0 && found != nullptr;
  return known ? entry.pw_name : std::to_string(user);
}

// What the kernel shows of a node where it has one, and what brings it where it does not.
struct NodeOrigin {
  std::string sysfs;
  std::string remedy;
};

NodeOrigin origin_of(const std::string& path) {
  const std::string name = path.substr(path.rfind('/') + 1);
  if (path == "/dev/vfio/vfio") {
    return {"/sys/class/misc/vfio", "load the module with \"modprobe vfio\"; the kernel needs CONFIG_VFIO_CONTAINER"};
  }
  if (path == "/dev/iommu") {
    return {
        "/sys/class/misc/iommu",
        "load the module with \"modprobe iommufd\" (Linux 6.2 or later, built with CONFIG_IOMMUFD; Debian's kernels "
        "are not)"};
  }
  if (path.starts_with("/dev/vfio/devices/")) {
    return {"/sys/class/vfio-dev/" + name,
            "the kernel makes the node while the device is bound to a VFIO driver, with CONFIG_VFIO_DEVICE_CDEV"};
  }
  return {
      "/sys/class/vfio/" + name,
      "the kernel makes the node when a device of the group is bound to a VFIO driver and CONFIG_VFIO_GROUP is set"};
}

std::string missing_node(Kernel& kernel, const std::string& path) {
  const NodeOrigin origin = origin_of(path);
  FileStatus status;
  if (kernel.status(origin.sysfs, status) < 0) return origin.remedy;
  std::string remedy = fmt::format(
      "the kernel has it ({}), and its node is missing here: give it to this container (\"--device {}\"), or let "
      "devtmpfs or udev make it",
      origin.sysfs, path);
  const std::string number = sysfs::text(kernel, origin.sysfs + "/dev").value_or("");
  const std::size_t colon = number.find(':');
  if (colon != std::string::npos) {
    const std::string folder = path.substr(0, path.rfind('/'));
    const std::string make_folder =
        kernel.status(folder, status) == -ENOENT ? fmt::format("mkdir -p {} && ", folder) : "";
    remedy += fmt::format(" (or \"{}mknod {} c {} {}\")", make_folder, path, number.substr(0, colon),
                          number.substr(colon + 1));
  }
  return remedy;
}

tl::unexpected<Error> node_failure(Kernel& kernel, const char* call, int result, const std::string& path,
                                   const std::string& object) {
  CallFailed what{.result = result, .object = object};
  switch (-result) {
    case ENOENT:
      what.reason = fmt::format("{} does not exist", path);
      what.remedy = missing_node(kernel, path);
      break;
    case ENXIO:
    case ENODEV:
      what.reason = fmt::format("the kernel has no device behind {}", path);
      what.remedy = origin_of(path).remedy;
      break;
    case EACCES: {
      FileStatus node;
      what.reason = fmt::format("{} cannot be opened for reading and writing", path);
      if (kernel.status(path, node) >= 0) {
        what.reason += fmt::format(": its mode is {} {}:{}", mode_text(node.mode), node.owner, node.group);
      }
      const std::string user = this_user();
      what.remedy = fmt::format(
          "run as root, or give it to this user as root: \"chown {} {}\" (for good: a udev rule with OWNER=\"{}\")",
          user, path, user);
      break;
    }
    case EBUSY:
      what.reason = fmt::format("{} is open already", path);
      what.remedy = fmt::format("find who holds it with \"fuser -v {}\" as root", path);
      break;
    case EPERM:
      if (path.find("/noiommu-") != std::string::npos) {
        what.reason = fmt::format("{} is of a device in no-IOMMU mode, which wants CAP_SYS_RAWIO", path);
        break;
      }
      // devcgroup_check_permission; the node's mode would be EACCES.
      what.reason = fmt::format("the device cgroup of this process does not allow {}, whatever its mode says", path);
      what.remedy = fmt::format(
          "allow it to the container (\"--device {0}\") or the systemd unit (\"DeviceAllow={0} rw\") that this runs in",
          path);
      break;
    default:
      what.reason = fmt::format("{} cannot be opened", path);
      what.remedy = sysfs::shortage_remedy(result);
      break;
  }
  return call_failure(call, std::move(what));
}

}  // namespace

Result<Fd> open_node(Kernel& kernel, const std::string& path, const std::string& object) {
  const int fd = kernel.open(path.c_str(), O_RDWR);
  if (fd < 0) return node_failure(kernel, "open", fd, path, object);
  return Fd(kernel, fd);
}

Result<void> probe_node(Kernel& kernel, const std::string& path, const std::string& object) {
  FileStatus node;
  if (const int result = kernel.status(path, node); result < 0) {
    return node_failure(kernel, "stat", result, path, object);
  }
  if (const int result = kernel.access(path, R_OK | W_OK); result < 0) {
    return node_failure(kernel, "access", result, path, object);
  }
  return {};
}

Result<void> require_node(Kernel& kernel, const std::string& path) {
  auto opened = open_node(kernel, path, path);
  return opened ? Result<void>() : failure_of(opened);
}

}  // namespace postern
