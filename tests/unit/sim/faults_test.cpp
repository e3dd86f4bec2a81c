// SPDX-License-Identifier: Apache-2.0
// Messages of the simulated kernel and FailingKernel about their use.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/vfio.h>

#include <postern-sim/faults.hpp>
#include <postern-sim/kernel.hpp>
#include <postern/log.hpp>

namespace postern {
namespace faults_test {

using ::testing::HasSubstr;

TEST(FailingKernel, SaysWhichCallFailed) {
  sim::Kernel simulated;
  sim::FailingKernel kernel(simulated);
  std::string text;
  kernel.fail_call(1, EIO);
  EXPECT_EQ(kernel.read_file("/sys/bus/pci/devices/0000:00:01.0/vendor", text), 0);
  EXPECT_EQ(kernel.read_file(std::string("/sys/bus/pci/devices/0000:00:01.0/class"), text), -EIO);
  EXPECT_EQ(kernel.read_file("/sys/bus/pci/devices/0000:00:01.0/device", text), 0);
  ASSERT_TRUE(kernel.failed());
  EXPECT_EQ(kernel.failed_call().function, "read_file");
  EXPECT_EQ(kernel.failed_call().path, "/sys/bus/pci/devices/0000:00:01.0/class");

  const int container = kernel.open("/dev/vfio/vfio", O_RDWR);
  kernel.fail_call(0, EIO);
  EXPECT_EQ(kernel.ioctl(container, VFIO_GET_API_VERSION, &text), -EIO);
  EXPECT_EQ(kernel.failed_call().function, "ioctl");
  EXPECT_EQ(kernel.failed_call().fd, container);
  EXPECT_EQ(kernel.failed_call().request, static_cast<unsigned long>(VFIO_GET_API_VERSION));
  EXPECT_EQ(kernel.failed_call().argument, nullptr);
  EXPECT_EQ(kernel.failed_call().path, "");
  kernel.close(container);
}

TEST(SimulatedKernel, NamesWhatIsOpenWhenItIsDestroyed) {
  std::string told;
  set_log_handler([](void* context, LogKind /*kind*/,
                     const Error& error) noexcept { *static_cast<std::string*>(context) = error.message(); },
                  &told);
  { const sim::Kernel unused; }
  EXPECT_EQ(told, "");
  {
    sim::Kernel kernel;
    EXPECT_GE(kernel.open("/dev/vfio/1", O_RDWR), 0);
    EXPECT_GE(kernel.open("/dev/iommu", O_RDWR), 0);
  }
  set_log_handler(nullptr);
  EXPECT_THAT(told, HasSubstr("destroyed while these are in use: /dev/vfio/1, /dev/iommu"));
}

}  // namespace faults_test
}  // namespace postern
