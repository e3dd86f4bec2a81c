// SPDX-License-Identifier: Apache-2.0
// File: an open file of the simulated kernel: a group, a container, an iommufd, a device.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <postern/kernel.hpp>
#include <string>

namespace postern::sim {

// Each function is the system call of that name, and returns its result: 0 or more, or a negated errno. They run one at
// a time, under the machine's lock. A File is destroyed with its last reference: that of the fd, of other files (a
// group holds its container), and of mappings.
class File {
 public:
  // The kind of file, which the kernel distinguishes by f_op.
  enum class Kind : std::uint8_t { other, container, group, iommufd, dma_buf };

  // A file without any calls. `size` is what fstat(2) says.
  explicit File(Kind kind = Kind::other, std::uint64_t size = 0) : kind_(kind) { fstat_.size = size; }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  virtual ~File() = default;
  [[nodiscard]] Kind kind() const noexcept { return kind_; }

  // Called when the fd is closed and nothing of it is mapped. Other files may still hold it.
  virtual void release() {}
  [[nodiscard]] virtual int ioctl(unsigned long /*request*/, void* /*argument*/) { return -ENOTTY; }
  [[nodiscard]] virtual ssize_t pread(void* /*buffer*/, std::size_t /*length*/, std::uint64_t /*offset*/) {
    return -EINVAL;
  }
  [[nodiscard]] virtual ssize_t pwrite(const void* /*buffer*/, std::size_t /*length*/, std::uint64_t /*offset*/) {
    return -EINVAL;
  }
  [[nodiscard]] virtual ssize_t read(void* /*buffer*/, std::size_t /*length*/) { return -EINVAL; }  // only streams
  [[nodiscard]] virtual ssize_t write(const void* /*buffer*/, std::size_t /*length*/) { return -EINVAL; }
  [[nodiscard]] virtual std::intptr_t mmap(void* /*address*/, std::size_t /*length*/, int /*protection*/, int /*flags*/,
                                           std::uint64_t /*offset*/) {
    return -ENODEV;
  }
  // Where mmap() of this offset begins in the machine's BarMemory, or a negated errno.
  [[nodiscard]] virtual std::int64_t place_in_bars(std::uint64_t /*offset*/) const { return -ENODEV; }
  [[nodiscard]] virtual std::int64_t lseek(std::uint64_t /*offset*/, int /*whence*/) { return -ESPIPE; }
  [[nodiscard]] int fstat(FileStatus& into) const {
    into = fstat_;
    return 0;
  }
  void opened_as(const std::string& node, const FileStatus& its) {
    path = node;
    fstat_ = its;
  }
  // Its target in /proc/self/fd: the node by which it was opened. VFIO's other files have none.
  std::string path = "anon_inode:[vfio-device]";
  // Whether its mapped memory is accessible now. If not, an access is a SIGBUS, and a system call returns EFAULT.
  [[nodiscard]] virtual bool answers() const { return true; }

 private:
  Kind kind_;
  FileStatus fstat_ = {.mode = S_IRUSR | S_IWUSR};  // what fstat(2) returns
};

// Casts the file; null if it is null, or of another kind than `Type::own_kind`.
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
