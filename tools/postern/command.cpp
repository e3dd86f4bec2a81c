// SPDX-License-Identifier: Apache-2.0
// The list of commands, and the options that they share.
#include "command.hpp"

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <postern/backend.hpp>
#include <string>
#include <utility>

#include "text/errors.hpp"
#include "text/remedies.hpp"
#include "text/sizes.hpp"

namespace postern::tool {
namespace {

constexpr std::array<const Command*, 9> all_commands = {&devices_command, &show_command,  &backends_command,
                                                        &doctor_command,  &bind_command,  &unbind_command,
                                                        &check_command,   &reset_command, &serve_command};

// CLI11 passes its own exceptions to its caller, which reports them as usage errors.
[[noreturn]] void refuse(const std::string& option, const Error& error) {
  throw CLI::ValidationError(option,
                             fmt::format("{}: {}; {}", error.object(), error.reason(), words_of(error.remedies())));
}

}  // namespace

std::span<const Command* const> commands() noexcept { return all_commands; }

void Session::print(std::string_view text) const { put(stdout, out, text); }

void Session::print_now(std::string_view text) const {
  print(text);
  (void)std::fflush(stdout);
}

void Session::note(std::string_view text) const {
  if (!json()) put(stderr, err, text);
}

CLI::Option* add_device(CLI::App& command, PciAddress& address) {
  const auto parse = [&address](const std::string& text) {
    auto parsed = PciAddress::parse(text);
    if (!parsed) refuse("DEV", parsed.error());
    address = *parsed;
  };
  return command.add_option_function<std::string>("DEV", parse, "PCI address: 0000:00:01.0 or 00:01.0")->type_name("");
}

void add_vf_token(CLI::App& command, std::optional<VfToken>& token) {
  const auto parse = [&token](const std::string& text) {
    auto parsed = VfToken::parse(text);
    if (!parsed) refuse("--vf-token", parsed.error());
    token = *parsed;
  };
  command
      .add_option_function<std::string>("--vf-token", parse,
                                        "VF token, required if its physical function is bound to vfio-pci")
      ->type_name("UUID");
}

void add_backend(CLI::App& command, std::string& backend, const std::string& description, std::string_view other) {
  const auto parse = [&backend, other](const std::string& name) {
    auto named = find_backend(name);
    // One that is known but not built in is reported when the command runs.
    if (!named && named.error().code() == EINVAL && name != "auto" && (other.empty() || name != other)) {
      throw CLI::ValidationError("--backend",
                                 fmt::format("{}; {}", named.error().reason(), words_of(named.error().remedies())));
    }
    backend = name;
  };
  command.add_option_function<std::string>("--backend", parse, description)->type_name("NAME");
}

CLI::Option* add_size(CLI::App& command, const std::string& name, std::function<void(std::uint64_t)> set,
                      const std::string& description) {
  const auto parse = [name, set = std::move(set)](const std::string& text) {
    auto parsed = parse_memory(text);
    if (!parsed) refuse(name, parsed.error());
    set(*parsed);
  };
  return command.add_option_function<std::string>(name, parse, description)->type_name("SIZE");
}

}  // namespace postern::tool
