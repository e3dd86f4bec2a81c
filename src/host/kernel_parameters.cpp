// SPDX-License-Identifier: Apache-2.0
// KernelParameters: parses the command line as next_arg() and parse_args() do (lib/cmdline.c, kernel/params.c, Linux
// 6.12).
#include "host/kernel_parameters.hpp"

#include <algorithm>

#include "base/remedy.hpp"
#include "host/sysfs.hpp"

namespace postern {
namespace {

std::string normalized(std::string_view name) {
  std::string text(name);
  std::replace(text.begin(), text.end(), '-', '_');
  return text;
}

// Splits at white space outside of quotes.
std::vector<std::string> split_arguments(const std::string& line) {
  std::vector<std::string> arguments(1);
  bool quoted = false;
  for (const char c : line) {
    if (c == '"') quoted = !quoted;
    const bool separates = !quoted && (c == ' ' || c == '\t' || c == '\n');
    if (!separates) {
      arguments.back() += c;
    } else if (!arguments.back().empty()) {
      arguments.emplace_back();
    }
  }
  if (arguments.back().empty()) arguments.pop_back();
  return arguments;
}

}  // namespace

Result<KernelParameters> KernelParameters::read(Kernel& kernel) {
  KernelParameters parameters;
  const auto line = POSTERN_TRY(sysfs::text(kernel, "/proc/cmdline"));
  for (std::string& argument : split_arguments(line.value_or(""))) {
    if (argument == "--") break;  // what follows is for init
    std::string bare = argument;
    std::erase(bare, '"');  // quotes surround a value, or the whole argument
    const std::size_t equals = std::min(bare.find('='), bare.size());
    parameters.parameters_.push_back({.name = normalized(std::string_view(bare).substr(0, equals)),
                                      .value = equals < bare.size() ? bare.substr(equals + 1) : "",
                                      .written = std::move(argument)});
  }
  return parameters;
}

Remedy KernelParameters::Word::removal() const {
  const bool is_one_of_many = parameter.find(',') != std::string::npos;
  return is_one_of_many ? remedy<RemedyCode::remove_kernel_parameter_word>(text, parameter)
                        : remedy<RemedyCode::remove_kernel_parameter>(parameter);
}

std::vector<KernelParameters::Word> KernelParameters::words(std::string_view name) const {
  std::vector<Word> all;
  for (const Parameter& parameter : parameters_) {
    if (parameter.name != normalized(name)) continue;
    std::string_view rest = parameter.value;
    while (!rest.empty()) {
      const std::size_t end = std::min(rest.find(','), rest.size());
      if (end > 0) all.push_back({.text = std::string(rest.substr(0, end)), .parameter = parameter.written});
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    if (parameter.value.empty()) all.push_back({.text = "", .parameter = parameter.written});
  }
  return all;
}

std::optional<KernelParameters::Word> KernelParameters::last_of(std::string_view name,
                                                                std::span<const std::string_view> choices) const {
  std::optional<Word> last;
  for (Word& word : words(name)) {
    if (std::find(choices.begin(), choices.end(), word.text) != choices.end()) last = std::move(word);
  }
  return last;
}

}  // namespace postern
