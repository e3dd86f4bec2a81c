// SPDX-License-Identifier: Apache-2.0
// Limits of a simulated host and its process: drivers that refuse a device, memory that became read-only, no fds left,
// a child of fork(2).
#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/vfio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/log.hpp>
#include <postern/pci_function.hpp>
#include <string>
#include <vector>

#include "support/in_child.hpp"

namespace postern {
namespace limits_test {

using test::in_child;

using ::testing::HasSubstr;

constexpr std::size_t page = 4096;

TEST(SimulatedVfioPci, TakesNoBridge) {
  sim::Kernel kernel;
  const std::string port = "/sys/bus/pci/devices/0000:00:03.0";
  ASSERT_EQ(kernel.write_file("/sys/bus/pci/drivers/pcieport/unbind", "0000:00:03.0"), 0);
  ASSERT_EQ(kernel.write_file(port + "/driver_override", "vfio-pci"), 0);
  EXPECT_EQ(kernel.write_file("/sys/bus/pci/drivers/vfio-pci/bind", "0000:00:03.0"), -EINVAL);
  std::string driver;
  EXPECT_EQ(kernel.read_link(port + "/driver", driver), -ENOENT);
  FileStatus status;
  EXPECT_EQ(kernel.status("/dev/vfio/3", status), -ENOENT);
}

TEST(SimulatedDrivers, MatchByTheOverrideAloneWhereThereIsOne) {
  sim::Kernel kernel;
  const std::string drivers = "/sys/bus/pci/drivers/";
  const std::string disk = "0000:00:02.0";
  const std::string override = "/sys/bus/pci/devices/" + disk + "/driver_override";
  EXPECT_EQ(kernel.write_file(drivers + "nvme/bind", disk), -EBUSY);
  EXPECT_EQ(kernel.write_file(drivers + "vfio-pci/bind", disk), -ENODEV) << "which has no id of it";
  ASSERT_EQ(kernel.write_file(drivers + "nvme/unbind", disk), 0);
  ASSERT_EQ(kernel.write_file(override, "vfio-pci"), 0);
  EXPECT_EQ(kernel.write_file(drivers + "nvme/bind", disk), -ENODEV);
  ASSERT_EQ(kernel.write_file(override, "\n"), 0);
  EXPECT_EQ(kernel.write_file(drivers + "nvme/bind", disk), 0);
}

TEST(SimulatedNoIommuGroup, HasTheNodeThatFindIommuGroupNames) {
  sim::Kernel kernel({.functions = {{.address = {.device = 1}, .iommu_group = -1, .driver = "vfio-pci"},
                                    {.address = {.device = 2}, .iommu_group = 5, .driver = "vfio-pci"}},
                      .locked_memory = {},
                      .enable_unsafe_noiommu_mode = true});
  for (const std::uint8_t device : {std::uint8_t{1}, std::uint8_t{2}}) {
    const auto function = find_pci_function(kernel, {.device = device});
    ASSERT_TRUE(function);
    const auto group = find_iommu_group(kernel, function->host.iommu_group.value());
    ASSERT_TRUE(group);
    FileStatus status;
    EXPECT_EQ(kernel.status(group->path, status), 0) << group->path;
    EXPECT_TRUE(S_ISCHR(status.mode));
  }
}

TEST(SimulatedProcess, NoticesAtOnceThatMemoryBecameReadOnly) {
  for (const std::string_view backend : {"type1", "iommufd"}) {
    sim::Kernel kernel;
    const auto device = attach(kernel, find_pci_function(kernel, {.device = 1})->host, {.backend = backend});
    ASSERT_TRUE(device) << device.error().message();
    Container& container = *device->container();
    for (const std::size_t pages : {1U, 2U, 300U, 3000U}) {
      void* const memory =
          ::mmap(nullptr, pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      ASSERT_NE(memory, MAP_FAILED);
      auto* const bytes = static_cast<std::byte*>(memory);
      for (const std::size_t changed : {std::size_t{0}, pages / 2, pages - 1}) {
        ASSERT_TRUE(container.map(Iova{0x100000}, {bytes, pages * page}));
        ASSERT_TRUE(container.unmap(Iova{0x100000}, pages * page));
        ASSERT_EQ(::mprotect(bytes + changed * page, page, PROT_READ), 0);
        const auto mapped = container.map(Iova{0x100000}, {bytes, pages * page});
        ASSERT_FALSE(mapped) << backend << ": page " << changed << " of " << pages;
        EXPECT_EQ(mapped.error().code(), EFAULT);
        ASSERT_EQ(::mprotect(bytes + changed * page, page, PROT_READ | PROT_WRITE), 0);
      }
      ::munmap(memory, pages * page);
    }
  }
}

// Leaves the process without a free fd during its lifetime.
class NoFdsLeft {
 public:
  NoFdsLeft() {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    const int free = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    const rlimit none{.rlim_cur = static_cast<rlim_t>(free), .rlim_max = before_.rlim_max};
    ::close(free);
    ::setrlimit(RLIMIT_NOFILE, &none);
  }
  ~NoFdsLeft() { ::setrlimit(RLIMIT_NOFILE, &before_); }
  NoFdsLeft(const NoFdsLeft&) = delete;
  NoFdsLeft& operator=(const NoFdsLeft&) = delete;

 private:
  rlimit before_{};
};

TEST(SimulatedKernelWithoutFds, AnswersEachCallWithTheErrno) {
  const NoFdsLeft none;
  sim::Kernel kernel;
  EXPECT_EQ(kernel.open("/dev/vfio/1", O_RDWR), -EMFILE);
  std::string text;
  EXPECT_EQ(kernel.read_file("/sys/bus/pci/devices/0000:00:01.0/vendor", text), -EMFILE);
  const auto function = find_pci_function(kernel, {.device = 1});
  ASSERT_FALSE(function);
  EXPECT_EQ(function.error().code(), EMFILE);
}

TEST(SimulatedKernelWithoutFds, WorksOnWithWhatItHas) {
  sim::Kernel kernel;
  const auto function = find_pci_function(kernel, {.device = 1});
  ASSERT_TRUE(function);
  alignas(page) static std::byte memory[page];
  for (const std::string_view backend : {"type1", "iommufd"}) {
    auto event = Event::create(kernel);
    ASSERT_TRUE(event);
    const NoFdsLeft none;
    const auto device = attach(kernel, function->host, {.backend = backend});
    ASSERT_TRUE(device) << device.error().message();
    EXPECT_TRUE(device->container()->map(Iova{0x100000}, memory));
    EXPECT_TRUE(device->map_region(VFIO_PCI_BAR0_REGION_INDEX, 0, page));
    // The simulated kernel needs an fd of its own for an interrupt, and returns EMFILE.
    const auto enabled = device->enable_interrupts(VFIO_PCI_MSIX_IRQ_INDEX, 0, {&*event, 1});
    ASSERT_FALSE(enabled);
    EXPECT_EQ(enabled.error().code(), EMFILE);
  }
}

std::string logged;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables): for the log handler
void keep(LogKind /*kind*/, const Error& error) noexcept { logged += error.message() + "\n"; }

TEST(SimulatedKernelInAChild, SaysAtOnceThatItIsAnothers) {
  auto kernel = std::make_unique<sim::Kernel>();
  const auto function = find_pci_function(*kernel, {.device = 1});
  ASSERT_TRUE(function);
  const int group = kernel->open("/dev/vfio/1", O_RDWR);
  ASSERT_GE(group, 0);
  std::byte* const memory = reinterpret_cast<std::byte*>(
      kernel->mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  const int failed_at = in_child([&] {
    set_log_handler(keep);
    vfio_group_status status{.argsz = sizeof status, .flags = 0};
    std::string text;
    std::vector<std::string> names;
    FileStatus file;
    int check = 0;
    for (const auto result : std::initializer_list<std::intptr_t>{
             kernel->open("/dev/vfio/vfio", O_RDWR), kernel->ioctl(group, VFIO_GROUP_GET_STATUS, &status),
             kernel->pread(group, &status, 1, 0), kernel->pwrite(group, &status, 1, 0), kernel->read(group, &status, 1),
             kernel->write(group, &status, 1), kernel->mmap(nullptr, page, PROT_READ, MAP_SHARED, group, 0),
             kernel->read_file("/sys/bus/pci/devices/0000:00:01.0/vendor", text),
             kernel->write_file("/sys/bus/pci/drivers_probe", "0000:00:01.0"),
             kernel->list_directory("/sys/bus/pci/devices", names),
             kernel->read_link("/sys/bus/pci/devices/0000:00:01.0/driver", text), kernel->status("/dev/iommu", file),
             kernel->access("/dev/iommu", R_OK), kernel->close(group)}) {
      ++check;
      if (result != -ESTALE) return check;
    }
    if (kernel->munmap(memory, page) != 0) return 50;  // memory is the child's own
    if (attach(*kernel, function->host)) return 51;
    const auto found = find_pci_function(*kernel, {.device = 1});
    if (found || found.error().code() != ESTALE) return 52;
    if (logged.find("fork(2)") == std::string::npos || logged.find("ESTALE") == std::string::npos) return 53;
    kernel.reset();
    return 0;
  });
  EXPECT_EQ(failed_at, 0);
  vfio_group_status status{.argsz = sizeof status, .flags = 0};
  EXPECT_EQ(kernel->ioctl(group, VFIO_GROUP_GET_STATUS, &status), 0);
  kernel->munmap(memory, page);
}

// Even if another thread holds the lock at the moment of the fork.
TEST(SimulatedKernelInAChild, NeverWaitsForTheParentsLock) {
  sim::Kernel kernel;
  const auto device = attach(kernel, find_pci_function(kernel, {.device = 1})->host);
  ASSERT_TRUE(device);
  for (int round = 0; round < 20; ++round) {
    EXPECT_EQ(in_child([&] { return kernel.open("/dev/vfio/vfio", O_RDWR) == -ESTALE ? 0 : 1; }), 0);
  }
}

}  // namespace limits_test
}  // namespace postern
