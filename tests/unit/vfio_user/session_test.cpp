// SPDX-License-Identifier: Apache-2.0
// A session on a simulated device: the version, what the device is, its regions, and the policy. Its memory and
// interrupts are in client_memory_test.cpp and client_interrupts_test.cpp.
#include "vfio_user/server/session.hpp"

#include <gmock/gmock.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "unit/vfio_user/lent.hpp"

namespace postern::vfio_user {
namespace session_test {

using rig::at;
using rig::Begun;
using rig::bytes_of;
using rig::Call;
using rig::edu_slot;
using rig::Lent;
using rig::most32;
using rig::most64;
using rig::nvme_slot;
using ::testing::HasSubstr;

constexpr std::uint32_t bar_length = 0x4000;  // of the NVMe's
constexpr std::uint32_t aqa = 0x24;           // a register of it that keeps what is written
constexpr auto absent = ServerEvent::Kind::memory_is_absent;
constexpr auto refused = ServerEvent::Kind::memory_refused;
constexpr std::uint16_t cache_line = PCI_CACHE_LINE_SIZE;
constexpr std::uint16_t interrupt_line = PCI_INTERRUPT_LINE;

class ASession : public rig::OnEachBackend {
 protected:
  // The body of an answer that is no error.
  template <typename Body>
  static Body answer(Lent& lent, const Call& call) {
    const Reply reply = lent.call(call);
    EXPECT_EQ(reply.error(), 0);
    EXPECT_EQ(reply.body().size(), sizeof(Body));
    return at<Body>(reply.body());
  }
  static std::uint16_t command_of(const Lent& lent) {
    std::uint16_t command = 0;
    EXPECT_TRUE(lent.device().read(pci_config, PCI_COMMAND, std::as_writable_bytes(std::span(&command, 1))));
    return command;
  }
};

TEST_P(ASession, BeginsWithItsVersion) {
  const Fd memory = rig::make_memory(rig::page);
  for (const Call& call : {rig::get_info(), rig::region_info(0), rig::irq_info(0), rig::map(0, rig::page),
                           rig::map(0, rig::page, memory.get()), rig::unmap_everything(), rig::read_region(7, 0, 4),
                           rig::set_command(PCI_COMMAND_MASTER), rig::reset_device(), rig::set_irqs(0, rig::off, 0, 0),
                           rig::posted(rig::read_region(7, 0, 4))}) {
    Lent lent(kernel_, GetParam(), nvme_slot);
    const std::size_t before = rig::open_files();
    EXPECT_EQ(lent.error_of(call), EINVAL);
    EXPECT_TRUE(lent.session().is_over());
    EXPECT_EQ(lent.container().mapping_count(), 0U);
    EXPECT_EQ(command_of(lent) & PCI_COMMAND_MASTER, 0);
    EXPECT_EQ(rig::open_files(), before);
  }
}

TEST_P(ASession, IsOverIfTheVersionsDiffer) {
  for (const Call& call : {rig::version(rig::qemu_capabilities, 0, 1), rig::version(rig::qemu_capabilities, 0, 0xffff),
                           rig::version("nonsense"), rig::version("[]"), rig::version(R"({"capabilities": 1})"),
                           rig::version(R"({"capabilities": {"max_msg_fds": 0}})")}) {
    Lent lent(kernel_, GetParam(), nvme_slot);
    EXPECT_EQ(lent.error_of(call), EINVAL);
    EXPECT_TRUE(lent.session().is_over());
  }
}

TEST_P(ASession, HasTheLowerMinorVersion) {
  const auto minor_for = [&](std::uint16_t minor) {
    Lent lent(kernel_, GetParam(), nvme_slot);
    const Reply reply = lent.call(rig::version(rig::qemu_capabilities, minor));
    EXPECT_EQ(reply.error(), 0);
    EXPECT_EQ(at<std::uint16_t>(reply.body(), 0), 0) << "the major version";
    return at<std::uint16_t>(reply.body(), 2);
  };
  EXPECT_EQ(minor_for(0), 0);
  EXPECT_EQ(minor_for(1), 1);
  EXPECT_EQ(minor_for(2), 1);
  EXPECT_EQ(minor_for(0xffff), 1);
}

TEST_P(ASession, NeedsNoCapabilities) {
  Lent lent(kernel_, GetParam(), nvme_slot);
  EXPECT_EQ(lent.error_of({.command = Command::version, .body = bytes_of(std::uint32_t{0})}), 0);
  EXPECT_FALSE(lent.session().is_over());
  EXPECT_EQ(lent.error_of(rig::get_info()), 0);
}

TEST_P(ASession, HasOneVersion) {
  Begun lent(kernel_, GetParam(), nvme_slot);
  EXPECT_EQ(lent.error_of(rig::version()), EINVAL);
  EXPECT_EQ(lent.error_of(rig::version("nonsense")), EINVAL);
  EXPECT_FALSE(lent.session().is_over());
  EXPECT_EQ(lent.error_of(rig::get_info()), 0);
}

// The answer's capabilities.
nlohmann::json capabilities_of(const Reply& reply) {
  EXPECT_EQ(reply.error(), 0);
  const auto text = reply.body().subspan(4);
  EXPECT_EQ(text.back(), std::byte{0});
  const std::string json(reinterpret_cast<const char*>(text.data()), text.size() - 1);
  EXPECT_EQ(json.find('\0'), std::string::npos);
  return nlohmann::json::parse(json).at("capabilities");
}

TEST_P(ASession, TellsWhatQemuTakes) {
  Lent lent(kernel_, GetParam(), nvme_slot);
  const Reply reply = lent.call(rig::version());
  EXPECT_LE(sizeof(Header) + reply.body().size(), 214U) << "as many bytes as QEMU sends itself";
  const auto known = capabilities_of(reply);
  EXPECT_EQ(known.at("max_msg_fds"), 16);
  EXPECT_EQ(known.at("max_data_xfer_size"), 1048576);
  EXPECT_EQ(known.at("max_dma_maps"), 65535);
  EXPECT_EQ(known.at("pgsizes"), 4096);
  EXPECT_EQ(known.at("write_multiple"), true);
  EXPECT_EQ(known.size(), 5U) << "QEMU warns of others";
}

TEST_P(ASession, TellsNoMoreMappingsThanQemuTakes) {
  const auto told = [&](std::size_t limit) {
    Lent lent(kernel_, GetParam(), nvme_slot, {.mapping_limit = limit});
    return capabilities_of(lent.call(rig::version())).at("max_dma_maps").get<std::uint64_t>();
  };
  EXPECT_EQ(told(10), 10U);
  EXPECT_EQ(told(0), 1U) << "0 is no capability";
  EXPECT_EQ(told(65535), 65535U);
  EXPECT_EQ(told(1'000'000), 65535U) << "QEMU refuses more";
}

TEST_P(ASession, SaysWhatTheDeviceIs) {
  Begun nvme(kernel_, GetParam(), nvme_slot);
  const auto info = answer<DeviceInfoBody>(nvme, rig::get_info());
  EXPECT_EQ(info.argsz, sizeof(DeviceInfoBody));
  EXPECT_EQ(info.flags, std::uint32_t{VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET});
  EXPECT_EQ(info.num_regions, 9U);
  EXPECT_EQ(info.num_irqs, 5U);
  Begun edu(kernel_, GetParam(), edu_slot);
  EXPECT_EQ(answer<DeviceInfoBody>(edu, rig::get_info()).flags, std::uint32_t{VFIO_DEVICE_FLAGS_PCI});
}

TEST_P(ASession, SaysWhatAllRegionsAre) {
  Begun lent(kernel_, GetParam(), nvme_slot);
  constexpr std::uint32_t both = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
  for (std::uint32_t index = 0; index < 9; ++index) {
    const auto info = answer<RegionInfoBody>(lent, rig::region_info(index));
    const std::uint64_t length = index == 0 ? bar_length : index == pci_config ? 4096 : 0;
    EXPECT_EQ(info.argsz, sizeof(RegionInfoBody)) << index;
    EXPECT_EQ(info.index, index);
    EXPECT_EQ(info.size, length) << index;
    EXPECT_EQ(info.flags, length != 0 ? both : 0) << index << ": none can be mapped";
    EXPECT_EQ(info.cap_offset, 0U) << index;
    EXPECT_EQ(info.offset, 0U) << index;
  }
  for (const std::uint32_t index : {9U, 10U, 1U << 31, most32})
    EXPECT_EQ(lent.error_of(rig::region_info(index)), EINVAL);
  Call roomy = rig::region_info(0);
  const std::uint32_t argsz = 4096;
  std::memcpy(roomy.body.data(), &argsz, sizeof argsz);
  EXPECT_EQ(answer<RegionInfoBody>(lent, roomy).argsz, sizeof(RegionInfoBody)) << "what would be needed";
}

TEST_P(ASession, SaysWhatAllInterruptsAre) {
  Begun lent(kernel_, GetParam(), nvme_slot);
  const auto flags_of = [&](std::uint32_t index, std::uint32_t count) {
    const auto info = answer<IrqInfoBody>(lent, rig::irq_info(index));
    EXPECT_EQ(info.argsz, sizeof(IrqInfoBody));
    EXPECT_EQ(info.index, index);
    EXPECT_EQ(info.count, count);
    return info.flags;
  };
  constexpr std::uint32_t eventfd = VFIO_IRQ_INFO_EVENTFD;
  EXPECT_EQ(flags_of(0, 1), eventfd | VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED);
  EXPECT_EQ(flags_of(1, 0), eventfd | VFIO_IRQ_INFO_NORESIZE);
  EXPECT_EQ(flags_of(2, 65), eventfd);
  EXPECT_EQ(flags_of(3, 1), eventfd | VFIO_IRQ_INFO_NORESIZE);
  EXPECT_EQ(flags_of(4, 1), eventfd | VFIO_IRQ_INFO_NORESIZE);
  for (const std::uint32_t index : {5U, 1U << 31, most32}) EXPECT_EQ(lent.error_of(rig::irq_info(index)), EINVAL);
}

TEST_P(ASession, ReadsAllOfConfigSpaceAtOnce) {
  Begun lent(kernel_, GetParam(), nvme_slot);
  const Reply reply = lent.call(rig::read_region(pci_config, 0, 4096));
  EXPECT_EQ(reply.error(), 0);
  ASSERT_EQ(reply.body().size(), sizeof(RegionAccessBody) + 4096);
  const auto echo = at<RegionAccessBody>(reply.body());
  EXPECT_EQ(echo.offset, 0U);
  EXPECT_EQ(echo.region, std::uint32_t{pci_config});
  EXPECT_EQ(echo.count, 4096U);
  EXPECT_EQ(at<std::uint16_t>(reply.body(), sizeof echo), 0x1b36);
  EXPECT_EQ(at<std::uint16_t>(reply.body(), sizeof echo + 2), 0x0010);
  Begun edu(kernel_, GetParam(), edu_slot);
  EXPECT_EQ(edu.error_of(rig::read_region(pci_config, 0, 256)), 0);
  EXPECT_EQ(edu.error_of(rig::read_region(pci_config, 0, 257)), EINVAL);
}

TEST_P(ASession, ReadsAndWritesABar) {
  Begun lent(kernel_, GetParam(), nvme_slot);
  const Reply written = lent.call(rig::write_region(0, aqa, std::uint32_t{0x001f001e}));
  EXPECT_EQ(written.error(), 0);
  ASSERT_EQ(written.body().size(), sizeof(RegionAccessBody)) << "without the data";
  EXPECT_EQ(at<RegionAccessBody>(written.body()).count, 4U);
  EXPECT_EQ(lent.read<std::uint32_t>(0, aqa), 0x001f001eU);
  EXPECT_EQ(lent.read<std::uint16_t>(0, aqa + 2), 0x001f);
  lent.write(0, aqa, std::uint8_t{0x1d});
  EXPECT_EQ(lent.read<std::uint32_t>(0, aqa), 0x001f001dU);
  const Reply whole = lent.call(rig::read_region(0, 0, bar_length));
  EXPECT_EQ(whole.body().size(), sizeof(RegionAccessBody) + bar_length);
  EXPECT_EQ(at<std::uint32_t>(whole.body(), sizeof(RegionAccessBody) + aqa), 0x001f001dU);
}

TEST_P(ASession, RefusesAccessesBeyondARegion) {
  Begun lent(kernel_, GetParam(), nvme_slot);
  struct Access {
    std::uint32_t region;
    std::uint64_t offset;
    std::uint32_t count;
  };
  for (const Access access :
       {Access{0, bar_length, 1}, Access{0, bar_length - 3, 4}, Access{0, 0, bar_length + 1}, Access{0, most64, 1},
        Access{0, most64 - 3, 4}, Access{0, std::uint64_t{1} << 40, 4}, Access{0, 0, 1 << 20},
        Access{pci_config, 4096, 1}, Access{pci_config, 4094, 4}, Access{1, 0, 1}, Access{5, 0, 4},
        Access{pci_rom, 0, 4}, Access{pci_vga, 0, 1}, Access{9, 0, 4}, Access{1U << 31, 0, 4}, Access{most32, 0, 4}}) {
    EXPECT_EQ(lent.error_of(rig::read_region(access.region, access.offset, access.count)), EINVAL)
        << access.region << " " << access.offset << " " << access.count;
    EXPECT_EQ(lent.error_of(rig::write_region(access.region, access.offset, rig::Bytes(access.count))), EINVAL)
        << access.region << " " << access.offset << " " << access.count;
  }
  EXPECT_EQ(lent.error_of(rig::read_region(0, bar_length - 4, 4)), 0);
  EXPECT_EQ(lent.error_of(rig::read_region(pci_config, 4095, 1)), 0);
  EXPECT_FALSE(lent.session().is_over());
}

// Some clients wait for ever after an error.
TEST_P(ASession, ReadsOnesWhereTheDeviceDoesNotAnswer) {
  Begun lent(kernel_, GetParam(), nvme_slot);
  lent.write(0, aqa, std::uint32_t{0x001f001f});
  EXPECT_EQ(lent.error_of(rig::set_command(0)), 0) << "its memory does not respond";
  EXPECT_EQ(lent.read<std::uint32_t>(0, aqa), most32);
  EXPECT_EQ(lent.read<std::uint64_t>(0, 0), most64);
  lent.write(0, aqa, std::uint32_t{0});
  EXPECT_EQ(lent.error_of(rig::set_command(PCI_COMMAND_MEMORY)), 0);
  EXPECT_EQ(lent.read<std::uint32_t>(0, aqa), 0x001f001fU) << "the write was lost";
}

TEST_P(ASession, WritesSeveralInTheirOrder) {
  Begun lent(kernel_, GetParam(), nvme_slot);
  const auto count = answer<std::uint64_t>(
      lent, rig::write_several({rig::one_write(0, aqa, std::uint32_t{1}), rig::one_write(0, aqa, std::uint16_t{2}),
                                rig::one_write(pci_config, cache_line, std::uint8_t{0x10})}));
  EXPECT_EQ(count, 3U);
  EXPECT_EQ(lent.read<std::uint32_t>(0, aqa), 2U);
  EXPECT_EQ(lent.read<std::uint8_t>(pci_config, cache_line), 0x10);
  EXPECT_EQ(lent.error_of(rig::write_several({rig::one_write(0, aqa, std::uint32_t{3}),
                                              rig::one_write(0, bar_length, std::uint32_t{0}),
                                              rig::one_write(0, aqa, std::uint32_t{4})})),
            EINVAL);
  EXPECT_EQ(lent.read<std::uint32_t>(0, aqa), 3U) << "up to the one that is refused";
}

TEST_P(ASession, DropsWritesToWhatIsReadOnly) {
  Begun lent(kernel_, GetParam(), nvme_slot,
             {.read_only_config = {{.offset = PCI_COMMAND, .length = 2}, {.offset = interrupt_line, .length = 1}}});
  const std::uint16_t command = command_of(lent);
  EXPECT_EQ(lent.error_of(rig::write_region(pci_config, 0, rig::Bytes(64, std::byte{0xff}))), 0);
  EXPECT_EQ(command_of(lent), command);
  EXPECT_EQ(lent.read<std::uint8_t>(pci_config, interrupt_line), 0);
  EXPECT_EQ(lent.read<std::uint8_t>(pci_config, cache_line), 0xff) << "what is between them is written";
  EXPECT_EQ(lent.read<std::uint32_t>(pci_config, PCI_BASE_ADDRESS_0), 0xffffc004U);
  EXPECT_EQ(lent.error_of(rig::set_command(PCI_COMMAND_MASTER)), 0) << "a write that is dropped is no error";
  EXPECT_EQ(lent.error_of(rig::write_several({rig::one_write(pci_config, PCI_COMMAND, std::uint16_t{4})})), 0);
  EXPECT_EQ(command_of(lent), command);
  EXPECT_EQ(lent.times_told(absent), 0);
}

TEST_P(ASession, TakesPartOfAWriteThatIsReadOnlyAtOneEnd) {
  Begun lent(kernel_, GetParam(), nvme_slot,
             {.read_only_config = {{.offset = 0x10, .length = 2}, {.offset = 0, .length = 0}}});
  lent.write(pci_config, PCI_BASE_ADDRESS_0, most32);
  EXPECT_EQ(lent.read<std::uint32_t>(pci_config, PCI_BASE_ADDRESS_0), 0xffff0004U);
  lent.write(pci_config, PCI_BASE_ADDRESS_0, std::uint32_t{0});
  EXPECT_EQ(lent.read<std::uint32_t>(pci_config, PCI_BASE_ADDRESS_0), 4U);
  lent.write(pci_config, cache_line, most64);
  EXPECT_EQ(lent.read<std::uint8_t>(pci_config, cache_line), 0xff);
  EXPECT_EQ(lent.read<std::uint32_t>(pci_config, PCI_BASE_ADDRESS_0), 0xffff0004U) << "a write that surrounds it";
}

TEST_P(ASession, ResetsTheDevice) {
  Begun lent(kernel_, GetParam(), nvme_slot);
  lent.write(0, aqa, std::uint32_t{0x001f001f});
  const Reply reply = lent.call(rig::reset_device());
  EXPECT_EQ(reply.error(), 0);
  EXPECT_TRUE(reply.body().empty());
  EXPECT_EQ(lent.read<std::uint32_t>(0, aqa), 0U);
  Begun edu(kernel_, GetParam(), edu_slot);
  EXPECT_EQ(edu.error_of(rig::reset_device()), EOPNOTSUPP);
}

TEST_P(ASession, DoesNotResetTheDeviceIfTheClientMayNot) {
  Begun lent(kernel_, GetParam(), nvme_slot, {.may_reset = false});
  EXPECT_EQ(answer<DeviceInfoBody>(lent, rig::get_info()).flags, std::uint32_t{VFIO_DEVICE_FLAGS_PCI});
  lent.write(0, aqa, std::uint32_t{0x001f001f});
  EXPECT_EQ(lent.error_of(rig::reset_device()), EPERM);
  EXPECT_EQ(lent.read<std::uint32_t>(0, aqa), 0x001f001fU);
}

TEST_P(ASession, RefusesWhatItDoesNotHave) {
  Begun lent(kernel_, GetParam(), nvme_slot);
  EXPECT_EQ(lent.error_of({.command = Command::device_feature,
                           .body = bytes_of(FeatureBody{.argsz = 16, .flags = VFIO_DEVICE_FEATURE_PROBE | 1})}),
            ENOTTY);
  EXPECT_EQ(lent.error_of({.command = Command::device_get_region_io_fds,
                           .body = bytes_of(RegionIoFdsBody{.argsz = 4096, .flags = 0, .index = 0, .count = 0})}),
            EOPNOTSUPP);
  EXPECT_EQ(lent.error_of({.command = Command::dma_read, .body = bytes_of(DmaAccessBody{.address = 0, .count = 4})}),
            EOPNOTSUPP);
  EXPECT_EQ(lent.error_of({.command = Command::dma_write,
                           .body = bytes_of(DmaAccessBody{.address = 0, .count = 4}, std::uint32_t{0})}),
            EOPNOTSUPP);
  EXPECT_EQ(lent.error_of({.command = Command::mig_data_read, .body = bytes_of(MigDataBody{.argsz = 8, .size = 4})}),
            EOPNOTSUPP);
  EXPECT_EQ(lent.error_of({.command = static_cast<Command>(14), .body = rig::Bytes(8)}), EINVAL);
  EXPECT_FALSE(lent.session().is_over());
}

TEST_P(ASession, ClosesTheDescriptorsOfWhatItRefuses) {
  Begun lent(kernel_, GetParam(), nvme_slot);
  const Fd memory = rig::make_memory(rig::page);
  const std::size_t before = rig::open_files();
  const std::vector<int> many(16, memory.get());
  for (Call call : rig::life_of({.memory = memory.get(), .event = memory.get()})) {
    if (call.command == Command::dma_map) call.fds = {memory.get(), memory.get()};
    if (call.fds.empty()) call.fds = many;
    (void)lent.call(call);
    EXPECT_EQ(rig::open_files(), before) << "command " << static_cast<unsigned>(call.command);
  }
  EXPECT_EQ(lent.container().mapping_count(), 0U);
}

TEST_P(ASession, TellsOnceThatTheDeviceHasNoMemory) {
  Begun lent(kernel_, GetParam(), nvme_slot);
  EXPECT_EQ(lent.error_of(rig::map(0, 0x100000)), 0) << "that is none";
  EXPECT_EQ(lent.error_of(rig::set_command(PCI_COMMAND_MEMORY)), 0);
  EXPECT_EQ(lent.times_told(absent), 0);
  EXPECT_EQ(lent.error_of(rig::set_command(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER)), 0);
  EXPECT_EQ(lent.times_told(absent), 1);
  EXPECT_EQ(lent.error_of(rig::set_command(PCI_COMMAND_MEMORY)), 0);
  EXPECT_EQ(lent.error_of(rig::set_command(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER)), 0);
  EXPECT_EQ(lent.times_told(absent), 1);
}

TEST_P(ASession, DoesNotTellThatIfItHasMemory) {
  Begun lent(kernel_, GetParam(), nvme_slot);
  const Fd memory = rig::make_memory(rig::page);
  EXPECT_EQ(lent.error_of(rig::map(0, rig::page, memory.get())), 0);
  EXPECT_EQ(lent.error_of(rig::set_command(PCI_COMMAND_MASTER)), 0);
  EXPECT_EQ(lent.times_told(absent), 0);
  EXPECT_EQ(lent.error_of(rig::unmap(0, rig::page)), 0);
  lent.write(pci_config, cache_line, std::uint8_t{0});
  EXPECT_EQ(lent.times_told(absent), 0) << "another register";
  lent.write(pci_config, PCI_STATUS, std::uint16_t{0});
  EXPECT_EQ(lent.times_told(absent), 0) << "the next register";
  lent.write(pci_config, 0, most64);
  EXPECT_EQ(lent.times_told(absent), 1) << "a write that begins before it";
}

TEST_P(ASession, TellsOnceWhyMemoryIsRefused) {
  Begun lent(kernel_, GetParam(), nvme_slot, {.memory_limit = 2 * rig::page});
  const Fd memory = rig::make_memory(4 * rig::page);
  EXPECT_EQ(lent.error_of(rig::map(0, 2 * rig::page, memory.get())), 0);
  EXPECT_EQ(lent.times_told(refused), 0);
  EXPECT_EQ(lent.error_of(rig::map(0x10000, rig::page, memory.get())), ENOMEM);
  EXPECT_EQ(lent.times_told(refused), 1);
  EXPECT_THAT(lent.reason(), HasSubstr("map 0x10000+4 KiB for the client"));
  EXPECT_THAT(lent.reason(), HasSubstr("the policy lets it map 8 KiB, and 8 KiB are mapped"));
  EXPECT_EQ(lent.error_of(rig::map(0, rig::page, memory.get())), EEXIST);
  EXPECT_EQ(lent.error_of(rig::map(0x123, rig::page)), EINVAL);
  EXPECT_EQ(lent.times_told(refused), 1);
  EXPECT_EQ(lent.times_told(absent), 0);
}

TEST_P(ASession, TurnsBusMasteringOffWhenItEnds) {
  Begun lent(kernel_, GetParam(), nvme_slot);
  EXPECT_EQ(lent.error_of(rig::set_command(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER)), 0);
  EXPECT_NE(command_of(lent) & PCI_COMMAND_MASTER, 0);
  EXPECT_TRUE(lent.session().quiesce());
  EXPECT_EQ(command_of(lent) & PCI_COMMAND_MASTER, 0);
  EXPECT_NE(command_of(lent) & PCI_COMMAND_MEMORY, 0);
  lent.take_back();
}

TEST_P(ASession, TurnsInterruptsOffAlsoIfBusMasteringCannotBe) {
  Begun lent(kernel_, GetParam(), nvme_slot);
  const Event event = rig::make_event();
  const std::size_t before = rig::open_files();
  EXPECT_EQ(lent.error_of(rig::set_irqs(0, rig::signal_eventfds, 0, 1, {event.fd()})), 0);
  kernel_.fail_call(0, EIO);
  const auto failed = lent.session().quiesce();
  ASSERT_TRUE(kernel_.failed());
  kernel_.fail_call(-1, 0);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code(), EIO);
  EXPECT_EQ(rig::open_files(), before);
  lent.take_back();
}

TEST_P(ASession, OfQemuHasNoErrors) {
  const Fd memory = rig::make_memory(rig::Guest::memory_length);
  const Event event = rig::make_event();
  const std::size_t before = rig::open_files();
  {
    Lent nvme(kernel_, GetParam(), nvme_slot);
    for (const Call& call : rig::life_of({.memory = memory.get(), .event = event.fd()}))
      EXPECT_EQ(nvme.error_of(call), 0) << "command " << static_cast<unsigned>(call.command);
    EXPECT_EQ(nvme.session().mapped(), 0x1c3000U);
    EXPECT_EQ(nvme.times_told(absent), 0);
    nvme.take_back();
    Lent edu(kernel_, GetParam(), edu_slot);
    for (const Call& call : rig::life_of({.memory = memory.get(),
                            .event = event.fd(),
                            .has_msix = false,
                            .can_reset = false,
                            .config_length = 256}))
      EXPECT_EQ(edu.error_of(call), 0) << "command " << static_cast<unsigned>(call.command);
    edu.take_back();
  }
  EXPECT_EQ(rig::open_files(), before);
}

INSTANTIATE_TEST_SUITE_P(Backends, ASession, rig::each_backend, rig::backend_name);

}  // namespace session_test
}  // namespace postern::vfio_user
