// SPDX-License-Identifier: Apache-2.0
// Proof: how a class of devices shows that DMA and interrupts work.
#pragma once

#include <cstdint>
#include <optional>
#include <postern/iova_allocator.hpp>
#include <postern/pci_device.hpp>
#include <postern/pci_function.hpp>
#include <span>
#include <string>
#include <string_view>

#include "command.hpp"
#include "text/steps.hpp"

namespace postern::tool {

struct ProofOptions {
  std::optional<std::uint64_t> bytes = std::uint64_t{1} << 30;  // how much to read at most; nothing: all there is
  bool write_test = false;
  std::string keep_in;  // the folder for what a disk held, while it is written to
};

// What a proof works with. The device is attached; nothing is mapped.
struct ProofContext {
  const Session& session;
  PciDevice& device;
  std::span<const IovaRange> ranges;  // where memory may be mapped
  IovaAllocator& allocator;           // of these ranges
  const ProofOptions& options;
  Steps& steps;

  [[nodiscard]] Kernel& kernel() const noexcept { return session.kernel; }
};

struct Proof {
  std::string_view device;  // "NVMe", for people
  bool (*fits)(const PciFunction& function);
  // Each step ends in `steps`. When it returns the device does no DMA, and nothing is mapped or enabled any more.
  void (*run)(ProofContext& context);
};

extern const Proof nvme_proof;
extern const Proof edu_proof;

// The proof for this device; null where there is none.
[[nodiscard]] const Proof* find_proof(const PciFunction& function) noexcept;

// An Error about a device, of the proof's own making.
[[nodiscard]] Error proof_error(int code, std::string operation, std::string object, std::string reason,
                                std::string remedy = {});

}  // namespace postern::tool
