// SPDX-License-Identifier: Apache-2.0
// postern: reads the arguments, runs one verb, and gives its exit code.
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

#include "host/chosen_host.hpp"
#include "text/errors.hpp"
#include "verb.hpp"

namespace postern::tool {
namespace {

constexpr std::string_view description =
    "postern: pass devices through Linux VFIO to user-space drivers and virtual machines.";

constexpr std::string_view footer =
    "A device goes through in three steps:\n"
    "  postern devices              # which one?\n"
    "  postern doctor 00:01.0       # what is missing?\n"
    "  postern bind 00:01.0         # take it from the host's driver; unbind gives it back\n"
    "and then:\n"
    "  postern check 00:01.0        # does it work? DMA, interrupts, reset\n"
    "\n"
    "DEV is a PCI address: 0000:00:01.0, or 00:01.0 in domain 0.\n"
    "Exit codes:\n"
    "  0  all is well\n"
    "  1  what was asked for failed, or a condition that was looked at is not met\n"
    "  2  wrong arguments: nothing was done";

// How many letters have to be changed, put in or taken out (Levenshtein).
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
    session.print(json_text({{"error",
                              {{"operation", "arguments"},
                               {"object", wrong.where},
                               {"errno", "EINVAL"},
                               {"code", EINVAL},
                               {"reason", wrong.reason},
                               {"remedy", wrong.remedy},
                               {"causes", Json::array()}}}}));
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

WrongUsage unknown_verb(const std::string& name) {
  std::string names;
  std::string_view nearest;
  std::size_t least = 3;
  for (const Verb* verb : verbs()) {
    names += (names.empty() ? "" : ", ") + std::string(verb->name);
    const std::size_t changes = distance(name, verb->name);
    if (changes < least) {
      least = changes;
      nearest = verb->name;
    }
  }
  std::string remedy = nearest.empty() ? "" : fmt::format("did you mean \"{}\"? ", nearest);
  return {"postern", fmt::format("there is no verb \"{}\"", name), remedy + "the verbs are: " + names};
}

void choose_host(ChosenHost& host, const std::string& name) {
  if (const std::string wrong = host.choose(name); !wrong.empty()) throw CLI::ValidationError("--host", wrong);
  name_host(name);
}

WrongUsage wrong_usage(const CLI::App& app, const CLI::ParseError& wrong) {
  const auto chosen = app.get_subcommands();
  const std::string where = chosen.empty() ? "postern" : "postern " + chosen.front()->get_name();
  // CLI11 puts line ends in its words.
  std::string reason = wrong.what();
  std::replace(reason.begin(), reason.end(), '\n', ' ');
  reason.erase(reason.find_last_not_of(" .") + 1);
  // What was mistyped comes before what is missing for it.
  const auto strangers = app.remaining(true);
  if (!strangers.empty()) {
    reason = fmt::format("\"{}\" was not expected", fmt::join(strangers, " "));
  } else if (chosen.empty()) {
    reason = "a verb is missing";
  }
  return {where, reason, fmt::format("see \"{} --help\"", where)};
}

ExitCode run(int argc, char** argv, ChosenHost& host, Session& session) {
  CLI::App app{std::string(description), "postern"};
  app.require_subcommand(1);
  app.set_version_flag("--version", fmt::format("postern {}", version()), "Print the version and exit");
  app.set_help_flag("-h,--help", "Print this help and exit; every verb has its own");
  app.footer(std::string(footer));
  app.get_formatter()->label("SUBCOMMAND", "VERB");
  app.get_formatter()->label("REQUIRED", "");
  app.get_formatter()->column_width(24);

  // Known before parsing, so that wrong arguments are told of in the format that was asked for.
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  bool json = std::find(arguments.begin(), arguments.end(), "--json") != arguments.end();
  if (json) session.format = Format::json;

  std::vector<std::pair<CLI::App*, Run>> runs;
  for (const Verb* verb : verbs()) {
    CLI::App* added = app.add_subcommand(std::string(verb->name), std::string(verb->summary));
    added->group("Verbs");
    added->footer(std::string(verb->footer));
    Run runner = verb->add(*added);
    added->add_flag("--json", json, "Print one JSON document instead of text");
    added
        ->add_option_function<std::string>(
            "--host", [&](const std::string& name) { choose_host(host, name); },
            "Work on a simulated host, which begins anew in each run: sim, sim:NAME (pc, arm, pseries, powernv), or\n"
            "sim:FILE, a JSON file that describes one")
        ->type_name("HOST");
    added->set_help_flag("-h,--help", "Print this help and exit");
    runs.emplace_back(added, std::move(runner));
  }

  if (arguments.empty()) {
    put(stderr, session.err, app.help());
    return ExitCode::usage;
  }
  if (arguments[0].empty() || arguments[0][0] != '-') {
    const auto named = [&](const Verb* verb) { return verb->name == arguments[0]; };
    if (std::none_of(verbs().begin(), verbs().end(), named)) return report(unknown_verb(arguments[0]), session);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {  // --help and --version
    app.exit(success);
    return ExitCode::well;
  } catch (const CLI::ParseError& wrong) {
    return report(wrong_usage(app, wrong), session);
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
    return *ending == Ending::well ? ExitCode::well : ExitCode::failed;
  }
  return ExitCode::usage;
}

}  // namespace
}  // namespace postern::tool

int main(int argc, char** argv) {
  using namespace postern::tool;
  // What cannot be written must not end a change half way: it is an error of the write, and looked at in the end.
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
  } catch (const std::exception& failed) {  // memory has run out: nothing else throws
    (void)std::fprintf(stderr, "postern: %s\n", failed.what());
  }
  // What a pipe or a full disk did not take must not look like success.
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    std::perror("postern: standard output");
    code = ExitCode::failed;
  }
  return static_cast<int>(code);
}
