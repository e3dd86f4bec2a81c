// SPDX-License-Identifier: Apache-2.0
// A kernel that returns nonsense: zero or huge counts, growing sizes, capability chains that loop or point nowhere,
// short reads, invalid ids and fds. The library returns a clear error or works without the answer; it does not crash,
// hang, use much memory, or leak.
#include <gmock/gmock.h>
#include <sys/resource.h>

#include <cstring>
#include <postern/dirty_tracker.hpp>
#include <postern/dma_buffer.hpp>
#include <postern/dma_windows.hpp>
#include <postern/eeh.hpp>
#include <postern/reset_set.hpp>

#include "support/host_devices.hpp"
#include "support/watched_kernel.hpp"

namespace postern {
namespace answer_test {

using test::Bound;
using test::ResourceUse;
using ::testing::HasSubstr;

constexpr std::uint32_t absurd = 0xffffffff;
constexpr std::uint64_t absurd_64 = ~std::uint64_t{0};

// The result depends on the previous contents of the buffer: any is accepted.
constexpr std::string_view anything = "*";

// A wrong answer of the kernel, and a part of the error message that it must cause; empty: no error.
struct Lie {
  std::string_view name;
  std::string_view call;  // as errors name it
  std::string_view told;
  int (*tell)(void* argument, int result);  // changes the answer, or the result
};

template <typename Argument>
Argument& as(void* argument) {
  return *static_cast<Argument*>(argument);
}

// The argsz that the library passed to an info ioctl: the size of its buffer.
std::uint32_t room_given = 0;

// Writes a capability at `offset`, if the buffer is large enough, and lets cap_offset point to it.
template <typename Info, typename Capability>
int put(void* argument, std::uint32_t offset, const Capability& capability) {
  auto& info = as<Info>(argument);
  const auto room = static_cast<std::uint32_t>(offset + sizeof capability);
  info.flags |= std::is_same_v<Info, vfio_region_info> ? VFIO_REGION_INFO_FLAG_CAPS : VFIO_IOMMU_INFO_CAPS;
  info.cap_offset = offset;
  if (room_given >= room) std::memcpy(static_cast<std::byte*>(argument) + offset, &capability, sizeof capability);
  info.argsz = std::max(info.argsz, room);
  return 0;
}

template <typename Info>
int loop(void* argument, int /*result*/) {
  return put<Info>(argument, sizeof(Info) + 8, vfio_info_cap_header{.id = 77, .version = 1, .next = sizeof(Info) + 8});
}
template <typename Info, std::uint32_t offset>
int point_to(void* argument, int /*result*/) {
  auto& info = as<Info>(argument);
  info.flags |= std::is_same_v<Info, vfio_region_info> ? VFIO_REGION_INFO_FLAG_CAPS : VFIO_IOMMU_INFO_CAPS;
  info.cap_offset = offset;
  return 0;
}
template <typename Info, std::uint32_t size>
int say_size(void* argument, int result) {
  as<Info>(argument).argsz = size;
  return result;
}
template <typename Info>
int grow(void* argument, int result) {
  as<Info>(argument).argsz += 64;
  return result;
}

using RegionInfo = vfio_region_info;
using Type1Info = vfio_iommu_type1_info;

constexpr std::string_view region = "VFIO_DEVICE_GET_REGION_INFO";
constexpr std::string_view type1 = "VFIO_IOMMU_GET_INFO";
constexpr std::string_view hot_reset = "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO";
constexpr std::string_view ranges = "IOMMU_IOAS_IOVA_RANGES";
constexpr std::string_view tce = "VFIO_IOMMU_SPAPR_TCE_GET_INFO";

const std::vector<Lie> lies = {
    {"no_regions", "VFIO_DEVICE_GET_INFO", "has no config space",
     [](void* a, int r) {
       as<vfio_device_info>(a).num_regions = 0;
       return r;
     }},
    {"no_interrupts", "VFIO_DEVICE_GET_INFO", "no such interrupt",
     [](void* a, int r) {
       as<vfio_device_info>(a).num_irqs = 0;
       return r;
     }},
    {"regions_and_interrupts_without_end", "VFIO_DEVICE_GET_INFO", "",
     [](void* a, int r) {
       as<vfio_device_info>(a).num_regions = as<vfio_device_info>(a).num_irqs = absurd;
       return r;
     }},
    {"no_pci", "VFIO_DEVICE_GET_INFO", "not a PCI device",
     [](void* a, int r) {
       as<vfio_device_info>(a).flags = 0;
       return r;
     }},
    {"a_device_of_every_bus", "VFIO_DEVICE_GET_INFO", "",
     [](void* a, int r) {
       as<vfio_device_info>(a).flags = absurd;
       as<vfio_device_info>(a).cap_offset = absurd;
       return r;
     }},
    {"large_device_info", "VFIO_DEVICE_GET_INFO", "", say_size<vfio_device_info, absurd>},

    {"regions_of_nothing", region, "has no config space",
     [](void* a, int r) {
       as<RegionInfo>(a).size = 0;
       return r;
     }},
    {"regions_without_end", region, "no process has that much",
     [](void* a, int r) {
       as<RegionInfo>(a).size = absurd_64;
       return r;
     }},
    {"regions_nowhere", region, "pread",
     [](void* a, int r) {
       as<RegionInfo>(a).offset = absurd_64 - 4095;
       return r;
     }},
    {"region_info_of_no_size", region, "", say_size<RegionInfo, 0>},
    {"region_info_beyond_measure", region, "VFIO_DEVICE_GET_REGION_INFO: E2BIG", say_size<RegionInfo, absurd>},
    {"region_info_that_grows", region, "VFIO_DEVICE_GET_REGION_INFO: E2BIG", grow<RegionInfo>},
    {"region_capabilities_that_loop", region, "", loop<RegionInfo>},
    {"region_capability_past_the_end", region, "", point_to<RegionInfo, 0xfffffff0>},
    {"region_capability_in_the_struct", region, "", point_to<RegionInfo, 4>},
    {"region_capability_unaligned", region, "", point_to<RegionInfo, sizeof(RegionInfo) + 1>},
    {"region_areas_without_end", region, "not within one mappable area",
     [](void* a, int) {
       return put<RegionInfo>(
           a, sizeof(RegionInfo),
           vfio_region_info_cap_sparse_mmap{.header = {.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP, .version = 1, .next = 0},
                                            .nr_areas = absurd});
     }},
    {"no_vectors", "VFIO_DEVICE_GET_IRQ_INFO", "no such interrupt",
     [](void* a, int r) {
       as<vfio_irq_info>(a).count = 0;
       return r;
     }},
    {"vectors_without_end", "VFIO_DEVICE_GET_IRQ_INFO", "",
     [](void* a, int r) {
       as<vfio_irq_info>(a).count = absurd;
       return r;
     }},
    {"fewer_vectors_than_asked_for", "VFIO_DEVICE_SET_IRQS", "only 7 vectors", [](void*, int) { return 7; }},

    {"a_hot_reset_of_nothing", hot_reset, "returned no device",
     [](void* a, int) {
       as<vfio_pci_hot_reset_info>(a).count = 0;
       return 0;
     }},
    {"a_hot_reset_of_everything", hot_reset, "EPROTO",
     [](void* a, int) {
       as<vfio_pci_hot_reset_info>(a).count = absurd;
       return 0;
     }},
    {"a_hot_reset_of_more_each_time", hot_reset, "ENOSPC",
     [](void* a, int) {
       auto& info = as<vfio_pci_hot_reset_info>(a);
       info.count = (info.argsz - 12) / 16 + 1;
       return -ENOSPC;
     }},

    {"another_api", "VFIO_GET_API_VERSION", "unsupported VFIO API version 77", [](void*, int) { return 77; }},
    {"no_extension", "VFIO_CHECK_EXTENSION", "does not have VFIO_", [](void*, int) { return 0; }},
    {"every_extension", "VFIO_CHECK_EXTENSION", "", [](void*, int r) { return r > 0 ? 77 : r; }},
    {"a_group_that_is_not_viable", "VFIO_GROUP_GET_STATUS", "not viable",
     [](void* a, int r) {
       as<vfio_group_status>(a).flags = 0;
       return r;
     }},
    {"a_group_with_every_flag", "VFIO_GROUP_GET_STATUS", "",
     [](void* a, int r) {
       as<vfio_group_status>(a).flags = absurd;
       return r;
     }},
    {"an_fd_that_is_none", "VFIO_GROUP_GET_DEVICE_FD", "VFIO_DEVICE_GET_INFO: EBADF",
     [](void*, int r) {
       test::kernel().close(r);
       return 0x1fffffff;
     }},

    {"iommu_info_of_no_size", type1, "", say_size<Type1Info, 0>},
    {"iommu_info_beyond_measure", type1, "VFIO_IOMMU_GET_INFO: E2BIG", say_size<Type1Info, absurd>},
    {"iommu_info_that_grows", type1, "VFIO_IOMMU_GET_INFO: E2BIG", grow<Type1Info>},
    {"iommu_capabilities_that_loop", type1, "", loop<Type1Info>},
    {"iommu_capability_past_the_end", type1, "", point_to<Type1Info, 0xfffffff0>},
    {"iommu_capability_in_the_struct", type1, "", point_to<Type1Info, 4>},
    {"iommu_capability_unaligned", type1, "", point_to<Type1Info, sizeof(Type1Info) + 1>},
    {"no_page_sizes", type1, "",
     [](void* a, int r) {
       as<Type1Info>(a).iova_pgsizes = 0;
       return r;
     }},
    {"every_page_size", type1, "",
     [](void* a, int r) {
       as<Type1Info>(a).iova_pgsizes = absurd_64;
       return r;
     }},
    {"iommu_ranges_without_end", type1, anything,
     [](void* a, int) {
       return put<Type1Info>(a, sizeof(Type1Info),
                             vfio_iommu_type1_info_cap_iova_range{
                                 .header = {.id = VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, .version = 1, .next = 0},
                                 .nr_iovas = absurd,
                                 .reserved = 0});
     }},
    {"no_mappings_left", type1, "all 0 mappings",
     [](void* a, int) {
       return put<Type1Info>(
           a, sizeof(Type1Info),
           vfio_iommu_type1_info_dma_avail{.header = {.id = VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, .version = 1, .next = 0},
                                           .avail = 0});
     }},
    {"nothing_was_unmapped", "VFIO_IOMMU_UNMAP_DMA", "",
     [](void* a, int r) {
       as<vfio_iommu_type1_dma_unmap>(a).size = 0;
       return r;
     }},
    {"more_was_unmapped_than_there_is", "VFIO_IOMMU_UNMAP_DMA", "",
     [](void* a, int r) {
       as<vfio_iommu_type1_dma_unmap>(a).size = absurd_64;
       return r;
     }},

    {"no_ranges", ranges, "and 0 bytes are free",
     [](void* a, int r) {
       as<iommu_ioas_iova_ranges>(a).num_iovas = 0;
       return r;
     }},
    {"ranges_without_end", ranges, "",
     [](void* a, int r) {
       as<iommu_ioas_iova_ranges>(a).num_iovas = absurd;
       return r;
     }},
    {"more_ranges_each_time", ranges, "IOMMU_IOAS_IOVA_RANGES: EMSGSIZE",
     [](void* a, int) {
       ++as<iommu_ioas_iova_ranges>(a).num_iovas;
       return -EMSGSIZE;
     }},
    {"fewer_ranges_each_time", ranges, "IOMMU_IOAS_IOVA_RANGES: EMSGSIZE",
     [](void* a, int) {
       as<iommu_ioas_iova_ranges>(a).num_iovas = 0;
       return -EMSGSIZE;
     }},
    {"no_alignment", ranges, "",
     [](void* a, int r) {
       as<iommu_ioas_iova_ranges>(a).out_iova_alignment = 0;
       return r;
     }},
    {"an_alignment_that_is_no_power_of_two", ranges, "",
     [](void* a, int r) {
       as<iommu_ioas_iova_ranges>(a).out_iova_alignment = 3;
       return r;
     }},
    {"hardware_of_no_kind", "IOMMU_GET_HW_INFO", "",
     [](void* a, int r) {
       auto& info = as<iommu_hw_info>(a);
       info.out_data_type = info.data_len = absurd;
       return r;
     }},
    {"a_device_without_id", "VFIO_DEVICE_BIND_IOMMUFD", "",
     [](void* a, int r) {
       as<vfio_device_bind_iommufd>(a).out_devid = absurd - 1;
       return r;
     }},

    {"no_default_window", tce, "and 0 bytes are free",
     [](void* a, int r) {
       as<vfio_iommu_spapr_tce_info>(a).dma32_window_size = 0;
       return r;
     }},
    {"a_window_elsewhere", tce, "VFIO_IOMMU_MAP_DMA",
     [](void* a, int r) {
       as<vfio_iommu_spapr_tce_info>(a).dma32_window_start = 0xfffff000;
       as<vfio_iommu_spapr_tce_info>(a).dma32_window_size = absurd;
       return r;
     }},
    {"eeh_in_no_state", "VFIO_EEH_PE_OP", "unknown state 77", [](void*, int) { return 77; }},
    {"a_created_window_past_the_last_address", "VFIO_IOMMU_SPAPR_TCE_CREATE", "where it cannot be",
     [](void* a, int r) {
       as<vfio_iommu_spapr_tce_create>(a).start_addr = absurd_64 - 4095;
       return r;
     }},
    {"a_created_window_over_another", "VFIO_IOMMU_SPAPR_TCE_CREATE", "where it cannot be",
     [](void* a, int r) {
       as<vfio_iommu_spapr_tce_create>(a).start_addr = 0;
       as<vfio_iommu_spapr_tce_create>(a).page_shift = 200;
       return r;
     }},
};

// Makes every call of a device and its container.
Result<void> use_all(Kernel& kernel, const HostDevice& host, test::Interface interface) {
  auto device = POSTERN_TRY(attach(kernel, host, test::options_for(interface)));
  auto pci = POSTERN_TRY(PciDevice::open(std::move(device)));
  const auto container = pci.device().container();
  (void)container->properties();
  (void)pci.device().features();
  IovaAllocator iovas(container->usable_ranges(), container->page_sizes());
  {
    auto buffer = POSTERN_TRY(DmaBuffer::allocate(container, iovas, 65536));
    if (DirtyTracker* tracker = container->get<DirtyTracker>()) {
      POSTERN_TRY(tracker->start());
      std::vector<std::uint64_t> words(1);
      POSTERN_TRY(tracker->query({buffer.iova(), buffer.iova() + 65535}, {4096, words}));
      POSTERN_TRY(tracker->stop());
    }
  }
  if (DmaWindows* windows = container->get<DmaWindows>()) {
    POSTERN_TRY(windows->create({.size = std::uint64_t{1} << 28, .page_size = 4096}));
  }
  if (Eeh* eeh = container->get<Eeh>()) {
    POSTERN_TRY(eeh->state());
  }
  auto bar = POSTERN_TRY(pci.map_bar(0));
  auto event = POSTERN_TRY(Event::create(kernel));
  POSTERN_TRY(pci.enable(PciInterrupt::msix, std::span(&event, 1)));
  POSTERN_TRY(pci.disable(PciInterrupt::msix));
  auto set = ResetSet::of(pci.device());
  if (!set && set.error().code() != ENODEV) return failure_of(set);  // ENODEV: on a root bus
  bar.reset();                                                       // the mapping keeps the device open
  POSTERN_TRY(container->unmap_all());
  POSTERN_TRY(pci.device().detach());
  return container->close();
}

class Answer : public ::testing::TestWithParam<test::Interface> {
 protected:
  void SetUp() override {
    // Opening a device once per answer takes many minutes on an emulated machine.
    if (test::is_real(test::kernel()))
      GTEST_SKIP() << "what the library makes of an answer does not depend on whose it was";
  }
  Answer() : bound_(test::first_nvme()), host_(bound_.host()), before_(ResourceUse::now()) {}
  ~Answer() override {
    kernel_.refuse = nullptr;
    kernel_.answer = nullptr;
    kernel_.answer_read = nullptr;
    kernel_.answer_file = nullptr;
    EXPECT_EQ(kernel_.mapped(), 0);
    EXPECT_TRUE(before_ == ResourceUse::now()) << "something was left behind";
  }

  static long memory_used() {  // peak, in KiB
    rusage usage{};
    (void)::getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
  }
  // Makes all calls, and checks that they use little memory. Returns the error's message; empty: no error.
  std::string use() {
    const long memory = memory_used();
    const auto used = use_all(kernel_, host_, GetParam());
    EXPECT_LT(memory_used() - memory, 64 * 1024);
    return used ? "" : used.error().message();
  }
  void expect(const std::string& message, std::string_view told) {
    if (told.empty()) {
      EXPECT_EQ(message, "");
    } else {
      EXPECT_THAT(message, HasSubstr(std::string(told)));
    }
  }

  Bound bound_;
  HostDevice host_;
  test::WatchedKernel kernel_{test::kernel()};
  ResourceUse before_;
};

TEST_P(Answer, ThatIsNonsenseIsAnErrorOrIgnored) {
  ASSERT_EQ(use(), "") << "without a lie";
  for (const Lie& lie : lies) {
    SCOPED_TRACE(lie.name);
    bool told = false;
    kernel_.begin(-1, 0);
    kernel_.refuse = [&](unsigned long, void* argument) {
      const std::string_view call = kernel_.last_call();
      if (call == region || call == type1) room_given = *static_cast<const std::uint32_t*>(argument);
      return 0;
    };
    kernel_.answer = [&](unsigned long, void* argument, int result) {
      if (kernel_.last_call() != lie.call) return result;
      told = true;
      return lie.tell(argument, result);
    };
    const std::string message = use();
    kernel_.answer = nullptr;
    if (told && lie.told != anything) expect(message, lie.told);
    EXPECT_EQ(use(), "") << "afterwards";
  }
}

TEST_P(Answer, ToAReadThatIsShortOrTooLongIsAnErrorWithTheNumberOfBytes) {
  for (const ssize_t bytes : {0, 1, 4096}) {
    kernel_.answer_read = [&](void*, std::size_t, std::uint64_t, ssize_t) { return bytes; };
    expect(use(), "only " + std::to_string(bytes) + " bytes");
  }
}

TEST_P(Answer, OfConfigSpaceWithoutValidCapabilitiesIsHandled) {
  // Every byte read has this value: no capabilities; a capability that points to itself; a device that is gone.
  for (const int value : {0x00, 0x40, 0x10, 0x01, 0xfc, 0xff}) {
    kernel_.answer_read = [&](void* buffer, std::size_t length, std::uint64_t, ssize_t) {
      std::memset(buffer, value, length);
      return static_cast<ssize_t>(length);
    };
    expect(use(), "");
  }
}

TEST_P(Answer, OfSysfsThatIsEmptyOrInvalidIsHandled) {
  const std::string garbage("\xff\0:7\n-1 0x", 10);
  for (const std::string& contents : {std::string(), std::string(1 << 16, '9'), garbage}) {
    kernel_.answer_file = [&](const std::string& path, std::string& text, int result) {
      if (path.rfind("/proc/self/", 0) != 0) text = contents;
      return result;
    };
    expect(use(), "");
    const auto functions = list_pci_functions(kernel_);
    EXPECT_TRUE(functions.has_value() || !functions.error().message().empty());
    EXPECT_TRUE(find_iommu_group(kernel_, *host_.iommu_group));
    EXPECT_TRUE(LockedMemory::read(kernel_));
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, Answer, ::testing::ValuesIn(test::interfaces()), test::interface_name);

}  // namespace answer_test
}  // namespace postern
