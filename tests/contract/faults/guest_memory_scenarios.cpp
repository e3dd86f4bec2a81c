// SPDX-License-Identifier: Apache-2.0
// Scenarios of GuestMemory: attaching devices to a layout, changing it in two containers, tracking dirty pages.
#include <postern/guest_memory.hpp>

#include "contract/faults/scenario.hpp"

namespace postern::test {
namespace {

Iova place(std::uint64_t number) { return World::base + number * World::page; }
IovaRange places(std::uint64_t first, std::uint64_t count) { return {place(first), place(first + count) - 1}; }

// Two pieces with a hole between them, and no device.
void make_layout(World& w) {
  w.guest.emplace(w.kernel, GuestMemoryOptions{.backend = w.interface.backend,
                                               .container_options = {.version = w.interface.version}});
  World::must(w.guest->add(place(0), w.piece(0, 2)));
  World::must(w.guest->add(place(4), w.piece(4)));
  w.make_file(4 * World::page);
  World::must(w.guest->add(place(10), Memory::of_file(w.file, 0, World::page)));
}

// Allocates nothing after the device is attached: what fails here is GuestMemory.
Result<void> attach_to_guest(World& w, const HostDevice& which, std::optional<Device>& device) {
  auto attached = POSTERN_TRY(w.guest->attach(which));
  device.emplace(std::move(attached.device));
  w.refusals = std::move(attached.refusals);
  return {};
}

void attach_first(World& w) {
  make_layout(w);
  World::must(attach_to_guest(w, w.host, w.guest_device));
}

// Each device in a container of its own.
void attach_apart(World& w) {
  w.refuse_to_share();
  attach_first(w);
  World::must(attach_to_guest(w, w.other, w.guest_device_apart));
  if (w.guest->containers().size() != 2) throw std::runtime_error("the devices share a container");
}

// Cuts a piece, adds two, one of them with pages of a file that were never written, and changes another's access.
Result<void> change(World& w) {
  auto transaction = POSTERN_TRY(w.guest->begin());
  POSTERN_TRY(transaction.remove(places(1, 1)));
  POSTERN_TRY(transaction.add(place(6), w.piece(6, 2)));
  POSTERN_TRY(transaction.add(place(12), Memory::of_file(w.file, 2 * World::page, World::page)));
  POSTERN_TRY(transaction.set_access(places(4, 1), Access::read));
  return transaction.commit();
}

void start_guest_tracking(World& w) {
  attach_apart(w);
  w.bits.assign(8, 0);
  World::must(w.guest->start_tracking());
}

}  // namespace

const std::vector<Scenario>& guest_memory_scenarios() {
  static const std::vector<Scenario> all = {
      {.name = "guest_attach",
       .prepare = make_layout,
       .act = [](World& w) { return attach_to_guest(w, w.host, w.guest_device); }},
      {.name = "guest_attach_apart",
       .prepare =
           [](World& w) {
             w.refuse_to_share();
             attach_first(w);
           },
       .act = [](World& w) { return attach_to_guest(w, w.other, w.guest_device_apart); }},
      {.name = "guest_change",
       .prepare = attach_apart,
       .act = change,
       .suits = [](Interface by) { return !is_spapr_v2(by); }},
      // Memory stays registered if the kernel says that it was not, and is in the way of other bounds from then on.
      {.name = "guest_change_registered",
       .prepare = attach_apart,
       .act = change,
       .retry = Retry::from_anew,
       .suits = [](Interface by) { return is_spapr_v2(by); }},
      {.name = "guest_sparse",
       .prepare = attach_apart,
       .act = [](World& w) -> Result<void> {
         {
           auto transaction = POSTERN_TRY(w.guest->begin());
           POSTERN_TRY(transaction.add_sparse(place(6), w.piece(6, 2), World::page));
           POSTERN_TRY(transaction.populate(places(7, 1)));
           POSTERN_TRY(transaction.commit());
         }
         return w.guest->remove(places(6, 2));
       },
       .retry = Retry::from_anew},
      {.name = "guest_start_tracking",
       .prepare = attach_apart,
       .act = [](World& w) { return w.guest->start_tracking(); },
       .suits = may_track},
      {.name = "guest_query",
       .prepare = start_guest_tracking,
       .act = [](World& w) -> Result<void> {
         auto answer = w.guest->query_dirty(places(0, 2), {4096, w.bits});
         return answer ? Result<void>() : failure_of(answer);
       },
       .suits = may_track},
      {.name = "guest_stop_tracking",
       .prepare = start_guest_tracking,
       .act = [](World& w) { return w.guest->stop_tracking(); },
       .retry = Retry::from_anew,
       .suits = may_track},
  };
  return all;
}

}  // namespace postern::test
