// SPDX-License-Identifier: Apache-2.0
// A child of fork(2) that destroys its copies, or exits, does not affect the parent's objects. Also: destructors of
// static objects may use system_kernel().
#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <optional>
#include <postern-nvme/controller.hpp>
#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/backend.hpp>
#include <postern/dirty_tracker.hpp>
#include <postern/dma_buffer.hpp>
#include <postern/dma_windows.hpp>
#include <postern/eeh.hpp>
#include <postern/event.hpp>
#include <postern/forwarding_kernel.hpp>
#include <postern/log.hpp>
#include <postern/pci_function.hpp>
#include <postern/preregistration.hpp>
#include <string_view>
#include <vector>

#include "support/in_child.hpp"

namespace postern {
namespace fork_test {

// Counts the calls of a child. They have no effect, since the simulated kernel refuses all calls in a child.
class AskedKernel final : public ForwardingKernel {
 public:
  using ForwardingKernel::ForwardingKernel;
  int ioctl(int fd, unsigned long request, void* argument) override {
    ++ioctls;
    return ForwardingKernel::ioctl(fd, request, argument);
  }
  int close(int fd) override {
    ++closes;
    return ForwardingKernel::close(fd);
  }
  int ioctls = 0;
  int closes = 0;
};

using test::in_child;

bool logged = false;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables): of the log handler

class Fork : public testing::TestWithParam<const char*> {
 protected:
  [[nodiscard]] sim::Host host() const { return std::string_view(GetParam()) == "spapr" ? sim::pseries() : sim::pc(); }
  [[nodiscard]] PciAddress disk() const {
    return std::string_view(GetParam()) == "spapr" ? PciAddress{} : PciAddress{.device = 1};
  }
};

TEST_P(Fork, AChildThatLetsEverythingGoAsksNothingOfTheKernel) {
  sim::Kernel simulated(host());
  AskedKernel kernel(simulated);
  auto attached = attach(kernel, find_pci_function(kernel, disk())->host, {.backend = GetParam()});
  ASSERT_TRUE(attached) << attached.error().message();
  std::optional<PciDevice> device(PciDevice::open(std::move(*attached)).value());
  auto container = device->device().container();
  std::optional<IovaAllocator> iovas(std::in_place, container->usable_ranges(), container->page_sizes());
  std::optional<DmaBuffer> buffer(DmaBuffer::allocate(container, *iovas, 4096).value());
  std::optional<nvme::Controller> controller(nvme::Controller::open(*device, *iovas).value());
  const auto& ns = controller->namespaces().at(0);
  ASSERT_TRUE(controller->read(ns, 0, 1, buffer->iova()));

  const int result = in_child([&] {
    set_log_handler([](LogKind /*kind*/, const Error& /*error*/) noexcept { logged = true; });
    kernel.ioctls = 0;
    kernel.closes = 0;
    const bool is_memory_there = ::msync(buffer->data(), 4096, MS_ASYNC) == 0;
    void* const memory = buffer->data();
    controller.reset();
    buffer.reset();
    iovas.reset();
    device.reset();
    container.reset();
    if (kernel.ioctls != 0) return 1;
    if (kernel.closes == 0) return 2;
    if (logged) return 4;
    const bool is_memory_left = ::msync(memory, 4096, MS_ASYNC) == 0;
    return is_memory_there && !is_memory_left ? 0 : 3;
  });
  EXPECT_EQ(result, 0);
  // Fails if the child has written a register, which would have stopped the controller.
  const auto read = controller->read(ns, 1, 1, buffer->iova());
  EXPECT_TRUE(read) << read.error().message();
  EXPECT_TRUE(container->find(buffer->iova()));
  EXPECT_EQ(container->devices().size(), 1U);
}

TEST_P(Fork, AChildThatEndsLeavesTheParentsMappings) {
  sim::Kernel simulated(host());
  AskedKernel kernel(simulated);
  const auto device = attach(kernel, find_pci_function(kernel, disk())->host, {.backend = GetParam()});
  ASSERT_TRUE(device);
  IovaAllocator iovas(device->container()->usable_ranges(), device->container()->page_sizes());
  const auto buffer = DmaBuffer::allocate(device->container(), iovas, 4096);
  ASSERT_TRUE(buffer);
  EXPECT_EQ(in_child([] { return 0; }), 0);
  EXPECT_TRUE(device->container()->find(buffer->iova()));
}

TEST_P(Fork, AChildCannotUseItsCopy) {
  sim::Kernel simulated(host());
  AskedKernel kernel(simulated);
  const HostDevice disk_of_host = find_pci_function(kernel, disk())->host;
  auto device = attach(kernel, disk_of_host, {.backend = GetParam()});
  ASSERT_TRUE(device);
  const auto container = device->container();
  const auto other = Container::open(kernel, *find_backend(GetParam()).value()).value();
  IovaAllocator iovas(container->usable_ranges(), container->page_sizes());
  const auto buffer = DmaBuffer::allocate(container, iovas, 65536);
  const auto file_buffer = DmaBuffer::allocate(container, iovas, 65536, {.is_file = true}).value();
  const Memory file = file_buffer.memory();
  ASSERT_TRUE(buffer);
  const Iova free = iovas.allocate(65536).value();
  const int result = in_child([&] {
    kernel.ioctls = 0;
    const auto is_refused = [](const Result<void>& done) {
      return !done && done.error().code() == ESTALE && done.error().refused();
    };
    for (int tries = 0; tries < 2; ++tries) {  // the first must not make a fast path accept the second
      if (!is_refused(container->map(free, buffer->bytes()))) return 1;
    }
    if (!is_refused(container->unmap(buffer->iova(), 65536))) return 2;
    if (!is_refused(container->unmap_all())) return 3;
    if (!is_refused(container->close())) return 4;
    if (attach(kernel, disk_of_host, {.container = container})) return 5;
    if (!is_refused(container->map(free, file))) return 7;
    const auto anywhere = container->map_anywhere(buffer->bytes());
    if (anywhere || anywhere.error().code() != ESTALE) return 8;
    if (!is_refused(move_device(*device, other))) return 9;
    if (auto* const tracker = container->get<DirtyTracker>()) {
      if (!is_refused(tracker->start()) || !is_refused(tracker->stop())) return 10;
      std::uint64_t word = 0;
      const auto queried =
          tracker->query({buffer->iova(), buffer->iova() + 0xffff}, {.page_size = 65536, .words = {&word, 1}});
      if (queried || queried.error().code() != ESTALE) return 11;
    }
    if (auto* const windows = container->get<DmaWindows>()) {
      const auto made = windows->create({.size = 1 << 20, .page_size = 65536, .levels = 1});
      if (made || made.error().code() != ESTALE || !is_refused(windows->remove({0}))) return 12;
    }
    if (auto* const memory = container->get<Preregistration>()) {
      if (!is_refused(memory->add(buffer->bytes())) || !is_refused(memory->remove(buffer->bytes()))) return 13;
    }
    if (auto* const eeh = container->get<Eeh>()) {
      if (!is_refused(eeh->enable())) return 14;
    }
    return kernel.ioctls == 0 ? 0 : 6;
  });
  EXPECT_EQ(result, 0);
  EXPECT_TRUE(container->map(free, buffer->bytes())) << "the parent goes on";
  EXPECT_TRUE(container->unmap(free, 65536));
}

std::vector<const char*> backends_here() {
  std::vector<const char*> names;
  for (const char* const name : {"type1", "iommufd", "spapr"}) {
    if (find_backend(name)) names.push_back(name);
  }
  return names;
}
INSTANTIATE_TEST_SUITE_P(Backends, Fork, testing::ValuesIn(backends_here()));

// Constructed before the first call of system_kernel(), and so destroyed after all static objects of that. With the
// address and undefined sanitizers, the use of a destroyed kernel is an error.
std::optional<Event> global;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables): what is tested

TEST(SystemKernel, IsThereForTheDestructorsOfGlobals) {
  EXPECT_EQ(in_child([] {
              auto event = Event::create(system_kernel());
              if (!event) return 1;
              global.emplace(std::move(*event));
              std::exit(7);
            }),
            7);
}

}  // namespace fork_test
}  // namespace postern
