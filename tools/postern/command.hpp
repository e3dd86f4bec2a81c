// SPDX-License-Identifier: Apache-2.0
// Command and Session: a command of the tool, and the state of one run.
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

// One run of one command.
struct Session {
  Kernel& kernel;
  std::string bindings_folder;  // for RecordedBindings
  Format format = Format::text;
  Terminal out;  // stdout
  Terminal err;  // stderr

  [[nodiscard]] bool json() const noexcept { return format == Format::json; }
  // Writes to stdout. main() checks once, at the end, whether all of it was written.
  void print(std::string_view text) const;
  // Writes to stdout and flushes: for lines that a person waits for.
  void print_now(std::string_view text) const;
  // Writes a note, which is not an error, to stderr. Prints nothing with --json: fields report the same.
  void note(std::string_view text) const;
};

// How a command ended that could do its work. A command that could not returns an Error.
enum class Ending : std::uint8_t {
  ok,
  problem,  // it found something missing or broken, and has reported it
};

enum class ExitCode : std::uint8_t { ok = 0, failed = 1, usage = 2 };

using Run = std::function<Result<Ending>(Session&)>;

struct Command {
  std::string_view name;
  std::string_view summary;       // one line
  std::string_view footer;        // examples, for its --help
  Run (*add)(CLI::App& command);  // adds its options to `command`; the Run holds their values
};

// In the order of --help.
[[nodiscard]] std::span<const Command* const> commands() noexcept;

extern const Command devices_command;
extern const Command show_command;
extern const Command backends_command;
extern const Command doctor_command;
extern const Command bind_command;
extern const Command unbind_command;
extern const Command check_command;
extern const Command reset_command;
extern const Command serve_command;

// Options that several commands share. A malformed value is a usage error. The size is an amount of memory.
CLI::Option* add_device(CLI::App& command, PciAddress& address);
void add_vf_token(CLI::App& command, std::optional<VfToken>& token);
// `other`: a name beside "auto" and those of backends, or empty.
void add_backend(CLI::App& command, std::string& backend, const std::string& description, std::string_view other = {});
CLI::Option* add_size(CLI::App& command, const std::string& name, std::function<void(std::uint64_t)> set,
                      const std::string& description);

}  // namespace postern::tool
