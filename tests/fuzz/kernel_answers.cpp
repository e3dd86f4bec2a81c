// SPDX-License-Identifier: Apache-2.0
// Fuzzes capability chains and counts of the kernel: VFIO_IOMMU_GET_INFO of type1, and IOMMU_IOAS_IOVA_RANGES.
#include <linux/iommufd.h>
#include <linux/vfio.h>

#include "fuzz/bytes.hpp"
#include "iommu/iommufd/iommufd.hpp"
#include "iommu/type1/info.hpp"
#include "support/tree_kernel.hpp"

namespace postern::fuzz {
namespace {

// Fills the caller's buffer with arbitrary bytes, argsz and counts included, and writes nothing beyond it.
class AnyKernel : public test::TreeKernel {
 public:
  explicit AnyKernel(Bytes& bytes) : bytes_(bytes) {}
  int close(int /*fd*/) override { return 0; }
  int ioctl(int /*fd*/, unsigned long request, void* argument) override {
    if (request == VFIO_IOMMU_GET_INFO) {
      bytes_.fill(argument, static_cast<vfio_iommu_type1_info*>(argument)->argsz);
      return 0;
    }
    if (request != IOMMU_IOAS_IOVA_RANGES) return -ENOTTY;
    auto* const query = static_cast<iommu_ioas_iova_ranges*>(argument);
    bytes_.fill(reinterpret_cast<void*>(query->allowed_iovas), query->num_iovas * sizeof(iommu_iova_range));
    query->num_iovas = bytes_.take<std::uint32_t>();
    query->out_iova_alignment = bytes_.take<std::uint64_t>();
    return bytes_.take<std::uint8_t>() % 4 == 0 ? -EMSGSIZE : 0;
  }

 private:
  Bytes& bytes_;
};

}  // namespace
}  // namespace postern::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  postern::fuzz::Bytes bytes(data, size);
  postern::fuzz::AnyKernel kernel(bytes);
  if (bytes.take<std::uint8_t>() % 2 == 0) {
    (void)postern::type1::read_info(postern::Fd(kernel, 3));
  } else {
    (void)postern::iommufd::Iommufd(postern::NodeFd{.own = postern::Fd(kernel, 3)}).iova_limits(1);
  }
  return 0;
}
