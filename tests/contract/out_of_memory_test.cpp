// SPDX-License-Identifier: Apache-2.0
// Runs each scenario once per allocation, and lets that allocation fail: no std::terminate, nothing stays open, mapped,
// pinned, registered or bound, and a second try succeeds. Only on simulated kernels, whose own allocations never fail.
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>
#include <postern-nvme/controller.hpp>
#include <postern-sim/kernel.hpp>

#include "contract/faults/scenario.hpp"
#include "support/held.hpp"

namespace postern {
namespace out_of_memory_test {

// Per thread, since simulated devices allocate in theirs.
thread_local bool counting = false;
thread_local int made = 0;
thread_local int failing = -1;  // how many succeed before one fails; negative: none fails

bool next_fails() { return counting && made++ == failing; }

}  // namespace out_of_memory_test
}  // namespace postern

// Replaces the program's operator new; new[] and the nothrow variants call it. Not inlined, since the compiler would
// then warn of a mismatch with delete (-Wmismatched-new-delete).
[[gnu::noinline]] void* operator new(std::size_t size) {
  void* const memory = postern::out_of_memory_test::next_fails() ? nullptr : std::malloc(size != 0 ? size : 1);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t /*size*/) noexcept { std::free(memory); }

namespace postern {
namespace out_of_memory_test {

using test::Held;
using test::Retry;
using test::Scenario;
using test::World;

// Suspends the counting of allocations during its lifetime.
class Uncounted {
 public:
  Uncounted() : was_(std::exchange(counting, false)) {}
  ~Uncounted() { counting = was_; }
  Uncounted(const Uncounted&) = delete;
  Uncounted& operator=(const Uncounted&) = delete;

 private:
  bool was_;
};

template <typename Call>
auto apart(Call call) {
  const Uncounted uncounted;
  return call();
}
template <typename T, typename Call>
int into(T& result, Call call) {
  T got;
  const int done = apart([&] { return call(got); });
  result = got;
  return done;
}

// Does not count the kernel's own allocations; a string that it returns is copied into memory that counts.
class KernelWithMemory final : public test::WatchedKernel {
 public:
  using WatchedKernel::WatchedKernel;

  int open(const char* path, int flags) override {
    return apart([&] { return WatchedKernel::open(path, flags); });
  }
  int close(int fd) override {
    return apart([&] { return WatchedKernel::close(fd); });
  }
  int ioctl(int fd, unsigned long request, void* argument) override {
    return apart([&] { return WatchedKernel::ioctl(fd, request, argument); });
  }
  ssize_t pread(int fd, void* buffer, std::size_t length, std::uint64_t offset) override {
    return apart([&] { return WatchedKernel::pread(fd, buffer, length, offset); });
  }
  ssize_t pwrite(int fd, const void* buffer, std::size_t length, std::uint64_t offset) override {
    return apart([&] { return WatchedKernel::pwrite(fd, buffer, length, offset); });
  }
  ssize_t read(int fd, void* buffer, std::size_t length) override {
    return apart([&] { return WatchedKernel::read(fd, buffer, length); });
  }
  ssize_t write(int fd, const void* buffer, std::size_t length) override {
    return apart([&] { return WatchedKernel::write(fd, buffer, length); });
  }
  std::intptr_t mmap(void* address, std::size_t length, int protection, int flags, int fd,
                     std::uint64_t offset) override {
    return apart([&] { return WatchedKernel::mmap(address, length, protection, flags, fd, offset); });
  }
  int munmap(void* address, std::size_t length) override {
    return apart([&] { return WatchedKernel::munmap(address, length); });
  }
  int eventfd() override {
    return apart([&] { return WatchedKernel::eventfd(); });
  }
  int read_file(const std::string& path, std::string& contents) override {
    return into(contents, [&](std::string& got) { return WatchedKernel::read_file(path, got); });
  }
  int write_file(const std::string& path, const std::string& contents) override {
    return apart([&] { return WatchedKernel::write_file(path, contents); });
  }
  int list_directory(const std::string& path, std::vector<std::string>& names) override {
    return into(names, [&](std::vector<std::string>& got) { return WatchedKernel::list_directory(path, got); });
  }
  int read_link(const std::string& path, std::string& target) override {
    return into(target, [&](std::string& got) { return WatchedKernel::read_link(path, got); });
  }
  int status(const std::string& path, FileStatus& status) override {
    return apart([&] { return WatchedKernel::status(path, status); });
  }
  int access(const std::string& path, int mode) override {
    return apart([&] { return WatchedKernel::access(path, mode); });
  }
};

// The outcome of an operation during which one allocation failed.
enum class Outcome : std::uint8_t { done, refused, threw };

// Runs `act` and lets allocation `number`, counted from 0, fail.
template <typename Act>
Outcome act_failing(int number, Act act) {
  made = 0;
  failing = number;
  counting = true;
  Outcome outcome = Outcome::threw;
  try {
    outcome = act() ? Outcome::done : Outcome::refused;
  } catch (const std::bad_alloc&) {
  }
  counting = false;
  return outcome;
}

class OutOfMemory : public ::testing::TestWithParam<std::tuple<test::Interface, Scenario>> {
 protected:
  OutOfMemory()
      : first_(test::first_nvme()),
        second_(test::last_nvme()),
        hosts_{first_.host(), second_.host()},
        before_(kernel_, hosts_[1]) {}
  ~OutOfMemory() override { EXPECT_EQ(Held(kernel_, hosts_[1]), before_); }

  static test::Interface interface() { return std::get<0>(GetParam()); }
  static const Scenario& scenario() { return std::get<1>(GetParam()); }

  // The number of allocations without failures; nothing if the scenario does not apply to this host.
  std::optional<int> allocations() {
    World world(kernel_, interface(), hosts_[0], hosts_[1]);
    scenario().prepare(world);
    if (!scenario().applies(world)) return std::nullopt;
    EXPECT_EQ(act_failing(-1, [&] { return scenario().act(world); }), Outcome::done);
    return made;
  }
  void fail(int number) {
    SCOPED_TRACE("allocation " + std::to_string(number) + " fails");
    {
      World world(kernel_, interface(), hosts_[0], hosts_[1]);
      scenario().prepare(world);
      const Held prepared(kernel_, world.other);
      const Outcome outcome = act_failing(number, [&] { return scenario().act(world); });
      if (outcome != Outcome::done && scenario().retry == Retry::again) {
        EXPECT_EQ(Held(kernel_, world.other), prepared);
        const auto again = scenario().act(world);
        EXPECT_TRUE(again) << "second try: " << again.error().message();
      }
    }
    ASSERT_EQ(Held(kernel_, hosts_[1]), before_) << "when all was let go";
  }

  test::Bound first_;
  test::Bound second_;
  std::array<HostDevice, 2> hosts_;
  KernelWithMemory kernel_{test::kernel()};
  Held before_;
};

TEST_P(OutOfMemory, IsSurvivedAndLeavesNothingBehind) {
  if (test::is_real(test::kernel())) GTEST_SKIP() << "for simulated kernels";
  const auto count = allocations();
  if (!count) GTEST_SKIP() << "this host or its device does not have it";
  for (int number = 0; number < *count; ++number) {
    fail(number);
    if (HasFailure()) return;
  }
  RecordProperty("allocations", *count);
}

TEST(OutOfMemoryInside, TheSimulatedKernelLeavesItsSysfsWhole) {
  sim::Kernel kernel;
  const std::string disk = "/sys/bus/pci/devices/0000:00:02.0";
  Outcome outcome = Outcome::threw;
  for (int number = 0; outcome != Outcome::done; ++number) {
    // Each change makes the kernel generate sysfs again.
    ASSERT_EQ(kernel.write_file(disk + "/driver_override", number % 2 == 0 ? "vfio-pci" : "\n"), 0) << number;
    std::string text;
    outcome = act_failing(number, [&] { return kernel.read_file(disk + "/vendor", text) >= 0; });
    ASSERT_EQ(kernel.read_file(disk + "/vendor", text), 0) << "after allocation " << number << " failed";
    ASSERT_EQ(text, "0x1b36\n");
  }
}

// Uses the library from attach() to an NVMe read, and leaves the release of everything to destructors.
Result<void> read_a_block(World& world) {
  auto device = POSTERN_TRY(attach(world.kernel, world.host, world.options()));
  auto pci = POSTERN_TRY(PciDevice::open(std::move(device)));
  const auto container = pci.device().container();
  IovaAllocator iovas(container->usable_ranges(), container->page_sizes());
  auto buffer = POSTERN_TRY(DmaBuffer::allocate(container, iovas, World::page));
  auto disk = POSTERN_TRY(nvme::Controller::open(pci, iovas));
  return disk.read(disk.namespaces().at(0), 0, 1, buffer.iova());
}

std::vector<std::tuple<test::Interface, Scenario>> scenarios() {
  std::vector<std::tuple<test::Interface, Scenario>> all;
  std::vector<Scenario> wanted = test::all_scenarios();
  wanted.push_back({.name = "read_a_block", .act = read_a_block});
  wanted.push_back({.name = "give_to_default",
                    .prepare = [](World& w) { w.is_moved = true; },
                    .act = [](World& w) { return bind_to_default_driver(w.kernel, w.other); }});
  for (const test::Interface& each : test::interfaces()) {
    for (const Scenario& scenario : wanted) {
      if (scenario.suits(each) && scenario.devices == test::Devices::apart) all.emplace_back(each, scenario);
    }
  }
  return all;
}
std::string scenario_name(const ::testing::TestParamInfo<OutOfMemory::ParamType>& test) {
  return test::interface_name({std::get<0>(test.param), test.index}) + "_" + std::string(std::get<1>(test.param).name);
}
INSTANTIATE_TEST_SUITE_P(Backends, OutOfMemory, ::testing::ValuesIn(scenarios()), scenario_name);

}  // namespace out_of_memory_test
}  // namespace postern
