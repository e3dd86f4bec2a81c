// SPDX-License-Identifier: Apache-2.0
// The scenarios: attaching, mapping, sharing, replaying, interrupts, resets, dirty pages, tear-down; sPAPR's own.
#include <postern/eeh.hpp>
#include <postern/preregistration.hpp>
#include <postern/reset_set.hpp>

#include "contract/faults/scenario.hpp"

namespace postern::test {
namespace {

constexpr std::uint64_t page = World::page;
constexpr Iova base = World::base;
constexpr std::uint64_t gib = std::uint64_t{1} << 30;
// The kernel clears a window's table when it goes, entry by entry; there are many windows here.
constexpr DmaWindowRequest small_window{.size = gib / 16, .page_size = 4096};

void open_first(World& w) { w.open_first(); }

template <typename T>
Result<void> only_whether(Result<T> result) {
  return result ? Result<void>() : failure_of(result);
}

// The container of the first device refuses every other from now on, before the kernel has done anything.
void refuse_to_share(World& w) {
  const bool by_page_table = w.interface.backend == "iommufd";  // whose ioctls share numbers with sPAPR's
  w.kernel.refuse = [by_page_table, first = -1, pt = std::uint32_t{0}](unsigned long request, void* argument) mutable {
    if (request == VFIO_GROUP_SET_CONTAINER) {
      const int fd = *static_cast<const int*>(argument);
      if (first < 0)
        first = fd;
      else if (fd == first)
        return -EIO;
    } else if (by_page_table && request == VFIO_DEVICE_ATTACH_IOMMUFD_PT) {
      const std::uint32_t id = static_cast<vfio_device_attach_iommufd_pt*>(argument)->pt_id;
      if (pt == 0)
        pt = id;
      else if (id == pt)
        return -EIO;
    }
    return 0;
  };
}

bool is_powernv(World& w) {
  return w.device->device().container()->eeh() != nullptr;  // pseries has none here
}
bool can_share(World& w) { return w.interface.backend != "spapr" || (w.is_spapr_v2() && is_powernv(w)); }
bool may_track(Interface by) { return by.backend == "iommufd" || (by.backend == "type1" && by.version == 2); }
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
           refuse_to_share(w);
           w.open_first();
           if (w.is_spapr_v2()) w.window = w.container->dma_windows()->create(small_window).value();
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
             w.window = w.container->dma_windows()->create(small_window).value();
             World::must(w.container->preregistration()->add(w.piece(6)));
             World::must(w.container->map(w.window->range.first, w.piece(6)));
           }
           w.map_pieces(3);
           World::must(w.device->device().detach());
           w.device.reset();
         },
     .act = [](World& w) { return w.open(w.host, {.container = w.container}, w.device); }},
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
       std::vector<const Device*> lent;
       if (w.joined) lent.push_back(&w.joined->device());
       auto set = ResetSet::of(w.device->device(), lent);
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
  World::must(w.container->dirty_tracker()->start());
}

const std::vector<Scenario> dirty = {
    {.name = "start_tracking",
     .prepare =
         [](World& w) {
           w.open_first();
           w.map_pieces(3);
         },
     .act = [](World& w) { return w.container->dirty_tracker()->start(); },
     .suits = may_track},
    {.name = "query",
     .prepare = start_tracking,
     .act =
         [](World& w) {
           return only_whether(w.container->dirty_tracker()->query({base, base + (page - 1)}, {4096, w.bits}));
         },
     .suits = may_track},
    {.name = "unmap_with_bitmap",
     .prepare = start_tracking,
     .act =
         [](World& w) {
           return only_whether(w.container->dirty_tracker()->unmap(base + 2 * page, page, {4096, w.bits}));
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
     .act = [](World& w) { return w.container->dirty_tracker()->stop(); },
     .retry = Retry::from_anew,
     .suits = may_track},
};

void open_with_window(World& w) {
  w.open_first();
  w.window = w.container->dma_windows()->create(small_window).value();
}
void open_with_registered(World& w) {
  w.open_first();
  World::must(w.container->preregistration()->add(w.piece(3, 2)));
}
template <Result<void> (Eeh::*operation)()>
Result<void> eeh(World& w) {
  return (w.container->eeh()->*operation)();
}
void enable_eeh(World& w) {
  w.open_first();
  if (w.container->eeh() != nullptr) World::must(w.container->eeh()->enable());
}
bool has_eeh(World& w) { return w.container->eeh() != nullptr; }

const std::vector<Scenario> spapr = {
    {.name = "attach_for_much_memory",
     .act =
         [](World& w) {
           AttachOptions options = w.options();
           options.container_options.memory = 2 * gib;  // more than the default window has
           return w.open(w.host, options, w.device);
         },
     .suits = is_spapr_v2},
    {.name = "create_window",
     .prepare = open_first,
     .act = [](World& w) { return only_whether(w.container->dma_windows()->create(small_window)); },
     .suits = is_spapr_v2},
    {.name = "make_room",
     .prepare = open_first,
     .act = [](World& w) { return only_whether(w.container->dma_windows()->make_room(2 * gib, page)); },
     .suits = is_spapr_v2},
    {.name = "remove_window",
     .prepare = open_with_window,
     .act = [](World& w) { return w.container->dma_windows()->remove(w.window->range.first); },
     .suits = is_spapr_v2},
    {.name = "register_memory",
     .prepare = open_first,
     .act = [](World& w) { return w.container->preregistration()->add(w.piece(3, 2)); },
     .suits = is_spapr_v2},
    {.name = "map_what_is_partly_registered",  // two gaps to be registered
     .prepare = open_with_registered,
     .act = [](World& w) { return w.container->map(base, w.memory.bytes()); },
     .suits = is_spapr_v2},
    {.name = "unregister_memory",
     .prepare = open_with_registered,
     .act = [](World& w) { return w.container->preregistration()->remove(w.piece(3, 2)); },
     .suits = is_spapr_v2},
    {.name = "eeh_enable", .prepare = open_first, .act = eeh<&Eeh::enable>, .suits = is_spapr, .applies = has_eeh},
    {.name = "eeh_state",
     .prepare = enable_eeh,
     .act = [](World& w) { return only_whether(w.container->eeh()->state()); },
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
     .act = [](World& w) { return w.container->eeh()->reset(Eeh::Reset::hot); },
     .suits = is_spapr,
     .applies = has_eeh},
    {.name = "eeh_disable", .prepare = enable_eeh, .act = eeh<&Eeh::disable>, .suits = is_spapr, .applies = has_eeh},
};

// Binding has nothing to do with interfaces: once is enough.
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
    // While another container keeps the iommufd open, so that nothing goes with that.
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
    {.name = "let_go",  // destructors can tell nobody, and leave nothing
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
  for (const auto* some : {&attaching, &mapping, &device_scenarios, &dirty, &spapr, &binding, &leaving}) {
    all.insert(all.end(), some->begin(), some->end());
  }
  return all;
}

}  // namespace postern::test
