// SPDX-License-Identifier: Apache-2.0
// KvmFile: a group or device of VFIO that KVM was told of.
#pragma once

#include <cerrno>
#include <memory>
#include <postern/fd.hpp>
#include <postern/kvm.hpp>
#include <utility>

#include "base/log.hpp"
#include "base/maker.hpp"

namespace postern {

// KVM knows of the file until remove() or the destructor; in a child of fork(2) these do nothing. The descriptor must
// be open until then. KVM has a reference of its own to the file, which would keep a device open.
class KvmFile {
 public:
  // A file that KVM knows of already stays with whoever added it. Errors: those of KvmVfioDevice::add().
  [[nodiscard]] static Result<KvmFile> add(std::shared_ptr<const KvmVfioDevice> kvm, int file) {
    auto added = kvm->add(file);
    if (!added && added.error().code() != EEXIST) return failure_of(added);
    return KvmFile(std::move(kvm), added ? file : -1);
  }
  KvmFile() = default;  // none
  KvmFile(KvmFile&& other) noexcept : kvm_(std::move(other.kvm_)), file_(std::exchange(other.file_, -1)) {}
  KvmFile& operator=(KvmFile&& other) noexcept {
    std::swap(kvm_, other.kvm_);
    std::swap(file_, other.file_);
    return *this;
  }
  ~KvmFile() {
    log_failure_of([this] { return remove(); });
  }

  [[nodiscard]] const std::shared_ptr<const KvmVfioDevice>& kvm() const noexcept { return kvm_; }
  [[nodiscard]] Result<void> remove() {
    const auto kvm = std::exchange(kvm_, nullptr);
    const int file = std::exchange(file_, -1);
    return file >= 0 && maker_.is_this_process() ? kvm->remove(file) : Result<void>();
  }

 private:
  KvmFile(std::shared_ptr<const KvmVfioDevice> kvm, int file) noexcept : kvm_(std::move(kvm)), file_(file) {}

  std::shared_ptr<const KvmVfioDevice> kvm_;  // null: none
  int file_ = -1;                             // its descriptor; negative: somebody else added it
  Maker maker_;
};

}  // namespace postern
