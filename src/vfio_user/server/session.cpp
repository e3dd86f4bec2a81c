// SPDX-License-Identifier: Apache-2.0
// Session: the device behind the requests of a client.
#include "vfio_user/server/session.hpp"

#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <new>
#include <postern/little_endian.hpp>
#include <postern/pci_device.hpp>
#include <utility>

#include "vfio_user/wire/capabilities.hpp"

namespace postern::vfio_user {
namespace {

constexpr std::uint16_t newest_minor = 1;  // of version 0 of the protocol

template <typename... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};
template <typename... Functions>
Overloaded(Functions...) -> Overloaded<Functions...>;

// Registers of the header that a client may write, and that VFIO gives back to the device after a reset.
constexpr std::array<ConfigRange, 10> kept_by_reset = {{{PCI_COMMAND, 2},
                                                        {PCI_CACHE_LINE_SIZE, 2},  // and the latency timer
                                                        {PCI_BASE_ADDRESS_0, 4},
                                                        {PCI_BASE_ADDRESS_1, 4},
                                                        {PCI_BASE_ADDRESS_2, 4},
                                                        {PCI_BASE_ADDRESS_3, 4},
                                                        {PCI_BASE_ADDRESS_4, 4},
                                                        {PCI_BASE_ADDRESS_5, 4},
                                                        {PCI_ROM_ADDRESS, 4},
                                                        {PCI_INTERRUPT_LINE, 1}}};

// A reply without a body.
Reply done_with(int error) { return error == 0 ? Reply() : Reply::failed(error); }

bool contains(const ConfigRange& range, std::uint64_t offset) {
  return offset >= range.offset && offset - range.offset < range.length;
}

bool is_mappable_as_a_whole(const Region& region) {
  const auto& areas = region.mappable_areas;
  return areas.size() == 1 && areas.front().offset == 0 && areas.front().length == region.length;
}

// The parts of a region that can be mapped, as vfio_region_info_cap_sparse_mmap.
std::vector<std::byte> sparse_areas(const Region& region) {
  Reply bytes;
  bytes.add(vfio_info_cap_header{.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP, .version = 1, .next = 0});
  bytes.add(static_cast<std::uint32_t>(region.mappable_areas.size())).add(std::uint32_t{0});
  for (const RegionArea& area : region.mappable_areas)
    bytes.add(vfio_region_sparse_mmap_area{.offset = area.offset, .size = area.length});
  return {bytes.body().begin(), bytes.body().end()};
}

}  // namespace

Session::Session(const Device& device, const Policy& policy, Tell tell, OpenRegion open_region)
    : device_(device),
      policy_(policy),
      tell_(std::move(tell)),
      open_region_(std::move(open_region)),
      memory_(*device.container(), policy),
      interrupts_(device) {
  read_header();
}

Reply Session::handle(const Header& header, std::span<const std::byte> body, std::vector<Fd> fds) {
  try {
    const auto request = parse_request(header, body, fds.size());
    if (request) return answer(*request, fds);
    is_over_ = !has_negotiated_;
    return Reply::failed(request.error());
  } catch (const std::bad_alloc&) {
    return Reply::failed(ENOMEM);
  }
}

Reply Session::answer(const Request& request, std::vector<Fd>& fds) {
  if (const auto* const version = std::get_if<Version>(&request)) return negotiate(*version);
  if (!has_negotiated_) {
    is_over_ = true;
    return Reply::failed(EINVAL);
  }
  return std::visit(
      Overloaded{
          [&](const DmaMap& request_to_map) { return map(request_to_map, fds); },
          [&](const DmaUnmap& unmap) {
            const int failed = memory_.unmap(unmap);
            return failed == 0 ? std::move(Reply().add(unmap.body)) : Reply::failed(failed);
          },
          [&](const DeviceGetInfo&) { return info(); },
          [&](const DeviceGetRegionInfo& get) { return region_info(get.body); },
          [&](const DeviceGetIrqInfo& get) { return irq_info(get.body); },
          [&](const DeviceSetIrqs& set) { return done_with(interrupts_.set(set, std::move(fds))); },
          [&](const RegionRead& access) { return read(access.body); },
          [&](const RegionWrite& access) {
            const int failed = write(access.body, access.data);
            return failed == 0 ? std::move(Reply().add(access.body)) : Reply::failed(failed);
          },
          [&](const RegionWriteMulti& multi) { return write_several(multi); },
          [&](const DeviceReset&) { return done_with(reset()); },
          [](const DeviceFeature&) { return Reply::failed(ENOTTY); },  // what the kernel says of one it does not know
          [](const auto&) { return Reply::failed(EOPNOTSUPP); },
      },
      request);
}

Reply Session::map(const DmaMap& request, std::vector<Fd>& fds) {
  const auto mapped = memory_.map(request.body, fds.empty() ? Fd() : std::move(fds[0]));
  if (mapped) return {};
  if (!std::exchange(told_of_refusal_, true)) tell_(ServerEvent::Kind::memory_refused, mapped.error().message());
  return Reply::failed(mapped.error().code());
}

// Answers with the lower of both minor versions. Nothing is asked of the client's capabilities but that they are valid:
// the server sends it no descriptors, and no more data than it asks for.
Reply Session::negotiate(const Version& version) {
  const auto known = parse_capabilities(version.json);
  if (has_negotiated_ || version.major != 0 || !known) {
    is_over_ = !has_negotiated_;
    return Reply::failed(EINVAL);
  }
  const std::string json =
      to_json({.max_msg_fds = most_fds,
               .max_data_xfer_size = longest_transfer,
               .max_dma_maps = std::clamp<std::uint64_t>(policy_.mapping_limit, 1, 65535),  // QEMU takes no more
               .pgsizes = memory_.smallest_page(),
               .write_multiple = true});
  has_negotiated_ = true;
  Reply reply;
  reply.add(std::uint16_t{0}).add(std::min(version.minor, newest_minor));
  reply.add(std::as_bytes(std::span(json.c_str(), json.size() + 1)));
  return reply;
}

// A PCI device's own regions behind config space and VGA are not served.
std::size_t Session::region_count() const noexcept {
  const std::size_t all = device_.regions().size();
  return device_.is_pci() ? std::min<std::size_t>(all, VFIO_PCI_NUM_REGIONS) : all;
}

Reply Session::info() const {
  std::uint32_t flags = device_.is_pci() ? VFIO_DEVICE_FLAGS_PCI : 0;
  if (device_.can_reset() && policy_.may_reset) flags |= VFIO_DEVICE_FLAGS_RESET;
  return std::move(Reply().add(DeviceInfoBody{.argsz = sizeof(DeviceInfoBody),
                                              .flags = flags,
                                              .num_regions = static_cast<std::uint32_t>(region_count()),
                                              .num_irqs = static_cast<std::uint32_t>(device_.interrupts().size())}));
}

// Says how long the whole answer is if the client has no room for it; the file comes with a whole answer only.
Reply Session::region_info(const RegionInfoBody& asked) {
  if (asked.index >= region_count()) return Reply::failed(EINVAL);
  const Region& region = device_.regions()[asked.index];
  RegionInfoBody info{
      .argsz = sizeof info, .flags = 0, .index = asked.index, .cap_offset = 0, .size = region.length, .offset = 0};
  if (region.readable) info.flags |= VFIO_REGION_INFO_FLAG_READ;
  if (region.writable) info.flags |= VFIO_REGION_INFO_FLAG_WRITE;
  RegionFile file = file_of(region);
  if (!file.fd) return std::move(Reply().add(info));
  info.flags |= VFIO_REGION_INFO_FLAG_MMAP;
  info.offset = file.offset;
  std::vector<std::byte> areas;
  if (!is_mappable_as_a_whole(region)) {
    areas = sparse_areas(region);
    info.flags |= VFIO_REGION_INFO_FLAG_CAPS;
    info.argsz += static_cast<std::uint32_t>(areas.size());
    if (asked.argsz < info.argsz) return std::move(Reply().add(info));
    info.cap_offset = sizeof info;
  }
  gave_file_ = true;
  return std::move(Reply().add(info).add(std::span<const std::byte>(areas)).add(std::move(file.fd)));
}

// The file by which the client maps the region; none: its accesses are messages.
RegionFile Session::file_of(const Region& region) {
  if (!open_region_ || region.mappable_areas.empty()) return {};
  auto file = open_region_(device_, region);
  if (file) return std::move(*file);
  if (!std::exchange(told_of_region_, true)) tell_(ServerEvent::Kind::region_refused, file.error().message());
  return {};
}

Reply Session::irq_info(const IrqInfoBody& asked) const {
  if (asked.index >= device_.interrupts().size()) return Reply::failed(EINVAL);
  const Interrupt& interrupt = device_.interrupts()[asked.index];
  std::uint32_t flags = 0;
  if (interrupt.eventfd) flags |= VFIO_IRQ_INFO_EVENTFD;
  if (interrupt.maskable) flags |= VFIO_IRQ_INFO_MASKABLE;
  if (interrupt.automasked) flags |= VFIO_IRQ_INFO_AUTOMASKED;
  if (!interrupt.resizable) flags |= VFIO_IRQ_INFO_NORESIZE;
  return std::move(Reply().add(
      IrqInfoBody{.argsz = sizeof(IrqInfoBody), .flags = flags, .index = asked.index, .count = interrupt.count}));
}

// The region of an access that lies within it; else null.
const Region* Session::find(const RegionAccessBody& access) const {
  if (access.region >= region_count()) return nullptr;
  const Region& region = device_.regions()[access.region];
  return access.offset < region.length && access.count <= region.length - access.offset ? &region : nullptr;
}

// A read that fails gives all ones, as from a device that does not respond: some clients wait for ever after an error.
Reply Session::read(const RegionAccessBody& access) {
  const Region* const region = find(access);
  if (region == nullptr || !region->readable) return Reply::failed(EINVAL);
  if (access.region != pci_config) ++accesses_;
  std::vector<std::byte> data(access.count);
  if (!device_.read(access.region, access.offset, data)) std::fill(data.begin(), data.end(), std::byte{0xff});
  return std::move(Reply().add(access).add(std::span<const std::byte>(data)));
}

int Session::write(const RegionAccessBody& access, std::span<const std::byte> data) {
  const Region* const region = find(access);
  if (region == nullptr || !region->writable) return EINVAL;
  if (access.region != pci_config || !device_.is_pci()) {
    ++accesses_;
    (void)device_.write(access.region, access.offset, data);  // one that fails is lost, as on the bus
    return 0;
  }
  write_config(access.offset, data);
  if (access.offset < PCI_COMMAND + 2 && access.offset + access.count > PCI_COMMAND) look_at_command_register();
  return 0;
}

// Leaves out what the policy forbids.
void Session::write_config(std::uint64_t offset, std::span<const std::byte> data) const {
  const auto is_read_only = [&](std::uint64_t at) {
    return std::any_of(policy_.read_only_config.begin(), policy_.read_only_config.end(),
                       [at](const ConfigRange& range) { return contains(range, at); });
  };
  for (std::size_t first = 0; first < data.size();) {
    std::size_t end = first;
    while (end < data.size() && !is_read_only(offset + end)) ++end;
    if (end != first) (void)device_.write(pci_config, offset + first, data.subspan(first, end - first));
    first = end + 1;
  }
}

void Session::look_at_command_register() {
  if (told_of_absence_ || memory_.mapped() != 0) return;
  std::uint16_t command = 0;
  if (!device_.read(pci_config, PCI_COMMAND, std::as_writable_bytes(std::span(&command, 1)))) return;
  if ((little_endian(command) & PCI_COMMAND_MASTER) == 0) return;
  told_of_absence_ = true;
  tell_(ServerEvent::Kind::memory_is_absent, {});
}

Reply Session::write_several(const RegionWriteMulti& request) {
  for (const RegionWriteBody& each : request.writes) {
    const auto data = std::as_bytes(std::span(each.data)).first(each.access.count);
    if (const int failed = write(each.access, data); failed != 0) return Reply::failed(failed);
  }
  return std::move(Reply().add(static_cast<std::uint64_t>(request.writes.size())));
}

int Session::reset() const {
  if (!policy_.may_reset) return EPERM;
  const auto done = device_.reset();
  return done ? 0 : done.error().code();
}

Result<void> Session::turn_bus_mastering_off() const {
  std::uint16_t command = 0;
  POSTERN_TRY(device_.read(pci_config, PCI_COMMAND, std::as_writable_bytes(std::span(&command, 1))));
  command = little_endian(static_cast<std::uint16_t>(little_endian(command) & ~PCI_COMMAND_MASTER));
  return device_.write(pci_config, PCI_COMMAND, std::as_bytes(std::span(&command, 1)));
}

void Session::read_header() {
  if (device_.is_pci() && !device_.read(pci_config, 0, header_)) has_header_ = false;
}

Result<void> Session::restore_header() const {
  if (!device_.is_pci() || !has_header_) return {};
  for (const ConfigRange& kept : kept_by_reset) {
    POSTERN_TRY(device_.write(pci_config, kept.offset, std::span(header_).subspan(kept.offset, kept.length)));
  }
  return {};
}

Result<void> Session::quiesce() {
  auto off = device_.is_pci() ? turn_bus_mastering_off() : Result<void>();
  auto disabled = interrupts_.disable_all();
  return off ? std::move(disabled) : std::move(off);
}

}  // namespace postern::vfio_user
