// SPDX-License-Identifier: Apache-2.0
// The spapr backend under a hypervisor (pseries) and on bare metal (powernv): windows, registered memory, calls that
// are refused because the kernel would mishandle them, and that nothing is left behind.
#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <postern-nvme/controller.hpp>
#include <postern/dirty_tracker.hpp>
#include <postern/dma_windows.hpp>
#include <postern/eeh.hpp>
#include <postern/preregistration.hpp>

#include "support/host_devices.hpp"

namespace postern {
namespace spapr_test {

using test::Bound;
using test::ResourceUse;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr std::uint64_t kib = 1024;
constexpr std::uint64_t mib = 1024 * kib;
constexpr std::uint64_t gib = 1024 * mib;
constexpr std::uint64_t window_size = 256 * mib;  // emulated machines take 15 s for a window of 4 GiB in pages of 4 KiB

std::uint64_t host_page() { return static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)); }

bool on_powernv() {
  std::string names;
  EXPECT_EQ(test::kernel().read_file("/proc/device-tree/compatible", names), 0);
  return names.find("ibm,powernv") != std::string::npos;
}

Mmap memory_of(std::size_t length, int flags = 0) {
  void* address = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  EXPECT_NE(address, MAP_FAILED);
  return {test::kernel(), address, length};
}

// Expects that a call failed with this errno. Returns the message.
template <typename T>
std::string refusal(const Result<T>& result, int code) {
  EXPECT_FALSE(result);
  if (result) return "";
  EXPECT_EQ(result.error().code(), code) << result.error().message();
  return result.error().message();
}

// Reads 64 KiB from the start of the disk. The controller's data and queues are all in this window.
std::vector<std::byte> read_disk(PciDevice& pci, const DmaWindow& window) {
  IovaAllocator iovas(std::vector{window.range}, window.page_size);
  auto buffer = DmaBuffer::allocate(pci.device().container(), iovas, 64 * kib);
  EXPECT_TRUE(buffer) << buffer.error().message();
  std::memset(buffer->data(), 0xa5, buffer->size());
  auto controller = nvme::Controller::open(pci, iovas);
  EXPECT_TRUE(controller) << controller.error().message();
  const nvme::Namespace& ns = controller->namespaces().at(0);
  const auto blocks = static_cast<std::uint32_t>(64 * kib / ns.block_size);
  const auto done = controller->read(ns, 0, blocks, buffer->iova());
  EXPECT_TRUE(done) << done.error().message();
  return {buffer->data(), buffer->data() + 64 * kib};
}

class Spapr : public ::testing::TestWithParam<std::uint32_t> {
 protected:
  Spapr() : bound_(test::first_nvme()), before_(ResourceUse::now()) { open(); }
  ~Spapr() override {
    pci_.reset();
    EXPECT_TRUE(before_ == ResourceUse::now()) << "something was left behind";
  }
  void open(ContainerOptions options = {}) {
    pci_.reset();
    options.version = GetParam();
    auto device = attach(test::kernel(), bound_.host(), {.backend = "spapr", .container_options = options});
    if (!device) throw std::runtime_error(device.error().message());
    pci_.emplace(PciDevice::open(std::move(*device)).value());
  }
  Container& container() { return *pci_->device().container(); }
  DmaWindow default_window() { return {.range = container().usable_ranges().front(), .page_size = 4 * kib}; }
  DmaWindows& windows() { return *container().get<DmaWindows>(); }
  Preregistration& registrations() { return *container().get<Preregistration>(); }

  Bound bound_;
  ResourceUse before_;
  std::optional<PciDevice> pci_;
};

// The features that version 2 adds.
class SpaprV2 : public Spapr {};

TEST_P(Spapr, BeginsWithTheDefaultWindow) {
  EXPECT_EQ(container().usable_ranges(), (std::vector<IovaRange>{{{0}, {(on_powernv() ? 2 * gib : gib) - 1}}}));
  EXPECT_EQ(container().page_sizes(), 4 * kib);
  EXPECT_EQ(container().get<DmaWindows>() != nullptr, GetParam() == 2);
  EXPECT_EQ(container().get<Preregistration>() != nullptr, GetParam() == 2);
}

TEST_P(Spapr, TheDiskIsReadThroughTheDefaultWindow) {
  EXPECT_TRUE(test::came_from_disk(read_disk(*pci_, default_window())));
}

TEST_P(Spapr, AMapThatRunsPastTheWindowsEndNeverReachesTheKernel) {
  const Mmap memory = memory_of(2 * host_page());
  const Iova last_page = default_window().range.last + 1 - host_page();
  EXPECT_THAT(refusal(container().map(last_page, memory.bytes()), ERANGE),
              HasSubstr(to_string(default_window().range)));
  ASSERT_TRUE(container().map(last_page, memory.bytes().first(host_page()))) << "up to its end is well";
  ASSERT_TRUE(container().unmap_all());
}

TEST_P(Spapr, AnUnalignedIovaNeverReachesTheKernel) {
  const Mmap memory = memory_of(host_page());
  refusal(container().map({0x10000010}, memory.bytes()), EINVAL);
  refusal(container().unmap({0x10000010}, host_page()), EINVAL);
}

TEST_P(Spapr, AMapOverAnExistingOneIsRefusedAndTheFirstStays) {
  const Mmap first = memory_of(host_page());
  const Mmap second = memory_of(host_page());
  ASSERT_TRUE(container().map({0x10000000}, first.bytes()));
  refusal(container().map({0x10000000}, second.bytes()), EEXIST);
  EXPECT_EQ(container().find({0x10000000})->memory.address(), first.data());
  ASSERT_TRUE(container().unmap_all());
}

TEST_P(Spapr, IsReleasedFromWhateverState) {
  // Maps, and neither unmaps nor detaches nor closes.
  const Mmap memory = memory_of(16 * mib);
  ASSERT_TRUE(container().map({0x10000000}, memory.bytes()));
  if (GetParam() == 2) {
    const Mmap kept = memory_of(mib);
    ASSERT_TRUE(registrations().add(kept.bytes()));
    const auto window = windows().create({.size = window_size, .page_size = 4 * kib});
    ASSERT_TRUE(window) << window.error().message();
    ASSERT_TRUE(container().map(window->range.first, kept.bytes()));
    pci_.reset();  // before the memory is unmapped
  }
  pci_.reset();
  EXPECT_TRUE(before_ == ResourceUse::now());
  open();
  EXPECT_TRUE(test::came_from_disk(read_disk(*pci_, default_window()))) << "and works again";
}

TEST_P(Spapr, ASecondHostBridgeIsSharedOnTheBareMachineByVersion2AloneAndTheRefusalSaysWhy) {
  const Bound bound(test::last_nvme());
  const Mmap memory = memory_of(host_page());
  const bool shares = on_powernv() && GetParam() == 2;
  for (const bool mapped_before : {false, true}) {
    open();
    if (mapped_before) {
      ASSERT_TRUE(container().map({0x10000000}, memory.bytes()));
    }
    auto second = attach(test::kernel(), bound.host(), {.container = pci_->device().container()});
    ASSERT_EQ(second.has_value(), shares) << (shares ? second.error().message() : "");
    if (second) {
      auto pci = PciDevice::open(std::move(*second)).value();
      EXPECT_TRUE(test::came_from_disk(read_disk(pci, default_window())));
    } else {
      EXPECT_THAT(second.error().message(),
                  AllOf(HasSubstr("cannot share this container"), HasSubstr("to a new container")));
    }
    EXPECT_TRUE(test::came_from_disk(read_disk(*pci_, default_window()))) << "the first is as it was";
    ASSERT_TRUE(container().unmap_all());
  }
}

// Otherwise the kernel would clear the mappings of the others (tce_iommu_release_ownership).
TEST_P(SpaprV2, AGroupThatSharesAContainerStaysUntilNothingIsMapped) {
  const Bound bound(test::last_nvme());
  const Mmap memory = memory_of(host_page());
  const auto other = attach(test::kernel(), bound.host(), {.container = pci_->device().container()});
  ASSERT_EQ(other.has_value(), on_powernv()) << "under a hypervisor no two groups share a container";
  if (!other) return;
  ASSERT_TRUE(container().map({0x10000000}, memory.bytes()));
  ASSERT_TRUE(pci_->device().detach());
  const auto elsewhere = [&] {
    return attach(test::kernel(), bound_.host(), {.backend = "spapr", .container_options = {.version = 2}});
  };
  EXPECT_THAT(refusal(elsewhere(), EBUSY), HasSubstr("already open"));
  ASSERT_TRUE(other->container()->unmap_all());
  const auto moved = elsewhere();
  EXPECT_TRUE(moved) << moved.error().message();
}

TEST_P(Spapr, EehIsThereOnTheBareMachineAlone) {
  ASSERT_EQ(container().get<Eeh>() != nullptr, on_powernv());
  if (container().get<Eeh>() == nullptr) return;
  Eeh& eeh = *container().get<Eeh>();
  EXPECT_TRUE(eeh.enable());
  EXPECT_EQ(eeh.state().value(), Eeh::State::normal);
  EXPECT_TRUE(eeh.unfreeze_io());
  EXPECT_TRUE(eeh.unfreeze_dma());
  EXPECT_TRUE(eeh.configure());
}

TEST_P(Spapr, HasNoDirtyTracker) { EXPECT_EQ(container().get<DirtyTracker>(), nullptr); }

TEST_P(Spapr, TooLittleLockedMemoryIsExplained) {
  if (!test::is_real(test::kernel())) GTEST_SKIP() << "a limit of the process's is none of a simulated host's";
  // Without privileges, and with Debian's default limit.
  pci_.reset();
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_MEMLOCK, &limit), 0);
  const rlimit small{.rlim_cur = 8 * mib, .rlim_max = limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_MEMLOCK, &small), 0);
  ASSERT_EQ(::chmod(("/dev/vfio/" + to_string(*bound_.host().iommu_group)).c_str(), 0666), 0);
  ASSERT_EQ(::seteuid(1000), 0);
  auto device =
      attach(test::kernel(), bound_.host(), {.backend = "spapr", .container_options = {.version = GetParam()}});
  const Mmap memory = memory_of(mib);
  if (GetParam() == 1) {
    EXPECT_THAT(refusal(device, ENOMEM),
                AllOf(HasSubstr("whole window"), HasSubstr("limited to 8 MiB"), HasSubstr("use version 2")));
  } else {
    EXPECT_TRUE(device) << device.error().message();
    const auto mapped = device->container()->map({0}, memory.bytes());
    if (on_powernv()) {
      EXPECT_THAT(refusal(mapped, ENOMEM), AllOf(HasSubstr("default DMA window"), HasSubstr("create a smaller one")));
      // Follows the advice: removes the default window and creates a small one.
      EXPECT_TRUE(device->container()->get<DmaWindows>()->remove({0}));
      const auto window = device->container()->get<DmaWindows>()->create({.size = 64 * mib, .page_size = 4 * kib});
      EXPECT_TRUE(window) << window.error().message();
      EXPECT_TRUE(device->container()->map(window->range.first, memory.bytes()));
    } else {
      EXPECT_TRUE(mapped) << mapped.error().message();
    }
    const Mmap large = memory_of(16 * mib);
    EXPECT_THAT(refusal(device->container()->map({0x1000000}, large.bytes()), ENOMEM),
                AllOf(HasSubstr("limited to 8 MiB"), HasSubstr("needs 16 MiB")));
    EXPECT_TRUE(device->container()->unmap_all());
  }
  if (device) {
    EXPECT_TRUE(device->detach());
  }
  EXPECT_EQ(::seteuid(0), 0);
  EXPECT_EQ(::setrlimit(RLIMIT_MEMLOCK, &limit), 0);
}

TEST_P(SpaprV2, TheDiskIsReadThroughAWindowOf64BitAddresses) {
  const auto by_default = read_disk(*pci_, default_window());
  const auto window = windows().create({.size = window_size, .page_size = 4 * kib});
  ASSERT_TRUE(window) << window.error().message();
  EXPECT_EQ(window->range.first, Iova{0x800000000000000});
  EXPECT_EQ(read_disk(*pci_, *window), by_default);
  EXPECT_TRUE(test::came_from_disk(by_default));
  ASSERT_TRUE(windows().remove(window->range.first));
  EXPECT_EQ(read_disk(*pci_, default_window()), by_default);
}

TEST_P(SpaprV2, AWindowIsMadeWhereTheDefaultOneIsTooSmall) {
  open({.memory = 4 * gib});
  ASSERT_EQ(windows().list().size(), 2U);
  const DmaWindow window = windows().list().back();
  EXPECT_TRUE(window.created);
  EXPECT_EQ(window.range.length(), 4 * gib);
  EXPECT_TRUE(test::came_from_disk(read_disk(*pci_, window)));
  open({.memory = 64 * mib});
  EXPECT_EQ(windows().list().size(), 1U) << "the default one is large enough";
}

TEST_P(SpaprV2, WindowsOfTablesWithSeveralLevelsWorkWhereTheMachineHasThem) {
  if (!on_powernv()) {
    EXPECT_EQ(windows().limits().levels, 1U);
    EXPECT_THAT(refusal(windows().create({.size = 4 * gib, .page_size = 4 * kib, .levels = 2}), EINVAL),
                HasSubstr("too deep"));
    return;
  }
  for (const std::uint32_t levels : {1U, 2U, 3U}) {
    const auto window = windows().create({.size = 4 * gib, .page_size = 4 * kib, .levels = levels});
    ASSERT_TRUE(window) << levels << ": " << window.error().message();
    EXPECT_TRUE(test::came_from_disk(read_disk(*pci_, *window))) << levels;
    ASSERT_TRUE(windows().remove(window->range.first));
  }
  const std::uint64_t locked = ResourceUse::now().locked;
  for (const std::uint32_t levels : {5U, 6U}) {
    EXPECT_THAT(refusal(windows().create({.size = gib, .page_size = 4 * kib, .levels = levels}), EINVAL),
                HasSubstr("too deep"));
  }
  EXPECT_EQ(ResourceUse::now().locked, locked) << "a window that the kernel refuses would have leaked its table's size";
}

TEST_P(SpaprV2, AWindowThatTheIommuCannotHaveIsRefusedAndTheReasonHelps) {
  EXPECT_THAT(refusal(windows().create({.size = gib, .page_size = 8 * kib}), EINVAL),
              AllOf(HasSubstr("pages of 4 KiB, 64 KiB"), HasSubstr("choose one")));
  EXPECT_THAT(refusal(windows().create({.size = 3 * gib, .page_size = 4 * kib}), EINVAL),
              AllOf(HasSubstr("not a power of two"), HasSubstr("4 GiB")));
  EXPECT_THAT(refusal(windows().create({.size = 4 * kib, .page_size = 4 * kib}), EINVAL), HasSubstr("smallest window"));
  EXPECT_THAT(refusal(windows().create({.size = 0, .page_size = 4 * kib}), EINVAL), HasSubstr("not a power of two"));
  EXPECT_THAT(refusal(windows().remove({4 * kib}), ENOENT), HasSubstr("no window starts there"));
}

TEST_P(SpaprV2, AThirdWindowIsRefused) {
  ASSERT_TRUE(windows().create({.size = window_size, .page_size = 4 * kib}));
  EXPECT_THAT(refusal(windows().create({.size = window_size, .page_size = 4 * kib}), ENOSPC), HasSubstr("remove one"));
}

TEST_P(SpaprV2, ASecondCreatedWindowIsAskedForOnTheBareMachineAlone) {
  ASSERT_TRUE(windows().remove({0}));
  ASSERT_TRUE(windows().create({.size = 4 * gib, .page_size = 64 * kib})) << "larger than the default window";
  const auto second = windows().create({.size = window_size, .page_size = 4 * kib});
  if (on_powernv()) {
    ASSERT_TRUE(second) << second.error().message();
    EXPECT_TRUE(test::came_from_disk(read_disk(*pci_, *second)));
  } else {
    EXPECT_THAT(refusal(second, ENOSPC), HasSubstr("until the host is rebooted"));
  }
  open();
  EXPECT_TRUE(test::came_from_disk(read_disk(*pci_, default_window()))) << "the host bridge still gives windows";
}

TEST_P(SpaprV2, TheDefaultWindowCanBeRemovedAndMadeAgain) {
  ASSERT_TRUE(windows().remove({0}));
  EXPECT_TRUE(container().usable_ranges().empty());
  const Mmap memory = memory_of(host_page());
  refusal(container().map({0}, memory.bytes()), ERANGE);
  const auto window = windows().create({.size = 512 * mib, .page_size = 4 * kib});
  ASSERT_TRUE(window) << window.error().message();
  EXPECT_EQ(window->range.first, Iova{0});
  EXPECT_TRUE(test::came_from_disk(read_disk(*pci_, *window)));
}

TEST_P(SpaprV2, AWindowWithMappingsIsNotRemovedAndTheMappingIsNamed) {
  const Mmap memory = memory_of(host_page());
  ASSERT_TRUE(container().map({0x10000000}, memory.bytes()));
  EXPECT_THAT(refusal(windows().remove({0}), EBUSY), HasSubstr("0x10000000-"));
  ASSERT_TRUE(container().unmap_all());
}

TEST_P(SpaprV2, AMapFromOneWindowIntoNothingIsRefused) {
  const auto window = windows().create({.size = window_size, .page_size = 4 * kib}).value();
  const Mmap memory = memory_of(2 * host_page());
  for (const IovaRange range : {default_window().range, window.range}) {
    EXPECT_THAT(refusal(container().map(range.last + 1 - host_page(), memory.bytes()), ERANGE),
                HasSubstr(to_string(range)));
  }
  refusal(container().map(window.range.first - host_page(), memory.bytes()), ERANGE);
}

TEST_P(SpaprV2, UnmappingOverSeveralWindowsTakesAllOfThem) {
  const auto window = windows().create({.size = window_size, .page_size = 4 * kib}).value();
  const Mmap memory = memory_of(2 * host_page());
  const std::uint64_t locked = ResourceUse::now().locked;
  ASSERT_TRUE(container().map({0x10000000}, memory.bytes().first(host_page())));
  ASSERT_TRUE(container().map(window.range.first, memory.bytes()));
  const auto unmapped = container().unmap({0}, window.range.first.value + window_size);
  ASSERT_TRUE(unmapped) << unmapped.error().message();
  EXPECT_EQ(container().mapping_count(), 0U);
  // Includes the default window's table, which the first map created and which counts on some machines.
  EXPECT_LE(ResourceUse::now().locked, locked + 16 * mib);
}

TEST_P(SpaprV2, MemoryInPagesSmallerThanTheWindowsIsExplained) {
  if (host_page() >= 64 * kib) GTEST_SKIP() << "this host's pages are as large as the window's";
  const auto window = windows().create({.size = gib, .page_size = 64 * kib});
  ASSERT_TRUE(window) << window.error().message();
  const Mmap memory = memory_of(256 * kib);
  auto* aligned =
      reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(memory.data()) + 64 * kib - 1) & ~(64 * kib - 1));
  EXPECT_THAT(refusal(container().map(window->range.first, {aligned, 64 * kib}), EINVAL),
              AllOf(HasSubstr("pages of 64 KiB"), HasSubstr("MAP_HUGETLB")));
  EXPECT_THAT(refusal(container().map(window->range.first, {aligned, 4 * kib}), EINVAL),
              AllOf(HasSubstr("pages of 64 KiB"), HasSubstr("align")));
  EXPECT_EQ(container().mapping_count(), 0U);
}

TEST_P(SpaprV2, HugePagesOfMemoryMakeHugePagesOfTheWindow) {
  if (on_powernv()) GTEST_SKIP() << "this kernel has no huge pages on powernv";
  void* address = ::mmap(nullptr, 4 * mib, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
  if (address == MAP_FAILED) GTEST_SKIP() << "no huge pages are reserved: boot with --hugepages 4";
  Mmap memory(test::kernel(), address, 4 * mib);
  std::memset(address, 0xa5, 4 * mib);
  ASSERT_EQ(backing_page_size(test::kernel(), address).value(), 2 * mib);
  const auto window = windows().make_room(4 * gib, 2 * mib);
  ASSERT_TRUE(window) << window.error().message();
  EXPECT_EQ(window->page_size, 2 * mib);
  ASSERT_TRUE(container().map(window->range.first, memory.bytes()));

  IovaAllocator iovas(std::vector{default_window().range}, 4 * kib);
  auto controller = nvme::Controller::open(*pci_, iovas);
  ASSERT_TRUE(controller) << controller.error().message();
  ASSERT_TRUE(controller->read(controller->namespaces().at(0), 0, 128, window->range.first + 2 * mib));
  EXPECT_TRUE(test::came_from_disk({memory.data() + 2 * mib, memory.data() + 2 * mib + 64 * kib}));
  ASSERT_TRUE(container().unmap_all());
}

TEST_P(SpaprV2, RegisteredMemoryIsCountedOnceHoweverOftenItIsMapped) {
  const Mmap memory = memory_of(8 * mib);
  ASSERT_TRUE(container().map({0x20000000}, memory.bytes().first(host_page())));  // creates the default window
  ASSERT_TRUE(container().unmap_all());
  const std::uint64_t locked = ResourceUse::now().locked;
  ASSERT_TRUE(registrations().add(memory.bytes()));
  EXPECT_EQ(ResourceUse::now().locked, locked + 8 * mib);
  for (std::uint64_t i = 0; i < 8; ++i) {
    ASSERT_TRUE(container().map({0x10000000 + i * 8 * mib}, memory.bytes()));
  }
  EXPECT_EQ(ResourceUse::now().locked, locked + 8 * mib);
  ASSERT_TRUE(container().unmap_all());
  EXPECT_EQ(ResourceUse::now().locked, locked + 8 * mib);
  ASSERT_TRUE(registrations().remove(memory.bytes()));
  EXPECT_EQ(ResourceUse::now().locked, locked);
}

TEST_P(SpaprV2, MappedMemoryIsRegisteredForAsLongAsAMappingUsesIt) {
  const Mmap memory = memory_of(4 * mib);
  ASSERT_TRUE(container().map({0x20000000}, memory.bytes().first(host_page())));
  ASSERT_TRUE(container().unmap_all());
  const std::uint64_t locked = ResourceUse::now().locked;
  const auto whole = memory.bytes();
  ASSERT_TRUE(container().map({0x10000000}, whole.subspan(mib, mib)));
  ASSERT_TRUE(container().map({0x11000000}, whole)) << "what overlaps what is registered";
  ASSERT_TRUE(container().map({0x12000000}, whole.subspan(mib, mib)));
  EXPECT_EQ(ResourceUse::now().locked, locked + 4 * mib) << "nothing is counted twice";
  ASSERT_TRUE(container().unmap({0x10000000}, mib));
  ASSERT_TRUE(container().unmap({0x11000000}, 4 * mib));
  EXPECT_EQ(ResourceUse::now().locked, locked + mib);
  ASSERT_TRUE(container().unmap({0x12000000}, mib));
  EXPECT_EQ(ResourceUse::now().locked, locked);
}

TEST_P(SpaprV2, RegisteredMemoryIsNotGivenBackWhileItIsMapped) {
  const Mmap memory = memory_of(mib);
  ASSERT_TRUE(registrations().add(memory.bytes()));
  ASSERT_TRUE(container().map({0x10000000}, memory.bytes().subspan(64 * kib, 64 * kib)));
  EXPECT_THAT(refusal(registrations().remove(memory.bytes()), EBUSY), HasSubstr("0x10000000-"));
  ASSERT_TRUE(container().unmap_all());
  ASSERT_TRUE(registrations().remove(memory.bytes()));
}

TEST_P(SpaprV2, RegisteringWhatCannotBeIsRefused) {
  Mmap memory = memory_of(mib);
  refusal(registrations().add({}), EINVAL);
  refusal(registrations().add(memory.bytes().subspan(16, host_page())), EINVAL);
  ASSERT_TRUE(registrations().add(memory.bytes()));
  refusal(registrations().add(memory.bytes()), EEXIST);
  refusal(registrations().add(memory.bytes().first(host_page())), EEXIST);
  refusal(registrations().remove(memory.bytes().first(host_page())), ENOENT);
  ASSERT_TRUE(registrations().remove(memory.bytes()));
  const std::span<std::byte> gone(memory.data(), mib);
  memory.reset();
  refusal(registrations().add(gone), EFAULT);
}

// The kernel returns the number of existing pages for such a call.
TEST_P(SpaprV2, MemoryThatEndsWithinWhatIsRegisteredIsRefused) {
  Mmap memory = memory_of(mib);
  ASSERT_EQ(::munmap(memory.data() + mib / 2, mib / 2), 0);
  refusal(registrations().add(memory.bytes()), EFAULT);
  ASSERT_TRUE(registrations().add(memory.bytes().first(mib / 2)));
  ASSERT_TRUE(registrations().remove(memory.bytes().first(mib / 2)));
}

TEST_P(SpaprV2, WindowsAndMemoryComeBackWithTheNextDevice) {
  const Mmap memory = memory_of(mib);
  const auto window = windows().create({.size = window_size, .page_size = 4 * kib}).value();
  ASSERT_TRUE(registrations().add(memory.bytes()));
  ASSERT_TRUE(container().map(window.range.first, memory.bytes()));
  const auto kept = pci_->device().container();
  ASSERT_TRUE(pci_->device().detach());
  pci_.reset();
  EXPECT_TRUE(ResourceUse::now().locked == before_.locked) << "without a device nothing is pinned";
  auto again = attach(test::kernel(), bound_.host(), {.container = kept});
  ASSERT_TRUE(again) << again.error().message();
  pci_.emplace(PciDevice::open(std::move(*again)).value());
  EXPECT_EQ(kept->mapping_count(), 1U);
  EXPECT_EQ(kept->get<DmaWindows>()->list().size(), 2U);
  IovaAllocator iovas(std::vector{default_window().range}, 4 * kib);
  std::memset(memory.data(), 0xa5, mib);
  auto controller = nvme::Controller::open(*pci_, iovas);
  ASSERT_TRUE(controller) << controller.error().message();
  ASSERT_TRUE(controller->read(controller->namespaces().at(0), 0, 128, window.range.first));
  EXPECT_TRUE(test::came_from_disk({memory.data(), memory.data() + 64 * kib}));
}

TEST_P(SpaprV2, ADeviceOfAGroupThatIsInUseIsRefused) {
  EXPECT_THAT(refusal(attach(test::kernel(), bound_.host(), {.backend = "spapr"}), EBUSY), HasSubstr("already open"));
}

std::string version_name(const ::testing::TestParamInfo<std::uint32_t>& test) {
  return "v" + std::to_string(test.param);
}
// The versions from `first` on that this host has.
std::vector<std::uint32_t> versions_from(std::uint32_t first) {
  std::vector<std::uint32_t> versions;
  for (const test::Interface& each : test::interfaces()) {
    if (each.backend == "spapr" && each.version >= first) versions.push_back(each.version);
  }
  return versions;
}
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Spapr);  // no POWER host
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SpaprV2);
INSTANTIATE_TEST_SUITE_P(Versions, Spapr, ::testing::ValuesIn(versions_from(1)), version_name);
INSTANTIATE_TEST_SUITE_P(Versions, SpaprV2, ::testing::ValuesIn(versions_from(2)), version_name);

}  // namespace spapr_test
}  // namespace postern
