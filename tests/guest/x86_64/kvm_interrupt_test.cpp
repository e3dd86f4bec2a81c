// SPDX-License-Identifier: Apache-2.0
// INTx of edu reaches a virtual machine of the guest's KVM without this program: InterruptSet's event is KVM's irqfd,
// and the event that unmasks is KVM's resample event, which the virtual machine's end of interrupt signals.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/kvm.h>
#include <sys/mman.h>
#include <sys/time.h>

#include <chrono>
#include <csignal>
#include <cstring>
#include <optional>
#include <postern/interrupt_set.hpp>
#include <postern/kvm.hpp>
#include <string_view>

#include "guest/x86_64/devices.hpp"
#include "support/edu.hpp"

namespace postern {
namespace kvm_interrupt_test {

using namespace std::chrono_literals;

constexpr std::uint32_t gsi = 10;
constexpr std::uint16_t ready_port = 0x80;
constexpr std::uint16_t interrupt_port = 0xe9;
constexpr std::uint64_t code = 0x1000;
constexpr std::uint64_t handler = 0x1100;
constexpr std::uint64_t vector = 0x72;  // of IRQ 10: the second interrupt controller's vectors begin at 0x70

// Real-mode code: initialises the two interrupt controllers, lets IRQ 10 be level-triggered, unmasks it, writes to
// ready_port, and halts for ever.
constexpr std::array<std::uint8_t, 46> program{
    0xb0, 0x11,       0xe6, 0x20, 0xe6, 0xa0,  // mov al, 0x11; out 0x20, al; out 0xa0, al
    0xb0, 0x08,       0xe6, 0x21,              // mov al, 0x08; out 0x21, al
    0xb0, 0x70,       0xe6, 0xa1,              // mov al, 0x70; out 0xa1, al
    0xb0, 0x04,       0xe6, 0x21,              // mov al, 0x04; out 0x21, al
    0xb0, 0x02,       0xe6, 0xa1,              // mov al, 0x02; out 0xa1, al
    0xb0, 0x01,       0xe6, 0x21, 0xe6, 0xa1,  // mov al, 0x01; out 0x21, al; out 0xa1, al
    0xb0, 0x04,       0xba, 0xd1, 0x04, 0xee,  // mov al, 0x04; mov dx, 0x4d1; out dx, al
    0xb0, 0xfb,       0xe6, 0x21, 0xe6, 0xa1,  // mov al, 0xfb; out 0x21, al; out 0xa1, al
    0xe6, ready_port, 0xfb, 0xf4, 0xeb, 0xfd,  // out ready_port, al; sti; again: hlt; jmp again
};
// Writes to interrupt_port, ends the interrupt, and returns.
constexpr std::array<std::uint8_t, 9> interrupt_handler{
    0xe6, interrupt_port,                          // out interrupt_port, al
    0xb0, 0x20,           0xe6, 0xa0, 0xe6, 0x20,  // mov al, 0x20; out 0xa0, al; out 0x20, al
    0xcf,                                          // iret
};

// A virtual machine with one processor and 64 KiB of memory, which runs the program above.
class Machine {
 public:
  Machine() {
    std::memcpy(memory_.data() + code, program.data(), program.size());
    std::memcpy(memory_.data() + handler, interrupt_handler.data(), interrupt_handler.size());
    const std::array<std::uint16_t, 2> entry{handler, 0};
    std::memcpy(memory_.data() + 4 * vector, entry.data(), sizeof entry);
    must(vm_, KVM_SET_TSS_ADDR, reinterpret_cast<void*>(0xfffbd000));
    must(vm_, KVM_CREATE_IRQCHIP, nullptr);
    kvm_userspace_memory_region region{.slot = 0,
                                       .flags = 0,
                                       .guest_phys_addr = 0,
                                       .memory_size = memory_.size(),
                                       .userspace_addr = reinterpret_cast<std::uintptr_t>(memory_.data())};
    must(vm_, KVM_SET_USER_MEMORY_REGION, &region);
    processor_ = Fd(system_kernel(), must(vm_, KVM_CREATE_VCPU, nullptr));
    const auto length = static_cast<std::size_t>(must(kvm_, KVM_GET_VCPU_MMAP_SIZE, nullptr));
    run_ = map(length, MAP_SHARED, processor_.get());
    kvm_sregs segments{};
    must(processor_, KVM_GET_SREGS, &segments);
    segments.cs.base = segments.cs.selector = 0;
    must(processor_, KVM_SET_SREGS, &segments);
    kvm_regs registers{};
    registers.rip = code;
    registers.rsp = code;
    registers.rflags = 2;
    must(processor_, KVM_SET_REGS, &registers);
  }

  // Runs the machine until it writes to a port, and returns that port; 0: it did not within the time.
  std::uint16_t run(std::chrono::microseconds time) {
    struct sigaction interrupt {};
    interrupt.sa_handler = [](int) {};  // without SA_RESTART: KVM_RUN ends with EINTR
    ::sigaction(SIGALRM, &interrupt, nullptr);
    itimerval timer{.it_interval = {}, .it_value = {.tv_sec = time / 1s, .tv_usec = (time % 1s).count()}};
    ::setitimer(ITIMER_REAL, &timer, nullptr);
    const int result = system_kernel().ioctl(processor_.get(), KVM_RUN, nullptr);
    timer = {};
    ::setitimer(ITIMER_REAL, &timer, nullptr);
    if (result == -EINTR) return 0;
    const auto& run = *reinterpret_cast<const kvm_run*>(run_.data());
    EXPECT_EQ(result, 0);
    EXPECT_EQ(run.exit_reason, static_cast<std::uint32_t>(KVM_EXIT_IO));
    return run.exit_reason == KVM_EXIT_IO ? run.io.port : std::uint16_t{0xffff};
  }
  // The event raises the interrupt; `resample` is signalled when the machine ends it.
  void connect(const Event& event, const Event& resample) {
    kvm_irqfd irqfd{};
    irqfd.fd = static_cast<std::uint32_t>(event.fd());
    irqfd.gsi = gsi;
    irqfd.flags = KVM_IRQFD_FLAG_RESAMPLE;
    irqfd.resamplefd = static_cast<std::uint32_t>(resample.fd());
    must(vm_, KVM_IRQFD, &irqfd);
  }
  [[nodiscard]] int vm() const { return vm_.get(); }

 private:
  static int must(const Fd& fd, unsigned long request, void* argument) {
    const int result = system_kernel().ioctl(fd.get(), request, argument);
    EXPECT_GE(result, 0) << request;
    return result;
  }

  static Mmap map(std::size_t length, int flags, int fd) {
    void* const address = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, flags, fd, 0);
    EXPECT_NE(address, MAP_FAILED);
    return {system_kernel(), address, length};
  }

  const Fd kvm_{system_kernel(), system_kernel().open("/dev/kvm", O_RDWR)};
  const Fd vm_{system_kernel(), must(kvm_, KVM_CREATE_VM, nullptr)};
  Mmap memory_ = map(65536, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  Fd processor_;
  Mmap run_;
};

// edu, attached for a machine, which takes its INTx and unmasks it.
struct EduOfMachine {
  explicit EduOfMachine(std::string_view backend)
      : pci(PciDevice::open(attach(system_kernel(), bound.host(), {.backend = backend, .kvm = kvm}).value()).value()) {
    machine.connect(event, resample);
    const EventRef refs[] = {event};
    set.emplace(pci.enable_set(PciInterrupt::intx, refs).value());
    EXPECT_TRUE(set->unmask_on(resample));
  }

  Machine machine;
  std::shared_ptr<const KvmVfioDevice> kvm =
      std::make_shared<const KvmVfioDevice>(KvmVfioDevice::create(system_kernel(), machine.vm()).value());
  test::Bound bound{test::edu};
  PciDevice pci;
  test::EduRegisters registers{pci.device()};
  Event event = Event::create(system_kernel()).value();
  Event resample = Event::create(system_kernel()).value();
  std::optional<InterruptSet> set;
};

class KvmInterrupt : public ::testing::TestWithParam<const char*> {};

TEST_P(KvmInterrupt, ReachesTheMachineAndIsUnmaskedWhenTheMachineEndsIt) {
  EduOfMachine passed(GetParam());
  Machine& machine = passed.machine;
  const test::EduRegisters& edu = passed.registers;
  ASSERT_EQ(machine.run(20s), ready_port);
  EXPECT_EQ(machine.run(300ms), 0U) << "nothing has been raised";
  edu.raise(1);
  ASSERT_EQ(machine.run(20s), interrupt_port);
  ASSERT_EQ(machine.run(20s), interrupt_port) << "the line is still up when the machine ends the interrupt";
  edu.acknowledge(1);
  edu.raise(2);
  ASSERT_EQ(machine.run(20s), interrupt_port);
  edu.acknowledge(2);
  EXPECT_EQ(machine.run(300ms), 0U) << "the line is down";
  EXPECT_EQ(passed.event.take().value(), 0U) << "KVM took them all";
}

// KVM keeps the device, and its interrupts go on, without anything being set up anew.
TEST(MovedKvmInterrupt, ReachesTheMachineFromTheNewContainer) {
  EduOfMachine passed("iommufd");
  Machine& machine = passed.machine;
  const test::EduRegisters& edu = passed.registers;
  ASSERT_EQ(machine.run(20s), ready_port);
  const auto to = Container::open(system_kernel(), *find_backend("iommufd").value()).value();
  for (std::uint32_t round = 1; round <= 2; ++round) {
    edu.raise(round);
    ASSERT_EQ(machine.run(20s), interrupt_port);
    edu.acknowledge(round);
    EXPECT_EQ(machine.run(300ms), 0U) << "the line is down";
    if (round == 1) {
      const auto moved = move_device(passed.pci.device(), to);
      ASSERT_TRUE(moved) << moved.error().message();
    }
  }
  EXPECT_EQ(passed.event.take().value(), 0U) << "KVM took them all";
}

INSTANTIATE_TEST_SUITE_P(Backends, KvmInterrupt, ::testing::Values("type1", "iommufd"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace kvm_interrupt_test
}  // namespace postern
