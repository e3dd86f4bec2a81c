// SPDX-License-Identifier: Apache-2.0
// status_text(): the texts of status codes (NVM Express 1.4, section 4.6.1).
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <postern-nvme/controller.hpp>
#include <string_view>

namespace postern::nvme {
namespace {

struct Words {
  std::uint16_t code;  // type in bits 8..10, code in bits 0..7
  std::string_view text;
};

constexpr std::array words = {
    // Generic command status.
    Words{0x000, "success"},
    Words{0x001, "invalid command opcode"},
    Words{0x002, "invalid field in command"},
    Words{0x003, "command id conflict"},
    Words{0x004, "data transfer error"},
    Words{0x005, "aborted because of power loss"},
    Words{0x006, "internal error"},
    Words{0x007, "aborted by request"},
    Words{0x008, "aborted because the submission queue was deleted"},
    Words{0x00b, "invalid namespace or format"},
    Words{0x00c, "command sequence error"},
    Words{0x012, "controller memory buffer used where it may not be"},
    Words{0x013, "PRP offset invalid"},
    Words{0x015, "operation denied"},
    Words{0x01c, "sanitize in progress"},
    Words{0x01d, "sanitize failed"},
    Words{0x020, "namespace is write protected"},
    Words{0x080, "LBA out of range"},
    Words{0x081, "capacity exceeded"},
    Words{0x082, "namespace not ready"},
    Words{0x083, "reservation conflict"},
    Words{0x084, "format in progress"},
    // Command specific status.
    Words{0x100, "completion queue invalid"},
    Words{0x101, "invalid queue identifier"},
    Words{0x102, "invalid queue size"},
    Words{0x103, "abort command limit exceeded"},
    Words{0x105, "asynchronous event request limit exceeded"},
    Words{0x106, "invalid firmware slot"},
    Words{0x108, "invalid interrupt vector"},
    Words{0x109, "invalid log page"},
    Words{0x10a, "invalid format"},
    Words{0x10c, "invalid queue deletion"},
    Words{0x10d, "feature identifier not saveable"},
    Words{0x10e, "feature not changeable"},
    Words{0x10f, "feature not namespace specific"},
    Words{0x180, "conflicting attributes"},
    Words{0x181, "invalid protection information"},
    Words{0x182, "attempted write to a read-only range"},
    // Media and data integrity errors.
    Words{0x280, "write fault"},
    Words{0x281, "unrecovered read error"},
    Words{0x282, "end-to-end guard check error"},
    Words{0x283, "end-to-end application tag check error"},
    Words{0x284, "end-to-end reference tag check error"},
    Words{0x285, "compare failure"},
    Words{0x286, "access denied"},
    Words{0x287, "deallocated or unwritten logical block"},
    // Path related status.
    Words{0x300, "internal path error"},
    Words{0x301, "asymmetric access persistent loss"},
    Words{0x302, "asymmetric access inaccessible"},
    Words{0x303, "asymmetric access transition"},
    Words{0x370, "host pathing error"},
    Words{0x371, "aborted by the host"},
};

}  // namespace

std::string status_text(std::uint16_t status) {
  const auto code = static_cast<std::uint16_t>(status & 0x7ff);  // the bits above are flags
  const auto* known =
      std::find_if(words.begin(), words.end(), [code](const Words& entry) { return entry.code == code; });
  if (known != words.end()) return fmt::format("{} ({:#05x})", known->text, code);
  return fmt::format("{} ({:#05x})", code >> 8 == 7 ? "vendor-specific status" : "unknown status", code);
}

}  // namespace postern::nvme
