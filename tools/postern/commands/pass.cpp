// SPDX-License-Identifier: Apache-2.0
// run_pass(): one pass of a check, from attaching the device to comparing what is left behind.
#include "commands/pass.hpp"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <postern/attach.hpp>
#include <postern/dma_windows.hpp>
#include <postern/fd.hpp>
#include <postern/reset_set.hpp>

#include "commands/limits.hpp"
#include "host/group_remedy.hpp"
#include "host/holders.hpp"
#include "host/resource_use.hpp"
#include "text/names.hpp"
#include "text/sizes.hpp"

namespace postern::tool {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

void show_limits(Steps& steps, Container& container) {
  std::string properties;
  for (const auto& [name, value] : properties_of(container))
    properties += fmt::format("{}{} {}", properties.empty() ? "" : "; ", name, value);
  steps.ok("limits", ranges_text(container), limits_json(container));
  steps.more(
      fmt::format("pages of {}; mappings: {}", page_sizes_text(container.page_sizes()), mapping_limit_text(container)));
  steps.more(properties);
}

std::uint64_t whole_pages(const Container& container, std::uint64_t length) {
  const std::uint64_t page = container.page_sizes() & (~container.page_sizes() + 1);
  return page > 0 ? (length + page - 1) / page * page : length;
}

bool has_room(IovaAllocator& allocator, std::uint64_t length) {
  const auto iova = allocator.allocate(length);
  return iova && allocator.free(*iova, length);
}

// Maps and unmaps `length` bytes, and measures both.
Result<std::string> map_memory(Kernel& kernel, Container& container, IovaAllocator& allocator, std::uint64_t length) {
  length = whole_pages(container, length);
  const std::intptr_t address =
      kernel.mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (is_errno(address)) {
    return failure(proof_error(static_cast<int>(-address), "mmap", size_text(length) + " of memory", "",
                               "use a smaller --memory"));
  }
  const Mmap memory(kernel, reinterpret_cast<void*>(address), length);
  auto iova = POSTERN_TRY(allocator.allocate(length));
  const auto before_map = Clock::now();
  if (auto done = container.map(iova, memory.bytes()); !done) {
    POSTERN_TRY(allocator.free(iova, length));
    return failure_of(done);
  }
  const double mapping = seconds_since(before_map);
  const auto before_unmap = Clock::now();
  POSTERN_TRY(container.unmap(iova, length));
  const double unmapping = seconds_since(before_unmap);
  POSTERN_TRY(allocator.free(iova, length));
  return fmt::format("{} at {} in {}, unmapped in {}", size_text(length), to_string(iova), duration_text(mapping),
                     duration_text(unmapping));
}

// Checks that config space, read through VFIO, is that of the device in sysfs.
Result<std::string> read_config(const PciDevice& device, const PciFunction& function) {
  auto vendor = POSTERN_TRY(device.read_config<std::uint16_t>(0));
  auto id = POSTERN_TRY(device.read_config<std::uint16_t>(2));
  if (vendor != function.vendor_id || id != function.device_id) {
    return failure(proof_error(EIO, "compare", "ids in config space",
                               fmt::format("read {:04x}:{:04x}, but sysfs has {}", vendor, id, ids_text(function))));
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
  if (auto alive = device.check_responds(); !alive) return steps.failed("reset", alive.error());
  if (!device.device().can_reset()) return steps.skipped("reset", "the kernel cannot reset this function");
  const auto started = Clock::now();
  auto method = device.reset();
  if (!method) return steps.failed("reset", method.error());
  const double seconds = seconds_since(started);
  if (auto alive = read_config(device, function); !alive) return steps.failed("reset", alive.error());
  steps.ok("reset", fmt::format("done{} in {}; config space is readable", method->empty() ? "" : " by " + *method,
                                duration_text(seconds)));
}

// Resets its slot or bus, if this process owns every device there.
void hot_reset(Steps& steps, const PciDevice& device, const PciFunction& function) {
  const auto set = ResetSet::of(device.device());
  if (!set && set.error().code() == ENODEV) return steps.skipped("hot reset", set.error().reason());
  if (!set) return steps.failed("hot reset", set.error());
  std::vector<std::string> names;
  std::vector<std::string> blockers;
  for (const ResetMember& member : set->members()) {
    names.push_back(to_string(member.address));
    if (!member.owned()) blockers.push_back(fmt::format("{} ({})", names.back(), member.blocker));
  }
  if (!blockers.empty()) {
    return steps.skipped(
        "hot reset", fmt::format("it would also reset devices that this process does not own: {}", list_of(blockers)));
  }
  const auto started = Clock::now();
  if (auto done = set->reset(); !done) return steps.failed("hot reset", done.error());
  const double seconds = seconds_since(started);
  if (auto alive = read_config(device, function); !alive) return steps.failed("hot reset", alive.error());
  steps.ok("hot reset", fmt::format("{} in {}; config space is readable", list_of(names), duration_text(seconds)),
           {{"members", names}});
}

// Runs all steps on the attached device, and maps memory in these ranges only.
void use(const Session& session, const PciFunction& function, const Pass& pass, const PassOptions& options,
         std::span<const IovaRange> ranges, PciDevice& device, Steps& steps) {
  const auto container = device.device().container();
  IovaAllocator allocator(ranges, container->page_sizes());
  if (pass.space == Space::default_window && !has_room(allocator, whole_pages(*container, options.memory))) {
    steps.skipped("map", fmt::format("{} do not fit into the default window", size_text(options.memory)));
  } else {
    take(steps, "map", map_memory(session.kernel, *container, allocator, options.memory));
  }
  // If the device does not respond, all further steps would fail for this one reason.
  if (auto alive = device.check_responds(); !alive) return steps.failed("answer", alive.error());
  take(steps, "config", read_config(device, function));
  if (const Proof* proof = find_proof(function)) {
    ProofContext context{.session = session,
                         .device = device,
                         .ranges = ranges,
                         .allocator = allocator,
                         .options = options.proof,
                         .steps = steps};
    proof->run(context);
  } else {
    steps.skipped("dma", fmt::format("postern has no DMA test for this kind of device ({})", class_text(function)));
  }
  reset(steps, device, function);
  hot_reset(steps, device, function);
}

// A window for the mapped memory and the proofs' buffers, but not larger than the machine's memory: under a hypervisor,
// after one failed request the kernel creates no further windows for the host bridge (failed_ddw_pdn_list, Linux 6.12).
DmaWindowRequest request_for(const DmaWindowLimits& limits, std::uint64_t memory) {
  constexpr std::uint64_t buffers = std::uint64_t{16} << 20;
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::uint64_t all_memory = page * static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES));
  const std::uint64_t fitting = limits.page_sizes & (2 * page - 1);
  return {.size = std::bit_ceil(std::min(memory, all_memory) + buffers),
          .page_size = fitting != 0 ? std::bit_floor(fitting) : page,
          .levels = 0};
}

// Runs all steps in a window that is created for them and then removed.
bool use_created_window(const Session& session, const PciFunction& function, const Pass& pass,
                        const PassOptions& options, PciDevice& device, Steps& steps) {
  DmaWindows* const windows = device.device().container()->get<DmaWindows>();
  if (windows == nullptr || windows->limits().levels == 0) {
    steps.skipped("window", "this platform has only the default window");
    return false;
  }
  const auto started = Clock::now();
  auto window = windows->create(request_for(windows->limits(), options.memory));
  if (!window) {
    steps.failed("window", window.error());
    return true;
  }
  steps.ok("window",
           fmt::format("{} with pages of {} in {}", range_text(window->range), size_text(window->page_size),
                       duration_text(seconds_since(started))),
           {{"first", to_string(window->range.first)}, {"last", to_string(window->range.last)}});
  use(session, function, pass, options, std::span(&window->range, 1), device, steps);
  const auto before_removal = Clock::now();
  if (auto done = windows->remove(window->range.first); !done) {
    steps.failed("window", done.error());
  } else {
    steps.ok("window", "removed in " + duration_text(seconds_since(before_removal)));
  }
  return true;
}

bool attach_and_use(const Session& session, const PciFunction& function, const Pass& pass, const PassOptions& options,
                    Steps& steps) {
  const auto started = Clock::now();
  auto attached = attach(session.kernel, function.host,
                         {.backend = pass.backend->name,
                          .container = nullptr,
                          .container_options = {.huge_pages = HugePages::use, .version = pass.version, .memory = 0}});
  if (!attached) {
    steps.failed("attach", with_group_remedy(session.kernel, function.host, attached.error()));
    if (attached.error().kind() == ErrorKind::in_use) steps.more(holders_text(session.kernel, function.host));
    return true;
  }
  auto device = PciDevice::open(std::move(*attached));
  if (!device) {
    steps.failed("attach", device.error());
    return true;
  }
  const auto container = device->device().container();
  steps.ok("attach", "in " + duration_text(seconds_since(started)));
  show_limits(steps, *container);
  bool tried = true;
  if (pass.space == Space::created_window) {
    tried = use_created_window(session, function, pass, options, *device, steps);
  } else {
    const std::vector<IovaRange> ranges = container->usable_ranges();
    use(session, function, pass, options, ranges, *device, steps);
  }

  const std::size_t mappings = container->mapping_count();
  if (mappings > 0) {
    steps.failed("detach", proof_error(EBUSY, "compare", "container", fmt::format("{} mappings are left", mappings)));
  }
  auto done = device->device().detach();
  if (done) done = container->close();
  if (done) {
    steps.ok("detach", "device and container closed");
  } else {
    steps.failed("detach", done.error());
  }
  return tried;
}

}  // namespace

std::string pass_text(const Pass& pass) {
  std::string text(pass.backend->name);
  if (pass.version != 0) text += fmt::format(", version {}", pass.version);
  if (pass.space == Space::default_window) text += ", default window";
  if (pass.space == Space::created_window) text += ", created window";
  return text;
}

Json pass_json(const Pass& pass) {
  Json json = {{"backend", pass.backend->name}, {"version", nullptr}, {"window", nullptr}};
  if (pass.version != 0) json["version"] = pass.version;
  if (pass.space != Space::whole) json["window"] = pass.space == Space::default_window ? "default" : "created";
  return json;
}

void add_passes(Kernel& kernel, const Backend& backend, std::optional<std::uint32_t> version, Passes& passes) {
  if (backend.versions.empty() && !version) passes.passes.push_back({.backend = &backend});
  for (const std::uint32_t each : backend.versions) {
    if (version && *version != each) continue;
    auto container = Container::open(kernel, backend, {.huge_pages = HugePages::use, .version = each, .memory = 0});
    if (!container) {
      passes.missing.push_back({&backend, each, std::move(container).error()});
    } else if ((*container)->get<DmaWindows>() == nullptr) {
      passes.passes.push_back({.backend = &backend, .version = each, .space = Space::whole});
    } else {
      passes.passes.push_back({.backend = &backend, .version = each, .space = Space::default_window});
      passes.passes.push_back({.backend = &backend, .version = each, .space = Space::created_window});
    }
  }
}

bool run_pass(const Session& session, const PciFunction& function, const Pass& pass, const PassOptions& options,
              Steps& steps) {
  auto before = ResourceUse::now(session.kernel);
  if (!before) {
    steps.failed("left behind", before.error());
    return true;
  }
  const bool tried = attach_and_use(session, function, pass, options, steps);
  auto after = ResourceUse::now(session.kernel);
  auto compared = after ? compare(*before, *after, !steps.failures().empty()) : Result<std::string>(failure_of(after));
  if (compared) {
    steps.ok("left behind", fmt::format("nothing: {}", *compared));
  } else {
    steps.failed("left behind", compared.error());
  }
  return tried;
}

}  // namespace postern::tool
