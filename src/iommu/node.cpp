// SPDX-License-Identifier: Apache-2.0
// Opening VFIO's device nodes, with errors that name the node, its mode and what to do.
#include "iommu/node.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "base/words.hpp"
#include "kernel/ioctl.hpp"

namespace postern {
namespace {

tl::unexpected<Error> node_failure(Kernel& kernel, const char* call, int result, const std::string& path,
                                   const std::string& object, const std::string& missing) {
  CallFailed what{.result = result, .object = object};
  switch (-result) {
    case ENOENT:
    case ENXIO:
    case ENODEV:
      what.reason = fmt::format("{} does not exist", path);
      if (result != -ENOENT) what.reason = fmt::format("nothing answers behind {}", path);
      what.remedy = missing;
      break;
    case EACCES: {
      FileStatus node;
      what.reason = fmt::format("{} cannot be opened for reading and writing", path);
      if (kernel.status(path, node) >= 0) {
        what.reason += fmt::format(": its mode is {} {}:{}", mode_text(node.mode), node.owner, node.group);
      }
      what.remedy = "run as root, or have an udev rule give the node to your user or group";
      break;
    }
    case EBUSY:
      what.reason = fmt::format("{} is open already", path);
      what.remedy = fmt::format("find who holds it with \"fuser -v {}\" as root", path);
      break;
    case EPERM:
      what.reason = fmt::format("{} asks for a privilege (no-IOMMU devices need CAP_SYS_RAWIO)", path);
      break;
    default:
      what.reason = fmt::format("{} cannot be opened", path);
      break;
  }
  return call_failure(call, std::move(what));
}

}  // namespace

Result<Fd> open_node(Kernel& kernel, const std::string& path, const std::string& object, const std::string& missing) {
  const int fd = kernel.open(path.c_str(), O_RDWR);
  if (fd < 0) return node_failure(kernel, "open", fd, path, object, missing);
  return Fd(kernel, fd);
}

Result<void> probe_node(Kernel& kernel, const std::string& path, const std::string& object,
                        const std::string& missing) {
  FileStatus node;
  if (const int result = kernel.status(path, node); result < 0) {
    return node_failure(kernel, "stat", result, path, object, missing);
  }
  if (const int result = kernel.access(path, R_OK | W_OK); result < 0) {
    return node_failure(kernel, "access", result, path, object, missing);
  }
  return {};
}

}  // namespace postern
