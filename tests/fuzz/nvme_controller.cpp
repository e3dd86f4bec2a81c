// SPDX-License-Identifier: Apache-2.0
// Fuzzes the NVMe driver with a controller whose registers, Identify data and completions are wrong or arrive at any
// time. It runs in its own thread, as a device does, and can access only memory that is mapped at that time.
#include <linux/vfio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <postern-nvme/controller.hpp>
#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/forwarding_kernel.hpp>
#include <postern/pci_function.hpp>
#include <span>
#include <string>
#include <thread>

#include <linux/iommufd.h>

#include "device/device_io.hpp"
#include "fuzz/bytes.hpp"

namespace postern::fuzz {
namespace {

constexpr std::uint64_t page = 4096;
constexpr std::size_t bar_size = 0x4000;

// Records what the IOMMU maps: writes of the controller to other addresses are dropped. An unmap waits for a write in
// progress.
class WatchedIommu final : public ForwardingKernel {
 public:
  using ForwardingKernel::ForwardingKernel;
  int ioctl(int fd, unsigned long request, void* argument) override {
    const std::lock_guard lock(mutex_);
    const int result = ForwardingKernel::ioctl(fd, request, argument);
    if (result < 0) return result;
    if (request == IOMMU_IOAS_MAP) {
      const auto& map = *static_cast<const iommu_ioas_map*>(argument);
      mapped_[map.iova] = {map.user_va, map.length};
    } else if (request == IOMMU_IOAS_UNMAP) {
      const auto& unmap = *static_cast<const iommu_ioas_unmap*>(argument);
      std::erase_if(mapped_, [&](const auto& each) {
        return each.first >= unmap.iova && each.first - unmap.iova < unmap.length;
      });
    }
    return result;
  }
  void dma(std::uint64_t iova, void* bytes, std::size_t length, bool to_memory) {
    const std::lock_guard lock(mutex_);
    auto after = mapped_.upper_bound(iova);
    if (after == mapped_.begin()) return;
    const auto& [first, memory] = *std::prev(after);
    const auto& [address, size] = memory;
    if (iova - first >= size || length > size - (iova - first)) return;
    auto* const at = reinterpret_cast<std::byte*>(address + (iova - first));
    if (to_memory) {
      std::memcpy(at, bytes, length);
    } else {
      std::memcpy(bytes, at, length);
    }
  }
  [[nodiscard]] bool maps_nothing() {
    const std::lock_guard lock(mutex_);
    return mapped_.empty();
  }

 private:
  std::mutex mutex_;
  std::map<std::uint64_t, std::pair<std::uint64_t, std::uint64_t>> mapped_;
};

// The controller. Behaves correctly unless a byte of the input says otherwise, and after the end of the input.
class Liar {
 public:
  Liar(Bytes bytes, WatchedIommu& iommu) : bytes_(bytes), iommu_(iommu), fd_(::memfd_create("lying BAR", MFD_CLOEXEC)) {
    if (fd_ < 0 || ::ftruncate(fd_, bar_size) != 0) std::abort();
    void* const memory = ::mmap(nullptr, bar_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
    if (memory == MAP_FAILED) std::abort();
    bar_ = static_cast<std::byte*>(memory);
    // 256 entries, the NVM command set, pages of 4 KiB; half a second to become ready.
    set<std::uint64_t>(0x00, lies() ? bytes_.take<std::uint64_t>() & ~std::uint64_t{0xff000000}
                                    : std::uint64_t{0xff} | std::uint64_t{1} << 37);
    set<std::uint32_t>(0x08, 0x00010400);
    if (lies()) set<std::uint32_t>(0x1c, bytes_.take<std::uint32_t>());
    thread_ = std::thread([this] { run(); });
  }
  ~Liar() {
    ends_ = true;
    thread_.join();
    ::munmap(bar_, bar_size);
    ::close(fd_);
  }
  Liar(const Liar&) = delete;
  Liar& operator=(const Liar&) = delete;
  [[nodiscard]] int fd() const { return fd_; }

 private:
  struct Queue {
    std::uint64_t submissions = 0;
    std::uint64_t completions = 0;
    std::uint32_t entries = 0;
    std::uint32_t head = 0;
    std::uint32_t tail = 0;
    std::uint16_t phase = 1;
  };
  struct Command {
    std::uint8_t opcode;
    std::uint8_t flags;
    std::uint16_t id;
    std::uint32_t ns;
    std::uint64_t reserved[2];
    std::uint64_t prp1;
    std::uint64_t prp2;
    std::uint32_t dwords[6];
  };
  static_assert(sizeof(Command) == 64);

  [[nodiscard]] bool lies() { return bytes_.take<std::uint8_t>() % 8 == 1; }
  template <typename T>
  [[nodiscard]] T get(std::size_t offset) const {
    return __atomic_load_n(reinterpret_cast<const T*>(bar_ + offset), __ATOMIC_ACQUIRE);
  }
  template <typename T>
  void set(std::size_t offset, T value) {
    __atomic_store_n(reinterpret_cast<T*>(bar_ + offset), value, __ATOMIC_RELEASE);
  }

  void run() {
    std::uint32_t seen = 0;
    while (!ends_) {
      const auto configuration = get<std::uint32_t>(0x14);
      if (configuration != seen) configure(configuration, seen);
      seen = configuration;
      bool worked = false;
      if ((configuration & 1) != 0) {
        worked = serve(0, queues_[0]);
        if (queues_[1].entries != 0) worked = serve(1, queues_[1]) || worked;
      }
      if (!worked) std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
  }

  void configure(std::uint32_t configuration, std::uint32_t before) {
    std::uint32_t status = configuration & 1;
    if ((configuration & 0xc000) != 0) status |= 2U << 2;  // the shutdown is done
    if (((configuration ^ before) & 1) != 0) {
      for (std::size_t doorbell = 0x1000; doorbell < 0x1010; doorbell += 4) set<std::uint32_t>(doorbell, 0);
      queues_[1] = {};
      queues_[0] = {.submissions = get<std::uint64_t>(0x28),
                    .completions = get<std::uint64_t>(0x30),
                    .entries = (get<std::uint32_t>(0x24) & 0xfff) + 1};
    }
    if (lies()) status = bytes_.take<std::uint8_t>();
    set<std::uint32_t>(0x1c, status);
  }

  bool serve(std::size_t number, Queue& queue) {
    const auto tail = get<std::uint32_t>(0x1000 + 8 * number);
    if (tail == queue.head || tail >= queue.entries) return false;
    Command command{};
    iommu_.dma(queue.submissions + std::uint64_t{queue.head} * sizeof command, &command, sizeof command, false);
    queue.head = (queue.head + 1) % queue.entries;
    execute(number, command);
    if (lies() && bytes_.take<std::uint8_t>() % 2 == 0) return true;  // never answered
    complete(queue, number, command);
    while (lies()) complete(queue, number, command);  // answered twice
    return true;
  }

  void execute(std::size_t number, const Command& command) {
    std::array<std::byte, page> data{};
    if (number == 1) {
      if (lies()) bytes_.fill(data.data(), 512);
      if (command.opcode == 2) iommu_.dma(command.prp1, data.data(), 512, true);
      return;
    }
    switch (command.opcode) {
      case 0x05:
        queues_[1].completions = command.prp1;
        break;
      case 0x01:
        queues_[1].submissions = command.prp1;
        queues_[1].entries = (command.dwords[0] >> 16) + 1;
        break;
      case 0x06:
        identify(command.dwords[0] & 0xff, data);
        iommu_.dma(command.prp1, data.data(), data.size(), true);
        break;
      default:
        break;
    }
  }

  void identify(std::uint32_t what, std::array<std::byte, page>& data) {
    const auto put = [&](std::size_t offset, auto value) { std::memcpy(data.data() + offset, &value, sizeof value); };
    if (what == 1) {
      put(512, std::uint8_t{0x66});
      put(513, std::uint8_t{0x44});
      put(516, std::uint32_t{1});
    } else if (what == 2) {
      put(0, std::uint32_t{1});
    } else {
      put(0, std::uint64_t{1024});
      put(128, std::uint32_t{9 << 16});
    }
    if (!lies()) return;
    for (int changes = bytes_.take<std::uint8_t>() % 8; changes >= 0; --changes) {
      const std::size_t offset = bytes_.take<std::uint16_t>() % (page - 8);
      bytes_.fill(data.data() + offset, 8);
    }
  }

  void complete(Queue& queue, std::size_t number, const Command& command) {
    struct {
      std::uint32_t result;
      std::uint32_t reserved;
      std::uint16_t head;
      std::uint16_t queue;
      std::uint16_t id;
      std::uint16_t status;
    } entry{.result = 0,
            .reserved = 0,
            .head = static_cast<std::uint16_t>(queue.head),
            .queue = static_cast<std::uint16_t>(number),
            .id = command.id,
            .status = queue.phase};
    if (lies()) {
      switch (bytes_.take<std::uint8_t>() % 4) {
        case 0:
          entry.id = bytes_.take<std::uint16_t>();
          break;
        case 1:
          entry.head = bytes_.take<std::uint16_t>();
          break;
        case 2:
          entry.status = static_cast<std::uint16_t>(bytes_.take<std::uint16_t>() << 1 | queue.phase);
          break;
        default:
          bytes_.fill(&entry, sizeof entry);
      }
    }
    if (queue.entries == 0) return;
    iommu_.dma(queue.completions + std::uint64_t{queue.tail} * sizeof entry, &entry, sizeof entry, true);
    queue.tail = (queue.tail + 1) % queue.entries;
    if (queue.tail == 0) queue.phase ^= 1;
  }

  Bytes bytes_;
  WatchedIommu& iommu_;
  int fd_;
  std::byte* bar_ = nullptr;
  std::array<Queue, 2> queues_{};
  std::atomic<bool> ends_ = false;
  std::thread thread_;
};

// The controller's VFIO device, which behaves correctly.
class LyingDevice final : public DeviceIo {
 public:
  LyingDevice(Liar& liar, Kernel& kernel) : liar_(liar), kernel_(kernel) {
    config_[0x08 + 1] = 0x02;  // the class of an NVMe controller
    config_[0x08 + 2] = 0x08;
    config_[0x08 + 3] = 0x01;
  }
  const std::string& name() const override { return name_; }
  int get_info(vfio_device_info& info) override {
    info.flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
    info.num_regions = VFIO_PCI_NUM_REGIONS;
    info.num_irqs = VFIO_PCI_NUM_IRQS;
    return 0;
  }
  int get_region_info(vfio_region_info& info) override {
    info.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
    info.offset = std::uint64_t{info.index} << 40;
    info.size = info.index == VFIO_PCI_BAR0_REGION_INDEX     ? bar_size
                : info.index == VFIO_PCI_CONFIG_REGION_INDEX ? sizeof config_
                                                             : 0;
    if (info.index == VFIO_PCI_BAR0_REGION_INDEX) info.flags |= VFIO_REGION_INFO_FLAG_MMAP;
    return 0;
  }
  int get_irq_info(vfio_irq_info& info) override {
    info.flags = VFIO_IRQ_INFO_EVENTFD;
    info.count = info.index == VFIO_PCI_MSIX_IRQ_INDEX ? 2 : 0;
    return 0;
  }
  int set_irqs(vfio_irq_set& /*irqs*/) override { return 0; }  // but none is ever signalled
  int feature(vfio_device_feature& /*feature*/) override { return -ENOTTY; }
  int reset() override { return 0; }
  int get_pci_hot_reset_info(vfio_pci_hot_reset_info& /*info*/) override { return -ENODEV; }
  int pci_hot_reset(vfio_pci_hot_reset& /*request*/) override { return -ENODEV; }
  const Group* group() const override { return nullptr; }
  ssize_t read(void* buffer, std::size_t length, std::uint64_t offset) override {
    return copy(offset, length, [&](std::byte* at) { std::memcpy(buffer, at, length); });
  }
  ssize_t write(const void* buffer, std::size_t length, std::uint64_t offset) override {
    return copy(offset, length, [&](std::byte* at) { std::memcpy(at, buffer, length); });
  }
  std::intptr_t mmap(void* address, std::size_t length, int protection, int flags, std::uint64_t offset) override {
    void* const mapped = ::mmap(address, length, protection, flags, liar_.fd(), static_cast<off_t>(offset));
    return mapped == MAP_FAILED ? -errno : reinterpret_cast<std::intptr_t>(mapped);
  }
  Kernel& kernel() override { return kernel_; }
  Result<void> close() override { return {}; }

 private:
  template <typename Copy>
  ssize_t copy(std::uint64_t offset, std::size_t length, Copy copy) {
    const std::uint64_t at = offset & ((std::uint64_t{1} << 40) - 1);
    if (offset >> 40 != VFIO_PCI_CONFIG_REGION_INDEX || length > sizeof config_ || at > sizeof config_ - length)
      return -EINVAL;
    copy(reinterpret_cast<std::byte*>(config_) + at);
    return static_cast<ssize_t>(length);
  }

  Liar& liar_;
  Kernel& kernel_;
  std::string name_ = "0000:00:01.0";
  std::uint8_t config_[256] = {};
};

void drive(PciDevice& device, IovaAllocator& iovas, bool by_interrupts) {
  const auto completion = by_interrupts ? nvme::Completion::msix : nvme::Completion::polling;
  auto disk = nvme::Controller::open(
      device, iovas, {.queue_depth = 4, .completion = completion, .timeout = std::chrono::milliseconds(20)});
  auto buffer = DmaBuffer::allocate(device.device().container(), iovas, page);
  if (!disk || !buffer || disk->namespaces().empty()) return;
  const nvme::Namespace ns = disk->namespaces().front();
  if (ns.block_size > page) return;
  (void)disk->read(ns, 0, 1, buffer->iova());
  (void)disk->write(ns, 1, 1, buffer->iova());
  (void)disk->submit_read(ns, 0, 1, buffer->iova());
  nvme::Command commands[2]{{.count = 1, .block = 1, .data = buffer->iova()},
                            {.opcode = nvme::Opcode::write, .count = 1, .block = 2, .data = buffer->iova()}};
  (void)disk->submit(ns, commands);
  nvme::Completed space[2];
  for (int i = 0; i < 4; ++i) {
    (void)disk->reap(space);
    (void)disk->wait();
    (void)disk->poll();
  }
  (void)disk->flush(ns);
}

}  // namespace
}  // namespace postern::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace postern;
  // The container of an idle simulated device: the fuzzed controller uses the mappings made in it.
  static sim::Kernel simulated;
  static fuzz::WatchedIommu kernel(simulated);
  static const auto edu = find_pci_function(kernel, {.device = 4}).value();
  {
    const auto holder = attach(kernel, edu.host, {.backend = "iommufd"}).value();
    fuzz::Bytes bytes(data, size);
    const bool by_interrupts = bytes.take<std::uint8_t>() % 4 == 1;
    fuzz::Liar liar(bytes, kernel);
    auto device = Device::open(std::make_unique<fuzz::LyingDevice>(liar, kernel), holder.container()).value();
    auto pci = PciDevice::open(std::move(device)).value();
    IovaAllocator iovas(holder.container()->usable_ranges(), holder.container()->page_sizes());
    // Twice, to open a controller again after the driver has given it up.
    for (int times = 0; times < 2; ++times) fuzz::drive(pci, iovas, by_interrupts);
    if (holder.container()->mapping_count() != 0) std::abort();
  }
  if (!kernel.maps_nothing()) std::abort();
  return 0;
}
