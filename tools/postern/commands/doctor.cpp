// SPDX-License-Identifier: Apache-2.0
// postern doctor: checks every condition for passing a device through, with a remedy for each that is not met.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>

#include "command.hpp"
#include "host/conditions.hpp"
#include "text/errors.hpp"

namespace postern::tool {
namespace {

std::string mark(const Session& session, Verdict verdict) {
  switch (verdict) {
    case Verdict::met:
      return paint(session.out, Style::good, "ok");
    case Verdict::not_met:
      return paint(session.out, Style::bad, "NO");
    case Verdict::unknown:
      return paint(session.out, Style::doubtful, " ?");
    case Verdict::optional:
      return paint(session.out, Style::faint, "--");
  }
  return {};
}

void show(const Session& session, const std::string& heading, const std::vector<Condition>& conditions,
          std::size_t title_width) {
  session.print(paint(session.out, Style::heading, heading) + "\n");
  for (const Condition& condition : conditions) {
    const std::size_t indent = 6 + title_width + 2;
    session.print(fmt::format("  {}  {:<{}}  {}\n", mark(session, condition.verdict), condition.title, title_width,
                              fold(session.out, condition.detail, indent)));
    if (!condition.remedy.empty()) session.print(remedy_text(condition.remedy, session.out, indent));
  }
}

Json to_json(const std::vector<Condition>& conditions) {
  Json list = Json::array();
  for (const Condition& condition : conditions) {
    list.push_back({{"condition", condition.key},
                    {"title", condition.title},
                    {"verdict", to_string(condition.verdict)},
                    {"detail", condition.detail},
                    {"remedy", for_host(condition.remedy)}});
  }
  return list;
}

Json range_json(std::uint64_t at_least, std::uint64_t at_most) {
  return {{"at_least", at_least}, {"at_most", at_most}};
}

Json to_json(std::uint64_t mapped, const MemoryNeeds& found) {
  const LockedMemory memory = found.memory.value_or(LockedMemory());
  Json needs = Json::array();
  for (const LockedMemoryNeed& need : found.needs) {
    needs.push_back({{"backend", need.backend},
                     {"version", need.version != 0 ? Json(need.version) : Json()},
                     {"counter", to_string(need.counter)},
                     {"counts", need.what},
                     {"bytes", range_json(need.at_least(), need.at_most())},
                     {"containers", range_json(need.containers_at_least, need.containers_at_most)},
                     {"in_use", found.memory ? Json(memory.used(need.counter)) : Json()},
                     {"verdict", found.memory ? Json(to_string(need.judge(memory))) : Json()},
                     {"remedy", found.memory ? remedy_of(need, memory) : ""}});
  }
  return {{"mapped", mapped},
          {"limit", memory.limit ? Json(*memory.limit) : Json()},
          {"exempt", found.memory ? Json(memory.exempt) : Json()},
          {"needs", std::move(needs)}};
}

std::string summary(const Session& session, const Diagnosis& diagnosis) {
  const std::size_t bad = diagnosis.not_met();
  const std::size_t open = diagnosis.unknown();
  const std::string doubt = open == 0 ? "" : fmt::format("; {} cannot be checked", open);
  if (bad > 0) {
    const std::string verdict = bad == 1 ? "1 condition is not met" : fmt::format("{} conditions are not met", bad);
    return paint(session.out, Style::bad, verdict) + doubt;
  }
  return paint(session.out, Style::good, "no unmet conditions") + doubt;
}

Result<Ending> run_doctor(Session& session, const Question& question) {
  const Diagnosis diagnosis = diagnose(session.kernel, question);
  const Ending ending = diagnosis.not_met() == 0 ? Ending::ok : Ending::problem;
  if (session.json()) {
    Json document = {{"ok", ending == Ending::ok}, {"host", to_json(diagnosis.host)}};
    if (question.memory) document["locked_memory"] = to_json(*question.memory, diagnosis.memory);
    if (question.device) {
      document["address"] = to_string(*question.device);
      document["device"] = to_json(diagnosis.device);
    }
    session.print(json_text(document));
    return ending;
  }
  std::size_t widest = 0;
  for (const auto* part : {&diagnosis.host, &diagnosis.device}) {
    for (const Condition& condition : *part) widest = std::max(widest, columns_of(condition.title));
  }
  show(session, "this host", diagnosis.host, widest);
  if (question.device) {
    session.print("\n");
    show(session, to_string(*question.device), diagnosis.device, widest);
  }
  session.print("\n" + summary(session, diagnosis) + "\n");
  return ending;
}

struct DoctorOptions {
  PciAddress address;
  std::optional<std::uint64_t> memory;
  std::optional<VfToken> vf_token;
};

Run add_doctor(CLI::App& command) {
  auto options = std::make_shared<DoctorOptions>();
  CLI::Option* device = add_device(command, options->address);
  add_size(
      command, "--memory", [options = options.get()](std::uint64_t bytes) { options->memory = bytes; },
      "How much memory will be mapped, as 64M or 16G");
  add_vf_token(command, options->vf_token);
  return [options, device](Session& session) {
    Question question{.device = std::nullopt, .memory = options->memory, .vf_token = options->vf_token};
    if (*device) question.device = options->address;
    return run_doctor(session, question);
  };
}

}  // namespace

const Command doctor_command = {
    .name = "doctor",
    .summary = "Check every condition for passing a device through, with a remedy for each that is not met",
    .footer =
        "Examples:\n"
        "  postern doctor                         # this host only\n"
        "  postern doctor 00:01.0 --memory 16G    # for a virtual machine of 16 GiB: what each backend would count\n"
        "\n"
        "Marks: ok: met; NO: not met; ?: cannot be checked; --: not met, but an alternative is.\n"
        "Exit code 1: a condition is not met. The locked memory limit is that of the postern process: run it as the "
        "user, and\n"
        "in the shell, that will run the driver or the virtual machine.",
    .add = add_doctor,
};

}  // namespace postern::tool
