// SPDX-License-Identifier: Apache-2.0
// Finding and choosing a backend by name. Which ones there are is the generated table's to say.
#include <fmt/format.h>

#include <algorithm>
#include <postern/backend.hpp>

namespace postern {
namespace {

constexpr const char* operation = "choose backend";

std::string built_names() {
  std::vector<std::string_view> names;
  for (const Backend* backend : backends()) names.push_back(backend->name);
  return fmt::format("{}", fmt::join(names, ", "));
}

Result<const Backend*> choose_any(Kernel& kernel, const HostDevice& device) {
  Error::Details refusal{.code = ENODEV,
                         .operation = operation,
                         .object = device.name,
                         .reason = fmt::format("no backend can take it; tried {}", built_names()),
                         .remedy = fmt::format("see every condition with \"postern doctor {}\"", device.name),
                         .causes = {}};
  for (const Backend* backend : backends()) {
    auto usable = backend->probe(kernel, &device);
    if (usable) return backend;
    refusal.causes.push_back(std::move(usable).error());
  }
  return failure(std::move(refusal));
}

}  // namespace

Result<const Backend*> find_backend(std::string_view name) {
  for (const Backend* backend : backends()) {
    if (backend->name == name) return backend;
  }
  const auto known = known_backends();
  Error::Details refusal{.code = EINVAL,
                         .operation = operation,
                         .object = fmt::format("backend \"{}\"", name),
                         .reason = "there is no backend of this name",
                         .remedy = fmt::format("use one of: auto, {}", built_names()),
                         .causes = {}};
  if (std::find(known.begin(), known.end(), name) != known.end()) {
    refusal.code = ENOSYS;
    refusal.reason = "this build of postern leaves it out";
    refusal.remedy = fmt::format("build with -DPOSTERN_BACKENDS=all, or use one of: auto, {}", built_names());
  }
  return failure(std::move(refusal));
}

Result<const Backend*> choose_backend(Kernel& kernel, std::string_view name, const HostDevice& device) {
  if (name == "auto") return choose_any(kernel, device);
  auto backend = find_backend(name);
  if (!backend) return backend;
  auto usable = (*backend)->probe(kernel, &device);
  if (usable) return backend;
  const Error refusal = std::move(usable).error();
  return failure({.code = ENODEV,
                  .operation = operation,
                  .object = fmt::format("backend {} for {}", name, device.name),
                  .reason = fmt::format("it is not available here: {}: {}: {}", refusal.operation(),
                                        errno_name(refusal.code()), refusal.reason()),
                  .remedy = refusal.remedy(),
                  .causes = {}});
}

}  // namespace postern
