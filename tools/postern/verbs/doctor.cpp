// SPDX-License-Identifier: Apache-2.0
// postern doctor: what stands in the way of passing a device through, and what to do about it.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>

#include "host/conditions.hpp"
#include "text/errors.hpp"
#include "verb.hpp"

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

std::string summary(const Session& session, const Diagnosis& diagnosis) {
  const std::size_t bad = diagnosis.not_met();
  const std::size_t open = diagnosis.unknown();
  const std::string doubt = open == 0 ? "" : fmt::format("; {} cannot be judged", open);
  if (bad > 0) {
    const std::string verdict = bad == 1 ? "1 condition is not met" : fmt::format("{} conditions are not met", bad);
    return paint(session.out, Style::bad, verdict) + doubt;
  }
  return paint(session.out, Style::good, "nothing stands in the way") + doubt;
}

Result<Ending> run_doctor(Session& session, const Question& question) {
  const Diagnosis diagnosis = diagnose(session.kernel, question);
  const Ending ending = diagnosis.not_met() == 0 ? Ending::well : Ending::not_well;
  if (session.json()) {
    Json document = {{"ok", ending == Ending::well}, {"host", to_json(diagnosis.host)}};
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

Run add_doctor(CLI::App& verb) {
  auto options = std::make_shared<DoctorOptions>();
  CLI::Option* device = add_device(verb, options->address);
  add_size(
      verb, "--memory", [options = options.get()](std::uint64_t bytes) { options->memory = bytes; },
      "How much memory is to be mapped, as 64M or 16G");
  add_vf_token(verb, options->vf_token);
  return [options, device](Session& session) {
    Question question{.device = std::nullopt, .memory = options->memory, .vf_token = options->vf_token};
    if (*device) question.device = options->address;
    return run_doctor(session, question);
  };
}

}  // namespace

const Verb doctor_verb = {
    .name = "doctor",
    .summary = "Say what stands in the way of passing a device through, and what to do about it",
    .footer =
        "Examples:\n"
        "  postern doctor                         # this host alone\n"
        "  postern doctor 00:01.0 --memory 16G    # for a virtual machine of 16 GiB\n"
        "\n"
        "Marks: ok; NO is not met; ? cannot be judged; -- is not met, but something else will do.\n"
        "Exit code 1: a condition is not met. Locked memory is judged for the process that runs postern: run it as "
        "the\n"
        "user, and in the shell, that will run the driver or the virtual machine.",
    .add = add_doctor,
};

}  // namespace postern::tool
