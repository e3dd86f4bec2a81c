// SPDX-License-Identifier: Apache-2.0
// A session in which each call of the kernel fails in turn: the client gets an errno or a success, and nothing is left.
#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <tuple>

#include "unit/vfio_user/lent.hpp"

namespace postern::vfio_user {
namespace session_fault_test {

using rig::Call;
using rig::Lent;
using rig::map;
using rig::page;
using rig::set_irqs;
using rig::signal_eventfds;

constexpr std::uint32_t msix = VFIO_PCI_MSIX_IRQ_INDEX;

// What a client does, shorter than what QEMU does, but with all that calls the kernel.
std::vector<Call> session_with(int memory, const std::vector<int>& events) {
  return {rig::version(),
          map(0, 16 * page, memory),
          map(0x100000, 16 * page, memory, 16 * page, VFIO_DMA_MAP_FLAG_READ),
          map(0x200000, page),
          rig::get_info(),
          rig::region_info(0),
          rig::irq_info(msix),
          rig::read_region(pci_config, 0, 4096),
          set_irqs(0, signal_eventfds, 0, 1, {events[0]}),
          set_irqs(VFIO_PCI_ERR_IRQ_INDEX, signal_eventfds, 0, 1, {events[1]}),
          set_irqs(0, rig::mask, 0, 1),
          set_irqs(0, rig::unmask, 0, 1),
          set_irqs(0, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_UNMASK, 0, 1, {events[2]}),
          set_irqs(0, rig::off, 0, 0),
          rig::set_command(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER),
          rig::reset_device(),
          rig::read_region(0, 0, 8),
          rig::write_region(0, 0x24, std::uint32_t{0x001f001f}),
          rig::write_several({rig::one_write(0, 0x24, std::uint32_t{1}), rig::one_write(0, 0x24, std::uint32_t{2})}),
          set_irqs(msix, signal_eventfds, 0, 1),
          set_irqs(msix, signal_eventfds, 0, 1, {events[0]}),
          set_irqs(msix, signal_eventfds, 1, 2, {events[1], events[2]}),
          set_irqs(msix, rig::trigger, 0, 3),
          set_irqs(msix, signal_eventfds, 1, 1),
          rig::unmap(0, 16 * page),
          map(0, 16 * page, memory),
          set_irqs(msix, signal_eventfds, 2, 2, {events[0], events[0]})};
}

// The backend, and whether vectors can be added.
class SessionFaults : public ::testing::TestWithParam<std::tuple<const char*, bool>> {
 protected:
  static std::string backend() { return std::get<0>(GetParam()); }
  static sim::Host host() {
    sim::Host host = sim::pc();
    host.dynamic_msix = std::get<1>(GetParam());
    return host;
  }
};

TEST_P(SessionFaults, AreErrnosAndLeaveNothing) {
  const Fd memory = rig::make_memory(64 * page);
  const std::vector<Event> events = rig::make_events(3);
  const std::vector<Call> calls = session_with(memory.get(), rig::fds_of(events));
  sim::Kernel simulated(host());
  sim::FailingKernel kernel(simulated);
  Lent lent(kernel, backend(), rig::nvme_slot);
  const std::size_t before = rig::open_files();
  for (const int code : {EIO, ENOMEM}) {
    bool has_failed = true;
    for (int number = 0; has_failed && !HasFailure(); ++number) {
      SCOPED_TRACE("call " + std::to_string(number) + " fails with " + errno_name(code));
      lent.start_anew();
      kernel.fail_call(number, code);
      int errors = 0;
      for (const Call& call : calls) {
        const int error = lent.error_of(call);
        EXPECT_GE(error, 0);
        EXPECT_LT(error, 4096);
        errors += error != 0 ? 1 : 0;
      }
      has_failed = kernel.failed();
      kernel.fail_call(-1, 0);
      EXPECT_FALSE(lent.session().is_over());
      lent.take_back();
      EXPECT_EQ(rig::open_files(), before);
      if (!has_failed) {
        EXPECT_EQ(errors, 0);
        EXPECT_GT(number, 20) << "so many calls there are at least";
      }
      // The next client finds nothing of it.
      lent.start_anew();
      for (const Call& call : calls)
        EXPECT_EQ(lent.error_of(call), 0) << "command " << static_cast<unsigned>(call.command);
      lent.take_back();
    }
  }
}

TEST_P(SessionFaults, OfTheEndAreReportedAndMayBeTriedAgain) {
  const Fd memory = rig::make_memory(64 * page);
  const std::vector<Event> events = rig::make_events(3);
  const std::vector<Call> calls = session_with(memory.get(), rig::fds_of(events));
  sim::Kernel simulated(host());
  sim::FailingKernel kernel(simulated);
  Lent lent(kernel, backend(), rig::nvme_slot);
  const std::size_t before = rig::open_files();
  bool has_failed = true;
  for (int number = 0; has_failed && !HasFailure(); ++number) {
    SCOPED_TRACE("call " + std::to_string(number) + " fails");
    lent.start_anew();
    for (const Call& call : calls) EXPECT_EQ(lent.error_of(call), 0);
    kernel.fail_call(number, EIO);
    const bool is_quiet = lent.session().quiesce().has_value();
    const bool is_unmapped = lent.session().unmap_all().has_value();
    has_failed = kernel.failed();
    kernel.fail_call(-1, 0);
    EXPECT_EQ(is_quiet && is_unmapped, !has_failed);
    lent.take_back();
    EXPECT_EQ(rig::open_files(), before);
  }
}

std::string name_of(const ::testing::TestParamInfo<SessionFaults::ParamType>& test) {
  return std::string(std::get<0>(test.param)) + (std::get<1>(test.param) ? "_dynamic" : "_fixed");
}
INSTANTIATE_TEST_SUITE_P(Backends, SessionFaults, ::testing::Combine(rig::each_backend, ::testing::Bool()), name_of);

}  // namespace session_fault_test
}  // namespace postern::vfio_user
