// SPDX-License-Identifier: Apache-2.0
// Descriptors that a program was given, for each backend: they do what nodes of its own would, and another file,
// another device's, or one that is in use is refused.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <postern/descriptors.hpp>

#include "support/host_devices.hpp"
#include "support/watched_kernel.hpp"

namespace postern {
namespace given_fd_test {

using test::Bound;
using test::ResourceUse;
using ::testing::HasSubstr;

// A kernel on which a program may open no node of a device.
class Sandbox final : public test::WatchedKernel {
 public:
  using WatchedKernel::WatchedKernel;
  int open(const char* path, int flags) override {
    return std::string_view(path).starts_with("/dev/") ? -EACCES : WatchedKernel::open(path, flags);
  }
  int access(const std::string& path, int mode) override {
    return path.starts_with("/dev/") ? -EACCES : WatchedKernel::access(path, mode);
  }
  // Whether anything was asked of a node.
  [[nodiscard]] bool asked_nothing() const {
    for (const auto& call : calls_made()) {
      if (call.name == "open" || call.name.starts_with("VFIO_") || call.name.starts_with("IOMMU_")) return false;
    }
    return true;
  }
};

class GivenOnKernel : public ::testing::TestWithParam<test::Interface> {
 protected:
  GivenOnKernel() : bound_(test::first_nvme()), before_(ResourceUse::now()) {}
  ~GivenOnKernel() override { EXPECT_TRUE(before_ == ResourceUse::now()) << "something was left behind"; }

  static bool by_group() { return GetParam().backend != "iommufd"; }
  static std::string node_of(const HostDevice& device) {
    return by_group() ? "/dev/vfio/" + to_string(*device.iommu_group) : device.cdev->path;
  }
  static const char* container_node() { return by_group() ? "/dev/vfio/vfio" : "/dev/iommu"; }
  // Opened outside of the sandbox.
  Fd opened(const std::string& path) {
    Fd fd(sandbox_, test::kernel().open(path.c_str(), O_RDWR));
    EXPECT_TRUE(fd) << path << " cannot be opened: " << fd.get();
    return fd;
  }
  std::shared_ptr<GivenFd> given(const std::string& path, std::uint32_t iommufd_id = 0) {
    return std::make_shared<GivenFd>(opened(path), iommufd_id);
  }
  HostDevice host_with(std::shared_ptr<GivenFd> fd) const {
    HostDevice host = bound_.host();
    host.fd = std::move(fd);
    return host;
  }
  AttachOptions options() {
    AttachOptions options = test::options_for(GetParam());
    options.container_options.fd = std::make_shared<const Fd>(opened(container_node()));
    return options;
  }
  void expect_refused(const HostDevice& host, const AttachOptions& options, int code, const std::string& text) {
    sandbox_.begin(-1, 0);
    const auto refused = attach(sandbox_, host, options);
    ASSERT_FALSE(refused) << text;
    EXPECT_EQ(refused.error().code(), code) << refused.error().message();
    EXPECT_THAT(refused.error().message(), HasSubstr(text));
  }
  void expect_refused_unasked(const HostDevice& host, const AttachOptions& options, int code, const std::string& text) {
    expect_refused(host, options, code, text);
    EXPECT_TRUE(sandbox_.asked_nothing()) << text << ": " << sandbox_.last_call();
  }
  static void expect_to_work(const Device& device) {
    std::array<std::byte, 2> vendor{};
    EXPECT_TRUE(device.read(VFIO_PCI_CONFIG_REGION_INDEX, 0, vendor));
    EXPECT_NE(vendor[0], std::byte{0xff});
    constexpr std::size_t length = 65536;
    void* const address = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const Mmap memory(system_kernel(), address, length);
    const auto iova = device.container()->map_anywhere(memory.bytes());
    ASSERT_TRUE(iova) << iova.error().message();
    EXPECT_TRUE(device.container()->unmap(*iova, length));
  }

  const Bound bound_;
  Sandbox sandbox_{test::kernel()};

 private:
  ResourceUse before_;
};

TEST_P(GivenOnKernel, DoWithoutAnyNodeOfTheProgram) {
  EXPECT_FALSE(attach(sandbox_, bound_.host(), test::options_for(GetParam()))) << "the sandbox is none";
  const auto device = attach(sandbox_, host_with(given(node_of(bound_.host()))), options());
  ASSERT_TRUE(device) << device.error().message();
  EXPECT_EQ(device->container()->backend(), GetParam().backend);
  expect_to_work(*device);
  EXPECT_EQ(device->container()->devices().front().fd, nullptr) << "a list of devices keeps nothing open";
}

TEST_P(GivenOnKernel, ChooseTheBackendThatTheyAreFor) {
  AttachOptions any = options();
  any.backend = "auto";
  const auto device = attach(sandbox_, host_with(given(node_of(bound_.host()))), any);
  ASSERT_TRUE(device) << device.error().message();
  EXPECT_EQ(by_group(), device->container()->backend() != "iommufd");
}

TEST_P(GivenOnKernel, AreDroppedWithTheDevice) {
  auto device = attach(sandbox_, host_with(given(node_of(bound_.host()))), options()).value();
  ASSERT_TRUE(device.detach());
  // Nobody else has it open, or this one would be refused.
  const auto again = attach(test::kernel(), bound_.host(), test::options_for(GetParam()));
  EXPECT_TRUE(again) << again.error().message();
}

TEST_P(GivenOnKernel, CanBeUsedAgainByThoseWhoKeepThem) {
  const HostDevice host = host_with(given(node_of(bound_.host())));
  const AttachOptions kept = options();
  for (int times = 0; times < 3; ++times) {
    const auto device = attach(sandbox_, host, kept);
    ASSERT_TRUE(device) << device.error().message();
    expect_to_work(*device);
  }
}

// Whichever call fails.
TEST_P(GivenOnKernel, CanBeUsedAgainAfterAFailedAttach) {
  const HostDevice host = host_with(given(node_of(bound_.host())));
  const AttachOptions kept = options();
  sandbox_.begin(-1, 0);
  int calls = 0;
  {
    const auto device = attach(sandbox_, host, kept);
    ASSERT_TRUE(device) << device.error().message();
    calls = static_cast<int>(sandbox_.calls_made().size());
  }
  int failures = 0;
  for (int number = 0; number < calls; ++number) {
    sandbox_.begin(number, EIO);
    if (!attach(sandbox_, host, kept)) ++failures;
    sandbox_.begin(-1, 0);
    const auto device = attach(sandbox_, host, kept);
    ASSERT_TRUE(device) << "after call " << number << " failed: " << device.error().message();
  }
  EXPECT_GT(failures, 3);
}

TEST_P(GivenOnKernel, AreRefusedASecondTimeWhileTheDeviceIsAttached) {
  const HostDevice host = host_with(given(node_of(bound_.host())));
  const AttachOptions kept = options();
  const auto device = attach(sandbox_, host, kept);
  ASSERT_TRUE(device) << device.error().message();
  // In another container, of the same iommufd or of another open /dev/vfio/vfio.
  AttachOptions other = by_group() ? options() : kept;
  expect_refused(host, other, EBUSY, by_group() ? "is in a container already" : "is attached already");
  other.container = device->container();
  expect_refused(host, other, EBUSY, "it is already attached");
  expect_to_work(*device);
}

TEST_P(GivenOnKernel, AreRefusedIfTheDeviceIsInUseOtherwise) {
  const HostDevice given_first = host_with(given(node_of(bound_.host())));
  if (by_group()) {
    const int second = test::kernel().open(node_of(bound_.host()).c_str(), O_RDWR);
    EXPECT_EQ(second, -EBUSY) << "one process at a time can open a group";
    return;
  }
  const auto device = attach(test::kernel(), bound_.host(), test::options_for(GetParam()));
  ASSERT_TRUE(device) << device.error().message();
  expect_refused(given_first, options(), EINVAL, "already in use");
}

TEST_P(GivenOnKernel, ThatAreOtherFilesAreRefusedBeforeAnythingIsAsked) {
  const std::string node = node_of(bound_.host());
  const Bound other(test::last_nvme());
  const std::string node_of_other = node_of(other.host());
  const AttachOptions good = options();
  const auto refused = [&](Fd fd, int code, const std::string& text) {
    expect_refused_unasked(host_with(std::make_shared<GivenFd>(std::move(fd))), good, code, text);
  };
  refused(opened(container_node()), EINVAL, std::string(container_node()) + ", not " + node);
  refused(opened(node_of_other), EINVAL, node_of_other + ", not " + node);
  refused(Fd(sandbox_, ::open("/dev/null", O_RDWR | O_CLOEXEC)), EINVAL, "/dev/null, not " + node);
  refused(Fd(sandbox_, system_kernel().memfd_create("regular", 0)), EINVAL, "regular");
  refused(Fd(), EBADF, "is empty");
  {
    Fd closed = opened(node);
    test::kernel().close(closed.get());
    refused(std::move(closed), EBADF, "was given for " + node);
  }
  expect_refused_unasked(
      host_with(std::make_shared<GivenFd>(Fd(test::kernel(), test::kernel().open(node.c_str(), O_RDWR)))), good, EINVAL,
      "another Kernel");
}

TEST_P(GivenOnKernel, ForTheContainerThatAreOtherFilesAreRefused) {
  const HostDevice host = host_with(given(node_of(bound_.host())));
  AttachOptions wrong = test::options_for(GetParam());
  wrong.container_options.fd = std::make_shared<const Fd>(sandbox_, ::open("/dev/null", O_RDWR | O_CLOEXEC));
  expect_refused_unasked(host, wrong, EINVAL, std::string("/dev/null, not ") + container_node());
  const auto* const backend = find_backend(GetParam().backend).value();
  auto container = Container::open(sandbox_, *backend, wrong.container_options);
  ASSERT_FALSE(container);
  EXPECT_EQ(container.error().code(), EINVAL);
  wrong.container_options.fd = std::make_shared<const Fd>();
  expect_refused_unasked(host, wrong, EBADF, "is empty");
}

TEST_P(GivenOnKernel, ForAnotherBackendAreRefusedBeforeAnythingIsAsked) {
  bool found_another = false;
  for (const test::Interface other : test::interfaces()) {
    if ((other.backend != "iommufd") == by_group()) continue;
    found_another = true;
    expect_refused_unasked(host_with(given(node_of(bound_.host()))), test::options_for(other), EINVAL, ", not ");
    // Nor are they taken by a container that is there.
    const Bound elsewhere(test::last_nvme());
    const auto holder = attach(test::kernel(), elsewhere.host(), test::options_for(other)).value();
    HostDevice host = bound_.host();
    host.fd = std::make_shared<GivenFd>(Fd(test::kernel(), test::kernel().open(node_of(host).c_str(), O_RDWR)));
    const auto refused = attach(test::kernel(), host, {.container = holder.container()});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), EINVAL) << refused.error().message();
  }
  if (!found_another) GTEST_SKIP() << "this host's backends all take groups";
}

TEST_P(GivenOnKernel, OfOneGroupServeAllItsDevices) {
  const auto twins = test::twins();
  if (!twins) GTEST_SKIP() << "this host has no two NVMe functions in one slot";
  if (!by_group()) GTEST_SKIP() << "a cdev is one device's";
  const Bound first(twins->first);
  const Bound second(twins->second);
  std::array hosts = {first.host(), second.host()};
  {
    hosts[0].fd = hosts[1].fd = given(node_of(hosts[0]));
    const auto both = attach_all(sandbox_, hosts, options());
    ASSERT_TRUE(both) << both.error().message();
    for (const Device& device : *both) expect_to_work(device);
  }
  // One after the other, where the second need not be given it again.
  const auto device = attach(sandbox_, hosts[0], options());
  ASSERT_TRUE(device) << device.error().message();
  AttachOptions join;
  join.container = device->container();
  hosts[1].fd = given(container_node());
  expect_refused(hosts[1], join, EINVAL, ", not /dev/vfio/");
  hosts[1].fd.reset();
  EXPECT_TRUE(attach(sandbox_, hosts[1], join));
}

TEST_P(GivenOnKernel, OfAGroupThatIsNotViableAreRefused) {
  const auto twins = test::twins();
  if (!twins) GTEST_SKIP() << "this host has no two NVMe functions in one slot";
  const Bound one(twins->first);
  HostDevice host = one.host();
  host.fd = given(node_of(host));
  const auto refused = attach(sandbox_, host, options());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EPERM);
  EXPECT_EQ(refused.error().kind(), ErrorKind::group_not_viable) << refused.error().message();
  EXPECT_THAT(refused.error().message(), HasSubstr(to_string(twins->second) + " (driver nvme)"));
}

TEST_P(GivenOnKernel, ForAContainerThatHasAnIommuAreRefused) {
  if (!by_group()) GTEST_SKIP() << "containers share an iommufd";
  const AttachOptions kept = options();
  const auto device = attach(sandbox_, host_with(given(node_of(bound_.host()))), kept);
  ASSERT_TRUE(device) << device.error().message();
  const Bound other(test::last_nvme());
  HostDevice host = other.host();
  host.fd = given(node_of(host));
  const auto refused = attach(sandbox_, host, kept);
  ASSERT_FALSE(refused);
  // On POWER it can be the group already that cannot join.
  if (GetParam().backend == "type1") {
    EXPECT_EQ(refused.error().operation(), "VFIO_SET_IOMMU");
    EXPECT_THAT(refused.error().message(), HasSubstr("another Container has its descriptor"));
  }
  expect_to_work(*device);
}

TEST_P(GivenOnKernel, ForContainersThatShareAnIommufdServeSeveral) {
  if (by_group()) GTEST_SKIP() << "a container of groups is one";
  const AttachOptions kept = options();
  const auto first = attach(sandbox_, host_with(given(node_of(bound_.host()))), kept);
  ASSERT_TRUE(first) << first.error().message();
  const Bound other(test::last_nvme());
  HostDevice host = other.host();
  host.fd = given(node_of(host));
  const auto second = attach(sandbox_, host, kept);
  ASSERT_TRUE(second) << second.error().message();
  EXPECT_NE(first->container(), second->container());
  expect_to_work(*first);
  expect_to_work(*second);
}

INSTANTIATE_TEST_SUITE_P(Backends, GivenOnKernel, ::testing::ValuesIn(test::interfaces()), test::interface_name);

// A cdev that somebody has bound before it was given.
class BoundCdevOnKernel : public ::testing::Test {
 protected:
  BoundCdevOnKernel() : bound_(test::first_nvme()) {}
  void SetUp() override {
    const auto all = test::interfaces();
    if (all.front().backend != "iommufd") GTEST_SKIP() << "this host has no cdevs";
  }
  static Fd opened(const std::string& path) {
    Fd fd(test::kernel(), test::kernel().open(path.c_str(), O_RDWR));
    EXPECT_TRUE(fd) << path;
    return fd;
  }
  // Binds it as another program would, and returns its id.
  static std::uint32_t bind(const Fd& cdev, const Fd& iommufd) {
    vfio_device_bind_iommufd bind{};
    bind.argsz = sizeof bind;
    bind.iommufd = iommufd.get();
    EXPECT_EQ(test::kernel().ioctl(cdev.get(), VFIO_DEVICE_BIND_IOMMUFD, &bind), 0);
    return bind.out_devid;
  }
  [[nodiscard]] AttachOptions options() const { return {.backend = "iommufd", .container_options = {.fd = iommufd_}}; }
  [[nodiscard]] HostDevice host_with(Fd cdev, std::uint32_t id) const {
    HostDevice host = bound_.host();
    host.fd = std::make_shared<GivenFd>(std::move(cdev), id);
    return host;
  }

  const Bound bound_;
  std::shared_ptr<const Fd> iommufd_ =
      std::make_shared<const Fd>(test::kernel(), test::kernel().open("/dev/iommu", O_RDWR));
};

TEST_F(BoundCdevOnKernel, IsAttachedAsWhatItIs) {
  Fd cdev = opened(bound_.host().cdev->path);
  const std::uint32_t id = bind(cdev, *iommufd_);
  const HostDevice host = host_with(std::move(cdev), id);
  for (int times = 0; times < 2; ++times) {
    const auto device = attach(test::kernel(), host, options());
    ASSERT_TRUE(device) << device.error().message();
    const auto again = attach(test::kernel(), host, options());
    ASSERT_FALSE(again);
    EXPECT_EQ(again.error().code(), EBUSY) << again.error().message();
    std::array<std::byte, 2> vendor{};
    EXPECT_TRUE(device->read(VFIO_PCI_CONFIG_REGION_INDEX, 0, vendor));
    EXPECT_FALSE(device->container()->usable_ranges().empty());
  }
}

TEST_F(BoundCdevOnKernel, IsRefusedByAnIommufdWithoutIt) {
  const Fd elsewhere = opened("/dev/iommu");
  Fd cdev = opened(bound_.host().cdev->path);
  const std::uint32_t id = bind(cdev, elsewhere);
  const auto refused = attach(test::kernel(), host_with(std::move(cdev), id), options());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ENOENT);
  EXPECT_EQ(refused.error().kind(), ErrorKind::invalid_argument) << refused.error().message();
  EXPECT_THAT(refused.error().message(), HasSubstr("but not of this one"));
}

// The iommufd that was given has another device by this id, and the one that it is bound to has page tables by all ids:
// the kernel would put it on one of those.
TEST_F(BoundCdevOnKernel, IsRefusedByAnIommufdThatHasAnotherByItsId) {
  const Fd elsewhere = opened("/dev/iommu");
  for (int objects = 0; objects < 8; ++objects) {
    iommu_ioas_alloc alloc{.size = sizeof alloc, .flags = 0, .out_ioas_id = 0};
    ASSERT_EQ(test::kernel().ioctl(elsewhere.get(), IOMMU_IOAS_ALLOC, &alloc), 0);
  }
  Fd cdev = opened(bound_.host().cdev->path);
  (void)bind(cdev, elsewhere);
  const Bound other(test::last_nvme());
  const Fd stranger = opened(other.host().cdev->path);
  const std::uint32_t id = bind(stranger, *iommufd_);
  const auto refused = attach(test::kernel(), host_with(std::move(cdev), id), options());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EINVAL);
  EXPECT_THAT(refused.error().message(), HasSubstr("but not of this one"));
}

TEST_F(BoundCdevOnKernel, IsRefusedIfItIsNotBoundAfterAll) {
  const auto refused = attach(test::kernel(), host_with(opened(bound_.host().cdev->path), 1), options());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EINVAL);
  EXPECT_EQ(refused.error().operation(), "VFIO_DEVICE_GET_INFO");
  EXPECT_THAT(refused.error().message(), HasSubstr("is bound to no iommufd"));
  EXPECT_TRUE(refused.error().remedies().contains(RemedyCode::omit_iommufd_id));
}

TEST_F(BoundCdevOnKernel, IsRefusedWithoutItsId) {
  Fd cdev = opened(bound_.host().cdev->path);
  bind(cdev, *iommufd_);
  const auto refused = attach(test::kernel(), host_with(std::move(cdev), 0), options());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EINVAL);
  EXPECT_EQ(refused.error().operation(), "VFIO_DEVICE_BIND_IOMMUFD");
}

}  // namespace given_fd_test
}  // namespace postern
