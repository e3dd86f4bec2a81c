// SPDX-License-Identifier: Apache-2.0
// postern backends: lists the known host IOMMU interfaces, and which of them are usable here.
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <postern/backend.hpp>
#include <string>
#include <vector>

#include "command.hpp"
#include "text/errors.hpp"
#include "text/table.hpp"

namespace postern::tool {
namespace {

const Backend* built(std::string_view name) {
  const auto all = backends();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const Backend* backend) { return backend->name == name; });
  return found == all.end() ? nullptr : *found;
}

// Returns the versions that this kernel has, newest first; none if the backend has no versions.
std::vector<std::uint32_t> versions_here(Kernel& kernel, const Backend& backend) {
  std::vector<std::uint32_t> versions;
  for (const std::uint32_t version : backend.versions) {
    if (Container::open(kernel, backend, {.huge_pages = HugePages::use, .version = version, .memory = 0}))
      versions.push_back(version);
  }
  return versions;
}

Result<Ending> run_backends(Session& session) {
  Table table({{"NAME"}, {"STATE"}, {"VERSIONS"}, {"SUMMARY", Fit::folded}});
  std::string refusals;
  Json list = Json::array();
  bool any = false;
  // Built backends come first, in the order in which "auto" tries them.
  std::vector<std::string_view> names;
  for (const Backend* backend : backends()) names.push_back(backend->name);
  for (const std::string_view name : known_backends()) {
    if (built(name) == nullptr) names.push_back(name);
  }

  for (const std::string_view name : names) {
    const Backend* backend = built(name);
    Json entry = {{"name", name}, {"built", backend != nullptr}};
    if (backend == nullptr) {
      table.add_row({std::string(name), "not built", "-", "not in this build of postern (POSTERN_BACKENDS)"});
    } else {
      auto probed = backend->probe(session.kernel, nullptr);
      any = any || probed.has_value();
      const auto versions = probed ? versions_here(session.kernel, *backend) : std::vector<std::uint32_t>();
      table.add_row({std::string(name), probed ? "available" : "unavailable",
                     versions.empty() ? "-" : fmt::format("{}", fmt::join(versions, ", ")),
                     std::string(backend->summary)});
      entry["summary"] = backend->summary;
      entry["available"] = probed.has_value();
      entry["versions"] = versions;
      if (!probed) {
        entry["error"] = error_json(probed.error());
        refusals += paint(session.out, Style::heading, name) + ": " +
                    fold(session.out, reason_line(probed.error()), name.size() + 2) + "\n" +
                    error_details(probed.error(), session.out, 2);
      }
    }
    list.push_back(std::move(entry));
  }

  if (session.json()) {
    session.print(json_text({{"backends", std::move(list)}}));
  } else {
    session.print(table.text(session.out));
    if (!refusals.empty()) session.print("\n" + refusals);
  }
  return any ? Ending::ok : Ending::problem;
}

Run add_backends(CLI::App&) { return run_backends; }

}  // namespace

const Command backends_command = {
    .name = "backends",
    .summary = "List the host IOMMU interfaces, which of them are usable here, and why the others are not",
    .footer = "Example:\n  postern backends\n\nExit code 1: none is usable.",
    .add = add_backends,
};

}  // namespace postern::tool
