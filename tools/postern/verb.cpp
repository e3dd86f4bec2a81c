// SPDX-License-Identifier: Apache-2.0
// The verbs of the tool, and what they have in common.
#include "verb.hpp"

#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <string>
#include <utility>

#include "text/errors.hpp"
#include "text/sizes.hpp"

namespace postern::tool {
namespace {

constexpr std::array<const Verb*, 8> all_verbs = {&devices_verb, &show_verb,   &backends_verb, &doctor_verb,
                                                  &bind_verb,    &unbind_verb, &check_verb,    &reset_verb};

// CLI11 gives its own exceptions to its caller, who makes an error of usage of them.
[[noreturn]] void refuse(const std::string& option, const Error& error) {
  throw CLI::ValidationError(option, fmt::format("{}: {}; {}", error.object(), error.reason(), error.remedy()));
}

}  // namespace

std::span<const Verb* const> verbs() noexcept { return all_verbs; }

void Session::print(std::string_view text) const { put(stdout, out, text); }

void Session::print_now(std::string_view text) const {
  print(text);
  (void)std::fflush(stdout);
}

void Session::note(std::string_view text) const {
  if (!json()) put(stderr, err, text);
}

CLI::Option* add_device(CLI::App& verb, PciAddress& address) {
  const auto parse = [&address](const std::string& text) {
    auto parsed = PciAddress::parse(text);
    if (!parsed) refuse("DEV", parsed.error());
    address = *parsed;
  };
  return verb.add_option_function<std::string>("DEV", parse, "PCI address: 0000:00:01.0 or 00:01.0")->type_name("");
}

void add_vf_token(CLI::App& verb, std::optional<VfToken>& token) {
  const auto parse = [&token](const std::string& text) {
    auto parsed = VfToken::parse(text);
    if (!parsed) refuse("--vf-token", parsed.error());
    token = *parsed;
  };
  verb.add_option_function<std::string>("--vf-token", parse,
                                        "The token of its physical function, where vfio-pci has that")
      ->type_name("UUID");
}

CLI::Option* add_size(CLI::App& verb, const std::string& name, std::function<void(std::uint64_t)> set,
                      const std::string& description) {
  const auto parse = [name, set = std::move(set)](const std::string& text) {
    auto parsed = parse_memory(text);
    if (!parsed) refuse(name, parsed.error());
    set(*parsed);
  };
  return verb.add_option_function<std::string>(name, parse, description)->type_name("SIZE");
}

}  // namespace postern::tool
