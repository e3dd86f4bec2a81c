// SPDX-License-Identifier: Apache-2.0
// KvmVfioDevice: KVM_CREATE_DEVICE and KVM_SET_DEVICE_ATTR (virt/kvm/vfio.c).
#include <fmt/format.h>

#include <postern/kvm.hpp>

#include "base/remedy.hpp"
#include "kernel/kvm.hpp"

namespace postern {

Result<KvmVfioDevice> KvmVfioDevice::create(Kernel& kernel, int vm) {
  kvm_create_device device{.type = KVM_DEV_TYPE_VFIO, .fd = 0, .flags = 0};
  const int result = kvm::create_device(kernel, vm, device);
  if (result >= 0) return KvmVfioDevice(Fd(kernel, static_cast<int>(device.fd)));
  CallFailed what{.result = result, .object = fmt::format("KVM_DEV_TYPE_VFIO in the VM of fd {}", vm)};
  switch (result) {
    case -EBUSY:
      what.kind = ErrorKind::already_exists;
      what.reason = "a VM has one such device, and this one has it";
      what.remedy = RemedyCode::adopt_kvm_device;
      break;
    case -ENODEV:
      what.kind = ErrorKind::unsupported;
      what.reason = "this KVM has no device for VFIO";
      what.remedy = remedy<RemedyCode::use_kernel_with_option>("CONFIG_KVM_VFIO");
      break;
    case -ENOTTY:
      what.kind = ErrorKind::invalid_argument;
      what.reason = "it is no VM (a descriptor of KVM_CREATE_VM)";
      break;
    default:
      break;
  }
  return call_failure(kvm::create_device.symbol, std::move(what));
}

Result<KvmVfioDevice> KvmVfioDevice::adopt(Fd device) {
  if (device) return KvmVfioDevice(std::move(device));
  return refusal({.result = -EBADF,
                  .kind = ErrorKind::invalid_argument,
                  .object = "KVM_DEV_TYPE_VFIO",
                  .reason = "the Fd is empty"});
}

Result<void> KvmVfioDevice::change(unsigned long attribute, int file) const {
  const bool adds = attribute == KVM_DEV_VFIO_FILE_ADD;
  CallFailed what{.object = fmt::format("{} fd {}", adds ? "KVM_DEV_VFIO_FILE_ADD" : "KVM_DEV_VFIO_FILE_DEL", file)};
  if (!device_) {
    what.result = -EBADF;
    what.reason = "the KvmVfioDevice was moved from";
    return refusal(std::move(what));
  }
  const std::int32_t fd = file;
  kvm_device_attr attr{.flags = 0,
                       .group = KVM_DEV_VFIO_FILE,
                       .attr = attribute,
                       .addr = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(&fd))};
  what.result = kvm::set_device_attr(device_.kernel(), device_.get(), attr);
  if (what.result >= 0) return {};
  switch (what.result) {
    case -EEXIST:
      what.reason = "it was added before";
      break;
    case -ENOENT:
      what.reason = "it was not added";
      break;
    case -EBADF:
      what.kind = ErrorKind::invalid_argument;
      what.reason = "it is not open";
      break;
    case -EINVAL:
      what.reason = "it is neither a group nor, since Linux 6.6, a device of VFIO";
      break;
    case -ENXIO:
    case -ENOTTY:
      what.kind = ErrorKind::invalid_argument;
      what.reason = fmt::format("fd {}, which it is given to, is not KVM's device for VFIO", device_.get());
      break;
    default:
      break;
  }
  return call_failure(kvm::set_device_attr.symbol, std::move(what));
}

Result<void> KvmVfioDevice::add(int file) const { return change(KVM_DEV_VFIO_FILE_ADD, file); }
Result<void> KvmVfioDevice::remove(int file) const { return change(KVM_DEV_VFIO_FILE_DEL, file); }

}  // namespace postern
