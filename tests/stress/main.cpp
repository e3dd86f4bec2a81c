// SPDX-License-Identifier: Apache-2.0
// postern-stress [SECONDS [SEED]]: threads use devices of one simulated host concurrently, each checking the results
// against a model. Prints the seed and any failure, and exits with 1 after a failure. The same seed gives each thread
// the same steps, but not the same interleaving.
#include <fmt/format.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <postern-sim/kernel.hpp>
#include <postern/backend.hpp>
#include <postern/locked_memory.hpp>
#include <postern/log.hpp>
#include <thread>
#include <vector>

#include "stress/worker.hpp"

namespace postern::stress {

std::string_view any_backend(Random& random) {
  const auto all = backends();
  for (;;) {
    const std::string_view name = all[random.below(all.size())]->name;
    if (name != "spapr") return name;  // the simulated host is no POWER machine
  }
}

namespace {

std::atomic<int> logged = 0;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables): of the log handler
void count_logged(LogKind /*kind*/, const Error& error) noexcept {
  ++logged;
  fmt::print(stderr, "logged: {}\n", error.message());
}

using Model = sim::HostFunction::Model;

sim::Host host() {
  sim::Host host{.functions = {}, .locked_memory = {}, .dirty_bits = true};
  for (std::uint8_t device = 1; device <= 15; ++device) {
    const Model model = device <= 4 || device > 12 ? Model::edu : device <= 8 ? Model::migratable_edu : Model::nvme;
    host.functions.push_back({.address = {.device = device},
                              .model = model,
                              .iommu_group = device,
                              .driver = model == Model::migratable_edu ? "edu-vfio-pci"
                                        : device <= 10 || device > 12  ? "vfio-pci"
                                                                       : "",
                              .serial = fmt::format("disk{}", device)});
  }
  return host;
}

struct Thread {
  std::unique_ptr<Worker> worker;
  std::uint64_t steps = 0;
  std::string failure = {};
};

void run(Thread& thread, const std::atomic<bool>& ends) {
  try {
    for (; !ends; ++thread.steps) thread.worker->step();
    thread.worker->finish();
  } catch (const std::exception& failed) {
    thread.failure = failed.what();
  }
}

int stress(double seconds, std::uint64_t seed) {
  sim::Kernel kernel(host());
  std::vector<Thread> threads;
  const auto at = [](std::uint8_t device) { return PciAddress{.device = device}; };
  for (std::uint8_t device = 1; device <= 8; device += 2) {
    threads.push_back({make_mapping_worker(kernel, at(device), at(device + 1), seed + device)});
  }
  for (std::uint8_t device = 9; device <= 10; ++device) {
    threads.push_back({make_disk_worker(kernel, at(device), seed + device)});
  }
  for (std::uint8_t device = 11; device <= 12; ++device) {
    threads.push_back({make_binding_worker(kernel, at(device), seed + device)});
  }

  const std::array sharing{at(13), at(14), at(15)};
  for (auto& worker : make_sharing_workers(kernel, sharing, seed)) threads.push_back({std::move(worker)});

  std::atomic<bool> ends = false;
  std::vector<std::thread> running;
  running.reserve(threads.size());
  for (Thread& thread : threads) running.emplace_back([&thread, &ends] { run(thread, ends); });
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  ends = true;
  for (std::thread& thread : running) thread.join();

  bool is_well = logged == 0;
  for (Thread& thread : threads) {
    fmt::print("{}: {} steps{}{}\n", thread.worker->name(), thread.steps,
               thread.failure.empty() ? "" : ", then: ", thread.failure);
    is_well = is_well && thread.failure.empty() && thread.steps > 0;
    thread.worker.reset();
  }
  const auto left = LockedMemory::read(kernel);
  if (!left || left->locked != 0 || left->pinned != 0) {
    fmt::print("memory is still pinned, though all is let go\n");
    is_well = false;
  }
  return is_well ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace
}  // namespace postern::stress

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::strtod(argv[1], nullptr) : 20;
  const std::uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 0) : std::random_device{}();
  if (argc > 3 || seconds <= 0) {
    fmt::print(stderr, "usage: postern-stress [SECONDS [SEED]]\n");
    return 2;
  }
  fmt::print("postern-stress {} {}\n", seconds, seed);
  postern::set_log_handler(postern::stress::count_logged);
  try {
    return postern::stress::stress(seconds, seed);
  } catch (const std::exception& failed) {
    fmt::print("{}\n", failed.what());
    return EXIT_FAILURE;
  }
}
