// SPDX-License-Identifier: Apache-2.0
// postern check: passes a device through with every backend, tests that it works, and that nothing is left behind.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "command.hpp"
#include "commands/pass.hpp"
#include "host/bound.hpp"
#include "host/in_use.hpp"
#include "text/names.hpp"
#include "text/remedies.hpp"
#include "text/sizes.hpp"

namespace postern::tool {
namespace {

constexpr std::array<const Proof*, 2> proofs = {&nvme_proof, &edu_proof};

struct CheckOptions {
  PciAddress address;
  std::string backend = "all";
  std::optional<std::uint32_t> version;
  std::optional<VfToken> vf_token;
  PassOptions pass;
  bool force = false;
};

struct Unavailable {
  const Backend* backend;
  Error error;
};

struct Chosen {
  std::vector<const Backend*> backends;
  std::vector<Unavailable> unavailable;
};

// Whether all that the backend needs is there: more than its probe, which does not open the device's nodes.
Result<void> require_usable(Kernel& kernel, const HostDevice& device, const Backend& backend) {
  for (RequirementState& state : backend.requirements(kernel, &device)) {
    POSTERN_TRY(state.found);
  }
  return {};
}

Result<Chosen> choose(Kernel& kernel, const HostDevice& device, const std::string& name) {
  Chosen chosen;
  if (name != "all" && name != "auto") {
    auto backend = POSTERN_TRY(choose_backend(kernel, name, device));
    chosen.backends.push_back(backend);
    return chosen;
  }
  for (const Backend* backend : backends()) {
    auto usable = require_usable(kernel, device, *backend);
    if (!usable) {
      chosen.unavailable.push_back({backend, std::move(usable).error()});
      continue;
    }
    chosen.backends.push_back(backend);
    if (name == "all") continue;
    chosen.unavailable.clear();  // "auto" does not report these
    return chosen;
  }
  if (!chosen.backends.empty()) return chosen;
  std::vector<Error> refusals;
  for (Unavailable& other : chosen.unavailable) refusals.push_back(std::move(other.error));
  return failure({.code = ENODEV,
                  .kind = ErrorKind::unavailable,
                  .object = fmt::format("backend for {}", device.name),
                  .reason = "no backend supports it",
                  .remedy = Remedy{.code = RemedyCode::see_causes, .arguments = {device.name}},
                  .causes = std::move(refusals)});
}

// Every pass read the same blocks, so the bytes must be equal.
void compare_digests(const std::vector<std::pair<std::string, std::string>>& digests, Steps& steps) {
  if (digests.size() < 2) return;
  steps.gap();
  const auto& [first_name, first] = digests.front();
  for (const auto& [name, digest] : digests) {
    if (digest == first) continue;
    return steps.failed(
        "same data",
        proof_error(EIO, "compare", "the data read",
                    fmt::format("{} and {} returned different bytes for the same blocks", first_name, name),
                    "unless another host writes to this disk, one of them returned wrong data"));
  }
  steps.ok("same data", fmt::format("{} passes read the same bytes", digests.size()), {{"passes", digests.size()}});
}

// Happens only with --version: a backend whose probe succeeds has a usable version.
Error nothing_to_try(const CheckOptions& options, Passes passes) {
  if (!passes.missing.empty()) return std::move(passes.missing.front().error);
  return proof_error(ENODEV, "check", fmt::format("version {}", *options.version),
                     "no backend that is usable here has this version",
                     "omit --version; \"postern backends\" lists the versions");
}

// The results of the passes, for the last lines and for JSON.
struct Findings {
  Json results = Json::array();
  std::vector<std::pair<std::string, std::string>> digests;
  std::string good;
  std::string bad;
};

void say(const Session& session, const std::string& text) {
  if (!session.json()) session.print_now(text);
}

std::string heading(const Session& session, std::string_view text) {
  return "\n" + paint(session.out, Style::heading, text);
}

void try_pass(const Session& session, const PciFunction& function, const Pass& pass, const PassOptions& options,
              Findings& findings) {
  const std::string name = pass_text(pass);
  say(session, heading(session, name) + "\n");
  Steps steps(session);
  const bool tried = run_pass(session, function, pass, options, steps);
  const bool well = steps.failures().empty();
  for (const Json& step : steps.json()) {
    if (step.contains("sha256")) findings.digests.emplace_back(name, step["sha256"]);
  }
  if (!well) {
    findings.bad += fmt::format("{}{} ({})", findings.bad.empty() ? "" : "; ", name, fmt::join(steps.failures(), ", "));
  } else if (tried) {
    findings.good += (findings.good.empty() ? "" : "; ") + name;
  }
  Json result = pass_json(pass);
  result.update({{"ok", well && !tried ? Json(nullptr) : Json(well)}, {"steps", steps.json()}});
  findings.results.push_back(std::move(result));
}

void report_missing(const Session& session, const MissingVersion& missing, Findings& findings) {
  const Pass pass{.backend = missing.backend, .version = missing.version, .space = Space::whole};
  say(session, fmt::format("{}: skipped: {}\n", heading(session, pass_text(pass)), reason_line(missing.error)));
  Json result = pass_json(pass);
  result.update({{"ok", nullptr}, {"error", error_json(missing.error)}, {"steps", Json::array()}});
  findings.results.push_back(std::move(result));
}

void report_unavailable(const Session& session, const Unavailable& other, Findings& findings) {
  say(session, heading(session, other.backend->name) + "\n");
  Steps steps(session);
  steps.skipped("attach", error_line(other.error));
  say(session, error_details(other.error, session.out, 21));
  Json result = pass_json({.backend = other.backend});
  result.update({{"ok", nullptr}, {"steps", steps.json()}});
  findings.results.push_back(std::move(result));
}

// Formats an introduction and a coloured list.
std::string conclusion(const Session& session, const std::string& introduction, Style style, const std::string& list) {
  return introduction + paint(session.out, style, fold(session.out, list, columns_of(introduction))) + "\n";
}

// A simulated disk ends with this process, so its old content need not outlive it.
std::string keeping_folder(const Session& session) {
  return &session.kernel == &system_kernel() ? "/var/lib/postern" : session.bindings_folder;
}

Result<Ending> run_check(Session& session, CheckOptions options) {
  if (options.pass.proof.keep_in.empty()) options.pass.proof.keep_in = keeping_folder(session);
  auto function = POSTERN_TRY(find_pci_function(session.kernel, options.address));
  function.host.vf_token = options.vf_token;
  const HostDevice& host = function.host;
  if (options.backend != "auto" && options.backend != "all") {
    POSTERN_TRY(find_backend(options.backend));
  }
  POSTERN_TRY(require_bound(session.kernel, function, "check"));
  // Opening the device resets it, and so does each pass.
  auto in_use = POSTERN_TRY(take_from_host(session, host, "check", options.force));
  auto chosen = POSTERN_TRY(choose(session.kernel, host, options.backend));
  Passes passes;
  for (const Backend* backend : chosen.backends) add_passes(session.kernel, *backend, options.version, passes);
  if (passes.passes.empty()) return failure(nothing_to_try(options, std::move(passes)));

  say(session, fmt::format("{}  {} [{}], IOMMU group {}, {}\n", paint(session.out, Style::heading, host.name),
                           title_of(function), ids_text(function), group_text(host), *host.driver));
  Findings findings;
  for (const Pass& pass : passes.passes) try_pass(session, function, pass, options.pass, findings);
  for (const MissingVersion& missing : passes.missing) report_missing(session, missing, findings);
  for (const Unavailable& other : chosen.unavailable) report_unavailable(session, other, findings);
  Steps across(session);
  compare_digests(findings.digests, across);
  if (!across.failures().empty()) findings.bad += (findings.bad.empty() ? "" : "; ") + std::string("same data");

  const bool well = findings.bad.empty();
  if (session.json()) {
    Json json = {{"ok", well},
                 {"device", function_json(function)},
                 {"passes", std::move(findings.results)},
                 {"across", across.json()}};
    add_losses(json, in_use);
    session.print(json_text(json));
  } else {
    session.print("\n");
    if (!findings.good.empty())
      session.print(conclusion(session, host.name + " passes through with ", Style::good, findings.good));
    if (!well) session.print(conclusion(session, "failed: ", Style::bad, findings.bad));
  }
  return well ? Ending::ok : Ending::problem;
}

// A version that no chosen backend has is a usage error.
void require_version(const CheckOptions& options) {
  if (!options.version) return;
  const bool any = options.backend == "all" || options.backend == "auto";
  if (!any && !find_backend(options.backend)) return;  // reported when the command runs
  std::vector<std::uint32_t> known;
  for (const Backend* backend : backends()) {
    if (any || options.backend == backend->name)
      known.insert(known.end(), backend->versions.begin(), backend->versions.end());
  }
  if (std::find(known.begin(), known.end(), *options.version) != known.end()) return;
  std::sort(known.begin(), known.end(), std::greater<>());
  known.erase(std::unique(known.begin(), known.end()), known.end());
  const std::string whose = any ? "no backend has" : options.backend + " does not have";
  throw CLI::ValidationError(
      "--version",
      fmt::format("{} a version {}; {}", whose, *options.version,
                  known.empty() ? "omit --version" : fmt::format("use one of: {}", fmt::join(known, ", "))));
}

Run add_check(CLI::App& command) {
  auto options = std::make_shared<CheckOptions>();
  add_device(command, options->address)->required();
  add_backend(command, options->backend,
              "A backend by name, \"auto\" (the first usable one), or \"all\" usable ones (default)", "all");
  command.add_option("--version", options->version, "One version of the kernel's interface (default: all)")
      ->type_name("N");
  command.callback([options = options.get()] { require_version(*options); });
  add_size(
      command, "--memory", [options = options.get()](std::uint64_t bytes) { options->pass.memory = bytes; },
      "How much memory to map and unmap (default: 64M)");
  const auto parse_bytes = [options = options.get()](const std::string& text) {
    auto bytes = parse_size_or_all(text);
    if (!bytes)
      throw CLI::ValidationError("--bytes",
                                 fmt::format("{}; {}", bytes.error().reason(), words_of(bytes.error().remedies())));
    options->pass.proof.bytes = *bytes;
  };
  command
      .add_option_function<std::string>("--bytes", parse_bytes,
                                        "How much of a disk to read, or \"all\" (default: up to 1G)")
      ->type_name("SIZE");
  command.add_flag("--write-test", options->pass.proof.write_test,
                   "Also write to a disk's last blocks, then restore their content");
  add_vf_token(command, options->vf_token);
  command.add_flag("--force", options->force, "Check it even if this host uses it, and report what is lost");
  command
      .add_option("--keep-in", options->pass.proof.keep_in,
                  "Folder that holds their content meanwhile (default: /var/lib/postern)")
      ->type_name("FOLDER");
  return [options](Session& session) { return run_check(session, *options); };
}

}  // namespace

const Proof* find_proof(const PciFunction& function) noexcept {
  const auto found =
      std::find_if(proofs.begin(), proofs.end(), [&](const Proof* proof) { return proof->fits(function); });
  return found == proofs.end() ? nullptr : *found;
}

Error proof_error(int code, std::string operation, std::string object, std::string reason, std::string remedy) {
  return Error({.code = code,
                .operation = std::move(operation),
                .object = std::move(object),
                .reason = std::move(reason),
                .remedy = std::move(remedy),
                .causes = {}});
}

const Command check_command = {
    .name = "check",
    .summary = "Test a device that is passed through: DMA, interrupts, reset, and that nothing is left behind",
    .footer =
        "Examples:\n"
        "  postern check 00:01.0                           # with every usable backend, in every version\n"
        "  postern check 00:01.0 --backend type1 --memory 4G\n"
        "  postern check 00:01.0 --bytes all | grep sha256\n"
        "\n"
        "If the IOMMU has DMA windows (POWER), all tests run again in a window that is created for them and then "
        "removed.\n"
        "DMA is tested for NVMe controllers, by reading a disk, and for QEMU's edu device. A disk is only read, "
        "unless\n"
        "--write-test is given: then its last blocks are overwritten for a moment. Meanwhile a file on stable storage "
        "holds\n"
        "their content, and signals wait. If check is killed before it has restored them, the next --write-test says "
        "how.\n"
        "Exit code 1: a step failed.",
    .add = add_check,
};

}  // namespace postern::tool
