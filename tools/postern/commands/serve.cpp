// SPDX-License-Identifier: Apache-2.0
// postern serve: lends a device to virtual machine monitors, one after the other, over a vfio-user socket.
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <postern-sim/kernel.hpp>
#include <postern-vfio-user/server.hpp>
#include <postern/attach.hpp>
#include <postern/pci_function.hpp>
#include <string>

#include "command.hpp"
#include "commands/confinement.hpp"
#include "commands/stop_signals.hpp"
#include "host/bound.hpp"
#include "host/group_remedy.hpp"
#include "host/holders.hpp"
#include "host/in_use.hpp"
#include "text/names.hpp"
#include "text/sizes.hpp"

namespace postern::tool {
namespace {

using vfio_user::ServerEvent;

struct ServeOptions {
  PciAddress address;
  std::string backend = "auto";
  std::optional<VfToken> vf_token;
  std::string socket;
  std::optional<int> fd;
  mode_t mode = 0600;
  vfio_user::Policy policy;
  bool hands_bars_over = false;
  bool once = false;
  bool force = false;
};

std::string client_text(const vfio_user::Client& client) {
  return fmt::format("process {} of user {}, group {}", client.pid, client.user, client.group);
}

// One line for each event.
std::string event_text(const ServerEvent& event) {
  switch (event.kind) {
    case ServerEvent::Kind::connected:
      return fmt::format("client: {} has the device", client_text(event.client));
    case ServerEvent::Kind::refused:
      return fmt::format("refused: {}: {}", client_text(event.client), event.reason);
    case ServerEvent::Kind::memory_is_absent:
      return "no memory: the client has turned bus mastering on, but has sent no memory that the device can access; "
             "start its VM with shared memory (QEMU: memory-backend-memfd,share=on)";
    case ServerEvent::Kind::memory_refused:
      return fmt::format("memory refused: {}", event.reason);
    case ServerEvent::Kind::region_refused:
      return fmt::format("region not handed over, so its accesses are messages: {}", event.reason);
    case ServerEvent::Kind::gone:
      return fmt::format("gone: {}; {} were mapped; {} accesses to BARs were messages", event.reason,
                         size_text(event.mapped), event.accesses);
  }
  return "";
}

Json event_json(const ServerEvent& event) {
  const auto named = [&](std::string_view name) {
    return Json{{"event", name}, {"pid", event.client.pid}, {"uid", event.client.user}, {"gid", event.client.group}};
  };
  Json json;
  switch (event.kind) {
    case ServerEvent::Kind::connected:
      return named("connected");
    case ServerEvent::Kind::refused:
      json = named("refused");
      json["reason"] = event.reason;
      return json;
    case ServerEvent::Kind::memory_is_absent:
      return named("memory_is_absent");
    case ServerEvent::Kind::memory_refused:
      json = named("memory_refused");
      json["reason"] = event.reason;
      return json;
    case ServerEvent::Kind::region_refused:
      json = named("region_refused");
      json["reason"] = event.reason;
      return json;
    case ServerEvent::Kind::gone:
      json = named("gone");
      json["reason"] = event.reason;
      json["mapped"] = event.mapped;
      json["bar_accesses"] = event.accesses;
      return json;
  }
  return json;
}

void say(const Session& session, const std::string& text, const Json& json) {
  session.print_now(session.json() ? json_line(json) : fold(session.out, text, 0) + "\n");
}

// The socket that systemd passes: LISTEN_FDS is 1 and LISTEN_PID this process (sd_listen_fds(3)).
std::optional<int> passed_socket() {
  const char* const pid = std::getenv("LISTEN_PID");
  const char* const count = std::getenv("LISTEN_FDS");
  if (pid == nullptr || count == nullptr || pid != std::to_string(::getpid()) || count != std::string("1")) return {};
  constexpr int first_passed = 3;
  return first_passed;
}

// Where clients connect, and its name.
struct Listener {
  Fd fd;
  std::string name;
  std::string path;  // to be removed at the end; empty: nothing
};

Result<Listener> listen(const Session& session, const ServeOptions& options) {
  if (!options.socket.empty()) {
    auto fd = POSTERN_TRY(vfio_user::listen_at(session.kernel, options.socket, options.mode));
    return Listener{.fd = std::move(fd), .name = options.socket, .path = options.socket};
  }
  const std::optional<int> given = options.fd ? options.fd : passed_socket();
  if (!given) {
    return failure({.code = EINVAL,
                    .object = "serve",
                    .reason = "no socket is given",
                    .remedy = "name one with --socket PATH, or pass a listening one with --fd N or LISTEN_FDS"});
  }
  return Listener{.fd = Fd(session.kernel, *given), .name = fmt::format("descriptor {}", *given), .path = ""};
}

// Each of a client's files and eventfds takes a descriptor, and programs start with 1,024, so that select(2) works.
void raise_limit_of_open_files() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

// The file of a region: the device fd; of a simulated device, that of the simulated BARs.
Result<vfio_user::RegionFile> region_file(const Device& device, const Region& region) {
  Kernel& kernel = device.container()->kernel();
  auto* const simulated = dynamic_cast<sim::Kernel*>(&kernel);
  if (simulated == nullptr) return vfio_user::device_fd_of(device, region);
  std::uint64_t offset = region.offset;
  const int fd = simulated->open_bars(device.fd(), offset);
  if (fd < 0) return failure_from(fd, "open_bars", device.name());
  return vfio_user::RegionFile{.fd = Fd(kernel, fd), .offset = offset};
}

// Adds which processes have the device open.
Error with_holders(const Session& session, const HostDevice& host, const Error& error) {
  const std::string holders = holders_text(session.kernel, host);
  if (holders.empty()) return error;
  Error::Details details = error.details();
  const std::string reason = error.reason_text();
  details.reason = reason.empty() ? holders : fmt::format("{}; {}", reason, holders);
  return Error(std::move(details));
}

Result<Device> open_device(const Session& session, const HostDevice& host, const ServeOptions& options) {
  auto device = attach(session.kernel, host, {.backend = options.backend, .vf_token = options.vf_token});
  if (device) return device;
  const Error error = with_group_remedy(session.kernel, host, device.error());
  return failure(options.hands_bars_over ? with_holders(session, host, error) : error);
}

Result<Ending> run_serve(Session& session, const ServeOptions& options) {
  auto function = POSTERN_TRY(find_pci_function(session.kernel, options.address));
  const HostDevice& host = function.host;
  POSTERN_TRY(require_bound(session.kernel, function, "serve"));
  auto in_use = POSTERN_TRY(take_from_host(session, host, "serve", options.force));
  auto stop = POSTERN_TRY(Event::create(session.kernel));
  const StopSignals signals(stop);
  raise_limit_of_open_files();
  auto listener = POSTERN_TRY(listen(session, options));
  auto server = vfio_user::Server::open(
      [&] { return open_device(session, host, options); },
      {.policy = options.policy,
       .on_event = [&](const ServerEvent& event) { say(session, event_text(event), event_json(event)); },
       .region_file = options.hands_bars_over ? region_file : nullptr});
  Result<void> served;
  if (server) {
    Json listening = {{"event", "listening"},
                      {"device", host.name},
                      {"backend", server->device().container()->backend()},
                      {"socket", listener.name}};
    add_losses(listening, in_use);
    say(session,
        fmt::format("listening: {} at {}, by {}", host.name, listener.name, server->device().container()->backend()),
        listening);
    // To open the device anew, it must find it, and open its nodes.
    confine({.read = {"/sys", "/proc"},
             .write = {"/dev/vfio", "/dev/iommu"},
             .remove = {std::filesystem::path(listener.path).parent_path().string()}});
    served = server->serve_all(listener.fd, stop, options.once);
  } else {
    served = failure_of(server);
  }
  if (!listener.path.empty()) (void)::unlink(listener.path.c_str());
  POSTERN_TRY(served);
  return Ending::ok;
}

// A number of the system's users, groups or descriptors.
template <typename Number>
Number parse_number(const std::string& option, const std::string& text, int base = 10) {
  std::uint32_t number = 0;
  const auto [end, wrong] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (wrong != std::errc() || end != text.data() + text.size() || number > 0x7fffffff)
    throw CLI::ValidationError(option, fmt::format("\"{}\" is no number", text));
  return static_cast<Number>(number);
}

Run add_serve(CLI::App& command) {
  auto options = std::make_shared<ServeOptions>();
  auto* const values = options.get();
  add_device(command, options->address)->required();
  command.add_option("--socket", options->socket, "Where clients connect; made with --socket-mode")->type_name("PATH");
  command
      .add_option_function<std::string>(
          "--fd", [values](const std::string& text) { values->fd = parse_number<int>("--fd", text); },
          "A listening socket that this process has inherited")
      ->type_name("N")
      ->excludes("--socket");
  command
      .add_option_function<std::string>(
          "--socket-mode",
          [values](const std::string& text) {
            values->mode = parse_number<mode_t>("--socket-mode", text, 8);
            if (values->mode > 0777) throw CLI::ValidationError("--socket-mode", "more than 0777");
          },
          "Octal mode of the socket (default: 0600)")
      ->type_name("OCTAL");
  command
      .add_option_function<std::vector<std::string>>(
          "--allow-uid",
          [values](const std::vector<std::string>& all) {
            for (const auto& text : all) values->policy.users.push_back(parse_number<uid_t>("--allow-uid", text));
          },
          "Allow only these users (or --allow-gid); may be repeated")
      ->type_name("UID");
  command
      .add_option_function<std::vector<std::string>>(
          "--allow-gid",
          [values](const std::vector<std::string>& all) {
            for (const auto& text : all) values->policy.groups.push_back(parse_number<gid_t>("--allow-gid", text));
          },
          "Allow only these groups (or --allow-uid); may be repeated")
      ->type_name("GID");
  add_size(
      command, "--memory-limit", [values](std::uint64_t bytes) { values->policy.memory_limit = bytes; },
      "How much memory a client may map, which this host then pins (default: no limit)");
  command
      .add_option_function<std::string>(
          "--bars", [values](const std::string& text) { values->hands_bars_over = text == "device-fd"; },
          "How clients access BARs: \"trap\", by messages (default), or \"device-fd\", by mapping the device's own "
          "descriptor, which lets them do everything with the device")
      ->type_name("HOW")
      ->check(CLI::IsMember({"trap", "device-fd"}));
  command.add_flag("--once", options->once, "End when the first client has left");
  add_backend(command, options->backend, "Backend to open it with (default: the first usable one)");
  add_vf_token(command, options->vf_token);
  command.add_flag("--force", options->force, "Serve it even if this host uses it, and report what is lost");
  return [options](Session& session) { return run_serve(session, *options); };
}

}  // namespace

const Command serve_command = {
    .name = "serve",
    .summary = "Lend a device to virtual machines over a vfio-user socket, one after the other",
    .footer =
        "Examples:\n"
        "  postern serve 00:01.0 --socket /run/disk.sock\n"
        "  postern serve 00:01.0 --socket /run/disk.sock --socket-mode 0660 --allow-uid 1000 --memory-limit 4G\n"
        "\n"
        "The virtual machine, with QEMU 10.1 or newer:\n"
        "  qemu-system-x86_64 ... -object memory-backend-memfd,id=mem,size=1G,share=on -machine memory-backend=mem \\\n"
        "    -device '{\"driver\":\"vfio-user-pci\",\"socket\":{\"path\":\"/run/disk.sock\",\"type\":\"unix\"}}'\n"
        "\n"
        "The VMM needs no rights to VFIO. Its accesses to registers go through this process; DMA and interrupts do "
        "not.\n"
        "With --bars device-fd, registers do not either, and a VMM that does not let go of the device ends the "
        "server.\n"
        "When it leaves, in whatever way, the device is reset, and nothing of it stays mapped. While it serves, this "
        "process\n"
        "can open only /sys, /proc and VFIO's nodes, and has no capability but CAP_IPC_LOCK. Runs until a signal stops "
        "it\n"
        "(SIGINT, SIGTERM, SIGHUP). Prints a line for each event; with --json each line is a JSON document.",
    .add = add_serve,
};

}  // namespace postern::tool
