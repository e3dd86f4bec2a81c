// SPDX-License-Identifier: Apache-2.0
// Verb and Session: what the tool can do, and what it does it with.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <postern/host_device.hpp>
#include <postern/kernel.hpp>
#include <postern/pci_address.hpp>
#include <postern/result.hpp>
#include <span>
#include <string>
#include <string_view>

#include "text/terminal.hpp"

namespace postern::tool {

enum class Format : std::uint8_t { text, json };

// One run of one verb.
struct Session {
  Kernel& kernel;
  std::string bindings_folder;  // for RememberedBindings
  Format format = Format::text;
  Terminal out;  // stdout
  Terminal err;  // stderr

  [[nodiscard]] bool json() const noexcept { return format == Format::json; }
  // To stdout. Whether all of it could be written is looked at once, at the end.
  void print(std::string_view text) const;
  // To stdout, at once: for lines that a person waits for.
  void print_now(std::string_view text) const;
  // To stderr, for things worth knowing that are no error. Nothing in JSON, which says them in fields.
  void note(std::string_view text) const;
};

// How a verb ended that could do its work. One that could not gives an Error.
enum class Ending : std::uint8_t {
  well,
  not_well,  // it found what it looked for missing or broken, and has said so
};

enum class ExitCode : std::uint8_t { well = 0, failed = 1, usage = 2 };

using Run = std::function<Result<Ending>(Session&)>;

struct Verb {
  std::string_view name;
  std::string_view summary;    // one line
  std::string_view footer;     // examples, for its --help
  Run (*add)(CLI::App& verb);  // gives `verb` its options; the Run carries what they were set to
};

// In the order that --help has them.
[[nodiscard]] std::span<const Verb* const> verbs() noexcept;

extern const Verb devices_verb;
extern const Verb show_verb;
extern const Verb backends_verb;
extern const Verb doctor_verb;
extern const Verb bind_verb;
extern const Verb unbind_verb;
extern const Verb check_verb;
extern const Verb reset_verb;

// Options that several verbs have. A malformed value is an error of usage. The size is one of memory.
CLI::Option* add_device(CLI::App& verb, PciAddress& address);
void add_vf_token(CLI::App& verb, std::optional<VfToken>& token);
CLI::Option* add_size(CLI::App& verb, const std::string& name, std::function<void(std::uint64_t)> set,
                      const std::string& description);

}  // namespace postern::tool
