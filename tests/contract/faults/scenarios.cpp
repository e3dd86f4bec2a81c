// SPDX-License-Identifier: Apache-2.0
// The scenarios: attaching, moving, mapping, sharing, replaying, interrupts, resets, dirty pages, tear-down; sPAPR's
// own.
#include <postern/dirty_tracker.hpp>
#include <postern/dma_buf.hpp>
#include <postern/dma_windows.hpp>
#include <postern/eeh.hpp>
#include <postern/ioeventfd.hpp>
#include <postern/low_power.hpp>
#include <postern/preregistration.hpp>
#include <postern/reset_set.hpp>

#include "contract/faults/scenario.hpp"

namespace postern::test {
namespace {

constexpr std::uint64_t page = World::page;
constexpr Iova base = World::base;
constexpr std::uint64_t gib = std::uint64_t{1} << 30;
// Small, since the kernel clears a removed window's table entry by entry, and these scenarios create many windows.
constexpr DmaWindowRequest small_window{.size = gib / 16, .page_size = 4096};

void open_first(World& w) { w.open_first(); }

template <typename T>
Result<void> only_whether(Result<T> result) {
  return result ? Result<void>() : failure_of(result);
}

bool is_powernv(World& w) {
  return w.device->device().container()->get<Eeh>() != nullptr;  // QEMU's pseries has no EEH
}
bool can_share(World& w) { return w.interface.backend != "spapr" || (w.is_spapr_v2() && is_powernv(w)); }
bool is_spapr(Interface by) { return by.backend == "spapr"; }

const std::vector<Scenario> attaching = {
    {.name = "attach", .act = [](World& w) { return w.open(w.host, w.options(), w.device); }},
    {.name = "attach_without_huge_pages",
     .act =
         [](World& w) {
           AttachOptions options = w.options();
           options.container_options.huge_pages = HugePages::avoid;
           return w.open(w.host, options, w.device);
         },
     .suits = [](Interface by) { return by.backend == "iommufd"; }},
    {.name = "share",
     .prepare =
         [](World& w) {
           w.open_first();
           if (w.interface.backend != "spapr") w.map_pieces(3);
         },
     .act = [](World& w) { return w.open(w.other, {.container = w.container}, w.joined); },
     .applies = can_share},
    {.name = "replay",
     .prepare =
         [](World& w) {
           w.refuse_to_share();
           w.open_first();
           if (w.is_spapr_v2()) w.window = w.container->get<DmaWindows>()->create(small_window).value();
           w.map_pieces(3);
         },
     .act =
         [](World& w) {
           AttachOptions options = w.options();
           options.join = {w.container};
           options.refusals = &w.refusals;
           return w.open(w.other, options, w.joined);
         }},
    {.name = "come_back",
     .prepare =
         [](World& w) {
           w.open_first();
           if (w.is_spapr_v2()) {
             w.window = w.container->get<DmaWindows>()->create(small_window).value();
             World::must(w.container->get<Preregistration>()->add(w.piece(6)));
             World::must(w.container->map(w.window->range.first, w.piece(6)));
           }
           w.map_pieces(3);
           World::must(w.device->device().detach());
           w.device.reset();
         },
     .act = [](World& w) { return w.open(w.host, {.container = w.container}, w.device); }},
};

bool can_move(Interface by) { return by.backend == "iommufd"; }
Result<void> move_to_target(World& w) { return move_device(w.device->device(), w.target); }

// After an error the device is in its old container, where the second try finds it.
const std::vector<Scenario> moving = {
    {.name = "move",
     .prepare =
         [](World& w) {
           w.open_first();
           w.map_pieces(3);
           w.target = Container::open(w.kernel, *find_backend(w.interface.backend).value()).value();
         },
     .act = move_to_target,
     .suits = can_move},
    {.name = "move_to_others",
     .prepare =
         [](World& w) {
           w.open_first();
           World::must(w.open(w.other, w.options(), w.joined));
           w.target = w.joined->device().container();
           World::must(w.target->map(base, w.piece(4)));
         },
     .act = move_to_target,
     .suits = can_move},
    {.name = "move_the_tracked",
     .prepare =
         [](World& w) {
           w.open_first();
           w.map_pieces(3);
           World::must(w.open(w.other, w.options(), w.joined));
           w.target = w.joined->device().container();
           World::must(w.target->map(base, w.piece(4)));
           World::must(w.container->get<DirtyTracker>()->start());
           World::must(w.target->get<DirtyTracker>()->start());
         },
     .act = move_to_target,
     .suits = can_move},
};

const std::vector<Scenario> mapping = {
    {.name = "map", .prepare = open_first, .act = [](World& w) { return w.container->map(base, w.memory.bytes()); }},
    {.name = "map_beside_others",
     .prepare =
         [](World& w) {
           w.open_first();
           w.map_pieces(3);
         },
     .act = [](World& w) { return w.container->map(base + 0x1000000, w.memory.bytes()); }},
    {.name = "buffer",
     .prepare = open_first,
     .act =
         [](World& w) {
           IovaAllocator iovas(w.container->usable_ranges(), w.container->page_sizes());
           return only_whether(DmaBuffer::allocate(w.container, iovas, 3 * page));
         }},
    {.name = "map_file",
     .prepare =
         [](World& w) {
           w.open_first();
           w.make_file(4 * page);
         },
     .act = [](World& w) { return w.container->map(base, Memory::of_file(w.file, 0, 4 * page)); }},
    {.name = "file_buffer",
     .prepare = open_first,
     .act = [](World& w) { return only_whether(DmaBuffer::allocate(w.container, 3 * page, {.is_file = true})); }},
    {.name = "unmap",
     .prepare =
         [](World& w) {
           w.open_first();
           w.map_pieces(3);
         },
     .act = [](World& w) { return w.container->unmap(base + 2 * page, page); }},
    {.name = "unmap_several",
     .prepare =
         [](World& w) {
           w.open_first();
           w.map_pieces(3);
         },
     .act = [](World& w) { return w.container->unmap(base, 5 * page); }},
    {.name = "unmap_all",
     .prepare =
         [](World& w) {
           w.open_first();
           w.map_pieces(3);
         },
     .act = [](World& w) { return w.container->unmap_all(); }},
};

void make_events(World& w) {
  w.open_first();
  for (int i = 0; i < 3; ++i) w.events.push_back(Event::create(w.kernel).value());
}
std::span<const Event> events(World& w, std::size_t count) { return std::span(w.events).first(count); }
template <PciInterrupt kind, std::uint32_t count>
bool has(World& w) {
  return w.device->interrupt(kind).count >= count;
}
template <PciInterrupt kind>
void prepare_enabled(World& w) {
  make_events(w);
  if (has<kind, 1>(w)) World::must(w.device->enable(kind, events(w, 1)));
}
template <PciInterrupt kind>
Result<void> enable(World& w) {
  return w.device->enable(kind, events(w, 1));
}
template <PciInterrupt kind>
Result<void> disable(World& w) {
  return w.device->disable(kind);
}

constexpr PciInterrupt intx = PciInterrupt::intx;
constexpr PciInterrupt msi = PciInterrupt::msi;
constexpr PciInterrupt msix = PciInterrupt::msix;

const std::vector<Scenario> device_scenarios = {
    {.name = "make_event", .act = [](World& w) { return only_whether(Event::create(w.kernel)); }},
    {.name = "intx", .prepare = make_events, .act = enable<intx>, .applies = has<intx, 1>},
    {.name = "msi", .prepare = make_events, .act = enable<msi>, .applies = has<msi, 1>},
    {.name = "msix",
     .prepare = make_events,
     .act = [](World& w) { return w.device->enable(msix, events(w, 3)); },
     .applies = has<msix, 3>},
    {.name = "more_vectors",
     .prepare = prepare_enabled<msix>,
     .act = [](World& w) { return w.device->add(msix, 1, std::span(w.events).subspan(1)); },
     .applies = [](World& w) { return has<msix, 3>(w) && w.device->interrupt(msix).resizable; }},
    {.name = "notify_of_requests",
     .prepare = make_events,
     .act = enable<PciInterrupt::request>,
     .applies = has<PciInterrupt::request, 1>},
    {.name = "disable_intx", .prepare = prepare_enabled<intx>, .act = disable<intx>, .applies = has<intx, 1>},
    {.name = "disable_msi", .prepare = prepare_enabled<msi>, .act = disable<msi>, .applies = has<msi, 1>},
    {.name = "disable_msix", .prepare = prepare_enabled<msix>, .act = disable<msix>, .applies = has<msix, 1>},
    {.name = "mask_intx",
     .prepare = prepare_enabled<intx>,
     .act = [](World& w) { return w.device->device().mask_interrupt(0, 0); },
     .applies = has<intx, 1>},
    {.name = "unmask_intx",
     .prepare = prepare_enabled<intx>,
     .act = [](World& w) { return w.device->device().unmask_interrupt(0, 0); },
     .applies = has<intx, 1>},
    {.name = "interrupt_set",
     .prepare = make_events,
     .act = [](World& w) -> Result<void> {
       const std::vector<EventRef> two(w.events.begin(), w.events.begin() + 2);
       auto set = POSTERN_TRY(w.device->enable_set(msix, two));
       POSTERN_TRY(set.set(0, w.events[2]));
       POSTERN_TRY(set.set(2, w.events[0]));  // not every kernel can add a vector
       POSTERN_TRY(set.trigger(0));
       POSTERN_TRY(set.clear(1));
       return set.disable();
     },
     .applies = has<msix, 3>},
    {.name = "unmask_event",
     .prepare = make_events,
     .act = [](World& w) -> Result<void> {
       const EventRef one(w.events[0]);
       auto set = POSTERN_TRY(w.device->enable_set(intx, std::span(&one, 1)));
       POSTERN_TRY(set.unmask_on(w.events[1]));
       POSTERN_TRY(set.unmask_on(w.events[2]));
       return set.disable();
     },
     .applies = has<intx, 1>},
    {.name = "ioeventfd",
     .prepare = make_events,
     .act = [](World& w) -> Result<void> {
       constexpr std::uint64_t doorbell = 0x1000;
       auto added =
           POSTERN_TRY(Ioeventfd::add(w.device->device(), {.offset = doorbell, .width = 4, .value = 0}, w.events[0]));
       return added.remove();
     }},
    {.name = "dma_buf",
     .prepare = open_first,
     .act = [](World& w) -> Result<void> {
       Container& container = *w.device->device().container();
       const Memory bar = POSTERN_TRY(export_dma_buf(w.device->device(), 0, 0, 4096));
       POSTERN_TRY(container.map(base, bar));
       POSTERN_TRY(remap_dma_bufs(container));
       return container.unmap(base, bar.length());
     },
     .retry = Retry::from_anew,
     .suits = [](Interface by) { return by.backend == "iommufd"; },
     .applies = [](World& w) { return w.device->device().has_feature(VFIO_DEVICE_FEATURE_DMA_BUF); }},
    {.name = "low_power",
     .prepare = make_events,
     .act = [](World& w) -> Result<void> {
       POSTERN_TRY(enter_low_power(w.device->device(), w.events[0]));
       return exit_low_power(w.device->device());
     },
     .retry = Retry::from_anew,
     .applies = [](World& w) { return w.device->device().has_feature(VFIO_DEVICE_FEATURE_LOW_POWER_EXIT); }},
    {.name = "registers",
     .prepare = open_first,
     .act = [](World& w) -> Result<void> {
       if (auto on = w.device->enable_bus_master(); !on) return on;
       std::uint32_t version = 0;
       auto read = w.device->device().read(0, 8, std::as_writable_bytes(std::span(&version, 1)));
       if (!read) return read;
       return only_whether(w.device->map_bar(0));
     }},
    {.name = "reset",
     .prepare = open_first,
     .act = [](World& w) { return only_whether(w.device->reset()); },
     .applies = [](World& w) { return w.device->device().can_reset(); }},
    {.name = "hot_reset",
     .prepare =
         [](World& w) {
           w.open_first();
           if (w.other.iommu_group == w.host.iommu_group) {
             World::must(w.open(w.other, {.container = w.container}, w.joined));
           }
         },
     .act = [](World& w) -> Result<void> {
       std::vector<const Device*> also_owned;
       if (w.joined) also_owned.push_back(&w.joined->device());
       auto set = ResetSet::of(w.device->device(), also_owned);
       return set ? set->reset() : failure_of(set);
     },
     .applies =
         [](World& w) {
           const auto set = ResetSet::of(w.device->device());
           return w.joined || (set && set->complete());
         },
     .devices = Devices::twins},
};

void start_tracking(World& w) {
  w.open_first();
  w.map_pieces(3);
  w.bits.assign(4, 0);
  World::must(w.container->get<DirtyTracker>()->start());
}

const std::vector<Scenario> dirty = {
    {.name = "start_tracking",
     .prepare =
         [](World& w) {
           w.open_first();
           w.map_pieces(3);
         },
     .act = [](World& w) { return w.container->get<DirtyTracker>()->start(); },
     .suits = may_track},
    {.name = "query",
     .prepare = start_tracking,
     .act =
         [](World& w) {
           return only_whether(w.container->get<DirtyTracker>()->query({base, base + (page - 1)}, {4096, w.bits}));
         },
     .suits = may_track},
    {.name = "unmap_with_bitmap",
     .prepare = start_tracking,
     .act =
         [](World& w) {
           return only_whether(w.container->get<DirtyTracker>()->unmap(base + 2 * page, page, {4096, w.bits}));
         },
     .suits = may_track},
    {.name = "join_the_tracked",
     .prepare = start_tracking,
     .act = [](World& w) { return w.open(w.other, {.container = w.container}, w.joined); },
     .suits = may_track},
    {.name = "leave_the_tracked",
     .prepare =
         [](World& w) {
           start_tracking(w);
           World::must(w.open(w.other, {.container = w.container}, w.joined));
         },
     .act = [](World& w) { return w.joined->device().detach(); },
     .retry = Retry::from_anew,
     .suits = may_track},
    {.name = "stop_tracking",
     .prepare = start_tracking,
     .act = [](World& w) { return w.container->get<DirtyTracker>()->stop(); },
     .retry = Retry::from_anew,
     .suits = may_track},
};

void open_with_window(World& w) {
  w.open_first();
  w.window = w.container->get<DmaWindows>()->create(small_window).value();
}
void open_with_registered(World& w) {
  w.open_first();
  World::must(w.container->get<Preregistration>()->add(w.piece(3, 2)));
}
template <Result<void> (Eeh::*operation)()>
Result<void> eeh(World& w) {
  return (w.container->get<Eeh>()->*operation)();
}
void enable_eeh(World& w) {
  w.open_first();
  if (w.container->get<Eeh>() != nullptr) World::must(w.container->get<Eeh>()->enable());
}
bool has_eeh(World& w) { return w.container->get<Eeh>() != nullptr; }

const std::vector<Scenario> spapr = {
    {.name = "attach_for_much_memory",
     .act =
         [](World& w) {
           AttachOptions options = w.options();
           options.container_options.memory = 2 * gib;  // larger than the default window
           return w.open(w.host, options, w.device);
         },
     .suits = is_spapr_v2},
    {.name = "create_window",
     .prepare = open_first,
     .act = [](World& w) { return only_whether(w.container->get<DmaWindows>()->create(small_window)); },
     .suits = is_spapr_v2},
    {.name = "make_room",
     .prepare = open_first,
     .act = [](World& w) { return only_whether(w.container->get<DmaWindows>()->make_room(2 * gib, page)); },
     .suits = is_spapr_v2},
    {.name = "remove_window",
     .prepare = open_with_window,
     .act = [](World& w) { return w.container->get<DmaWindows>()->remove(w.window->range.first); },
     .suits = is_spapr_v2},
    {.name = "register_memory",
     .prepare = open_first,
     .act = [](World& w) { return w.container->get<Preregistration>()->add(w.piece(3, 2)); },
     .suits = is_spapr_v2},
    {.name = "map_what_is_partly_registered",  // leaves two gaps to register
     .prepare = open_with_registered,
     .act = [](World& w) { return w.container->map(base, w.memory.bytes()); },
     .suits = is_spapr_v2},
    {.name = "unregister_memory",
     .prepare = open_with_registered,
     .act = [](World& w) { return w.container->get<Preregistration>()->remove(w.piece(3, 2)); },
     .suits = is_spapr_v2},
    {.name = "eeh_enable", .prepare = open_first, .act = eeh<&Eeh::enable>, .suits = is_spapr, .applies = has_eeh},
    {.name = "eeh_state",
     .prepare = enable_eeh,
     .act = [](World& w) { return only_whether(w.container->get<Eeh>()->state()); },
     .suits = is_spapr,
     .applies = has_eeh},
    {.name = "eeh_unfreeze_io",
     .prepare = enable_eeh,
     .act = eeh<&Eeh::unfreeze_io>,
     .suits = is_spapr,
     .applies = has_eeh},
    {.name = "eeh_unfreeze_dma",
     .prepare = enable_eeh,
     .act = eeh<&Eeh::unfreeze_dma>,
     .suits = is_spapr,
     .applies = has_eeh},
    {.name = "eeh_configure",
     .prepare = enable_eeh,
     .act = eeh<&Eeh::configure>,
     .suits = is_spapr,
     .applies = has_eeh},
    {.name = "eeh_reset",
     .prepare = enable_eeh,
     .act = [](World& w) { return w.container->get<Eeh>()->reset(Eeh::Reset::hot); },
     .suits = is_spapr,
     .applies = has_eeh},
    {.name = "eeh_disable", .prepare = enable_eeh, .act = eeh<&Eeh::disable>, .suits = is_spapr, .applies = has_eeh},
};

// Binding does not depend on the interface: run it for one.
bool is_first_interface(Interface by) {
  const Interface first = interfaces().front();
  return by.backend == first.backend && by.version == first.version;
}

const std::vector<Scenario> binding = {
    {.name = "bind",
     .prepare = [](World& w) { World::must(bind_to_default_driver(test::kernel(), w.other)); },
     .act = [](World& w) { return only_whether(bind_to_driver(w.kernel, w.other, "vfio-pci")); },
     .suits = is_first_interface},
    {.name = "give_back",
     .prepare = [](World& w) { w.is_moved = true; },
     .act =
         [](World& w) { return restore_binding(w.kernel, {.bus = "pci", .device = w.other.name, .driver = "nvme"}); },
     .suits = is_first_interface},
};

void detach_all(World& w) {
  w.open_first();
  w.map_pieces(3);
  World::must(w.device->device().detach());
}

const std::vector<Scenario> leaving = {
    {.name = "detach",
     .prepare =
         [](World& w) {
           w.open_first();
           w.map_pieces(3);
         },
     .act = [](World& w) { return w.device->device().detach(); },
     .retry = Retry::from_anew},
    {.name = "detach_one_of_two",
     .prepare =
         [](World& w) {
           w.open_first();
           if (can_share(w)) World::must(w.open(w.other, {.container = w.container}, w.joined));
           w.map_pieces(3);
         },
     .act = [](World& w) { return w.device->device().detach(); },
     .retry = Retry::from_anew,
     .applies = can_share},
    // Another container keeps the iommufd open, so closing that does not hide what was left behind.
    {.name = "visit",
     .prepare = open_first,
     .act = [](World& w) -> Result<void> {
       std::optional<PciDevice> visitor;
       if (auto opened = w.open(w.other, w.options(), visitor); !opened) return opened;
       const auto container = visitor->device().container();
       if (auto mapped = container->map(base, w.memory.bytes()); !mapped) return mapped;
       if (auto detached = visitor->device().detach(); !detached) return detached;
       return container->close();
     }},
    {.name = "close", .prepare = detach_all, .act = [](World& w) { return w.container->close(); }},
    {.name = "let_go",  // destructors cannot return an error, but must leave nothing behind
     .prepare =
         [](World& w) {
           make_events(w);
           if (has<msix, 1>(w)) World::must(enable<msix>(w));
           w.map_pieces(3);
         },
     .act = [](World& w) -> Result<void> {
       w.events.clear();
       w.device.reset();
       w.container.reset();
       return {};
     },
     .retry = Retry::from_anew},
};

}  // namespace

std::vector<Scenario> all_scenarios() {
  std::vector<Scenario> all;
  for (const auto* some : {&attaching, &moving, &mapping, &guest_memory_scenarios(), &device_scenarios, &dirty, &spapr,
                           &binding, &leaving}) {
    all.insert(all.end(), some->begin(), some->end());
  }
  return all;
}

}  // namespace postern::test
