// SPDX-License-Identifier: Apache-2.0
// File: an open file of the simulated kernel: a group, a container, an iommufd, a device.
#pragma once

#include <sys/types.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace postern::sim {

// Each function is the system call of its name, and gives what that gives: a value of 0 or more, or a negated errno.
// They run one at a time, under the machine's lock. A File goes when its last reference does: the fd's, those of
// files that hold on to it, as a group holds its container, and those of what is mapped of it.
class File {
 public:
  // What it is open on, as the kernel tells by f_op.
  enum class Kind : std::uint8_t { other, container, group, iommufd };

  explicit File(Kind kind = Kind::other) : kind_(kind) {}  // one that knows no call
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  virtual ~File() = default;
  [[nodiscard]] Kind kind() const noexcept { return kind_; }

  // The fd is closed, and nothing of it is mapped; what holds the file may still use it.
  virtual void release() {}
  [[nodiscard]] virtual int ioctl(unsigned long /*request*/, void* /*argument*/) { return -ENOTTY; }
  [[nodiscard]] virtual ssize_t pread(void* /*buffer*/, std::size_t /*length*/, std::uint64_t /*offset*/) {
    return -EINVAL;
  }
  [[nodiscard]] virtual ssize_t pwrite(const void* /*buffer*/, std::size_t /*length*/, std::uint64_t /*offset*/) {
    return -EINVAL;
  }
  [[nodiscard]] virtual ssize_t read(void* /*buffer*/, std::size_t /*length*/) { return -EINVAL; }  // streams alone
  [[nodiscard]] virtual ssize_t write(const void* /*buffer*/, std::size_t /*length*/) { return -EINVAL; }
  [[nodiscard]] virtual std::intptr_t mmap(void* /*address*/, std::size_t /*length*/, int /*protection*/, int /*flags*/,
                                           std::uint64_t /*offset*/) {
    return -ENODEV;
  }
  // What /proc/self/fd shows for it: the node that it was opened by. VFIO's other files have none.
  std::string path = "anon_inode:[vfio-device]";
  // Whether memory that is mapped of it can be reached now: else touching it is a SIGBUS, and a call's EFAULT.
  [[nodiscard]] virtual bool answers() const { return true; }

 private:
  Kind kind_;
};

// The file as what it is; null where it is of another kind than `Type::own_kind`, or none.
template <typename Type>
[[nodiscard]] std::shared_ptr<Type> file_as(const std::shared_ptr<File>& file) {
  return file && file->kind() == Type::own_kind ? std::static_pointer_cast<Type>(file) : nullptr;
}

// The argument of an ioctl as its struct.
template <typename Argument>
[[nodiscard]] Argument& as(void* argument) {
  return *static_cast<Argument*>(argument);
}

}  // namespace postern::sim
