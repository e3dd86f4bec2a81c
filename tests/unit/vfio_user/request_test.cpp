// SPDX-License-Identifier: Apache-2.0
// Requests read from messages: of every length, with every flag, number of descriptors, and edge of their integers.
#include "vfio_user/wire/request.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "unit/vfio_user/messages.hpp"

namespace postern::vfio_user {
namespace request_test {

using rig::Bytes;
using rig::bytes_of;
using rig::Call;
using rig::most32;
using rig::most64;
using rig::off;
using rig::signal_eventfds;

constexpr std::uint32_t half32 = 1U << 31;
constexpr std::uint64_t half64 = std::uint64_t{1} << 63;
constexpr std::uint32_t as_booleans = VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_ACTION_TRIGGER;

auto parse(const Call& call, std::size_t fds) { return parse_request(rig::header_of(call), call.body, fds); }
auto parse(const Call& call) { return parse(call, call.fds.size()); }

// 0 for a request.
int error_of(const Call& call) {
  const auto parsed = parse(call);
  return parsed ? 0 : parsed.error();
}

// The request, which must be of this kind.
template <typename Kind>
Kind parsed_as(const Call& call) {
  auto parsed = parse(call);
  EXPECT_TRUE(parsed) << "it is refused with " << parsed.error();
  if (!parsed || !std::holds_alternative<Kind>(*parsed)) {
    ADD_FAILURE() << "it is another request";
    return {};
  }
  return std::get<Kind>(std::move(*parsed));
}

// A well-formed message of each command, and of each form that a command has.
struct Form {
  const char* name;
  Call call;
  std::vector<std::size_t> other_lengths = {};  // of its body, that are also well-formed
  bool is_open_ended = false;                   // as is every greater length
};

const std::vector<Form>& forms() {
  static const std::vector<Form> all = {
      // The numbers alone, and with an empty text.
      {"VERSION", rig::version(R"({"capabilities": {}})"), {4}},
      {"VERSION without capabilities", {.command = Command::version, .body = bytes_of(std::uint32_t{0})}, {5}},
      {"DMA_MAP", rig::map(0x1000, 0x1000)},
      {"DMA_UNMAP", rig::unmap(0x1000, 0x1000)},
      {"DMA_UNMAP of all", rig::unmap_everything()},
      {"DEVICE_GET_INFO", rig::get_info()},
      {"DEVICE_GET_REGION_INFO", rig::region_info(0)},
      {"DEVICE_GET_REGION_IO_FDS",
       {.command = Command::device_get_region_io_fds,
        .body = bytes_of(RegionIoFdsBody{.argsz = sizeof(RegionIoFdsBody), .flags = 0, .index = 0, .count = 0})}},
      {"DEVICE_GET_IRQ_INFO", rig::irq_info(0)},
      {"DEVICE_SET_IRQS off", rig::set_irqs(0, off, 0, 0)},
      {"DEVICE_SET_IRQS by eventfds", rig::set_irqs(0, signal_eventfds, 0, 1)},
      {"DEVICE_SET_IRQS by booleans", rig::set_irqs(0, as_booleans, 0, 3, {}, Bytes(3))},
      {"REGION_READ", rig::read_region(0, 0, 4)},
      {"REGION_WRITE", rig::write_region(0, 0, std::uint32_t{0})},
      {"DMA_READ", {.command = Command::dma_read, .body = bytes_of(DmaAccessBody{.address = 0, .count = 4})}},
      {"DMA_WRITE",
       {.command = Command::dma_write, .body = bytes_of(DmaAccessBody{.address = 0, .count = 4}, std::uint32_t{0})}},
      {"DEVICE_RESET", rig::reset_device()},
      {"REGION_WRITE_MULTI",
       rig::write_several({rig::one_write(0, 0, std::uint32_t{1}), rig::one_write(0, 8, std::uint64_t{2})})},
      {"DEVICE_FEATURE",
       {.command = Command::device_feature, .body = bytes_of(FeatureBody{.argsz = sizeof(FeatureBody), .flags = 0})},
       {},
       true},
      {"MIG_DATA_READ",
       {.command = Command::mig_data_read, .body = bytes_of(MigDataBody{.argsz = sizeof(MigDataBody), .size = 4})}},
      {"MIG_DATA_WRITE",
       {.command = Command::mig_data_write,
        .body = bytes_of(MigDataBody{.argsz = sizeof(MigDataBody), .size = 4}, std::uint32_t{0})}},
  };
  return all;
}

TEST(Request, OfItsLengthIsRead) {
  for (const Form& form : forms()) EXPECT_EQ(error_of(form.call), 0) << form.name;
}

TEST(Request, OfAWrongLengthIsRefused) {
  for (const Form& form : forms()) {
    const std::size_t right = form.call.body.size();
    std::vector<std::size_t> lengths(right + 2);
    for (std::size_t length = 0; length < lengths.size(); ++length) lengths[length] = length;
    lengths.push_back(std::size_t{1} << 20);
    for (const std::size_t length : lengths) {
      Call call = form.call;
      call.body.resize(length);
      const bool is_right =
          length == right || (form.is_open_ended && length > right) ||
          std::find(form.other_lengths.begin(), form.other_lengths.end(), length) != form.other_lengths.end();
      EXPECT_EQ(error_of(call), is_right ? 0 : EINVAL) << form.name << " of " << length << " bytes";
    }
  }
}

TEST(Request, HasNoFlagButThatItIsNotAnswered) {
  for (const Form& form : forms()) {
    for (unsigned bit = 0; bit < 32; ++bit) {
      Call call = form.call;
      call.flags = 1U << bit;
      EXPECT_EQ(error_of(call), call.flags == flag_no_reply ? 0 : EINVAL) << form.name << ", flag " << bit;
    }
    for (std::uint32_t type = 1; type <= type_mask; ++type) {
      Call call = rig::posted(form.call);
      call.flags |= type;
      EXPECT_EQ(error_of(call), EINVAL) << form.name << " of type " << type;
    }
    Call failed = form.call;
    failed.flags = type_reply | flag_error;
    EXPECT_EQ(error_of(failed), EINVAL) << form.name;
  }
}

TEST(Request, IsReadWhateverItsErrorNumberIs) {
  for (const Form& form : forms()) {
    Header header = rig::header_of(form.call);
    header.error = most32;
    EXPECT_TRUE(parse_request(header, form.call.body, 0)) << form.name << ": without the flag it means nothing";
  }
}

TEST(Request, OfAnUnknownCommandIsRefused) {
  for (std::uint32_t number = 0; number <= 0xffff; ++number) {
    const auto command = static_cast<Command>(number);
    const bool is_known = std::any_of(forms().begin(), forms().end(),
                                      [command](const Form& form) { return form.call.command == command; });
    if (is_known) continue;
    EXPECT_EQ(error_of({.command = command}), EINVAL) << number;
    EXPECT_EQ(error_of({.command = command, .body = Bytes(32)}), EINVAL) << number;
  }
}

TEST(Request, HasNoMoreDescriptorsThanItsCommandTakes) {
  for (const Form& form : forms()) {
    for (const std::size_t fds : {std::size_t{0}, std::size_t{1}, std::size_t{2}, most_fds, most_fds + 1}) {
      const bool takes_one =
          form.call.command == Command::dma_map || form.name == std::string("DEVICE_SET_IRQS by eventfds");
      const auto parsed = parse(form.call, fds);
      EXPECT_EQ(parsed.has_value(), fds == 0 || (fds == 1 && takes_one)) << form.name << " with " << fds;
      EXPECT_EQ(parsed ? EINVAL : parsed.error(), EINVAL) << form.name << " with " << fds;
    }
  }
}

TEST(Request, HasAsManyEventfdsAsVectorsOrNone) {
  for (const std::uint32_t count : {1U, 2U, 15U, 16U, 17U}) {
    for (const std::size_t fds : {0U, 1U, 2U, 15U, 16U, 17U, 253U}) {
      const bool is_right = fds == 0 || (fds == count && fds <= most_fds);
      EXPECT_EQ(parse(rig::set_irqs(2, signal_eventfds, 0, count), fds).has_value(), is_right)
          << count << " vectors with " << fds;
    }
  }
}

struct Edge {
  const char* name;
  Call call;
  int error;
};
void check(const std::vector<Edge>& edges) {
  for (const Edge& edge : edges) EXPECT_EQ(error_of(edge.call), edge.error) << edge.name;
}

TEST(Request, WhoseArgszIsLessThanItsBodyIsRefused) {
  for (const Form& form : forms()) {
    switch (form.call.command) {
      case Command::version:
      case Command::region_read:
      case Command::region_write:
      case Command::region_write_multi:
      case Command::dma_read:
      case Command::dma_write:
      case Command::device_reset:
        continue;  // it has none
      default:
        break;
    }
    // Of the fixed part alone: what follows is not counted.
    const std::uint32_t right = rig::at<std::uint32_t>(form.call.body);
    for (const std::uint32_t argsz : {0U, 1U, right - 1, right, right + 1, half32, most32}) {
      Call call = form.call;
      std::memcpy(call.body.data(), &argsz, sizeof argsz);
      const bool is_too_long = form.call.command == Command::device_feature && argsz > longest_transfer;
      EXPECT_EQ(error_of(call), argsz < right || is_too_long ? EINVAL : 0) << form.name << ", argsz " << argsz;
    }
  }
}

TEST(Request, ToMapIsChecked) {
  const auto flags = [](std::uint32_t value) { return rig::map(0x1000, 0x1000, -1, 0, value); };
  check({{"no access", flags(0), EINVAL},
         {"read", flags(1), 0},
         {"write", flags(2), 0},
         {"read and write", flags(3), 0},
         {"unknown", flags(4), EINVAL},
         {"unknown beside", flags(7), EINVAL},
         {"the last flag", flags(half32 | 3), EINVAL},
         {"all flags", flags(most32), EINVAL},
         {"empty", rig::map(0x1000, 0), EINVAL},
         {"empty at 0", rig::map(0, 0), EINVAL},
         {"the last byte", rig::map(most64, 1), 0},
         {"beyond the last byte", rig::map(most64, 2), EINVAL},
         {"the upper half", rig::map(half64, half64), 0},
         {"one more", rig::map(half64, half64 + 1), EINVAL},
         {"all but a byte", rig::map(0, most64), 0},
         {"the same from 1", rig::map(1, most64), 0},
         {"the same from 2", rig::map(2, most64), EINVAL},
         {"wraps", rig::map(most64 - 0xfff, 0x2000), EINVAL},
         {"the file's last byte", rig::map(0, 1, -1, most64), 0},
         {"beyond it", rig::map(0, 2, -1, most64), EINVAL},
         {"the offset wraps", rig::map(0, 0x2000, -1, most64 - 0xfff), EINVAL},
         {"offset and size", rig::map(0, half64, -1, half64), 0},
         {"offset and size wrap", rig::map(0, half64 + 1, -1, half64), EINVAL}});
}

TEST(Request, ToUnmapIsChecked) {
  check({{"empty", rig::unmap(0x1000, 0), EINVAL},
         {"empty at 0", rig::unmap(0, 0), EINVAL},
         {"the last byte", rig::unmap(most64, 1), 0},
         {"beyond the last byte", rig::unmap(most64, 2), EINVAL},
         {"wraps", rig::unmap(half64, half64 + 1), EINVAL},
         {"all", rig::unmap(0, 0, unmap_all), 0},
         {"all from somewhere", rig::unmap(0x1000, 0, unmap_all), EINVAL},
         {"all of a size", rig::unmap(0, 0x1000, unmap_all), EINVAL},
         {"with the dirty pages", rig::unmap(0x1000, 0x1000, VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP), EOPNOTSUPP},
         {"all, with the dirty pages", rig::unmap(0, 0, unmap_all | VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP), EOPNOTSUPP},
         {"unknown", rig::unmap(0x1000, 0x1000, 4), EINVAL},
         {"unknown beside", rig::unmap(0, 0, unmap_all | 4), EINVAL},
         {"the last flag", rig::unmap(0x1000, 0x1000, half32), EINVAL}});
  // A bitmap follows in the kernel's own struct.
  Call dirty = rig::unmap(0x1000, 0x1000, VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP);
  dirty.body.resize(dirty.body.size() + 24);
  EXPECT_EQ(error_of(dirty), EOPNOTSUPP);
}

TEST(Request, ForInformationTakesAnyIndex) {
  for (const std::uint32_t index : {0U, 8U, 9U, half32, most32}) {
    EXPECT_EQ(parsed_as<DeviceGetRegionInfo>(rig::region_info(index)).body.index, index);
    EXPECT_EQ(parsed_as<DeviceGetIrqInfo>(rig::irq_info(index)).body.index, index);
  }
}

TEST(Request, ToSetInterruptsIsChecked) {
  const auto none = [](std::uint32_t start, std::uint32_t count) { return rig::set_irqs(2, off, start, count); };
  const auto flags = [](std::uint32_t value) { return rig::set_irqs(2, value, 0, 1, {}, Bytes((value & 2) / 2)); };
  check({{"any index", rig::set_irqs(most32, off, 0, 0), 0},
         {"all vectors there could be", none(0, most32), 0},
         {"one more", none(1, most32), EINVAL},
         {"the last of them", none(most32 - 1, 1), 0},
         {"the one after", none(most32, 1), EINVAL},
         {"none after it", none(most32, 0), 0},
         {"two halves", none(half32, half32), EINVAL},
         {"a byte less", none(half32, half32 - 1), 0},
         {"as many eventfds", rig::set_irqs(2, signal_eventfds, 0, most32), 0},
         {"wrapping eventfds", rig::set_irqs(2, signal_eventfds, 1, most32), EINVAL},
         {"as many booleans that are not there", rig::set_irqs(2, as_booleans, 0, most32), EINVAL},
         {"half as many", rig::set_irqs(2, as_booleans, 0, half32), EINVAL},
         {"booleans too few", rig::set_irqs(2, as_booleans, 0, 3, {}, Bytes(2)), EINVAL},
         {"booleans too many", rig::set_irqs(2, as_booleans, 0, 3, {}, Bytes(4)), EINVAL},
         {"no booleans", rig::set_irqs(2, as_booleans, 0, 0), EINVAL},
         {"no eventfds", rig::set_irqs(2, signal_eventfds, 0, 0), EINVAL},
         {"mask none", rig::set_irqs(0, rig::mask, 0, 0), EINVAL},
         {"unmask none", rig::set_irqs(0, rig::unmask, 0, 0), EINVAL},
         {"mask", rig::set_irqs(0, rig::mask, 0, 1), 0},
         {"unmask", rig::set_irqs(0, rig::unmask, 0, 1), 0},
         {"no flags", flags(0), EINVAL},
         {"data alone", flags(1), EINVAL},
         {"action alone", flags(0x20), EINVAL},
         {"two kinds of data", flags(0x23), EINVAL},
         {"three kinds of data", flags(0x27), EINVAL},
         {"two actions", flags(0x31), EINVAL},
         {"three actions", flags(0x39), EINVAL},
         {"unknown", flags(0x61), EINVAL},
         {"the last flag", flags(half32 | 0x21), EINVAL}});
  for (std::uint32_t data = 1; data <= 4; data *= 2) {
    for (std::uint32_t action = 8; action <= 32; action *= 2) EXPECT_EQ(error_of(flags(data | action)), 0);
  }
  // Descriptors that are not eventfds for it.
  EXPECT_EQ(error_of(rig::set_irqs(2, rig::trigger, 0, 1, {7})), EINVAL);
  EXPECT_EQ(error_of(rig::set_irqs(2, as_booleans, 0, 1, {7}, Bytes(1))), EINVAL);
}

TEST(Request, ToReadIsChecked) {
  check({{"nothing", rig::read_region(0, 0, 0), EINVAL},
         {"a byte", rig::read_region(0, 0, 1), 0},
         {"the most", rig::read_region(0, 0, longest_transfer), 0},
         {"more", rig::read_region(0, 0, longest_transfer + 1), EINVAL},
         {"half of what there could be", rig::read_region(0, 0, half32), EINVAL},
         {"all there could be", rig::read_region(0, 0, most32), EINVAL},
         {"the last byte", rig::read_region(0, most64, 1), 0},
         {"beyond the last byte", rig::read_region(0, most64, 2), EINVAL},
         {"the last bytes", rig::read_region(0, most64 - 3, 4), 0},
         {"wraps", rig::read_region(0, most64 - 2, 4), EINVAL},
         {"any region", rig::read_region(most32, 0, 4), 0}});
}

TEST(Request, ToWriteIsChecked) {
  const auto write = [](std::uint64_t offset, std::uint32_t count, std::size_t bytes) {
    return Call{.command = Command::region_write,
                .body = bytes_of(RegionAccessBody{.offset = offset, .region = 0, .count = count}, Bytes(bytes))};
  };
  check({{"nothing", write(0, 0, 0), EINVAL},
         {"a byte", write(0, 1, 1), 0},
         {"the most", write(0, longest_transfer, longest_transfer), 0},
         {"more", write(0, longest_transfer + 1, longest_transfer + 1), EINVAL},
         {"too little data", write(0, 4, 3), EINVAL},
         {"too much data", write(0, 4, 5), EINVAL},
         {"data that is not counted", write(0, 0, 4), EINVAL},
         {"half of what there could be", write(0, half32, 4), EINVAL},
         {"all there could be", write(0, most32, 4), EINVAL},
         {"the last byte", write(most64, 1, 1), 0},
         {"beyond the last byte", write(most64, 2, 2), EINVAL}});
}

TEST(Request, ToWriteSeveralIsChecked) {
  const auto write = [](std::uint64_t offset, std::uint32_t count) {
    return RegionWriteBody{.access = {.offset = offset, .region = 0, .count = count}, .data = {}};
  };
  const auto counted = [](std::uint64_t count, std::size_t writes) {
    Call call = rig::write_several(std::vector<RegionWriteBody>(writes, rig::one_write(0, 0, std::uint32_t{0})));
    std::memcpy(call.body.data(), &count, sizeof count);
    return call;
  };
  check({{"none", counted(0, 0), EINVAL},
         {"none of one", counted(0, 1), EINVAL},
         {"one", counted(1, 1), 0},
         {"one of two", counted(1, 2), EINVAL},
         {"two of one", counted(2, 1), EINVAL},
         {"as many as it may have", counted(256, 256), 0},
         {"one more", counted(257, 257), EINVAL},
         {"so many that their length wraps", counted(std::uint64_t{1} << 61, 0), EINVAL},
         {"the same with one more", counted((std::uint64_t{1} << 61) + 1, 1), EINVAL},
         {"half of what there could be", counted(half64, 1), EINVAL},
         {"all there could be", counted(most64, 1), EINVAL},
         {"of no bytes", rig::write_several({write(0, 0)}), EINVAL},
         {"of one byte", rig::write_several({write(0, 1)}), 0},
         {"of eight bytes", rig::write_several({write(0, 8)}), 0},
         {"of nine bytes", rig::write_several({write(0, 9)}), EINVAL},
         {"of all there could be", rig::write_several({write(0, most32)}), EINVAL},
         {"the second of nine", rig::write_several({write(0, 4), write(0, 9)}), EINVAL},
         {"at the end", rig::write_several({write(most64 - 7, 8)}), 0},
         {"beyond the end", rig::write_several({write(most64 - 6, 8)}), EINVAL}});
}

TEST(Request, ForTheClientsMemoryIsChecked) {
  const auto read = [](std::uint64_t address, std::uint64_t count) {
    return Call{.command = Command::dma_read, .body = bytes_of(DmaAccessBody{.address = address, .count = count})};
  };
  const auto write = [](std::uint64_t address, std::uint64_t count, std::size_t bytes) {
    return Call{.command = Command::dma_write,
                .body = bytes_of(DmaAccessBody{.address = address, .count = count}, Bytes(bytes))};
  };
  check({{"read nothing", read(0, 0), EINVAL},
         {"read the most", read(0, longest_transfer), 0},
         {"read more", read(0, longest_transfer + std::uint64_t{1}), EINVAL},
         {"read 2^32 and a byte", read(0, (std::uint64_t{1} << 32) + 1), EINVAL},
         {"read all there could be", read(0, most64), EINVAL},
         {"read the last byte", read(most64, 1), 0},
         {"read beyond it", read(most64, 2), EINVAL},
         {"write nothing", write(0, 0, 0), EINVAL},
         {"write a byte", write(0, 1, 1), 0},
         {"write too little", write(0, 4, 3), EINVAL},
         {"write too much", write(0, 4, 5), EINVAL},
         {"write 2^32 and 4 bytes", write(0, (std::uint64_t{1} << 32) + 4, 4), EINVAL},
         {"write all there could be", write(0, most64, 4), EINVAL},
         {"write beyond the last byte", write(most64, 2, 2), EINVAL}});
}

TEST(Request, OfMigrationIsChecked) {
  const auto read = [](std::uint32_t size) {
    return Call{.command = Command::mig_data_read,
                .body = bytes_of(MigDataBody{.argsz = sizeof(MigDataBody), .size = size})};
  };
  const auto write = [](std::uint32_t size, std::size_t bytes) {
    return Call{.command = Command::mig_data_write,
                .body = bytes_of(MigDataBody{.argsz = sizeof(MigDataBody), .size = size}, Bytes(bytes))};
  };
  check({{"read the most", read(longest_transfer), 0},
         {"read more", read(longest_transfer + 1), EINVAL},
         {"read all there could be", read(most32), EINVAL},
         {"write", write(3, 3), 0},
         {"write too little", write(3, 2), EINVAL},
         {"write too much", write(3, 4), EINVAL},
         {"write all there could be", write(most32, 4), EINVAL}});
  const auto feature = [](std::uint32_t argsz) {
    return Call{.command = Command::device_feature, .body = bytes_of(FeatureBody{.argsz = argsz, .flags = most32})};
  };
  check(
      {{"the longest answer", feature(longest_transfer), 0}, {"a longer one", feature(longest_transfer + 1), EINVAL}});
}

TEST(Request, ForTheVersionHasOneNulAtItsEnd) {
  const auto body = [](auto... parts) {
    return Call{.command = Command::version, .body = bytes_of(std::uint32_t{0}, parts...)};
  };
  check({{"no NUL", body(std::string_view("{}")), EINVAL},
         {"a NUL within", body(std::string_view("{\0}", 3)), EINVAL},
         {"a NUL before the end", body(std::string_view("{\0}\0", 4)), EINVAL},
         {"two at the end", body(std::string_view("{}\0\0", 4)), EINVAL},
         {"one", body(std::string_view("{}\0", 3)), 0},
         {"nothing else", body('\0'), 0},
         {"the longest", body(Bytes(longest_version - 5, std::byte{' '}), '\0'), 0},
         {"longer", body(Bytes(longest_version - 4, std::byte{' '}), '\0'), EINVAL}});
}

TEST(Request, ForTheVersionIsRead) {
  const Call call = rig::version(rig::qemu_capabilities, 1, 2);
  const auto known = parsed_as<Version>(call);
  EXPECT_EQ(known.major, 2);
  EXPECT_EQ(known.minor, 1);
  EXPECT_EQ(known.json, rig::qemu_capabilities);
  EXPECT_EQ(parsed_as<Version>({.command = Command::version, .body = bytes_of(std::uint32_t{0})}).json, "");
  EXPECT_EQ(parsed_as<Version>(rig::version("")).json, "");
}

TEST(Request, ForMemoryIsRead) {
  const auto mapped = parsed_as<DmaMap>(rig::map(0x1000, 0x2000, 7, 0x3000, VFIO_DMA_MAP_FLAG_WRITE)).body;
  EXPECT_EQ(mapped.iova, 0x1000U);
  EXPECT_EQ(mapped.size, 0x2000U);
  EXPECT_EQ(mapped.offset, 0x3000U);
  EXPECT_EQ(mapped.flags, std::uint32_t{VFIO_DMA_MAP_FLAG_WRITE});
  const auto unmapped = parsed_as<DmaUnmap>(rig::unmap(0x1000, 0x2000));
  EXPECT_EQ(unmapped.body.iova, 0x1000U);
  EXPECT_EQ(unmapped.body.size, 0x2000U);
  EXPECT_FALSE(unmapped.is_all());
  EXPECT_TRUE(parsed_as<DmaUnmap>(rig::unmap_everything()).is_all());
}

TEST(Request, ForInterruptsIsRead) {
  const auto eventfds = parsed_as<DeviceSetIrqs>(rig::set_irqs(2, signal_eventfds, 16, 2, {7, 8}));
  EXPECT_EQ(eventfds.body.index, 2U);
  EXPECT_EQ(eventfds.body.start, 16U);
  EXPECT_EQ(eventfds.body.count, 2U);
  EXPECT_EQ(eventfds.data, IrqData::eventfd);
  EXPECT_EQ(eventfds.action, IrqAction::trigger);
  EXPECT_TRUE(eventfds.booleans.empty());
  const Call call =
      rig::set_irqs(0, VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_ACTION_MASK, 0, 2, {}, {std::byte{1}, std::byte{0}});
  const auto booleans = parsed_as<DeviceSetIrqs>(call);
  EXPECT_EQ(booleans.data, IrqData::boolean);
  EXPECT_EQ(booleans.action, IrqAction::mask);
  ASSERT_EQ(booleans.booleans.size(), 2U);
  EXPECT_EQ(booleans.booleans[0], std::byte{1});
  EXPECT_EQ(booleans.booleans[1], std::byte{0});
  const auto unmasked = parsed_as<DeviceSetIrqs>(rig::set_irqs(0, rig::unmask, 0, 1));
  EXPECT_EQ(unmasked.data, IrqData::none);
  EXPECT_EQ(unmasked.action, IrqAction::unmask);
}

TEST(Request, ForARegionIsRead) {
  const auto read = parsed_as<RegionRead>(rig::read_region(7, 0x40, 2)).body;
  EXPECT_EQ(read.region, 7U);
  EXPECT_EQ(read.offset, 0x40U);
  EXPECT_EQ(read.count, 2U);
  const Call call = rig::write_region(0, 0x1000, std::uint32_t{0x12345678});
  const auto written = parsed_as<RegionWrite>(call);
  EXPECT_EQ(written.body.offset, 0x1000U);
  EXPECT_EQ(written.body.count, 4U);
  EXPECT_EQ(rig::at<std::uint32_t>(written.data), 0x12345678U);
  const auto several = parsed_as<RegionWriteMulti>(
      rig::write_several({rig::one_write(0, 0x14, std::uint16_t{0x1234}), rig::one_write(2, 8, most64)}));
  ASSERT_EQ(several.writes.size(), 2U);
  EXPECT_EQ(several.writes[0].access.offset, 0x14U);
  EXPECT_EQ(several.writes[0].access.count, 2U);
  EXPECT_EQ(rig::at<std::uint16_t>(std::as_bytes(std::span(several.writes[0].data))), 0x1234);
  EXPECT_EQ(several.writes[1].access.region, 2U);
  EXPECT_EQ(rig::at<std::uint64_t>(std::as_bytes(std::span(several.writes[1].data))), most64);
}

TEST(Request, OfWhateverElseIsRead) {
  const auto feature = parsed_as<DeviceFeature>(
      {.command = Command::device_feature,
       .body = bytes_of(FeatureBody{.argsz = 64, .flags = VFIO_DEVICE_FEATURE_PROBE | 1}, std::uint16_t{5})});
  EXPECT_EQ(feature.body.flags, VFIO_DEVICE_FEATURE_PROBE | 1U);
  EXPECT_EQ(feature.data.size(), 2U);
  const Call dma{.command = Command::dma_write,
                 .body = bytes_of(DmaAccessBody{.address = 0x1000, .count = 2}, std::uint16_t{5})};
  EXPECT_EQ(parsed_as<DmaWrite>(dma).body.address, 0x1000U);
  EXPECT_EQ(parsed_as<DmaWrite>(dma).data.size(), 2U);
  const Call data{.command = Command::mig_data_write,
                  .body = bytes_of(MigDataBody{.argsz = sizeof(MigDataBody), .size = 2}, std::uint16_t{5})};
  EXPECT_EQ(parsed_as<MigDataWrite>(data).data.size(), 2U);
  (void)parsed_as<DeviceReset>(rig::reset_device());
  (void)parsed_as<DeviceGetInfo>(rig::get_info());
}

TEST(Request, OfQemuIsRead) {
  for (const Call& call : rig::life_of({.memory = 5, .event = 6}))
    EXPECT_EQ(error_of(call), 0) << "command " << static_cast<unsigned>(call.command);
  // Chunks, where vectors cannot be added; and vectors without eventfds.
  EXPECT_EQ(error_of(rig::set_irqs(2, signal_eventfds, 0, 16, std::vector<int>(16, 6))), 0);
  EXPECT_EQ(error_of(rig::set_irqs(2, signal_eventfds, 16, 5, std::vector<int>(5, 6))), 0);
  EXPECT_EQ(error_of(rig::set_irqs(2, signal_eventfds, 0, 20)), 0);
  // Unplug.
  EXPECT_EQ(error_of(rig::set_irqs(VFIO_PCI_ERR_IRQ_INDEX, signal_eventfds, 0, 1)), 0);
}

TEST(Request, OfCloudHypervisorIsRead) {
  Call info = rig::get_info();
  const std::uint32_t argsz = 32;
  std::memcpy(info.body.data(), &argsz, sizeof argsz);
  EXPECT_EQ(error_of(info), 0) << "it leaves room for what may come";
  EXPECT_EQ(error_of(rig::version(rig::qemu_capabilities, 1)), 0);
}

TEST(Header, TellsHowMuchFollowsUnlessItsSizeIsUnusable) {
  const auto is_usable = [](std::uint32_t size) {
    return has_usable_size({.id = 0, .command = 0, .size = size, .flags = 0, .error = 0});
  };
  for (const std::uint32_t size : {0U, 1U, 15U, longest_message + 1, half32, most32})
    EXPECT_FALSE(is_usable(size)) << size;
  for (const std::uint32_t size : {16U, 17U, 214U, longest_message}) EXPECT_TRUE(is_usable(size)) << size;
}

}  // namespace request_test
}  // namespace postern::vfio_user
