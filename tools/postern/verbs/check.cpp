// SPDX-License-Identifier: Apache-2.0
// postern check: passes a device through on each backend, and proves that it works and that nothing is left behind.
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <memory>
#include <optional>
#include <postern/attach.hpp>
#include <postern/fd.hpp>
#include <postern/iova_allocator.hpp>
#include <string>
#include <vector>

#include "host/holders.hpp"
#include "host/leftovers.hpp"
#include "proofs/proof.hpp"
#include "text/names.hpp"
#include "text/sizes.hpp"
#include "text/steps.hpp"
#include "verb.hpp"
#include "verbs/limits.hpp"

namespace postern::tool {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::array<const Proof*, 2> proofs = {&nvme_proof, &edu_proof};

struct Options {
  PciAddress address;
  std::string backend = "all";
  std::uint64_t memory = std::uint64_t{64} << 20;
  ProofOptions proof;
};

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

Error not_bound(const HostDevice& device) {
  return Error({.code = ENODEV,
                .operation = "check",
                .object = device.name,
                .reason = device.driver ? fmt::format("it is bound to {}, which is no VFIO driver", *device.driver)
                                        : "it is bound to no driver; it must be bound to a VFIO driver",
                .remedy = fmt::format("\"postern bind {}\"", device.name),
                .causes = {}});
}

void show_limits(Steps& steps, const Container& container) {
  std::string facts;
  for (const auto& [name, value] : container.facts())
    facts += fmt::format("{}{} {}", facts.empty() ? "" : "; ", name, value);
  steps.ok("limits", ranges_text(container), limits_json(container));
  steps.more(
      fmt::format("pages of {}; mappings: {}", page_sizes_text(container.page_sizes()), mapping_limit_text(container)));
  steps.more(facts);
}

// Maps as much memory as was asked for and takes it back, with the time of each.
Result<std::string> map_memory(Kernel& kernel, Container& container, IovaAllocator& allocator, std::uint64_t length) {
  const std::uint64_t page = container.page_sizes() & (~container.page_sizes() + 1);
  if (page > 0) length = (length + page - 1) / page * page;
  const std::intptr_t address =
      kernel.mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (is_errno(address)) {
    return failure(proof_error(static_cast<int>(-address), "mmap", size_text(length) + " of memory", "",
                               "give less with --memory"));
  }
  const Mmap memory(kernel, reinterpret_cast<void*>(address), length);
  auto iova = allocator.allocate(length);
  if (!iova) return failure_of(iova);
  const auto before_map = Clock::now();
  if (auto done = container.map(*iova, memory.bytes()); !done) {
    if (auto given_back = allocator.free(*iova, length); !given_back) return failure_of(given_back);
    return failure_of(done);
  }
  const double mapping = seconds_since(before_map);
  const auto before_unmap = Clock::now();
  if (auto done = container.unmap(*iova, length); !done) return failure_of(done);
  const double unmapping = seconds_since(before_unmap);
  if (auto done = allocator.free(*iova, length); !done) return failure_of(done);
  return fmt::format("{} at {} in {}, unmapped in {}", size_text(length), to_string(*iova), duration_text(mapping),
                     duration_text(unmapping));
}

// Whether config space, as VFIO gives it, is that of the device which sysfs names.
Result<std::string> read_config(const PciDevice& device, const PciFunction& function) {
  auto vendor = device.read_config<std::uint16_t>(0);
  if (!vendor) return failure_of(vendor);
  auto id = device.read_config<std::uint16_t>(2);
  if (!id) return failure_of(id);
  if (*vendor != function.vendor_id || *id != function.device_id) {
    return failure(proof_error(EIO, "compare", "ids in config space",
                               fmt::format("read {:04x}:{:04x}, but sysfs has {}", *vendor, *id, ids_text(function))));
  }
  return fmt::format("{}, {}", ids_text(function), counted(device.capabilities().size(), "capability", "capabilities"));
}

void take(Steps& steps, std::string_view name, const Result<std::string>& result) {
  if (result) {
    steps.ok(name, *result);
  } else {
    steps.failed(name, result.error());
  }
}

void reset(Steps& steps, const PciDevice& device, const PciFunction& function) {
  if (!device.device().can_reset()) return steps.skipped("reset", "the device has no reset of its own");
  const auto started = Clock::now();
  if (auto done = device.device().reset(); !done) return steps.failed("reset", done.error());
  const double seconds = seconds_since(started);
  if (auto alive = read_config(device, function); !alive) return steps.failed("reset", alive.error());
  const std::string method =
      function.reset_methods.empty() ? "" : fmt::format(" by {}", function.reset_methods.front());
  steps.ok("reset", fmt::format("done{} in {}, and config space can be read", method, duration_text(seconds)));
}

// Everything between attaching and detaching.
void use(const Session& session, const PciFunction& function, const Options& options, PciDevice& device, Steps& steps) {
  const auto container = device.device().container();
  show_limits(steps, *container);
  IovaAllocator allocator(container->usable_ranges(), container->page_sizes());
  take(steps, "map", map_memory(session.kernel, *container, allocator, options.memory));
  take(steps, "config", read_config(device, function));
  if (const Proof* proof = find_proof(function)) {
    Bench bench{.session = session, .device = device, .allocator = allocator, .options = options.proof, .steps = steps};
    proof->run(bench);
  } else {
    steps.skipped("dma", fmt::format("postern has no proof for this kind of device ({})", class_text(function)));
  }
  reset(steps, device, function);
}

void attach_and_use(const Session& session, const PciFunction& function, const Backend& backend, const Options& options,
                    Steps& steps) {
  const auto started = Clock::now();
  auto attached =
      attach(session.kernel, function.host, {.backend = backend.name, .container = nullptr, .container_options = {}});
  if (!attached) {
    steps.failed("attach", attached.error());
    if (attached.error().code() == EBUSY) steps.more(holders_text(session.kernel, function.host));
    return;
  }
  auto device = PciDevice::open(std::move(*attached));
  if (!device) return steps.failed("attach", device.error());
  const auto container = device->device().container();
  steps.ok("attach", "in " + duration_text(seconds_since(started)));
  use(session, function, options, *device, steps);

  const std::size_t mappings = container->mapping_count();
  if (mappings > 0) {
    steps.failed("detach",
                 proof_error(EBUSY, "compare", "container", fmt::format("{} mappings are left in it", mappings)));
  }
  if (auto done = device->device().detach(); !done) return steps.failed("detach", done.error());
  if (auto done = container->close(); !done) return steps.failed("detach", done.error());
  steps.ok("detach", "device and container are closed");
}

void check_backend(const Session& session, const PciFunction& function, const Backend& backend, const Options& options,
                   Steps& steps) {
  auto before = Leftovers::now(session.kernel);
  if (!before) return steps.failed("left behind", before.error());
  attach_and_use(session, function, backend, options, steps);
  auto after = Leftovers::now(session.kernel);
  if (!after) return steps.failed("left behind", after.error());
  auto compared = compare(*before, *after);
  if (!compared) return steps.failed("left behind", compared.error());
  steps.ok("left behind", fmt::format("nothing: {}", *compared));
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

// The same blocks were read through each backend: they must have been the same bytes.
void compare_digests(const Json& results, Steps& steps) {
  std::vector<std::pair<std::string, std::string>> digests;
  for (const Json& backend : results) {
    for (const Json& step : backend["steps"]) {
      if (step.contains("sha256")) digests.emplace_back(backend["backend"], step["sha256"]);
    }
  }
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
  steps.ok("same data", fmt::format("{} backends read the same bytes", digests.size()));
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

  const auto say = [&](const std::string& text) {
    if (!session.json()) session.print_now(text);
  };
  const auto heading = [&](std::string_view text) { say("\n" + paint(session.out, Style::heading, text) + "\n"); };
  const std::string group = host.iommu_group ? to_string(*host.iommu_group) : "none";
  say(fmt::format("{}  {} [{}], IOMMU group {}, {}\n", paint(session.out, Style::heading, host.name),
                  title_of(*function), ids_text(*function), group, *host.driver));

  Json results = Json::array();
  std::string good;
  std::string bad;
  for (const Backend* backend : chosen->backends) {
    heading(backend->name);
    Steps steps(session);
    check_backend(session, *function, *backend, options, steps);
    const bool well = steps.failures().empty();
    std::string& list = well ? good : bad;
    list += (list.empty() ? "" : ", ") + std::string(backend->name);
    if (!well) list += fmt::format(" ({})", fmt::join(steps.failures(), ", "));
    results.push_back({{"backend", backend->name}, {"ok", well}, {"steps", steps.json()}});
  }
  for (const Unavailable& other : chosen->unavailable) {
    heading(other.backend->name);
    Steps steps(session);
    steps.skipped("attach", error_line(other.error));
    if (!session.json()) session.print_now(error_details(other.error, session.out, 21));
    results.push_back({{"backend", other.backend->name}, {"ok", nullptr}, {"steps", steps.json()}});
  }
  Steps across(session);
  compare_digests(results, across);
  if (!across.failures().empty()) bad += (bad.empty() ? "" : ", ") + std::string("same data");

  if (session.json()) {
    Json document = {{"ok", bad.empty()},
                     {"device", function_json(*function)},
                     {"backends", std::move(results)},
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
  add_size(
      verb, "--memory", [options = options.get()](std::uint64_t bytes) { options->memory = bytes; },
      "How much memory to map and unmap (default: 64M)");
  const auto parse_bytes = [options = options.get()](const std::string& text) {
    auto bytes = parse_size_or_all(text);
    if (!bytes)
      throw CLI::ValidationError("--bytes", fmt::format("{}; {}", bytes.error().reason(), bytes.error().remedy()));
    options->proof.bytes = *bytes;
  };
  verb.add_option_function<std::string>("--bytes", parse_bytes,
                                        "How much of a disk to read, or \"all\" (default: up to 1G)")
      ->type_name("SIZE");
  verb.add_flag("--write-test", options->proof.write_test,
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
        "  postern check 00:01.0                           # on every backend that can be used\n"
        "  postern check 00:01.0 --backend type1 --memory 4G\n"
        "  postern check 00:01.0 --bytes all | grep sha256\n"
        "\n"
        "DMA is proven for NVMe controllers, by reading a disk, and for QEMU's edu device. A disk is only read, "
        "unless\n"
        "--write-test is given: then its last blocks are overwritten for a moment, while their content is in memory "
        "alone.\n"
        "Exit code 1: a step failed.",
    .add = add,
};

}  // namespace postern::tool
