// SPDX-License-Identifier: Apache-2.0
// Session: one client's use of the device. Answers its requests, without I/O, and takes back what it did.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <optional>
#include <postern-vfio-user/server.hpp>
#include <postern/device.hpp>
#include <span>
#include <string>
#include <vector>

#include "vfio_user/server/client_interrupts.hpp"
#include "vfio_user/server/client_memory.hpp"
#include "vfio_user/wire/reply.hpp"
#include "vfio_user/wire/request.hpp"

namespace postern::vfio_user {

class Session {
 public:
  // What the operator should know: memory_is_absent, memory_refused and region_refused, at most once each, with the
  // reason.
  using Tell = std::function<void(ServerEvent::Kind, const std::string&)>;

  using OpenRegion = std::function<Result<RegionFile>(const Device&, const Region&)>;

  // The device is in a container of its own, with nothing mapped. `open_region` is ServerOptions::region_file.
  Session(const Device& device, const Policy& policy, Tell tell, OpenRegion open_region = {});

  // Answers a request, whose body has as many bytes as its header says. Takes over the descriptors that came with it.
  // Whatever a client sends, this returns a reply; if memory runs out, ENOMEM.
  [[nodiscard]] Reply handle(const Header& header, std::span<const std::byte> body, std::vector<Fd> fds);
  // Whether the client and the server do not speak the same protocol: the reply is the last one.
  [[nodiscard]] bool is_over() const noexcept { return is_over_; }

  // After the last request: turns bus mastering and interrupts off. Goes on after a failure, and returns the first.
  [[nodiscard]] Result<void> quiesce();
  // After the device was reset: writes the header of config space as the client found it.
  [[nodiscard]] Result<void> restore_header() const;
  // Then: unmaps everything.
  [[nodiscard]] Result<void> unmap_all() { return memory_.unmap_all(); }

  [[nodiscard]] std::uint64_t mapped() const noexcept { return memory_.mapped(); }  // bytes
  // Reads and writes of regions, but for config space.
  [[nodiscard]] std::uint64_t accesses() const noexcept { return accesses_; }
  // Whether the client has got a file of a region, which it may keep.
  [[nodiscard]] bool gave_file() const noexcept { return gave_file_; }

 private:
  [[nodiscard]] Reply answer(const Request& request, std::vector<Fd>& fds);
  [[nodiscard]] Reply map(const DmaMap& request, std::vector<Fd>& fds);
  [[nodiscard]] Reply negotiate(const Version& version);
  [[nodiscard]] Reply info() const;
  [[nodiscard]] Reply region_info(const RegionInfoBody& asked);
  [[nodiscard]] RegionFile file_of(const Region& region);
  [[nodiscard]] Reply irq_info(const IrqInfoBody& asked) const;
  [[nodiscard]] Reply read(const RegionAccessBody& access);
  [[nodiscard]] int write(const RegionAccessBody& access, std::span<const std::byte> data);
  [[nodiscard]] Reply write_several(const RegionWriteMulti& request);
  [[nodiscard]] int reset() const;

  [[nodiscard]] const Region* find(const RegionAccessBody& access) const;
  [[nodiscard]] std::size_t region_count() const noexcept;
  void write_config(std::uint64_t offset, std::span<const std::byte> data) const;
  void look_at_command_register();
  [[nodiscard]] Result<void> turn_bus_mastering_off() const;
  void read_header();

  const Device& device_;
  const Policy& policy_;
  Tell tell_;
  OpenRegion open_region_;
  bool told_of_absence_ = false;
  bool told_of_refusal_ = false;
  bool told_of_region_ = false;
  bool gave_file_ = false;
  std::uint64_t accesses_ = 0;
  ClientMemory memory_;
  ClientInterrupts interrupts_;
  std::array<std::byte, 64> header_{};  // of config space, before the client
  bool has_header_ = true;
  bool has_negotiated_ = false;
  bool is_over_ = false;
};

}  // namespace postern::vfio_user
