// SPDX-License-Identifier: Apache-2.0
// Served: a server of a simulated device, and the threads and clients that tests of it need.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <postern-vfio-user/server.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "unit/vfio_user/lent.hpp"
#include "unit/vfio_user/peer.hpp"

namespace postern::vfio_user::rig {

// What a server tells, on whatever thread.
class Told {
 public:
  using Kind = ServerEvent::Kind;

  void add(const ServerEvent& event) {
    const std::lock_guard lock(mutex_);
    events_.push_back(event);
    changed_.notify_all();
  }
  [[nodiscard]] std::vector<ServerEvent> events() const {
    const std::lock_guard lock(mutex_);
    return events_;
  }
  [[nodiscard]] std::vector<Kind> kinds() const {
    std::vector<Kind> kinds;
    for (const ServerEvent& event : events()) kinds.push_back(event.kind);
    return kinds;
  }
  // Why, the last time; empty if it was never told.
  [[nodiscard]] std::string reason(Kind kind) const {
    std::string reason;
    for (const ServerEvent& event : events()) {
      if (event.kind == kind) reason = event.reason;
    }
    return reason;
  }
  // Waits until it was told as often.
  void wait_for(Kind kind, std::ptrdiff_t times = 1) const {
    std::unique_lock lock(mutex_);
    const auto is_told = [&] {
      return std::count_if(events_.begin(), events_.end(),
                           [kind](const ServerEvent& event) { return event.kind == kind; }) >= times;
    };
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::minutes(1), is_told)) << "the server does not tell";
  }
  void clear() {
    const std::lock_guard lock(mutex_);
    events_.clear();
  }

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::vector<ServerEvent> events_;
};

class Served {
 public:
  Served(Kernel& kernel, std::string_view backend, std::uint8_t slot, ServerOptions options = {})
      : kernel_(kernel), backend_(backend), slot_(slot) {
    options.on_event = [this](const ServerEvent& event) { told_.add(event); };
    server_.emplace(Server::open(
                        [this] {
                          ++times_opened_;
                          return attach_to(kernel_, backend_, slot_);
                        },
                        std::move(options))
                        .value());
  }
  Served(const Served&) = delete;
  Served& operator=(const Served&) = delete;

  // Serves a client that has sent all of these and has no more to say. Returns what it is answered.
  std::vector<Answer> serve(const std::vector<Call>& calls) {
    auto ends = connected(kernel_);
    for (const Call& call : calls) EXPECT_TRUE(ends.peer.send(call));
    ends.peer.end_sending();
    const Event stop = make_event();
    const auto served = server_->serve(std::move(ends.served), stop);
    EXPECT_TRUE(served) << served.error().message();
    return ends.peer.receive_all();
  }

  // Nothing is left of the last client, but `files`, which were open before.
  void expect_as_before(std::size_t files) const {
    EXPECT_EQ(server_->device().container()->mapping_count(), 0U);
    EXPECT_EQ(server_->device().container()->devices().size(), 1U);
    std::uint16_t command = 0;
    EXPECT_TRUE(server_->device().read(pci_config, PCI_COMMAND, std::as_writable_bytes(std::span(&command, 1))));
    EXPECT_EQ(command & PCI_COMMAND_MASTER, 0);
    EXPECT_EQ(open_files(), files);
  }

  [[nodiscard]] Server& server() { return *server_; }
  [[nodiscard]] Told& told() { return told_; }
  [[nodiscard]] int times_opened() const { return times_opened_; }

 private:
  Kernel& kernel_;
  std::string backend_;
  std::uint8_t slot_;
  int times_opened_ = 0;
  Told told_;
  std::optional<Server> server_;
};

// Serves on a thread, until it is over or this object goes.
class Running {
 public:
  Running(Fd socket, const std::function<Result<void>(Fd& socket, const Event& stop)>& serve)
      : socket_(std::move(socket)), thread_([this, serve] { result_ = serve(socket_, stop_); }) {}
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
  ~Running() { (void)stop(); }

  // Waits until it is over by itself.
  const Result<void>& wait() {
    if (thread_.joinable()) thread_.join();
    return result_;
  }
  const Result<void>& stop() {
    EXPECT_TRUE(stop_.signal());
    return wait();
  }

 private:
  Fd socket_;
  Event stop_ = make_event();
  Result<void> result_;
  std::thread thread_;
};

// Serves one client.
class Serving : public Running {
 public:
  Serving(Server& server, Fd connection)
      : Running(std::move(connection),
                [&server](Fd& socket, const Event& stop) { return server.serve(std::move(socket), stop); }) {}
};

// Serves all clients of a path.
class Listening : public Running {
 public:
  Listening(Server& server, const std::string& path, bool once = false)
      : Listening(server, listen_at(system_kernel(), path).value(), once) {}
  Listening(Server& server, Fd listener, bool once = false)
      : Running(std::move(listener),
                [&server, once](Fd& socket, const Event& stop) { return server.serve_all(socket, stop, once); }) {}
};

// The life of a guest with a device of these slots.
inline std::vector<Call> life_with(std::uint8_t slot, int memory, int event) {
  const bool is_nvme = slot == nvme_slot;
  return life_of({.memory = memory,
                  .event = event,
                  .has_msix = is_nvme,
                  .can_reset = is_nvme,
                  .config_length = is_nvme ? 4096U : 256U});
}

// How many of these are answered.
inline std::size_t answered(const std::vector<Call>& calls) {
  return static_cast<std::size_t>(
      std::count_if(calls.begin(), calls.end(), [](const Call& call) { return (call.flags & flag_no_reply) == 0; }));
}

}  // namespace postern::vfio_user::rig
