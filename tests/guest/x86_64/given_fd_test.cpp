// SPDX-License-Identifier: Apache-2.0
// Descriptors handed over a socket to a process of another user, which may open no node and lock 8 MiB only.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <grp.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <postern/descriptors.hpp>

#include "guest/x86_64/devices.hpp"
#include "support/in_child.hpp"

namespace postern {
namespace given_fd_test {

using test::Bound;

constexpr std::size_t mib = std::size_t{1} << 20;

// What has to hold in the child, which has no test framework: the number of the first line that does not is its result.
#define POSTERN_HOLDS(condition)                                         \
  do {                                                                   \
    if (!(condition)) {                                                  \
      (void)std::fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
      return 1;                                                          \
    }                                                                    \
  } while (false)

// Without Mmap::bytes() of a temporary.
int try_memory(Container& container) {
  void* const address = ::mmap(nullptr, 12 * mib, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  POSTERN_HOLDS(address != MAP_FAILED);
  const Mmap memory(system_kernel(), address, 12 * mib);
  const auto six = container.map({0x1000000}, memory.bytes().first(6 * mib));
  if (!six) (void)std::fprintf(stderr, "%s\n", six.error().message().c_str());
  POSTERN_HOLDS(six);
  const auto more = container.map({0x2000000}, memory.bytes().subspan(6 * mib));
  POSTERN_HOLDS(!more && more.error().code() == ENOMEM);
  POSTERN_HOLDS(container.unmap_all());
  return 0;
}

int try_device(const std::string& backend, const HostDevice& host, std::vector<Fd> fds, bool closes) {
  HostDevice with = host;
  with.fd = std::make_shared<GivenFd>(std::move(fds[0]));
  AttachOptions options{.backend = backend};
  if (fds.size() > 1) options.container_options.fd = std::make_shared<const Fd>(std::move(fds[1]));
  POSTERN_HOLDS(attach(system_kernel(), host, options).error().code() == EACCES);
  auto device = attach(system_kernel(), with, options);
  if (!device) (void)std::fprintf(stderr, "%s\n", device.error().message().c_str());
  POSTERN_HOLDS(device);
  with.fd.reset();
  auto pci = PciDevice::open(std::move(*device));
  POSTERN_HOLDS(pci);
  POSTERN_HOLDS(pci->reset());
  POSTERN_HOLDS(pci->enable_memory());
  std::uint32_t version = 0;
  POSTERN_HOLDS(pci->device().read(0, 8, std::as_writable_bytes(std::span(&version, 1))));
  POSTERN_HOLDS(version != 0 && version != ~0U);
  if (const int failed = try_memory(*pci->device().container()); failed != 0) return failed;
  if (closes) POSTERN_HOLDS(pci->detach());
  return 0;
}

class GivenOverSocket : public ::testing::TestWithParam<const char*> {
 protected:
  static bool by_group() { return GetParam() == std::string("type1"); }
  [[nodiscard]] std::string node() const {
    return by_group() ? "/dev/vfio/" + to_string(*bound_.host().iommu_group) : bound_.host().cdev->path;
  }
  static Fd opened(const std::string& path) { return {system_kernel(), system_kernel().open(path.c_str(), O_RDWR)}; }

  // Runs a child of another user with what it was sent, and returns what it returns.
  template <typename Child>
  int in_sandbox(std::span<const int> sent, const Child& child) {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    const Fd near(system_kernel(), ends[0]);
    const Fd far(system_kernel(), ends[1]);
    EXPECT_TRUE(send_fds(near.get(), sent));
    for (const int fd : sent) ::close(fd);
    return test::in_child([&]() -> int {
      const rlimit few{.rlim_cur = 8 * mib, .rlim_max = 8 * mib};
      POSTERN_HOLDS(::setrlimit(RLIMIT_MEMLOCK, &few) == 0 && ::setgroups(0, nullptr) == 0);
      POSTERN_HOLDS(::setgid(1000) == 0 && ::setuid(1000) == 0);
      auto received = receive_fds(system_kernel(), far.get(), sent.size());
      POSTERN_HOLDS(received);
      return child(std::move(*received));
    });
  }
  // The descriptors that the program needs, which in_sandbox() closes here.
  [[nodiscard]] std::vector<int> to_send() const {
    std::vector<int> fds = {system_kernel().open(node().c_str(), O_RDWR)};
    if (!by_group()) fds.push_back(system_kernel().open("/dev/iommu", O_RDWR));
    for (const int fd : fds) EXPECT_GE(fd, 0);
    return fds;
  }

  const Bound bound_{test::nvme_disk};
};

TEST_P(GivenOverSocket, DoEverythingInASandbox) {
  const HostDevice host = bound_.host();
  for (const bool closes : {true, false}) {
    EXPECT_EQ(in_sandbox(to_send(),
                         [&](std::vector<Fd> fds) { return try_device(GetParam(), host, std::move(fds), closes); }),
              0);
    const auto again = attach(system_kernel(), host, {.backend = GetParam()});
    EXPECT_TRUE(again) << "the device is free again: " << again.error().message();
  }
}

TEST_P(GivenOverSocket, KeepTheDeviceInUseUntilTheLastIsClosed) {
  const HostDevice host = bound_.host();
  HostDevice with = host;
  with.fd = std::make_shared<GivenFd>(opened(node()));
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  const Fd near(system_kernel(), ends[0]);
  Fd far(system_kernel(), ends[1]);
  const std::array one = {with.fd->fd().get()};
  ASSERT_TRUE(send_fds(near.get(), one));
  auto device = attach(system_kernel(), with, {.backend = GetParam()});
  ASSERT_TRUE(device) << device.error().message();
  with.fd.reset();
  ASSERT_TRUE(device->detach());
  EXPECT_FALSE(attach(system_kernel(), host, {.backend = GetParam()})) << "a copy is in the socket";
  far.reset();
  EXPECT_TRUE(attach(system_kernel(), host, {.backend = GetParam()}));
}

TEST_P(GivenOverSocket, OfBarsKeepTheDeviceInUse) {
  HostDevice with = bound_.host();
  with.fd = std::make_shared<GivenFd>(opened(node()));
  auto device = attach(system_kernel(), with, {.backend = GetParam()});
  ASSERT_TRUE(device) << device.error().message();
  with.fd.reset();
  auto bar = device->map_region(0, 0, 4096);
  ASSERT_TRUE(bar) << bar.error().message();
  (void)device->detach();
  EXPECT_FALSE(attach(system_kernel(), bound_.host(), {.backend = GetParam()}));
  bar->reset();
  EXPECT_TRUE(attach(system_kernel(), bound_.host(), {.backend = GetParam()}));
}

INSTANTIATE_TEST_SUITE_P(Backends, GivenOverSocket, ::testing::Values("type1", "iommufd"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace given_fd_test
}  // namespace postern
