// SPDX-License-Identifier: Apache-2.0
// postern check: passes a device through in every way there is, and proves that it works and leaves nothing behind.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "text/names.hpp"
#include "text/sizes.hpp"
#include "verb.hpp"
#include "verbs/pass.hpp"

namespace postern::tool {
namespace {

constexpr std::array<const Proof*, 2> proofs = {&nvme_proof, &edu_proof};

struct Options {
  PciAddress address;
  std::string backend = "all";
  std::optional<std::uint32_t> version;
  PassOptions pass;
};

Error not_bound(const HostDevice& device) {
  return Error({.code = ENODEV,
                .operation = "check",
                .object = device.name,
                .reason = device.driver ? fmt::format("it is bound to {}, which is no VFIO driver", *device.driver)
                                        : "it is bound to no driver; it must be bound to a VFIO driver",
                .remedy = fmt::format("\"postern bind {}\"", device.name),
                .causes = {}});
}

struct Unavailable {
  const Backend* backend;
  Error error;
};

struct Chosen {
  std::vector<const Backend*> backends;
  std::vector<Unavailable> unavailable;
};

Result<Chosen> choose(Kernel& kernel, const HostDevice& device, const std::string& name) {
  Chosen chosen;
  if (name != "all") {
    auto backend = choose_backend(kernel, name, device);
    if (!backend) return failure_of(backend);
    chosen.backends.push_back(*backend);
    return chosen;
  }
  for (const Backend* backend : backends()) {
    auto usable = backend->probe(kernel, &device);
    if (usable) {
      chosen.backends.push_back(backend);
    } else {
      chosen.unavailable.push_back({backend, std::move(usable).error()});
    }
  }
  if (!chosen.backends.empty()) return chosen;
  // Says why each refused.
  auto none = choose_backend(kernel, "auto", device);
  if (!none) return failure_of(none);
  chosen.backends.push_back(*none);
  return chosen;
}

// The same blocks were read in each pass: they must have been the same bytes.
void compare_digests(const std::vector<std::pair<std::string, std::string>>& digests, Steps& steps) {
  if (digests.size() < 2) return;
  steps.gap();
  const auto& [first_name, first] = digests.front();
  for (const auto& [name, digest] : digests) {
    if (digest == first) continue;
    return steps.failed("same data",
                        proof_error(EIO, "compare", "what was read",
                                    fmt::format("{} and {} gave other bytes for the same blocks", first_name, name),
                                    "unless somebody else writes to this disk, one of them is wrong"));
  }
  steps.ok("same data", fmt::format("{} passes read the same bytes", digests.size()), {{"passes", digests.size()}});
}

// Only with --version: every backend has one that can be used, or its probe would have refused.
Error nothing_to_try(const Options& options, Passes passes) {
  if (!passes.missing.empty()) return std::move(passes.missing.front().error);
  return proof_error(ENODEV, "check", fmt::format("version {}", *options.version),
                     "the backends that can be used here have no such version",
                     "leave --version out; \"postern backends\" lists the versions");
}

Result<Ending> run(Session& session, const Options& options) {
  auto function = find_pci_function(session.kernel, options.address);
  if (!function) return failure_of(function);
  const HostDevice& host = function->host;
  if (options.backend != "auto" && options.backend != "all") {
    if (auto named = find_backend(options.backend); !named) return failure_of(named);
  }
  if (!host.driver || !is_vfio_driver(*host.driver)) return failure(not_bound(host));
  auto chosen = choose(session.kernel, host, options.backend);
  if (!chosen) return failure_of(chosen);
  Passes passes;
  for (const Backend* backend : chosen->backends) add_passes(session.kernel, *backend, options.version, passes);
  if (passes.passes.empty()) return failure(nothing_to_try(options, std::move(passes)));

  const auto say = [&](const std::string& text) {
    if (!session.json()) session.print_now(text);
  };
  const auto heading = [&](std::string_view text) { say("\n" + paint(session.out, Style::heading, text) + "\n"); };
  const std::string group = host.iommu_group ? to_string(*host.iommu_group) : "none";
  say(fmt::format("{}  {} [{}], IOMMU group {}, {}\n", paint(session.out, Style::heading, host.name),
                  title_of(*function), ids_text(*function), group, *host.driver));

  Json results = Json::array();
  std::vector<std::pair<std::string, std::string>> digests;
  std::string good;
  std::string bad;
  for (const Pass& pass : passes.passes) {
    const std::string name = pass_text(pass);
    heading(name);
    Steps steps(session);
    const bool tried = run_pass(session, *function, pass, options.pass, steps);
    const bool well = steps.failures().empty();
    for (const Json& step : steps.json()) {
      if (step.contains("sha256")) digests.emplace_back(name, step["sha256"]);
    }
    if (!well) {
      bad += fmt::format("{}{} ({})", bad.empty() ? "" : "; ", name, fmt::join(steps.failures(), ", "));
    } else if (tried) {
      good += (good.empty() ? "" : "; ") + name;
    }
    Json result = pass_json(pass);
    result.update({{"ok", well && !tried ? Json(nullptr) : Json(well)}, {"steps", steps.json()}});
    results.push_back(std::move(result));
  }
  for (const MissingVersion& other : passes.missing) {
    const Pass pass{.backend = other.backend, .version = other.version, .space = Space::whole};
    say(fmt::format("\n{}: left out: {}\n", paint(session.out, Style::heading, pass_text(pass)),
                    reason_line(other.error)));
    Json result = pass_json(pass);
    result.update({{"ok", nullptr}, {"error", error_json(other.error)}, {"steps", Json::array()}});
    results.push_back(std::move(result));
  }
  for (const Unavailable& other : chosen->unavailable) {
    heading(other.backend->name);
    Steps steps(session);
    steps.skipped("attach", error_line(other.error));
    if (!session.json()) session.print_now(error_details(other.error, session.out, 21));
    Json result = pass_json({.backend = other.backend});
    result.update({{"ok", nullptr}, {"steps", steps.json()}});
    results.push_back(std::move(result));
  }
  Steps across(session);
  compare_digests(digests, across);
  if (!across.failures().empty()) bad += (bad.empty() ? "" : "; ") + std::string("same data");

  if (session.json()) {
    Json document = {{"ok", bad.empty()},
                     {"device", function_json(*function)},
                     {"passes", std::move(results)},
                     {"across", across.json()}};
    session.print(json_text(document));
  } else {
    say("\n");
    if (!good.empty())
      say(fmt::format("{} passes through with {}\n", host.name, paint(session.out, Style::good, good)));
    if (!bad.empty()) say(fmt::format("failed: {}\n", paint(session.out, Style::bad, bad)));
  }
  return bad.empty() ? Ending::well : Ending::not_well;
}

// A version that the backend does not have at all is a mistake in the arguments.
void require_version(const Options& options) {
  if (!options.version) return;
  std::vector<std::uint32_t> known;
  for (const Backend* backend : backends()) {
    const bool meant = options.backend == "all" || options.backend == "auto" || options.backend == backend->name;
    if (meant) known.insert(known.end(), backend->versions.begin(), backend->versions.end());
  }
  if (std::find(known.begin(), known.end(), *options.version) != known.end()) return;
  std::sort(known.begin(), known.end(), std::greater<>());
  known.erase(std::unique(known.begin(), known.end()), known.end());
  const std::string whose =
      options.backend == "all" || options.backend == "auto" ? "no backend has" : options.backend + " does not have";
  throw CLI::ValidationError(
      "--version",
      fmt::format("{} a version {}; {}", whose, *options.version,
                  known.empty() ? "leave the version out" : fmt::format("use one of: {}", fmt::join(known, ", "))));
}

Run add(CLI::App& verb) {
  auto options = std::make_shared<Options>();
  add_device(verb, options->address)->required();
  const auto name_backend = [options = options.get()](const std::string& name) {
    auto named = find_backend(name);
    const bool wrong = !named && named.error().code() == EINVAL && name != "auto" && name != "all";
    if (wrong)
      throw CLI::ValidationError("--backend", fmt::format("{}; {}", named.error().reason(), named.error().remedy()));
    options->backend = name;
  };
  verb.add_option_function<std::string>(
          "--backend", name_backend, "One backend by name, \"auto\" (the best), or \"all\" that can be used (default)")
      ->type_name("NAME");
  verb.add_option("--version", options->version, "One version of the kernel's interface (default: each that it has)")
      ->type_name("N");
  verb.callback([options = options.get()] { require_version(*options); });
  add_size(
      verb, "--memory", [options = options.get()](std::uint64_t bytes) { options->pass.memory = bytes; },
      "How much memory to map and unmap (default: 64M)");
  const auto parse_bytes = [options = options.get()](const std::string& text) {
    auto bytes = parse_size_or_all(text);
    if (!bytes)
      throw CLI::ValidationError("--bytes", fmt::format("{}; {}", bytes.error().reason(), bytes.error().remedy()));
    options->pass.proof.bytes = *bytes;
  };
  verb.add_option_function<std::string>("--bytes", parse_bytes,
                                        "How much of a disk to read, or \"all\" (default: up to 1G)")
      ->type_name("SIZE");
  verb.add_flag("--write-test", options->pass.proof.write_test,
                "Also write to a disk's last blocks, and restore what was there");
  return [options](Session& session) { return run(session, *options); };
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

const Verb check_verb = {
    .name = "check",
    .summary = "Prove that a device works when it is passed through: DMA, interrupts, reset, and nothing left behind",
    .footer =
        "Examples:\n"
        "  postern check 00:01.0                           # on every backend that can be used, in each version\n"
        "  postern check 00:01.0 --backend type1 --memory 4G\n"
        "  postern check 00:01.0 --bytes all | grep sha256\n"
        "\n"
        "Where the IOMMU has DMA windows, all is done again in one that is made for it. \n"
        "DMA is proven for NVMe controllers, by reading a disk, and for QEMU's edu device. A disk is only read, "
        "unless\n"
        "--write-test is given: then its last blocks are overwritten for a moment, while their content is in memory "
        "alone.\n"
        "Exit code 1: a step failed.",
    .add = add,
};

}  // namespace postern::tool
