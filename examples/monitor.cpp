// SPDX-License-Identifier: Apache-2.0
// A virtual machine monitor without a processor, on a simulated host: a guest's memory, and the config space, registers
// and interrupts that it sees of two devices. run_guest() acts as the guest's drivers; whatever it does to a device
// traps into the monitor, Passthrough.
#include <linux/pci_regs.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <postern-sim/kernel.hpp>
#include <postern/guest_config.hpp>
#include <postern/guest_memory.hpp>
#include <postern/msix_table.hpp>
#include <postern/pci_function.hpp>

using namespace postern;

constexpr std::uint64_t mib = std::uint64_t{1} << 20;
constexpr Iova dimm{16 * mib};  // where the guest's second piece of memory is

struct Passthrough {
  PciDevice device;
  GuestConfig config;
  MsixTable table;            // of the guest
  std::vector<Event> events;  // one for each vector; with KVM, the eventfds of KVM_IRQFD
  std::optional<InterruptSet> vectors = {};

  static Result<Passthrough> attach(GuestMemory& memory, const HostDevice& host) {
    auto attached = POSTERN_TRY(memory.attach(host));
    auto device = POSTERN_TRY(PciDevice::open(std::move(attached.device)));
    auto config = POSTERN_TRY(GuestConfig::of(device));
    const std::uint32_t msix = device.interrupt(PciInterrupt::msix).count;
    const std::uint32_t count = std::max(msix, device.interrupt(PciInterrupt::msi).count);
    std::vector<Event> events;
    while (events.size() < count) events.push_back(POSTERN_TRY(Event::create(device.container()->kernel())));
    return Passthrough{std::move(device), std::move(config), MsixTable(msix), std::move(events)};
  }

  // Config space. The guest may have turned MSI or MSI-X on or off.
  Result<void> write_config(std::uint16_t offset, unsigned width, std::uint32_t value) {
    POSTERN_TRY(config.write(device, offset, width, value));
    const GuestMsi msi = config.msi();
    if (!msi.is_on && !config.msix_is_on()) vectors.reset();
    if (vectors || (!msi.is_on && !config.msix_is_on())) return {};
    const std::uint32_t count = msi.is_on ? msi.count : table.count();
    const std::vector<EventRef> all(events.begin(), events.begin() + std::min<std::size_t>(count, events.size()));
    vectors = POSTERN_TRY(device.enable_set(msi.is_on ? PciInterrupt::msi : PciInterrupt::msix, all));
    return {};
  }

  // Whether the guest gets this interrupt now. One of MSI-X that is masked stays pending until it is unmasked.
  Result<bool> deliver(std::uint32_t vector) {
    const bool fired = table.is_pending(vector) || POSTERN_TRY(events.at(vector).wait(std::chrono::seconds(9))) != 0;
    const bool is_masked = config.msix_is_on() && (config.msix_is_masked() || table.vector(vector).masked);
    table.set_pending(vector, fired && is_masked);
    return fired && !is_masked;
  }

  // Registers of BAR 0, by the guest's address. A VMM maps mappable_for_guest() into the guest, and traps the rest.
  Result<void> write_register(std::uint64_t address, std::uint32_t value) {
    if (!is_in_bar(address)) return {};
    return device.device().write(0, address - config.bar(0).address, std::as_bytes(std::span(&value, 1)));
  }
  Result<std::uint32_t> read_register(std::uint64_t address) {
    std::uint32_t value = ~std::uint32_t{0};
    if (!is_in_bar(address)) return value;
    POSTERN_TRY(device.device().read(0, address - config.bar(0).address, std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }
  bool is_in_bar(std::uint64_t address) const {
    const GuestBar bar = config.bar(0);
    return bar.is_on && address >= bar.address && address - bar.address < bar.size;
  }
};

Result<void> run_guest(Passthrough& edu, Passthrough& disk, std::byte* ram) {
  // The firmware gives BAR 0 an address.
  POSTERN_TRY(edu.write_config(PCI_BASE_ADDRESS_0, 4, ~std::uint32_t{0}));
  const auto size = ~POSTERN_TRY(edu.config.read(edu.device, PCI_BASE_ADDRESS_0, 4)) + 1;
  const std::uint64_t registers = 0xfe000000;
  std::printf("guest: BAR 0 of edu has %u KiB\n", size / 1024);
  POSTERN_TRY(edu.write_config(PCI_BASE_ADDRESS_0, 4, registers));
  POSTERN_TRY(edu.write_config(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER));

  // edu's driver: copies memory into the device's buffer, and from there to the other piece of memory.
  std::strcpy(reinterpret_cast<char*>(ram), "seen by the guest and its device alike");
  for (const auto& [from, to, command] :
       {std::tuple{0U, 0x40000U, 1U}, std::tuple{0x40000U, std::uint32_t{dimm.value}, 3U}}) {
    POSTERN_TRY(edu.write_register(registers + 0x80, from));
    POSTERN_TRY(edu.write_register(registers + 0x88, to));
    POSTERN_TRY(edu.write_register(registers + 0x90, 64));
    POSTERN_TRY(edu.write_register(registers + 0x98, command));
    while ((POSTERN_TRY(edu.read_register(registers + 0x98)) & 1) != 0) usleep(100);
  }
  // It is told by an interrupt.
  const std::uint16_t msi = edu.device.find_capability(PCI_CAP_ID_MSI)->offset;
  POSTERN_TRY(edu.write_config(msi + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE));
  POSTERN_TRY(edu.write_register(registers + 0x60, 1));
  std::printf("guest: interrupt: %d, \"%s\"\n", POSTERN_TRY(edu.deliver(0)), reinterpret_cast<char*>(ram + mib));

  // The disk's driver turns MSI-X on, and unmasks vector 1 after it has fired.
  const std::uint16_t msix = disk.device.find_capability(PCI_CAP_ID_MSIX)->offset;
  POSTERN_TRY(disk.write_config(msix + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE));
  POSTERN_TRY(disk.vectors->trigger(1));
  std::printf("guest: masked interrupt of the disk: %d\n", POSTERN_TRY(disk.deliver(1)));
  POSTERN_TRY(disk.table.write(PCI_MSIX_ENTRY_SIZE + PCI_MSIX_ENTRY_LOWER_ADDR, 4, 0xfee00000));
  POSTERN_TRY(disk.table.write(PCI_MSIX_ENTRY_SIZE + PCI_MSIX_ENTRY_VECTOR_CTRL, 4, 0));
  std::printf("guest: unmasked interrupt of the disk: %d\n", POSTERN_TRY(disk.deliver(1)));
  return {};
}

Result<void> run() {
  sim::Kernel kernel;  // of real devices: postern::system_kernel()
  auto file = std::make_shared<const Fd>(kernel, kernel.memfd_create("guest", 0));
  if (kernel.ftruncate(file->get(), 4 * mib) != 0) std::perror("memfd");
  const Mmap ram(kernel, ::mmap(nullptr, 4 * mib, PROT_READ | PROT_WRITE, MAP_SHARED, file->get(), 0), 4 * mib);

  GuestMemory memory(kernel);
  auto change = POSTERN_TRY(memory.begin());
  POSTERN_TRY(change.add(Iova{0}, Memory::of_file(file, 0, mib)));
  POSTERN_TRY(change.add(dimm, Memory::of_file(file, mib, 3 * mib)));
  POSTERN_TRY(change.commit());

  auto edu = POSTERN_TRY(Passthrough::attach(memory, POSTERN_TRY(find_pci_function(kernel, {.device = 4})).host));
  auto disk = POSTERN_TRY(Passthrough::attach(memory, POSTERN_TRY(find_pci_function(kernel, {.device = 1})).host));
  std::printf("monitor: 2 devices, %zu container\n", memory.containers().size());
  POSTERN_TRY(disk.config.hide(disk.device.find_capability(PCI_CAP_ID_EXP)->offset, 60));
  const MsixLocation msix = POSTERN_TRY(find_msix(disk.device));
  const Region& bar = disk.device.device().regions()[msix.table_bar];
  const auto areas = mappable_for_guest(bar, disk.config.bar(bar.index).size, msix, 4096);
  std::printf("monitor: %zu part of the disk's BAR 0 can be mapped into the guest\n", areas.size());

  POSTERN_TRY(memory.start_tracking());
  POSTERN_TRY(run_guest(edu, disk, ram.data()));
  std::vector<std::uint64_t> bits(3 * mib / 4096 / 64);
  POSTERN_TRY(memory.query_dirty({dimm, dimm + (3 * mib - 1)}, {4096, bits}));
  std::printf("monitor: the guest's page at 16 MiB is %s\n", (bits[0] & 1) != 0 ? "dirty" : "clean");

  // The guest gives its second piece of memory back.
  POSTERN_TRY(memory.remove({dimm, dimm + (3 * mib - 1)}));
  std::printf("monitor: %zu MiB stay mapped\n", static_cast<std::size_t>(memory.total_length() / mib));
  return {};
}

int main() {
  const auto done = run();
  if (!done) std::fprintf(stderr, "%s\n", done.error().message().c_str());
  return done ? 0 : 1;
}
