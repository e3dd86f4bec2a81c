// SPDX-License-Identifier: Apache-2.0
// postern: reads the arguments, runs one command, and gives its exit code.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <exception>
#include <postern/kernel.hpp>
#include <postern/version.hpp>
#include <string>
#include <utility>
#include <vector>

#include "command.hpp"
#include "host/chosen_host.hpp"
#include "text/errors.hpp"

namespace postern::tool {
namespace {

constexpr std::string_view description =
    "postern: pass devices through Linux VFIO to user-space drivers and virtual machines.";

constexpr std::string_view footer =
    "To pass a device through:\n"
    "  postern devices              # list the devices\n"
    "  postern doctor 00:01.0       # check the conditions\n"
    "  postern bind 00:01.0         # bind it to vfio-pci; unbind restores its driver\n"
    "  postern check 00:01.0        # test DMA, interrupts and reset\n"
    "\n"
    "DEV is a PCI address: 0000:00:01.0, or 00:01.0 in domain 0.\n"
    "Exit codes:\n"
    "  0  success\n"
    "  1  the command failed, or a condition is not met\n"
    "  2  usage error: nothing was done";

// The Levenshtein distance: how many letters must be changed, added or removed.
std::size_t distance(std::string_view from, std::string_view to) {
  std::vector<std::size_t> row(to.size() + 1);
  for (std::size_t column = 0; column <= to.size(); ++column) row[column] = column;
  for (std::size_t line = 1; line <= from.size(); ++line) {
    std::size_t diagonal = std::exchange(row[0], line);
    for (std::size_t column = 1; column <= to.size(); ++column) {
      const std::size_t changed = diagonal + (from[line - 1] == to[column - 1] ? 0 : 1);
      diagonal = std::exchange(row[column], std::min({changed, row[column] + 1, row[column - 1] + 1}));
    }
  }
  return row.back();
}

struct WrongUsage {
  std::string where;  // "postern check"
  std::string reason;
  std::string remedy;
};

ExitCode report(const WrongUsage& wrong, const Session& session) {
  if (session.json()) {
    const Error error({.code = EINVAL,
                       .operation = "arguments",
                       .object = wrong.where,
                       .reason = wrong.reason,
                       .remedy = wrong.remedy});
    session.print(json_text({{"error", error_json(error)}}));
  } else {
    put(stderr, session.err,
        fmt::format("{}: {}\n{}", wrong.where, printable(wrong.reason), remedy_text(wrong.remedy, session.err, 2)));
  }
  return ExitCode::usage;
}

ExitCode report(const Error& error, const Session& session) {
  if (session.json()) {
    session.print(json_text({{"error", error_json(error)}}));
  } else {
    put(stderr, session.err, fmt::format("postern: {}\n{}", error_line(error), error_details(error, session.err, 2)));
  }
  return ExitCode::failed;
}

WrongUsage unknown_command(const std::string& name) {
  std::string names;
  std::string_view nearest;
  std::size_t least = 3;
  for (const Command* command : commands()) {
    names += (names.empty() ? "" : ", ") + std::string(command->name);
    const std::size_t changes = distance(name, command->name);
    if (changes < least) {
      least = changes;
      nearest = command->name;
    }
  }
  std::string remedy = nearest.empty() ? "" : fmt::format("did you mean \"{}\"? ", nearest);
  return {"postern", fmt::format("unknown command \"{}\"", name), remedy + "the commands are: " + names};
}

void choose_host(ChosenHost& host, const std::string& name) {
  if (const std::string wrong = host.choose(name); !wrong.empty()) throw CLI::ValidationError("--host", wrong);
  name_host(name);
}

// Returns the remedy for options before the command ("--host sim devices"); empty if there are none.
std::string after_command(const std::string& command, std::vector<std::string> arguments,
                          const std::vector<std::string>& unexpected) {
  if (unexpected.empty() || arguments.empty() || unexpected.front() != arguments.front()) return "";
  if (!arguments.front().starts_with('-')) return "";
  if (command.empty()) return "options go after the command; ";
  arguments.erase(std::find(arguments.begin(), arguments.end(), command));
  const std::string line = fmt::format("{}", fmt::join(arguments, " "));
  constexpr std::string_view needs_quotes = "\"'\\$`*?[]{}()<>|&;#~!\t\n";
  if (line.find_first_of(needs_quotes) != std::string::npos) return "options go after the command; ";
  return fmt::format("options go after the command: \"postern {} {}\"; ", command, line);
}

WrongUsage wrong_usage(const CLI::App& app, const std::vector<std::string>& arguments, const CLI::ParseError& wrong) {
  const auto chosen = app.get_subcommands();
  const std::string where = chosen.empty() ? "postern" : "postern " + chosen.front()->get_name();
  // CLI11's messages contain line ends.
  std::string reason = wrong.what();
  std::replace(reason.begin(), reason.end(), '\n', ' ');
  reason.erase(reason.find_last_not_of(" .") + 1);
  // A mistyped argument is reported before a missing one.
  const auto unexpected = app.remaining(true);
  if (!unexpected.empty()) {
    reason = fmt::format("unexpected argument: {}", fmt::join(unexpected, " "));
  } else if (chosen.empty()) {
    reason = "no command was given";
  }
  const std::string command = chosen.empty() ? "" : chosen.front()->get_name();
  return {where, reason, after_command(command, arguments, unexpected) + fmt::format("see \"{} --help\"", where)};
}

ExitCode run(int argc, char** argv, ChosenHost& host, Session& session) {
  CLI::App app{std::string(description), "postern"};
  app.require_subcommand(1);
  app.set_version_flag("--version", fmt::format("postern {}", version()), "Print the version and exit");
  app.set_help_flag("-h,--help", "Print this help and exit; each command has its own");
  app.footer(std::string(footer));
  app.get_formatter()->label("SUBCOMMAND", "COMMAND");
  app.get_formatter()->label("REQUIRED", "");
  app.get_formatter()->column_width(24);

  // Read before parsing, so that usage errors are reported in the requested format.
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  bool json = std::find(arguments.begin(), arguments.end(), "--json") != arguments.end();
  if (json) session.format = Format::json;

  std::vector<std::pair<CLI::App*, Run>> runs;
  for (const Command* command : commands()) {
    CLI::App* added = app.add_subcommand(std::string(command->name), std::string(command->summary));
    added->group("Commands");
    added->footer(std::string(command->footer));
    Run runner = command->add(*added);
    added->add_flag("--json", json, "Print one JSON document instead of text");
    added
        ->add_option_function<std::string>(
            "--host", [&](const std::string& name) { choose_host(host, name); },
            "Use a simulated host, which starts fresh in each run: sim, sim:NAME (pc, arm, pseries, powernv), or\n"
            "sim:FILE, a JSON file that describes one")
        ->type_name("HOST");
    added->set_help_flag("-h,--help", "Print this help and exit");
    runs.emplace_back(added, std::move(runner));
  }

  if (arguments.empty()) {
    put(stderr, session.err, fold_help(session.err, app.help()));
    return ExitCode::usage;
  }
  if (arguments[0].empty() || arguments[0][0] != '-') {
    const auto named = [&](const Command* command) { return command->name == arguments[0]; };
    if (std::none_of(commands().begin(), commands().end(), named))
      return report(unknown_command(arguments[0]), session);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    put(stdout, session.out, fold_help(session.out, app.help()));
    return ExitCode::ok;
  } catch (const CLI::Success& success) {  // --version
    app.exit(success);
    return ExitCode::ok;
  } catch (const CLI::ParseError& wrong) {
    return report(wrong_usage(app, arguments, wrong), session);
  }

  for (auto& [parsed, runner] : runs) {
    if (!*parsed) continue;
    Session chosen{.kernel = host.kernel(),
                   .bindings_folder = host.bindings_folder(),
                   .format = session.format,
                   .out = session.out,
                   .err = session.err};
    auto ending = runner(chosen);
    if (!ending) return report(ending.error(), session);
    return *ending == Ending::ok ? ExitCode::ok : ExitCode::failed;
  }
  return ExitCode::usage;
}

}  // namespace
}  // namespace postern::tool

int main(int argc, char** argv) {
  using namespace postern::tool;
  // A failed write must not end a change half way. main() checks for write errors at the end.
  for (const int signal : {SIGPIPE, SIGXFSZ}) (void)std::signal(signal, SIG_IGN);
  ExitCode code = ExitCode::failed;
  try {
    ChosenHost host;
    Session session{.kernel = host.kernel(),
                    .bindings_folder = host.bindings_folder(),
                    .format = Format::text,
                    .out = Terminal::of(STDOUT_FILENO),
                    .err = Terminal::of(STDERR_FILENO)};
    show_logged_errors();
    code = run(argc, argv, host, session);
  } catch (const std::exception& failed) {  // out of memory: nothing else throws
    (void)std::fprintf(stderr, "postern: %s\n", failed.what());
  }
  // Output lost to a closed pipe or a full disk must not look like success.
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    std::perror("postern: standard output");
    code = ExitCode::failed;
  }
  return static_cast<int>(code);
}
