// SPDX-License-Identifier: Apache-2.0
// Fuzzes a vfio-user session: sequences of messages to a simulated device, of which nothing may be left.
#include "vfio_user/server/session.hpp"

#include <fcntl.h>
#include <linux/vfio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/pci_function.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "fuzz/bytes.hpp"

namespace postern::fuzz {
namespace {

using vfio_user::Command;

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t file_length = 16 * page;

Device attached(Kernel& kernel, const char* backend, std::uint8_t slot) {
  return attach(kernel, find_pci_function(kernel, {.device = slot}).value().host, {.backend = backend}).value();
}

// What a client may send as descriptors.
class Files {
 public:
  Files() {
    const int memory = ::memfd_create("client memory", MFD_CLOEXEC);
    if (memory < 0 || ::ftruncate(memory, file_length) < 0) std::abort();
    const std::string path = "/proc/self/fd/" + std::to_string(memory);
    const int sealed = ::memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (::ftruncate(sealed, page) < 0 || ::fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE) < 0) std::abort();
    all_ = {memory,
            system_kernel().eventfd(),
            system_kernel().eventfd(),
            ::open(path.c_str(), O_RDONLY | O_CLOEXEC),
            sealed,
            ::open("/dev/null", O_RDWR | O_CLOEXEC),
            ::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC),
            ::open(path.c_str(), O_PATH | O_CLOEXEC)};
    for (const int fd : all_) {
      if (fd < 0) std::abort();
    }
  }
  [[nodiscard]] Fd copy(Kernel& kernel, std::size_t which) const {
    return {kernel, ::fcntl(all_[which % all_.size()], F_DUPFD_CLOEXEC, 0)};
  }

 private:
  std::array<int, 8> all_{};
};

// How many descriptors are open among the lowest, but for pipes: libFuzzer has some to its symbolizer.
int open_files() {
  int open = 0;
  for (int fd = 0; fd < 256; ++fd) {
    struct stat status {};
    open += ::fstat(fd, &status) == 0 && !S_ISFIFO(status.st_mode) ? 1 : 0;
  }
  return open;
}

template <typename Body>
void put(std::vector<std::byte>& body, const Body& part) {
  const auto bytes = std::as_bytes(std::span(&part, 1));
  body.insert(body.end(), bytes.begin(), bytes.end());
}

// A body that is nearly right, so that most messages reach the device.
std::vector<std::byte> likely_body(Bytes& bytes, Command command) {
  using namespace vfio_user;
  std::vector<std::byte> body;
  const auto pages = [&] { return bytes.take<std::uint8_t>() % 24 * page; };
  switch (command) {
    case Command::version: {
      constexpr std::string_view json = R"({"capabilities":{"max_msg_fds":16}})";
      put(body, std::uint32_t{0});
      for (const char letter : json) body.push_back(static_cast<std::byte>(letter));
      body.push_back(std::byte{0});
      break;
    }
    case Command::dma_map: {
      const std::uint32_t flags = bytes.take<std::uint8_t>() % 4;
      const std::uint64_t offset = pages();
      const std::uint64_t iova = pages();
      put(body, DmaMapBody{.argsz = 32, .flags = flags, .offset = offset, .iova = iova, .size = pages()});
      break;
    }
    case Command::dma_unmap: {
      const bool is_all = bytes.take<std::uint8_t>() % 8 == 1;
      const std::uint64_t iova = is_all ? 0 : pages();
      const std::uint64_t size = is_all ? 0 : pages();
      put(body, DmaUnmapBody{.argsz = 24, .flags = is_all ? unmap_all : 0, .iova = iova, .size = size});
      break;
    }
    case Command::device_get_info:
      put(body, DeviceInfoBody{.argsz = 16, .flags = 0, .num_regions = 0, .num_irqs = 0});
      break;
    case Command::device_get_region_info:
      put(body, RegionInfoBody{.argsz = 32,
                               .flags = 0,
                               .index = bytes.take<std::uint8_t>() % 10U,
                               .cap_offset = 0,
                               .size = 0,
                               .offset = 0});
      break;
    case Command::device_get_irq_info:
      put(body, IrqInfoBody{.argsz = 16, .flags = 0, .index = bytes.take<std::uint8_t>() % 6U, .count = 0});
      break;
    case Command::device_set_irqs: {
      const unsigned kind = bytes.take<std::uint8_t>();
      const std::uint32_t flags = 1U << kind % 3 | 8U << kind / 3 % 3;
      const std::uint32_t index = bytes.take<std::uint8_t>() % 6;
      const std::uint32_t start = bytes.take<std::uint8_t>() % 70;
      const std::uint32_t count = bytes.take<std::uint8_t>() % 70;
      put(body, IrqSetBody{.argsz = 20, .flags = flags, .index = index, .start = start, .count = count});
      if ((flags & VFIO_IRQ_SET_DATA_BOOL) == 0) break;
      for (std::uint32_t i = 0; i < count; ++i) body.push_back(static_cast<std::byte>(i % 2));
      break;
    }
    case Command::region_read:
    case Command::region_write: {
      const std::uint32_t region = bytes.take<std::uint8_t>() % 2 == 0 ? 0 : 7;
      const std::uint64_t offset = bytes.take<std::uint16_t>() % 0x4010;
      const std::uint32_t count = bytes.take<std::uint8_t>() % 17;
      put(body, RegionAccessBody{.offset = offset, .region = region, .count = count});
      for (std::uint32_t i = 0; command == Command::region_write && i < count; ++i)
        body.push_back(bytes.take<std::byte>());
      break;
    }
    case Command::region_write_multi: {
      const std::uint64_t count = 1 + bytes.take<std::uint8_t>() % 3;
      put(body, count);
      for (std::uint64_t i = 0; i < count; ++i) {
        RegionWriteBody write{.access = {.offset = bytes.take<std::uint8_t>(), .region = 7, .count = 2}, .data = {}};
        bytes.fill(write.data, sizeof write.data);
        put(body, write);
      }
      break;
    }
    default:
      body.resize(bytes.take<std::uint8_t>() % 40);
      bytes.fill(body.data(), body.size());
  }
  return body;
}

std::vector<std::byte> any_body(Bytes& bytes) {
  std::vector<std::byte> body(bytes.take<std::uint8_t>() % 80);
  bytes.fill(body.data(), body.size());
  return body;
}

// Commands that reach the device are likelier.
constexpr std::array commands = {
    Command::dma_map,
    Command::dma_map,
    Command::dma_unmap,
    Command::device_set_irqs,
    Command::device_set_irqs,
    Command::device_set_irqs,
    Command::region_read,
    Command::region_write,
    Command::region_write,
    Command::region_write_multi,
    Command::device_reset,
    Command::device_get_info,
    Command::device_get_region_info,
    Command::device_get_irq_info,
    Command::version,
    Command::device_feature,
    Command::device_get_region_io_fds,
    Command::dma_read,
    Command::dma_write,
    Command::mig_data_read,
    Command::mig_data_write,
    static_cast<Command>(14),
};

void send(vfio_user::Session& session, Kernel& kernel, const Files& files, Bytes& bytes, Command command) {
  const unsigned shape = bytes.take<std::uint8_t>();
  const std::vector<std::byte> body = shape % 8 == 7 ? any_body(bytes) : likely_body(bytes, command);
  std::size_t count = 0;
  if (command == Command::dma_map) count = shape % 16 == 0 ? 0 : 1;
  if (command == Command::device_set_irqs && body.size() == 20) count = static_cast<std::size_t>(body[16]) % 17;
  if (shape % 32 == 31) count = bytes.take<std::uint8_t>() % 18;
  std::vector<Fd> fds;
  const std::size_t first = command == Command::device_set_irqs ? 1 : 0;  // an eventfd, or memory
  for (std::size_t i = 0; i < count; ++i)
    fds.push_back(files.copy(kernel, shape % 16 == 15 ? bytes.take<std::uint8_t>() : first));
  const vfio_user::Header header{.id = 1,
                                 .command = static_cast<std::uint16_t>(command),
                                 .size = static_cast<std::uint32_t>(sizeof(vfio_user::Header) + body.size()),
                                 .flags = shape == 255 ? bytes.take<std::uint8_t>() : 0U,
                                 .error = 0};
  const vfio_user::Reply reply = session.handle(header, body, std::move(fds));
  if (reply.error() < 0 || reply.error() >= 4096 || reply.message(header).size() < sizeof header) std::abort();
}

}  // namespace
}  // namespace postern::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace postern;
  // The devices stay attached: a session ends with them as they were.
  static sim::Kernel kernel;
  static const fuzz::Files files;
  static const std::array devices = {fuzz::attached(kernel, "iommufd", 1), fuzz::attached(kernel, "type1", 4)};
  static const int before = fuzz::open_files();

  fuzz::Bytes bytes(data, size);
  const Device& device = devices[bytes.take<std::uint8_t>() % devices.size()];
  vfio_user::Policy policy{.memory_limit = 32 * fuzz::page, .mapping_limit = 8};
  if (bytes.take<std::uint8_t>() % 4 == 1) policy.read_only_config = {{.offset = 4, .length = 2}};
  int times_told = 0;
  vfio_user::Session session(device, policy, [&](vfio_user::ServerEvent::Kind, const std::string&) { ++times_told; });
  if (bytes.take<std::uint8_t>() != 1) fuzz::send(session, kernel, files, bytes, fuzz::Command::version);
  for (std::size_t messages = 0; messages < 64 && !bytes.is_empty(); ++messages)
    fuzz::send(session, kernel, files, bytes, fuzz::commands[bytes.take<std::uint8_t>() % fuzz::commands.size()]);

  if (times_told > 2 || session.mapped() > policy.memory_limit) std::abort();
  if (device.container()->mapping_count() > policy.mapping_limit) std::abort();
  if (!session.quiesce() || (device.can_reset() && !device.reset()) || !session.unmap_all()) std::abort();
  if (device.container()->mapping_count() != 0 || fuzz::open_files() != before) std::abort();
  return 0;
}
