// SPDX-License-Identifier: Apache-2.0
// The KVM ioctls that postern uses, and what a uAPI header before Linux 6.6 does not name.
#pragma once

#include <linux/kvm.h>

#include "kernel/ioctl.hpp"

// Linux 6.6 gave new names to KVM_DEV_VFIO_GROUP, _ADD and _DEL, which take devices, too.
// NOLINTBEGIN(readability-identifier-naming): as the kernel spells them
#ifndef KVM_DEV_VFIO_FILE
#define KVM_DEV_VFIO_FILE 1
#endif
#ifndef KVM_DEV_VFIO_FILE_ADD
#define KVM_DEV_VFIO_FILE_ADD 1
#endif
#ifndef KVM_DEV_VFIO_FILE_DEL
#define KVM_DEV_VFIO_FILE_DEL 2
#endif
// NOLINTEND(readability-identifier-naming)

namespace postern::kvm {

// On a virtual machine.
inline constexpr Ioctl<kvm_create_device> create_device POSTERN_IOCTL(KVM_CREATE_DEVICE);

// On a device of KVM.
inline constexpr Ioctl<kvm_device_attr> set_device_attr POSTERN_IOCTL(KVM_SET_DEVICE_ATTR);

}  // namespace postern::kvm
