// SPDX-License-Identifier: Apache-2.0
// Migration: the states of a device, and its streams. The length of a stream differs between drivers, so of reads and
// writes only failures are recorded.
#include <linux/vfio.h>

#include <cerrno>
#include <cstring>

#include "transcript/operations.hpp"
#include "transcript/text.hpp"

namespace postern::transcript {
namespace {

constexpr std::uint32_t get = VFIO_DEVICE_FEATURE_GET;
constexpr std::uint32_t set = VFIO_DEVICE_FEATURE_SET;

using Stream = Migratable::Stream;

bool is_open(const World& world) { return world.migratable->device.has_value(); }
bool has_stream(const World& world) {
  for (const Stream& stream : world.migratable->streams) {
    if (stream.fd) return true;
  }
  return false;
}

struct Chosen {
  Stream& stream;
  std::string name;
};
Chosen some_stream(World& world) {
  auto& streams = world.migratable->streams;
  std::size_t number = world.random.below(streams.size());
  for (std::size_t tries = 1; tries < streams.size() && !streams[number].fd; ++tries) {
    number = (number + 1) % streams.size();
  }
  return {streams[number], "stream" + std::to_string(number)};
}

std::string state_of(const test::RawDevice& device) {
  vfio_device_feature_mig_state state{.device_state = 77, .data_fd = 77};
  const int result = device.feature(get | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, state);
  return result < 0 ? outcome(result) : fmt::format("{} {}", state.device_state, state.data_fd);
}

// The result of a read or write in words common to all drivers: ENOMSG counts as success, since mtty does not have it.
std::string taken(ssize_t result) { return result < 0 && result != -ENOMSG ? outcome(result) : "ok"; }

std::vector<std::byte> read_all(Kernel& kernel, const Fd& fd, ssize_t& end) {
  std::vector<std::byte> all;
  std::array<std::byte, 1000> piece{};
  while ((end = kernel.read(fd.get(), piece.data(), piece.size())) > 0) {
    all.insert(all.end(), piece.begin(), piece.begin() + end);
  }
  return all;
}

// Keeps the whole state, for later writes.
std::string open(World& world) {
  Migratable& migratable = *world.migratable;
  if (migratable.device) return "migratable is open";
  const bool by_cdev = world.random.chance(50);
  migratable.open(by_cdev);
  vfio_device_feature_mig_state state{.device_state = VFIO_DEVICE_STATE_STOP_COPY, .data_fd = -1};
  const int result = migratable.device->feature(set | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, state);
  const Fd stream(world.kernel, state.data_fd);
  ssize_t end = 0;
  migratable.saved = read_all(world.kernel, stream, end);
  return fmt::format("open migratable by its {}, save it -> {}, {}, reset -> {}", by_cdev ? "cdev" : "group",
                     outcome(result), outcome(end), outcome(migratable.device->ioctl(VFIO_DEVICE_RESET, nullptr)));
}

std::string close(World& world) {
  if (!world.migratable->device) return "migratable is closed";
  world.migratable->close();
  return "close migratable";
}

std::string set_state(World& world) {
  if (!world.migratable->device) return "migratable is closed";
  const auto& device = *world.migratable->device;
  Stream& place = world.migratable->streams[world.random.below(world.migratable->streams.size())];
  std::uint32_t wanted = 1 + static_cast<std::uint32_t>(world.random.below(VFIO_DEVICE_STATE_NR - 1));
  if (world.random.chance(5)) wanted = world.random.pick<std::uint32_t>({0, VFIO_DEVICE_STATE_NR, 100, ~0U});
  vfio_device_feature_mig_state state{.device_state = wanted, .data_fd = 77};
  std::size_t length = sizeof state;
  std::uint32_t flags = set | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
  if (world.random.chance(5)) length = world.random.pick<std::size_t>({0, 4, 7, 64});
  if (world.random.chance(5))
    flags ^= world.random.pick<std::uint32_t>({get, set, VFIO_DEVICE_FEATURE_PROBE, 1U << 19});
  const int result = device.feature(flags, state, length);
  const bool is_given = result == 0 && state.data_fd >= 0 && state.data_fd != 77;
  if (is_given) place = {.fd = Fd(world.kernel, state.data_fd)};
  return fmt::format("migratable to {} length {} flags {:#x} -> {}, {}, {}; it is in {}", wanted, length, flags,
                     outcome(result), state.device_state, is_given ? "a stream" : std::to_string(state.data_fd),
                     state_of(device));
}

std::string reset(World& world) {
  if (!world.migratable->device) return "migratable is closed";
  const auto& device = *world.migratable->device;
  const std::string result = outcome(device.ioctl(VFIO_DEVICE_RESET, nullptr));
  return "migratable RESET -> " + result + "; it is in " + state_of(device);
}

std::string feature(World& world) {
  if (!world.migratable->device) return "migratable is closed";
  const std::uint32_t which = world.random.pick<std::uint32_t>(
      {VFIO_DEVICE_FEATURE_MIGRATION, VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2});
  const std::uint32_t flags = which | world.random.pick<std::uint32_t>({get, get, set, set, get | set}) |
                              (world.random.chance(30) ? VFIO_DEVICE_FEATURE_PROBE : 0);
  std::uint64_t value = 0;
  const std::size_t length = world.random.chance(90) ? sizeof value : world.random.pick<std::size_t>({0, 4, 16});
  const int result = world.migratable->device->feature(flags, value, length);
  const bool is_size = which == VFIO_DEVICE_FEATURE_MIG_DATA_SIZE;
  return fmt::format("migratable FEATURE {:#x} length {} -> {}, {}", flags, length, outcome(result),
                     is_size ? (value == 0 ? "none" : "some") : hex(value));
}

std::string precopy_info(World& world) {
  const auto [stream, name] = some_stream(world);
  vfio_precopy_info info{.argsz = argsz(world, sizeof info), .flags = 0xee, .initial_bytes = 0, .dirty_bytes = 0};
  const std::uint32_t given = info.argsz;
  const int result = world.kernel.ioctl(stream.fd.get(), VFIO_MIG_GET_PRECOPY_INFO, &info);
  return fmt::format("{} GET_PRECOPY_INFO argsz {} -> {}, argsz {} flags {:#x}", name, given, outcome(result),
                     info.argsz, info.flags);
}

std::string read(World& world) {
  const auto [stream, name] = some_stream(world);
  std::byte byte{};
  ssize_t end = 0;
  switch (world.random.below(4)) {
    case 0:
      (void)read_all(world.kernel, stream.fd, end);
      return name + " read all -> " + taken(end);
    case 1:
      return name + " pread -> " + outcome(world.kernel.pread(stream.fd.get(), &byte, 1, 0));
    default:
      return name + " read -> " + taken(world.kernel.read(stream.fd.get(), &byte, 1));
  }
}

// Never writes more than the whole state: drivers refuse excess bytes at different times.
std::string write(World& world) {
  const auto [stream, name] = some_stream(world);
  const auto& saved = world.migratable->saved;
  const bool is_half = world.random.chance(30);
  if (world.random.chance(5)) {
    return name + " pwrite -> " + outcome(world.kernel.pwrite(stream.fd.get(), saved.data(), 1, 0));
  }
  const std::size_t left = saved.size() - stream.written;
  const std::size_t length = is_half ? left / 2 : left;
  const ssize_t result = world.kernel.write(stream.fd.get(), saved.data() + stream.written, length);
  if (result > 0) stream.written += static_cast<std::size_t>(result);
  return fmt::format("{} write {} -> {}", name, is_half ? "half" : "the rest", taken(result));
}

std::string close_stream(World& world) {
  const auto [stream, name] = some_stream(world);
  std::string line = "close " + name + (stream.fd ? "" : ", which is not open");
  stream = {};
  return line;
}

constexpr Operation operations[] = {
    {open, 2, 2, [](const World& world) { return !is_open(world); }},
    {close, 1, 1, is_open},
    {set_state, 30, 30, is_open},
    {reset, 4, 4, is_open},
    {feature, 4, 4, is_open},
    {precopy_info, 6, 6, has_stream},
    {read, 8, 8, has_stream},
    {write, 12, 12, has_stream},
    {close_stream, 2, 2, has_stream},
};

}  // namespace

std::span<const Operation> migration_operations() { return operations; }

}  // namespace postern::transcript
