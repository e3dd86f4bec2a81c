// SPDX-License-Identifier: Apache-2.0
// The predefined simulated hosts, and find_host(), which finds a host by name or file. The POWER hosts have the
// addresses of the guests ppc64le-pseries and ppc64le-powernv9.
#include "sim/hosts/hosts.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <postern/fd.hpp>
#include <utility>

namespace postern::sim {
namespace {

using Model = HostFunction::Model;

constexpr std::uint64_t mib = std::uint64_t{1} << 20;

HostFunction power_disk(std::uint16_t domain, std::uint8_t bus) {
  return {.address = {.domain = domain, .bus = bus},
          .model = Model::nvme,
          .iommu_group = domain,
          .driver = domain == 0 ? "vfio-pci" : "",
          .serial = domain == 0 ? "first" : "second",
          .bytes = domain == 0 ? 64 * mib : 4 * mib};
}

HostFunction port(std::uint16_t domain) {
  return {.address = {.domain = domain}, .model = Model::bridge, .iommu_group = -1, .driver = {}};
}

struct Named {
  std::string_view name;
  Host (*make)();
};
constexpr std::array<Named, 4> named_hosts{{{"pc", pc}, {"arm", arm}, {"pseries", pseries}, {"powernv", powernv}}};

tl::unexpected<Error> no_such_host(std::string_view option) {
  std::string names;
  for (const Named& host : named_hosts) names += fmt::format("sim:{}, ", host.name);
  return failure(
      {.code = EINVAL,
       .operation = choose_host,
       .object = fmt::format("host \"{}\"", option),
       .reason = "no host has this name",
       .remedy = fmt::format("use sim, which is sim:pc; or {}or sim:FILE with a JSON file that describes one "
                             "(in this folder: sim:./FILE)",
                             names.substr(names.find(' ') + 1)),
       .causes = {}});
}

tl::unexpected<Error> refuse_file(const std::string& name, int code, std::string reason) {
  return failure({.code = code,
                  .operation = choose_host,
                  .object = name,
                  .reason = std::move(reason),
                  .remedy = "name a JSON file that describes a host",
                  .causes = {}});
}

// The name may be that of any file. Only regular files are opened, since opening others can block (a FIFO) or have
// effects (a device). Files without an end, as some in /proc, are read up to the longest possible description.
Result<std::string> read_description(const std::string& name) {
  constexpr std::size_t longest = std::size_t{16} << 20;
  const auto cannot = [&](ssize_t result) {
    const int code = static_cast<int>(-result);
    return refuse_file(name, code, fmt::format("the file cannot be read: {}", std::strerror(code)));
  };
  postern::Kernel& kernel = system_kernel();
  FileStatus status;
  if (const int result = kernel.status(name, status); result < 0) return cannot(result);
  if (!S_ISREG(status.mode)) {
    const char* const kind = S_ISDIR(status.mode)    ? "a directory"
                             : S_ISFIFO(status.mode) ? "a FIFO"
                             : S_ISSOCK(status.mode) ? "a socket"
                                                     : "a device node";
    return refuse_file(name, EINVAL, fmt::format("it is {}, not a regular file", kind));
  }
  const int opened = kernel.open(name.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY);
  if (opened < 0) return cannot(opened);
  const Fd file(kernel, opened);
  std::string text;
  for (std::array<char, 4096> piece{};;) {
    const ssize_t got = kernel.read(file.get(), piece.data(), piece.size());
    if (got < 0) return cannot(got);
    if (got == 0) return text;
    text.append(piece.data(), static_cast<std::size_t>(got));
    if (text.size() > longest) return refuse_file(name, EINVAL, fmt::format("it has more than {} bytes", longest));
  }
}

}  // namespace

Host pc() {
  return {
      .functions =
          {{.address = {.device = 1}, .model = Model::nvme, .iommu_group = 1, .driver = "vfio-pci", .serial = "first"},
           {.address = {.device = 2}, .model = Model::nvme, .iommu_group = 2, .serial = "second"},
           {.address = {.device = 3}, .model = Model::bridge, .iommu_group = 3},
           {.address = {.device = 4}, .model = Model::edu, .iommu_group = 5, .driver = "vfio-pci"},
           {.address = {.device = 5}, .model = Model::small_bars, .iommu_group = 6, .driver = "vfio-pci"},
           {.address = {.device = 6}, .model = Model::migratable_edu, .iommu_group = 7, .driver = "edu-vfio-pci"},
           {.address = {.device = 7}, .model = Model::ivshmem, .iommu_group = 8, .driver = "vfio-pci"},
           {.address = {.bus = 1}, .model = Model::nvme, .iommu_group = 4, .serial = "twin0"},
           {.address = {.bus = 1, .function = 1}, .model = Model::nvme, .iommu_group = 4, .serial = "twin1"}},
      .locked_memory = {},
      .dirty_bits = true};
}

Host arm() {
  Host host = pc();
  host.platform = Platform::arm;
  host.address_bits = 48;
  return host;
}

Host pseries() {
  return {.functions = {power_disk(0, 0), power_disk(1, 0)}, .locked_memory = {}, .platform = Platform::pseries};
}

Host powernv() {
  return {.functions = {port(0), power_disk(0, 1), port(1), power_disk(1, 1)},
          .locked_memory = {},
          .platform = Platform::powernv};
}

Result<Host> find_host(std::string_view option) {
  constexpr std::string_view prefix = "sim:";
  if (option == "sim") return pc();
  if (option.substr(0, prefix.size()) != prefix) return no_such_host(option);
  const std::string name(option.substr(prefix.size()));
  for (const Named& host : named_hosts) {
    if (host.name == name) return host.make();
  }
  if (name.find_first_of("/.") == std::string::npos) return no_such_host(option);
  const auto text = POSTERN_TRY(read_description(name));
  return parse_host(text, name);
}

}  // namespace postern::sim
