// SPDX-License-Identifier: Apache-2.0
// Finds and chooses a backend by name. CMake generates the table of backends.
#include <fmt/format.h>

#include <algorithm>

#include "base/remedy.hpp"
#include "core/backend_table.hpp"
#include "core/choice.hpp"
#include "host/requirements.hpp"
#include "kernel/ioctl.hpp"

namespace postern {
namespace {

std::string built_names() {
  std::vector<std::string_view> names;
  for (const Backend* backend : backends()) names.push_back(backend->name);
  return fmt::format("{}", fmt::join(names, ", "));
}

// The error kind that all backends agree on, except those that this host or build does not have.
ErrorKind common_kind(const std::vector<Error>& refusals) {
  auto common = ErrorKind::unavailable;
  for (const Error& refusal : refusals) {
    if (refusal.kind() == ErrorKind::unavailable || refusal.kind() == ErrorKind::unsupported) continue;
    if (common != ErrorKind::unavailable && common != refusal.kind()) return ErrorKind::unavailable;
    common = refusal.kind();
  }
  return common;
}

Result<Choice> choose_any(Kernel& kernel, const HostDevice& device, const std::shared_ptr<const Fd>& fd,
                          std::vector<Error> refusals) {
  for (const Backend* backend : backends().subspan(refusals.size())) {
    auto usable = look_up(kernel, *backend, &device, fd);
    if (usable) return Choice{.backend = backend, .probed = std::move(*usable), .refusals = std::move(refusals)};
    refusals.push_back(std::move(usable).error());
  }
  const ErrorKind kind = common_kind(refusals);
  return refusal({.result = -ENODEV,
                  .kind = kind,
                  .object = fmt::format("backend for {}", device.name),
                  .reason = fmt::format("no backend supports it; tried {}", built_names()),
                  .remedy = remedy<RemedyCode::see_causes>(device.name),
                  .causes = std::move(refusals)});
}

}  // namespace

Result<std::span<const std::string_view>> backends_for_processor(Kernel& kernel) {
#ifdef __powerpc64__
  constexpr bool otherwise = true;
#else
  constexpr bool otherwise = false;
#endif
  return backends_for(POSTERN_TRY(is_power(kernel)).value_or(otherwise));
}

Result<const Backend*> find_backend(std::string_view name) {
  for (const Backend* backend : backends()) {
    if (backend->name == name) return backend;
  }
  const auto known = known_backends();
  CallFailed what{.result = -EINVAL,
                  .object = fmt::format("backend \"{}\"", name),
                  .reason = "no backend has this name",
                  .remedy = remedy<RemedyCode::use_backend>("auto, " + built_names())};
  if (std::find(known.begin(), known.end(), name) != known.end()) {
    what.result = -ENOSYS;
    what.reason = "it is not in this build";
    what.remedy = remedy<RemedyCode::build_all_backends>("auto, " + built_names());
  }
  return refusal(std::move(what));
}

Result<Choice> choose(Kernel& kernel, std::string_view name, const HostDevice& device,
                      const std::shared_ptr<const Fd>& fd, std::vector<Error> refusals) {
  if (name == "auto") return choose_any(kernel, device, fd, std::move(refusals));
  auto backend = POSTERN_TRY(find_backend(name));
  auto usable = look_up(kernel, *backend, &device, fd);
  if (usable) return Choice{.backend = backend, .probed = std::move(*usable)};
  Error::Details details = usable.error().details();
  details.object = fmt::format("backend {} for {}", name, device.name);
  return failure(std::move(details));
}

Result<const Backend*> choose_backend(Kernel& kernel, std::string_view name, const HostDevice& device) {
  auto choice = POSTERN_TRY(choose(kernel, name, device));
  return choice.backend;
}

}  // namespace postern
