// SPDX-License-Identifier: Apache-2.0
// Conditions: everything that must hold for a device to be passed through, each judged, with the remedy.
#pragma once

#include <cstdint>
#include <optional>
#include <postern/host_device.hpp>
#include <postern/kernel.hpp>
#include <postern/pci_address.hpp>
#include <postern/pci_function.hpp>
#include <postern/result.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "host/memory_needs.hpp"

namespace postern::tool {

enum class Verdict : std::uint8_t {
  met,
  not_met,
  unknown,   // this host does not tell, or it can be told only later
  optional,  // not met, but something else that is there does instead
};

struct Condition {
  std::string key;    // for programs: "group-viable"
  std::string title;  // for people: "group is viable"
  Verdict verdict = Verdict::unknown;
  std::string detail;           // what was found
  std::string remedy;           // what to do about it; empty where it is met
  bool is_alternative = false;  // only some backends need it
};

struct Examined;  // host/backend_conditions.hpp

struct Diagnosis {
  std::vector<Condition> host;
  std::vector<Condition> device;  // empty if no device was asked about
  MemoryNeeds memory;             // what the host's condition of locked memory is judged by
  [[nodiscard]] std::size_t not_met() const;
  [[nodiscard]] std::size_t unknown() const;
};

struct Question {
  std::optional<PciAddress> device;
  std::optional<std::uint64_t> memory;  // bytes that are to be mapped
  std::optional<VfToken> vf_token = {};
};

// Reads sysfs and procfs, and looks up what the backends need. Opens no device but disks (see find_uses()); changes
// nothing.
[[nodiscard]] Diagnosis diagnose(Kernel& kernel, const Question& question);

// The parts, each a judgement of its own.
[[nodiscard]] Condition judge_iommu(Kernel& kernel);
[[nodiscard]] Condition judge_vfio_pci(Kernel& kernel);
// `iommu`: the name of one under /sys/class/iommu ("dmar0"); without one, all of them are looked at. Which backends are
// told to do without isolation stands in what they were found to need.
[[nodiscard]] Condition judge_interrupt_isolation(Kernel& kernel, const std::optional<std::string>& iommu,
                                                  std::span<const Examined> examined = {});
// Whether so much memory has room in what the IOMMU translates. Unknown unless it is VT-d, which alone shows its width.
[[nodiscard]] Condition judge_address_width(Kernel& kernel, const std::optional<std::string>& iommu,
                                            std::uint64_t memory);
// Whether VFIO takes functions of this kind. Nothing where it does.
[[nodiscard]] std::optional<Condition> judge_kind(const PciFunction& function);
// A condition that is unknown because a call failed.
[[nodiscard]] Condition unread(std::string key, std::string title, const Error& error);
// The conditions of one device, in the order in which they can be put right, without the backends themselves: with
// what was found of what they need of it, if they were examined.
[[nodiscard]] std::vector<Condition> judge_device(Kernel& kernel, const PciFunction& function,
                                                  const std::optional<VfToken>& token = std::nullopt,
                                                  std::span<const Examined> examined = {});

// The names of verdicts in JSON: "met", "not met", "unknown", "optional".
[[nodiscard]] std::string_view to_string(Verdict verdict);

}  // namespace postern::tool
