# SPDX-License-Identifier: Apache-2.0
# Sourced by the POWER machines: common settings.
# shellcheck shell=bash disable=SC2034,SC2154

processor=ppc64le
preset=ppc64le
triplet=powerpc64le-linux-gnu
debian_arch=ppc64el

kernel_package=linux-image-powerpc64le
# Newest first. More than one, since trixie's index once named a file that the archive did not have.
kernel_suites=trixie,bookworm-backports,bookworm
kernel_modules=(vfio_iommu_spapr_tce vfio-pci nvme)
kernel_arguments=console=hvc0

emulator=qemu-system-ppc64
emulator_package=qemu-system-ppc
emulated_cpu=power9
terminal=/dev/hvc1 # the first is the firmware's
